"""All findings of janitor: ID, severities, description, and the release that introduced it.

Checks, `--only`, the configuration, the JSON schemas and docs/findings.md use the IDs of this table. The meaning of an
ID never changes between releases, and an ID is never reused.
"""

from enum import StrEnum
from typing import Final, Self

from janitor.core.model.text import id_ranges, nearest


class Severity(StrEnum):
    """Severities in ascending order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, up to 3 for critical."""
        return list(Severity).index(self)


class Family(StrEnum):
    """Findings of one subject: the letters of their IDs, the word for `--only`, the subject, and its sources.

    A new family needs agreement before its first finding; a test has the list.
    """

    word: str
    subject: str
    sources: str

    def __new__(cls, value: str, word: str, subject: str, sources: str) -> Self:
        """One row of the table."""
        row = str.__new__(cls, value)
        row._value_ = value
        row.word, row.subject, row.sources = word, subject, sources
        return row

    LEASE = (
        "LEASE", "leases", "leases of pod addresses",
        "leases, libcni's cache, runtimes, processes, network namespaces",
    )  # fmt: skip
    RULE = "RULE", "rules", "policy rules of the pods' network", "the kernel, systemd-networkd's files"
    SCAN = "SCAN", "scan", "the scan itself", "runtimes, processes, network namespaces"
    CIDR = (
        "CIDR", "cidr", "address ranges of pods, Services and nodes",
        "command lines, static pods, files of k3s, RKE2, k0s, the kubelet and flannel, the routes",
    )  # fmt: skip
    KUB = "KUB", "kubelet", "the kubelet's flags", "systemd's files, `systemctl show`, the running process"
    NODE = "NODE", "node", "the node as the cloud controller sees it", "the Node, Hetzner's metadata service"
    CNI = "CNI", "cni", "CNI configuration and plugins", "the runtime's CNI directory, the API"
    CSI = "CSI", "csi", "CSI drivers", "the API"
    HCCM = "HCCM", "hccm", "Hetzner's cloud controller", "its command line, or its Deployment"
    CA = "CA", "autoscaler", "the cluster-autoscaler", "the Node"
    MD = "MD", "metadata", "Hetzner's metadata service", "the service itself"


_INFO, _WARNING, _ERROR, _CRITICAL = Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL


class FindingId(StrEnum):
    """The ID of a finding. Its meaning never changes between releases."""

    family: Family
    severities: tuple[Severity, ...]
    description: str
    since: str
    plan_only: bool

    def __new__(
        cls,
        value: str,
        severities: tuple[Severity, ...],
        description: str,
        since: str = "0.1.0",
        plan_only: bool = False,
    ) -> Self:
        """One row of the table. The first severity is the default.

        Only `janitor cidr` makes `plan_only` findings.
        """
        row = str.__new__(cls, value)
        row._value_ = value
        row.family = Family[value.rstrip("0123456789")]
        row.severities, row.description, row.since, row.plan_only = severities, description, since, plan_only
        return row

    LEASE001 = "LEASE001", (_WARNING,), "the container of a lease is gone"
    LEASE002 = "LEASE002", (_WARNING,), "a lease is empty or damaged"
    LEASE003 = "LEASE003", (_CRITICAL,), "the address of a live pod has no lease"
    LEASE004 = "LEASE004", (_ERROR,), "an address has two leases or a wrong one, or a container has too many"
    LEASE005 = "LEASE005", (_WARNING, _ERROR, _CRITICAL), "a range is full, or nearly full"
    LEASE006 = "LEASE006", (_WARNING,), "a dead sandbox has held a lease for a long time"
    LEASE007 = "LEASE007", (_INFO,), "a lease is outside every configured range"
    LEASE008 = "LEASE008", (_INFO,), "janitor does not manage a file among the leases"
    LEASE009 = "LEASE009", (_ERROR, _INFO), "an entry of libcni's cache is damaged"
    LEASE010 = "LEASE010", (_INFO,), "leases survive a reboot"

    RULE001 = "RULE001", (_CRITICAL,), "a policy rule of the pods' network is gone"
    RULE002 = "RULE002", (_WARNING,), "a policy rule exists more than once"
    RULE003 = "RULE003", (_INFO,), "systemd-networkd will delete policy rules"  # nothing is broken yet
    RULE004 = "RULE004", (_INFO,), "systemd-networkd has not yet read the setting that keeps other programs' rules"
    RULE005 = "RULE005", (_INFO, _WARNING), "systemd-networkd will delete routes"
    RULE006 = "RULE006", (_WARNING,), "systemd-networkd manages the pods' own links"
    RULE007 = "RULE007", (_ERROR,), "janitor has stopped restoring a rule"

    SCAN001 = "SCAN001", (_WARNING,), "janitor could not see something that it needs to judge leases"
    SCAN002 = "SCAN002", (_WARNING,), "janitor could not see something that it needs to judge policy rules"
    SCAN003 = "SCAN003", (_WARNING,), "a pod or a user keeps many leases from being freed"
    SCAN004 = "SCAN004", (_WARNING,), "janitor could not read all of a process"
    SCAN005 = "SCAN005", (_INFO,), "a process looks like the kubelet or a runtime, but is not accepted"

    CIDR001 = "CIDR001", (_ERROR, _INFO), "a value is not a valid range or address, or is not in canonical form"
    CIDR002 = "CIDR002", (_ERROR,), "the address families of pods, Services and nodes do not match"
    CIDR003 = "CIDR003", (_ERROR, _WARNING), "pod range and Service range overlap"
    CIDR004 = "CIDR004", (_CRITICAL,), "a node's address is inside its own pod range"
    CIDR005 = "CIDR005", (_CRITICAL,), "a node's address is inside the pod range of another node"
    CIDR006 = "CIDR006", (_ERROR,), "the pod range overlaps a node subnet"
    CIDR007 = "CIDR007", (_ERROR, _CRITICAL), "the Service range overlaps a node subnet or a node's address"
    CIDR008 = "CIDR008", (_WARNING, _INFO, _ERROR), "the pod range is not inside the network"
    CIDR009 = "CIDR009", (_INFO,), "the Service range is not inside the network"
    CIDR010 = "CIDR010", (_ERROR,), "the cluster DNS address cannot be that of a Service"
    CIDR011 = "CIDR011", (_ERROR,), "the cluster DNS address is not the same everywhere"
    CIDR012 = "CIDR012", (_ERROR, _INFO), "the Service 'kubernetes' does not have the first Service address"
    CIDR013 = "CIDR013", (_WARNING, _ERROR), "the pod range has too few slots for the nodes"
    CIDR014 = "CIDR014", (_WARNING, _INFO), "a Hetzner network takes fewer routes or servers than there are nodes"
    CIDR015 = "CIDR015", (_WARNING,), "a node's pod range has fewer addresses than pods"
    CIDR016 = "CIDR016", (_WARNING, _CRITICAL), "a pod or Service range overlaps a route of this node"
    CIDR017 = "CIDR017", (_ERROR,), "a range overlaps reserved addresses"
    CIDR018 = "CIDR018", (_ERROR,), "a range contains Hetzner's gateway"
    CIDR019 = "CIDR019", (_WARNING,), "a range overlaps 100.64.0.0/10"
    CIDR020 = "CIDR020", (_ERROR, _WARNING), "the pod range is public address space"
    CIDR021 = "CIDR021", (_ERROR,), "the Service range is larger than Kubernetes allows"
    CIDR022 = "CIDR022", (_ERROR,), "the node mask does not fit the pod range"
    CIDR023 = "CIDR023", (_ERROR,), "the pod ranges of Nodes do not fit the cluster's"
    CIDR024 = "CIDR024", (_ERROR,), "two components disagree about the pod range"
    CIDR025 = "CIDR025", (_ERROR,), "pods get addresses outside this node's pod range"
    CIDR026 = "CIDR026", (_WARNING, _ERROR), "the network is too small for kube-hetzner", "0.1.0", True
    CIDR027 = "CIDR027", (_ERROR,), "two Nodes have overlapping pod ranges"
    CIDR028 = "CIDR028", (_WARNING,), "a range contains the network's gateway"

    KUB001 = "KUB001", (_ERROR,), "the kubelet runs without flags that its files set"
    KUB002 = "KUB002", (_ERROR,), "an environment file overrides a variable of a drop-in"
    KUB003 = "KUB003", (_ERROR,), "ExecStart does not use variables that are set"
    KUB004 = "KUB004", (_INFO, _WARNING, _ERROR), "nothing reads a file with the kubelet's flags"
    KUB005 = "KUB005", (_WARNING,), "the kubelet's files were changed after it started"
    KUB006 = "KUB006", (_WARNING,), "a drop-in is not read, because another has the same name"
    KUB007 = "KUB007", (_ERROR,), "systemd reads the kubelet's files differently than intended"
    KUB008 = "KUB008", (_ERROR,), "the kubelet has a cloud provider that was removed"
    KUB009 = "KUB009", (_WARNING,), "the kubelet has a flag more than once"
    KUB010 = "KUB010", (_ERROR,), "the node has not finished joining"

    NODE001 = "NODE001", (_ERROR,), "the Node has no providerID"
    NODE002 = "NODE002", (_ERROR,), "no cloud controller has initialized the Node"
    NODE003 = "NODE003", (_ERROR,), "the Node and its server have different names"
    NODE004 = "NODE004", (_ERROR,), "the node's address does not belong to its server, or is on no interface"
    NODE005 = "NODE005", (_ERROR,), "the server is not attached to a private network"
    NODE006 = "NODE006", (_ERROR,), "the Node is NetworkUnavailable"

    CNI001 = "CNI001", (_ERROR,), "there is no usable CNI configuration"
    CNI002 = "CNI002", (_ERROR, _WARNING), "a CNI configuration cannot work"
    CNI003 = "CNI003", (_WARNING,), "there are several CNI configurations"
    CNI004 = "CNI004", (_ERROR,), "a CNI or cloud controller waits for the node, which waits for it"
    CSI001 = "CSI001", (_WARNING,), "the kubelet has not created a CSINode"

    HCCM001 = "HCCM001", (_ERROR,), "the cloud controller has --cluster-cidr more than once"
    HCCM002 = "HCCM002", (_ERROR,), "the cloud controller has another pod range than the cluster"
    HCCM003 = "HCCM003", (_ERROR,), "the cloud controller reports a wrong cluster CIDR"
    HCCM005 = "HCCM005", (_ERROR,), "nodes have no route"

    CA001 = "CA001", (_INFO, _WARNING, _ERROR), "the cluster-autoscaler will remove this server"

    MD001 = "MD001", (_INFO,), "the metadata service of a Hetzner server does not answer"


FAMILIES: Final = {family.word: family for family in Family}
"""By the words that `--only` and `[checks]` use."""


def matching_ids(words: str) -> set[FindingId]:
    """The IDs that a comma-separated list of families and IDs selects for a scan. ValueError for an unknown word."""
    there = [one for one in FindingId if not one.plan_only]
    wanted: set[FindingId] = set()
    for word in (word.strip() for word in words.split(",")):
        family = FAMILIES.get(word.lower())
        ids = [one for one in there if word.upper() in (one, one.family) or one.family is family]
        if not ids:
            near = nearest(word, [*sorted(there), *FAMILIES])
            or_one = "" if near else f" or one of {id_ranges(sorted(there))}"
            raise ValueError(f"'{word}': there is no such check{near}; name a family ({', '.join(FAMILIES)}){or_one}")
        wanted.update(ids)
    return wanted
