"""Reason codes as sentences for people; no other module has such sentences. Pure; standard library only.

No decision depends on these texts.
"""

from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.reason import Fact, Reason
from janitor.core.model.text import count


def text(reason: Reason) -> str:
    """The sentence, without a full stop."""
    return TEXTS[reason.code].format_map(_values(reason))


def texts(reasons: tuple[Reason, ...]) -> tuple[str, ...]:
    """The sentences, in the same order."""
    return tuple(text(reason) for reason in reasons)


def hint(reason: Reason) -> str:
    """What to do about it; "" if there is no general advice."""
    if reason.code is Code.RECORDED:
        return str(reason.fact("hint") or "")
    if reason.fact("euid"):
        return "run janitor as root"
    return HINTS.get(reason.code, "").format_map(_values(reason))


class _Word(str):
    """A fact as text. A noun after the colon makes it a count: `{leases:lease}` is `1 lease`, `2 leases`."""

    def __format__(self, noun: str) -> str:
        return count(int(self), noun) if noun and self.isdecimal() else str(self)


class _Values(dict[str, _Word]):
    """The facts of a reason as text. A fact that is missing, as in an edited file, is `?`."""

    def __missing__(self, name: str) -> _Word:
        return _Word("?")


def _values(reason: Reason) -> _Values:
    values = _Values({name: _Word(_value(fact)) for name, fact in reason.facts})
    if reason.cause is not None:
        values["cause"] = _Word(text(reason.cause))
    return values


def _value(fact: Fact) -> str:
    return ", ".join(fact) if isinstance(fact, tuple) else str(fact)


TEXTS: Final[dict[Code, str]] = {
    # What an earlier version wrote down.
    Code.RECORDED: "{text}",
    # What could not be seen: the node.
    Code.CANNOT_READ_NODE_PROCESSES: "looking at the node's processes in {path}: {error}",
    Code.NO_PROC: "no /proc is mounted at {path}: a disk at rest has no processes and no network namespaces",
    Code.PROC_OF_ANOTHER_ROOT: (
        "the processes in {path} are not those of the node at {root}: their first one has another root directory"
    ),
    Code.PROC_SEES_ANOTHER_PART: (
        "the processes in /proc are not those of the node at {root}: their first one sees another {part}"
    ),
    Code.CANNOT_READ_BOOT_ID: "reading the boot ID: {error}",
    Code.CANNOT_LIST_PROCESSES: "listing the processes in {path}: {error}",
    Code.CANNOT_READ_PROCESS: "looking at process {pid} ({name}): {error}",
    Code.TOO_MANY_PROCESSES_FOR_RULES: (
        "there are more processes than can be looked at in {seconds} s, to find who makes rules"
    ),
    Code.NOT_ALL_OF_PROCESS_SEEN: "process {pid} ({name}): not all of {what} could be looked at",
    Code.CANNOT_READ_PID_NAMESPACE_OF_NODE: "looking at the PID namespace of the node's first process: {error}",
    Code.CANNOT_READ_PID_NAMESPACE: "looking at the PID namespace of this process: {error}",
    Code.CANNOT_READ_MARK: "reading {path}: {error}",
    Code.FOREIGN_MARK: "{path} is not what janitor writes",
    Code.NOT_COLLECTED: "the janitor that collected this did not look at it",
    Code.OWNERS_NOT_COLLECTED: "whose data directories these are was not looked at by the janitor that collected this",
    Code.RULES_NOT_COLLECTED: "policy routing was not looked at by the janitor that collected this",
    Code.NOT_ASKED: "not asked",
    Code.PROGRAMS_NOT_ASKED: "it was not asked which programs the node has",
    # What could not be seen: leases, configuration, notes.
    Code.CANNOT_LIST_NETWORKS: "listing the networks in {path}: {error}",
    Code.CANNOT_READ_LEASES: "reading the leases in {path}: {error}",
    Code.CANNOT_READ_LEASE: "reading the lease {path}: {error}",
    Code.LEASE_BEING_WRITTEN: "the lease {path} was being written while it was read",
    Code.CANNOT_READ_CACHE: "reading libcni's cache {path}: {error}",
    Code.CANNOT_LIST_CNI_CONFIGURATION: "listing the CNI configuration in {path}: {error}",
    Code.CANNOT_READ_CNI_CONFIGURATION: "reading the CNI configuration {path}: {error}",
    Code.BAD_CNI_CONFIGURATION: "reading the CNI configuration {path}: {cause}",
    Code.NO_CNI_CONFIGURATION: (
        "no CNI configuration was found in {paths}, so nobody can say which leases are the pods'"
    ),
    Code.NO_RANGE_CONFIGURED: "the configuration names no range; the runtime passes one in",
    Code.BAD_RANGES: "its ranges cannot be understood ({error})",
    Code.FLANNEL_FILE_MISSING: "it is this node's pod range, and flannel has not written {path}",
    Code.CANNOT_READ_FLANNEL_FILE: "reading {path}: {error}",
    Code.BAD_FLANNEL_FILE: "{path} holds no usable subnet ({error})",
    Code.EMPTY_FLANNEL_FILE: "{path} names no subnet",
    Code.CANNOT_READ_NOTE: "reading {path}: {error}",
    Code.BAD_NOTE: "reading {path}: it is not {what} ({error})",
    Code.NOTE_NOT_AN_OBJECT: "reading {path}: it is not a JSON object",
    Code.BAD_LEDGER: "reading {path}: not a boot ledger",
    Code.NEWER_NOTE: (
        "{path} has version {found}, and this janitor reads up to version {reads}: a newer janitor wrote it"
    ),
    # What could not be seen: runtimes.
    Code.ENDPOINT_NOT_A_SOCKET: "the CRI endpoint {address} is not a Unix socket",
    Code.CANNOT_FIND_SOCKET: "finding the socket {path}: {error}",
    Code.SOCKET_PATH_TOO_LONG: "the path of the socket {path} is longer than a Unix socket's may be ({most} bytes)",
    Code.NO_SOCKET: "connecting to the container runtime at {address}: there is no such socket",
    Code.NOT_A_SOCKET: "connecting to the container runtime at {address}: that is not a socket",
    Code.CANNOT_CONNECT: "connecting to the container runtime at {address}: {error}",
    Code.NOBODY_LISTENS: "connecting to the container runtime at {address}: nobody listens there",
    Code.LISTENER_NOT_TRUSTED: (
        "connecting to the container runtime at {address}: the process that answers ({name}, {pid}) is not taken "
        "for this node's: {cause}"
    ),
    Code.LISTENER_OUT_OF_SIGHT: (
        "the process that answers at {address} cannot be seen from here, so the processes and network namespaces "
        "of its pods cannot be either"
    ),
    Code.NOT_CRI_V1: (
        "{cause}: that is not a CRI v1 runtime (docker's own containerd, one with the CRI plugin disabled, or one "
        "too old)"
    ),
    Code.RUNTIME_DOES_NOT_ANSWER: "{cause}",
    Code.SANDBOXES_NOT_LISTED: "{cause}",
    Code.SANDBOX_STATUS_UNKNOWN: "{cause}",
    Code.RECORDS_NOT_LISTED: "{cause}",
    Code.ENDPOINT_ASKED_ALREADY: "it was asked already",
    Code.CALL_UNIMPLEMENTED: "asking {address} for {method}: it does not know that call ({details})",
    Code.CALL_TIMED_OUT: "asking {address} for {method}: no answer within {seconds} s",
    Code.CALL_UNAVAILABLE: "asking {address} for {method}: it does not speak gRPC, or it went away ({details})",
    Code.CALL_TOO_LONG: "asking {address} for {method}: {details}",
    Code.CALL_FAILED: "asking {address} for {method}: {details}",
    Code.NO_RUNTIME: "no container runtime was found: no CRI socket exists at any of the usual places",
    Code.UNUSED_RUNTIME: (
        "{address} answers with an empty list of sandboxes, and nothing on this node says that it is the runtime "
        "the kubelet uses; an unused runtime looks the same"
    ),
    Code.CANNOT_READ_TASKS: "reading the runtimes' task directories in /run: {error}",
    # What could not be seen: the kernel.
    Code.CANNOT_FIND_NAMESPACES: "finding the node's network namespaces: {error}",
    Code.CANNOT_READ_NAMESPACE: "reading the addresses in the network namespace {inode} of {where}: {error}",
    Code.TOO_MANY_ROUTES: "reading the routes in the network namespace {inode} of {where}: it has too many",
    Code.NO_NAMESPACE: "no network namespace was found, not even janitor's own",
    Code.CANNOT_READ_PACKET_FILTER: "listing the packet filter's rules: {error}",
    Code.CANNOT_READ_NODE_ROUTES: "reading the node's routes: {error}",
    Code.BAD_NODE_ROUTES: "reading the node's routes in {path}: they cannot be understood ({error})",
    Code.CANNOT_READ_NODE_ADDRESSES: "reading the node's addresses: {error}",
    Code.CANNOT_ENTER_NODE_NETWORK: "entering the node's network namespace ({path}): {error}",
    Code.CANNOT_READ_RULES: "reading the policy rules: {error}",
    Code.CANNOT_READ_LINKS: "reading routes and links: {error}",
    Code.CANNOT_FIND_NETWORKD: "looking for systemd-networkd in {path}: {error}",
    Code.CANNOT_READ_NETWORKD_STATE: "reading what systemd-networkd wrote of its links: {error}",
    Code.CANNOT_READ_MOUNT_TABLE: "reading the node's mount table: {error}",
    Code.CANNOT_READ_POD_MOUNTS: "looking for the mounts that pods see: {error}",
    Code.ROOT_NOT_IN_MOUNT_TABLE: "looking for the mounts that pods see: the node's own / is not in its mount table",
    Code.TOO_MANY_PROCESSES_FOR_MOUNTS: "looking for the mounts that pods see: there are more than {most} processes",
    Code.TOO_MANY_POD_MOUNTS: "looking for the mounts that pods see: there are too many, of {whose} for one",
    # What could not be seen: Kubernetes and the cloud.
    Code.CANNOT_READ_UNITS: "reading systemd's units: {error}",
    Code.CANNOT_READ_KUBERNETES: "reading how Kubernetes is configured on this node: {error}",
    Code.CANNOT_READ_DISTRIBUTION: "reading the configuration of {what}: {error}",
    Code.BAD_DISTRIBUTION_FILE: "reading the configuration of {what}: {error}",
    Code.NO_NODES_GIVEN: "no Nodes were given (--nodes FILE or --kubeconfig FILE)",
    Code.KIND_NOT_GIVEN: "{source} has no {kind}",
    Code.LIGHTKUBE_MISSING: "asking the API server needs lightkube",
    Code.API_FAILED: "asking the API server with {kubeconfig}: {error}",
    Code.BAD_KUBECONFIG: "asking the API server with {kubeconfig}: it is not a usable kubeconfig",
    Code.METADATA_NOT_ASKED: "the metadata service was not asked (--no-metadata)",
    Code.NOT_HETZNER: "this is not a server of Hetzner Cloud, as far as DMI and the routes say",
    Code.METADATA_FAILED: "asking the metadata service at {address}: {error}",
    Code.BAD_METADATA_NETWORKS: "the metadata service's list of private networks cannot be understood",
    Code.NO_POD_RANGE_READ: "no pod range could be read from {source}",
    # Whose a process is not.
    Code.UNREADABLE_PROCESS: "it could not be looked at ({error})",
    Code.OTHER_PROGRAM: "its program {path} is none that is known as a {role}",
    Code.OTHER_NAMESPACE: "it is in another {kind} namespace than process 1",
    Code.NOT_ROOT: "it runs as user {uid}, not as root",
    Code.CONTAINER_CONTROL_GROUP: "it is in a container's control group ({path})",
    Code.USER_CONTROL_GROUP: "it is in a user's or a machine's control group ({path})",
    Code.NO_SERVICE_CONTROL_GROUP: "its control group is no system service's ({path})",
    Code.PROGRAM_DELETED: "its program has been deleted, and no system service runs it",
    Code.PROGRAM_NOT_TRUSTED: "its program is not the node's: {error}",
    Code.PROGRAM_NOT_ON_NODE: "its program {path} is none of the node's: {error}",
    Code.PROGRAM_REPLACED: "the node has another file at {path}",
    Code.SOCKET_HELD_BY_INIT: "process 1 holds the socket, and no runtime does",
    Code.LISTENER_ENDED: "the process that began to listen there has ended, and another has its number",
    # Whose a directory is.
    Code.FILESYSTEM_UNKNOWN: (
        "its directory is on a file system whose type could not be found out: other machines may have their leases "
        "there"
    ),
    Code.FILESYSTEM_SHARED: (
        "its directory is on {filesystem}: other machines may have their leases there, and a lock does not hold "
        "for them"
    ),
    Code.MARK_UNREADABLE: "whose its data directory is cannot be told: {cause}; if it is this node's, remove that file",
    Code.MARK_OF_ANOTHER_NODE: (
        "its data directory is another node's (number {number}, in the machine's first PID namespace), as {path} "
        "says; if no node but this one uses it, as after a reinstallation, remove that file"
    ),
    Code.MARK_OF_ANOTHER_CONTAINER: (
        "its data directory is another node's (number {number}, in a container), as {path} says; if no node but "
        "this one uses it, as after a reinstallation, remove that file"
    ),
    Code.OWNER_UNKNOWN: "whether other nodes use its directory cannot be told: {cause}",
    Code.OWNERSHIP_NOT_SHOWN: (
        "this node is in a PID namespace of its own, as in a container, so another node of this machine may use "
        "its directory; if none does, set {key} = true in /etc/janitor/janitor.toml"
    ),
    Code.CANNOT_MARK: "{path} could not be marked as this node's: {error}",
    Code.GC_DISABLED: "the network's configuration says disableGC: its leases are to be left alone",
    Code.NETWORK_NOT_USED: "CRI does not use its network {network} (configured in {source})",
    Code.NO_NETWORK_THERE: "no network of the CNI configuration that CRI uses keeps its leases in {path}",
    # What a file is.
    Code.BOOKKEEPING: "host-local's own",
    Code.NAME_NOT_AN_ADDRESS: "its name {name} is not an address as host-local writes it",
    Code.NOT_A_REGULAR_LEASE: "it is a {kind}, and host-local writes regular files",
    Code.TOO_LARGE: "it holds {bytes} bytes, far more than host-local writes",
    Code.EMPTY: "it is empty",
    Code.BLANK: "it holds {bytes} bytes, all of them {what}",
    Code.BINARY: "it holds binary data that host-local does not write",
    Code.BREAKS_OFF_IN_NULS: "it breaks off in NUL bytes",
    Code.BREAKS_OFF: "its container ID breaks off after {digits} of 64 digits",
    Code.LINES_END_IN_LF: "its lines end in LF instead of CR LF, which CNI DEL does not match",
    Code.NOT_A_SANDBOX_ID: "{id} is not the ID of a CRI sandbox",
    Code.CACHE_NOT_REGULAR: "it is not a regular file",
    Code.CACHE_TOO_LARGE: "it holds {bytes} bytes, far more than libcni writes",
    Code.CACHE_NULS: "it holds {bytes} NUL bytes",
    Code.CACHE_NOT_JSON: "it is not JSON that libcni could have written",
    Code.CACHE_CONFIG_UNDECODABLE: "the configuration in it cannot be decoded",
    Code.CACHE_CONFIG_NOT_AN_OBJECT: "the configuration in it is not a JSON object",
    # Why a lease is live, held, foreign, pending or missing.
    Code.LISTED_READY: "{runtime} lists its sandbox READY",
    Code.CONTAINERD_RECORD: (
        "containerd has a {kind} of this ID in its namespace {namespace}, which CRI does not list: it is being "
        "created, or its creation was cut short"
    ),
    Code.PLUGIN_AT_WORK: "the CNI plugin {name} (process {pid}) is at work on it: {command}",
    Code.PROCESS_RUNS: "process {pid} ({name}) runs for it",
    Code.TASK_DIRECTORY: "a runtime keeps its task directory {path}",
    Code.ADDRESS_UP: "the address is up in the network namespace of {where}",
    Code.HOST_ROUTE: "the network namespace of {where} has a host route to the address",
    Code.OTHER_ADDRESS_UP: "an address leased to its container is up: {address}",
    Code.BEGINNING_OF_ID: "what is left of its container ID is the beginning of {id}",
    Code.LISTED_NOTREADY: "its sandbox {pod} is listed NOTREADY: the kubelet will release it",
    Code.CLAIMED: "the sandbox {pod}, listed {state}, says that the address is its own",
    Code.OUTSIDE_RANGES: "its address is outside the ranges of the network ({ranges})",
    Code.NOT_ALL_SEEN: "nobody was seen to own it, but not everything could be looked at",
    Code.NO_OWNER: "no runtime, process, network namespace or route on this node knows its container or its address",
    Code.NO_OWNER_OF_ADDRESS: "no runtime, process, network namespace or route on this node knows its address",
    Code.FORMER_ADDRESS: "it was the address of {pod}, whose sandbox is dead",
    Code.NEVER_RELEASED: "{cause}: no CNI DEL can ever match it",
    Code.RANGE_UNKNOWN: "the network's range is not known ({cause}), so the network's name had to do",
    Code.RANGES_UNKNOWN: "its ranges are not known: {cause}",
    Code.READY_WITHOUT_LEASE: "the sandbox {pod} is READY and has this address from host-local",
    Code.NO_LEASE_THERE: "there is no lease for it in {path}",
    # Proofs that it is dead, and what is missing of them.
    Code.IN_LEDGER: "the boot ledger lists this very file: it was there before any runtime had started",
    Code.WATCHED: "it has been watched, unchanged and without an owner, for {seconds} s",
    Code.OLDER_THAN_RUNTIME: "it is older than the running runtime, by a clock that agrees with when that started",
    Code.FILE_UNREADABLE: "the file could not be read",
    Code.PLUGIN_MAY_BE_WRITING: (
        "a CNI plugin is at work that was there before it, and it names nobody who could be ruled out"
    ),
    Code.MAY_BE_CREATED: (
        "it might still be being created: it is not in the boot ledger, not provably older than the running "
        "runtime, and has not been watched for {seconds} s"
    ),
    Code.MISSING_FOR: "it has been so for {seconds} s",
    Code.SANDBOX_NOT_RUNNING: "its sandbox {pod} is not running",
    Code.CONTAINER_UNKNOWN: "no runtime knows its container",
    Code.CONTAINER_GONE: "its container is gone",
    Code.AFTER_CHAIN_DEL: "it goes only after the CNI DEL of its chain has succeeded",
    Code.BEFORE_ANY_RUNTIME: (
        "it was there before any container runtime of this boot had started, so nothing that lives can own it"
    ),
    Code.NO_CONFIGURATION_BUT_CRI: (
        "there is no CNI configuration, but its directory holds nothing but leases of CRI sandboxes"
    ),
    Code.TABLE_NOT_LOOKED_UP: "table {table} has routes on links that are up, and nothing looks it up for these pods",
    Code.OWNER_RUNS: "{process} runs, and makes this rule only when it starts",
    Code.NETWORKD_AT_WORK: "systemd-networkd has been at work since, and no other foreign rule is left",
    # Why something is left as it is.
    Code.MAX_PER_PASS: "{left} more are left for the next pass (--max {most})",
    Code.RUNTIME_SETTLING: "{name} was started {seconds} s ago and may still be loading its sandboxes",
    Code.MISSING_NOT_ALL_SEEN: "it is missing, but not everything could be looked at",
    Code.MISSING_SEEN_ONCE: "its lease is missing, which must be seen twice, a minute apart",
    Code.DAMAGED_NOT_ALL_SEEN: "{cause}, but not everything could be looked at",
    Code.RUNTIME_RESTARTED: "the container runtime was restarted between the two looks",
    Code.NOT_THE_SAME: "it is not the same any more as at the first look",
    Code.STALE_RULES: "packet filter rules still name its address: see iptables-save",
    Code.LEASES_LEFT: "{leases:lease} left: {cause}",
    Code.BAD_NETWORK_NAME: "CNI allows no network of that name",
    Code.UNUSUAL_PATH: "its path has unusual characters",
    Code.OBSCURE_CONFIGURATION: (
        "a CNI configuration that cannot be understood may be about it, and about firewall or disableGC"
    ),
    Code.CONFIGURATION_UNREADABLE: (
        "the CNI configuration cannot be read, and may say firewall or disableGC; recorded only"
    ),
    Code.ANOTHER_ENGINE: "another engine keeps its leases there",
    Code.NETWORK_NOT_NAMED: "no CNI configuration that CRI uses names it",
    Code.BOOT_GC_DISABLED: "its CNI configuration says disableGC",
    Code.FIREWALL_PLUGIN: "its chain has the firewall plugin, whose DEL goes by address; recorded only",
    Code.NOT_ALL_CRI: "there is no CNI configuration, and not all in it are CRI's leases",
    Code.SYMBOLIC_LINK: "left: it is a symbolic link",
    # What became of it.
    Code.STOPPED: "it was asked to stop",
    Code.LOCK_LOST: "{path} was removed or replaced by somebody",
    Code.NO_LOCK_FILE: "{path} has no lock file: host-local has not been at work there, or somebody removed it",
    Code.CANNOT_OPEN_LOCK: "opening {path}: {error}",
    Code.LOCK_NOT_REGULAR: "{path} is not the regular file that host-local makes",
    Code.LOCK_HELD: "{path} is held by {holder} for more than {seconds} s",
    Code.DIRECTORY_REPLACED: "{path} was removed or replaced while its lock was waited for",
    Code.JANITOR_AT_WORK: "{holder} is at work on this node already; wait for it to end",
    Code.JANITOR_LOCK_REPLACED: "{path} was removed or replaced while it was being taken",
    Code.JOURNAL_UNWRITABLE: "the journal cannot be written ({error}), so nothing is changed",
    Code.JOURNAL_BROKE: (
        "{event}, but the journal could not be written any more ({error}); the next run will complete it"
    ),
    Code.JOURNAL_BROKEN: "the journal could not be written any more ({error}); the next run will complete it",
    Code.NO_PLUGIN_RUN: "no CNI plugin is run: {cause}",
    Code.DEL_LEFT_UNSEEN: "after CNI DEL, {cause}",
    Code.DEL_LEFT_RULES: "CNI DEL has left packet filter rules that name {addresses}",
    Code.DEL_FAILED: "CNI DEL of {plugin} failed: {error}",
    Code.DEL_NOT_RUN: "{error}",
    Code.DEL_NOT_STARTED: "CNI DEL: {error}",
    Code.DEL_UNREADABLE: "reading {path}: {error}",
    Code.KEPT_BECAUSE_OF_DEL: "{cause}; the lease is kept, so that nobody gets an address with stale rules",
    Code.LAST_LOOK_FAILED: "at the last look: {cause}",
    Code.CHANGE_FAILED: "{path}: {error}",
    Code.NOT_SYNCED: "not synced to disk: {error}",
    Code.PROCESS_RUNS_NOW: "a process runs for it now",
    Code.ADDRESS_UP_NOW: "its address is up now",
    Code.RELEASED: "it is gone: its owner has released it",
    Code.REPLACED: "it has been replaced or written to since it was judged",
    Code.MOVE_FAILED: "moving it to {path}: {error}",
    Code.ANOTHER_OF_CHAIN: "{subject}: {cause}",
    Code.WITH_CHAIN_DEL: "with the CNI DEL of its chain",
    Code.POD_STOPPED: "the pod is not running any more",
    Code.LEASED_MEANWHILE: "there is a lease of that address by now",
    Code.WRITE_FAILED: "writing the lease: {error}",
    Code.RULE_MADE_MEANWHILE: "somebody has made it meanwhile",
    Code.RULE_MADE: "with priority {priority}",
    Code.RULE_CONTENDED: "somebody makes and deletes it at the same time",
    Code.SETTING_THERE: "it was there already",
    Code.SETTING_IS_LINK: "it is a symbolic link: change the file that it leads to",
    Code.REPAIR_FAILED: "{error}",
    Code.REPAIR_NEEDS_NET_ADMIN: "{error}; it needs CAP_NET_ADMIN",
    Code.CUT_OFF: "by a pass that was cut off before it could say so",
    # Why nothing was put back.
    Code.USE_UNSEEN: "whether its address is in use cannot be seen: {cause}",
    Code.ADDRESS_IN_USE: "its address is in use now",
    Code.LEASED_AGAIN: "its address has been leased again",
    Code.OWNER_STARTED: "{process} has started since, and the rule is its own now",
    Code.RULE_TWICE: "it is there {count} times, and which one is janitor's cannot be told",
    Code.SETTING_CHANGED: "it has been changed since",
    Code.SETTING_GONE: "it is gone",
    Code.UNDO_FAILED: "{error}",
    # Why it is not early.
    Code.ROOT_NOT_A_DIRECTORY: "--root {path} is not a directory",
    Code.ROOT_IS_INITRAMFS: "{path} is an initramfs; name the node's own root with --root",
    Code.NO_DATA_DIRECTORY_YET: "{path} is not there yet; if it is mounted later, later is the time",
    Code.NO_LEASES_YET: "there are no leases in {path}; if it is mounted later, later is the time",
    Code.LEDGER_THERE: "{path} is of this boot: it has been done already; on a running node use 'janitor clean'",
    Code.RUNNING_ALREADY: "{name} (process {pid}) is running already; on a running node use 'janitor clean'",
    Code.SOCKET_FAILED: "{path}: {error}",
    Code.RUNTIME_ANSWERS: "a container runtime answers at {path} already; on a running node use 'janitor clean'",
    Code.NAMESPACE_THERE: "the network namespace {path} exists already; on a running node use 'janitor clean'",
    Code.ADDRESS_UP_ALREADY: (
        "{address} is up in the network namespace of {where} already; on a running node use 'janitor clean'"
    ),
    Code.IN_A_CONTAINER: (
        "these are the processes of a container (its first one is {name}), and those of the node are out of sight; "
        "it takes the host's PID namespace"
    ),
    Code.CACHED_CONFIGURATION_UNREADABLE: "what libcni remembers of the configuration cannot be read: {error}",
    Code.JOURNAL_UNUSABLE: "the journal cannot be used: {error}",
    # Why a rule is not restored.
    Code.ONLY_OBSERVING: "only observing",
    Code.RULE_NOTE_TOO_OLD: "the note of it is older than {seconds} s, and rules of {owner} come and go with pods",
    Code.NETWORKD_NOT_SEEN: "whether systemd-networkd was at work is not known: {cause}",
    Code.NETWORKD_NOT_STARTED: (
        "systemd-networkd has not started {since}; of its links nothing can be told, as the clock was set"
    ),
    Code.NETWORKD_NOT_AT_WORK: "systemd-networkd has neither started nor configured a link {since}",
    Code.NETWORKD_KEEPS_RULES: "systemd-networkd has been told to leave foreign rules alone, or always does",
    Code.OTHER_RULES_LEFT: "systemd-networkd would have deleted these as well, and they are there: {rules}",
    Code.OWNER_GONE: "{process} has not been running for {seconds} s",
    Code.OWNER_REFUSES: "{process} runs with {flag}",
    Code.OWNER_CONFIGURATION_GONE: "its CNI configuration ({path}) is gone",
    Code.NOT_A_POD_RANGE: "{range} is not a pod range of this node ({ranges})",
    Code.OWNER_NOT_ASKED: "{process} was not started with {flag}",
    Code.OWNER_NOT_RUNNING: "{process} does not run",
    Code.NO_LINK_UP: "no link like {link} is up",
    Code.TABLE_EMPTY: "table {table} is empty",
    Code.TABLE_LINKS_DOWN: "no route of table {table} is on a link that is up",
    Code.OTHER_RULE: "there is another rule for the same pods: {rule}",
    Code.TABLE_USE_NOT_SEEN: "whether it is in use is not known: {cause}",
    Code.BY_HAND: "by hand: {command}",
    # What the node does not say.
    Code.NO_CONTROL_PLANE: "this node has no control plane: the ranges of pods and Services are not written on it",
    Code.NO_RANGES_ON_NODE: (
        "no component's command line and no file on this node says which ranges pods and Services have"
    ),
    Code.NO_KUBERNETES: "no Kubernetes was found on this node",
    Code.NOT_GIVEN: "no {what} were given",
    Code.RUNTIME_VIEW_UNSEEN: (
        "whether the container runtime sees the same directory at {path} cannot be told ({error})"
    ),
    Code.RUNTIME_SEES_ANOTHER: "the container runtime sees another directory at {path} than this one",
    Code.CANNOT_READ_PROCESSES: "reading the command lines and the environments of the processes: {error}",
    # What became of an action that was cut short.
    Code.NOT_IN_QUARANTINE: "it is not in quarantine any more",
    Code.DIRECTORY_GONE: "{path} is gone",
    Code.INTERRUPTED_RULE: "interrupted; 'janitor scan' says whether the rule is there",
    Code.INTERRUPTED_BEFORE: "interrupted before it",
    Code.INTERRUPTED_IN_PLACE: "interrupted; the file is in its place",
    Code.FOUND_DONE: "found so after an interruption",
    Code.RELEASED_MEANWHILE: "its owner released it meanwhile",
    Code.NETWORKD_DELETES_RULES: "systemd-networkd {version} deletes every foreign rule when it configures a link",
    Code.RULES_NOT_KEPT: "{why}",
    Code.CONTROL_GROUP_UNSEEN: "its control group could not be seen",
    Code.OTHER_HIERARCHY: "process 1 has no control group of {hierarchy}",
    # Damage of a CNI configuration file.
    Code.UNREADABLE: "it cannot be read ({error})",
    Code.NOT_JSON: "it is not JSON ({error})",
    Code.NOT_AN_OBJECT: "it is not a JSON object",
    Code.CNI_LINE_BREAK: "its name has a line break",
    Code.CNI_TOO_LARGE: "it holds more than {kib} KiB",
    Code.CNI_TOO_DEEP: "it is nested too deeply",
    Code.CNI_KEY_TWICE: "it has a key twice",
    Code.CNI_KEY_CASE: "it says {key} for {meant}",
    Code.CNI_NO_PLUGIN: "it names no plugin",
    Code.CNI_NO_NAME: "it has no usable network name",
    Code.ONLY_FILES_READ: "only files are read here, not the processes of a node",
    # Why a check was not made.
    Code.NOT_WRITTEN_HERE: "{what} is not written on this node",
    Code.RANGES_NOT_BOTH_WRITTEN: "not both of the ranges of pods and Services are written on this node",
    Code.ROUTES_NOT_KNOWN: (
        "whether Hetzner's cloud controller makes routes is not known: it does not run on this node, and no "
        "Deployment of it was given"
    ),
    Code.NODES_NOT_COUNTED: "how many nodes there are is not known without --nodes or --kubeconfig",
    Code.OWN_ADDRESS_NOT_WRITTEN: "the address that this node gives itself is not written on it",
    Code.PRIVATE_NETWORK_NOT_KNOWN: "the private network's range is not known",
    Code.DNS_SAID_ONCE: "fewer than two places on this node say where the cluster DNS is",
    Code.POD_RANGE_NOT_SAID: "no component on this node says which range the pods have",
    Code.POD_RANGE_SAID_ONCE: "fewer than two components on this node say which range the pods have",
    Code.OWN_RANGE_NOT_KNOWN: "this node's pod range is not known",
    Code.NODE_NOT_SEEN: "this node's Node object was not seen",
    Code.NO_AUTOSCALER_LABEL: "Node {node} has no label hcloud/node-group: no autoscaler made it",
    Code.NO_CLOUD_CONTROLLER: "Hetzner's cloud controller does not run on this node",
    Code.NO_CNI_DIRECTORY: "no runtime says where its CNI configuration is, and none of the usual directories exists",
    Code.KUBELET_OR_NODE_NOT_SEEN: "this node's kubelet or its Node was not seen",
    Code.KUBELET_INSIDE: "{distribution} runs its kubelet inside itself, and the journal does not say with which flags",
    Code.NO_KUBELET: "no kubelet was seen running",
    Code.FLAGS_NOT_WRITTEN: "there is no kubelet.service that says which flags were meant",
    Code.NO_KUBELET_UNIT: "{where} has no kubelet.service",
    Code.NO_PROVIDER_EXPECTED: "nothing here shows a cloud controller that would look for it",
    Code.NO_KUBELET_ADDRESS: "the kubelet was not told an address, as far as this node shows",
    Code.NODE_NOT_GIVEN: "{source} has no Node called {node}",
}

HINTS: Final[dict[Code, str]] = {
    Code.NO_PROC: "run janitor on the running node",
    Code.PROC_OF_ANOTHER_ROOT: "run janitor on the running node, with --root where its / is mounted",
    Code.PROC_SEES_ANOTHER_PART: "give the pod hostPID, or look whether that directory has been mounted anew",
    Code.LEASE_BEING_WRITTEN: "look again",
    Code.BAD_CNI_CONFIGURATION: "mend or remove the file; the runtime cannot load it",
    Code.NO_CNI_CONFIGURATION: "is this a Kubernetes node, and has its network been installed?",
    Code.NEWER_NOTE: "use that version again, or remove the file once you know what it holds",
    Code.ENDPOINT_NOT_A_SOCKET: "name it like this: unix:///run/containerd/containerd.sock",
    Code.SOCKET_PATH_TOO_LONG: "mount the node's root at a shorter path",
    Code.NO_SOCKET: "is the runtime running? Is this its socket?",
    Code.NOT_A_SOCKET: "name the runtime's socket with --cri-endpoint",
    Code.NOBODY_LISTENS: "is the runtime running?",
    Code.LISTENER_NOT_TRUSTED: (
        "if it is the kubelet's runtime, say so: --cri-endpoint {address}, or cri_endpoints in the configuration"
    ),
    Code.LISTENER_OUT_OF_SIGHT: "run janitor in the host's PID namespace (hostPID: true)",
    Code.NOT_CRI_V1: "name the socket of the runtime that the kubelet uses: --cri-endpoint unix:///…",
    Code.RUNTIME_DOES_NOT_ANSWER: "is the runtime well? Is this its socket? See also --cri-endpoint and --deadline",
    Code.SANDBOXES_NOT_LISTED: "wait until the runtime answers again, then repeat",
    Code.SANDBOX_STATUS_UNKNOWN: "look again",
    Code.RECORDS_NOT_LISTED: "every namespace of containerd must be readable; run janitor as root",
    Code.NO_RUNTIME: (
        "start the runtime, or name its socket: --cri-endpoint unix:///…, or cri_endpoints in /etc/janitor/janitor.toml"
    ),
    Code.UNUSED_RUNTIME: "if it is, say so: --cri-endpoint {address}",
    Code.NO_NAMESPACE: "run janitor on the node itself",
    Code.BAD_DISTRIBUTION_FILE: "mend the file",
    Code.LIGHTKUBE_MISSING: "pip install 'cni-janitor[kubernetes]'",
    Code.METADATA_FAILED: "ip route get 169.254.169.254",
}
