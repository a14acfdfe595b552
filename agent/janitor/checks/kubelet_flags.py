"""KUB001, 008, 009, 010: the kubelet's actual flags against the intended ones."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence
from janitor.core.model.evidence_node import Component, NodeConfig
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix, Snippet
from janitor.core.model.reason import because
from janitor.core.model.text import listing
from janitor.core.node.kubelet_unit import wanted
from janitor.core.node.node_view import component, flag, flags, kubelet_unit, kubernetes_missing

_IDS = (FindingId.KUB001, FindingId.KUB008, FindingId.KUB009, FindingId.KUB010)

# Repeated values of these add up: pflag's slices, and the maps (cmd/kubelet/app/options). Log verbosity is exempt, too.
_LISTS = ("--feature-gates", "--node-labels", "--register-with-taints", "--v", "--vmodule", "--system-reserved",
          "--kube-reserved", "--qos-reserved", "--reserved-memory", "--eviction-hard", "--eviction-soft",
          "--eviction-soft-grace-period", "--eviction-minimum-reclaim", "--cluster-dns", "--allowed-unsafe-sysctls",
          "--enforce-node-allocatable", "--manifest-url-header", "--tls-cipher-suites",
          "--cpu-manager-policy-options", "--topology-manager-policy-options")  # fmt: skip


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """Only if the kubelet's command line was seen: k3s hides it, and on a mounted disk nothing runs."""
    node = evidence.node_config
    kubelet = component(node, "kubelet")
    if kubelet is None or not kubelet.running:
        inside = because(Code.KUBELET_INSIDE, distribution=node.distribution)
        own = node.distribution in ("k3s", "rke2", "k0s", "microk8s")
        reason = inside if own else because(Code.NO_KUBELET)
        yield Skipped(_IDS, kubernetes_missing(node) or reason)
        return
    yield from _missing(node, kubelet)
    yield from _provider(kubelet)
    yield from _twice(kubelet)
    yield from _bootstrap(node, kubelet)


def _missing(node: NodeConfig, kubelet: Component) -> Iterator[Finding | Skipped]:
    """KUB001: words of the unit's variables, from any file, that the running process does not have."""
    unit = kubelet_unit(node)
    if unit is None:
        yield Skipped((FindingId.KUB001,), because(Code.FLAGS_NOT_WRITTEN))
        return
    has = set(kubelet.argv)
    names = {word.partition("=")[0] for word in kubelet.argv}
    meant = wanted(unit).items()
    lost = {word: source for word, source in meant if word not in has and word.partition("=")[0] not in names}
    if lost:
        yield Finding.of(
            FindingId.KUB001, f"kubelet ({kubelet.source})",
            f"the kubelet runs without {listing(list(lost), 3)}",
            (*(f"{source} sets {word}" for word, source in lost.items()), f"it runs as: {' '.join(kubelet.argv)}"),
            "The unit's files set flags that the process does not have: another file overrides them (KUB002), "
            "ExecStart does not use the variable (KUB003), or the kubelet was not restarted (KUB005).",
            Fix.of("see KUB002 to KUB007 for the cause; then: ",
                   Command("systemctl daemon-reload && systemctl restart kubelet")),
        )  # fmt: skip


def _provider(kubelet: Component) -> Iterator[Finding]:
    value = flag(kubelet, "--cloud-provider")
    if value not in ("", "external"):
        yield Finding.of(
            FindingId.KUB008, f"kubelet ({kubelet.source})", f"the kubelet has --cloud-provider={value}",
            (f"it runs as: {' '.join(kubelet.argv)}",),
            "Kubernetes 1.31 removed the in-tree cloud providers. Only 'external' or no value is left.",
            Fix.of(Snippet("--cloud-provider=external"), ", and the provider's own cloud controller manager"),
        )  # fmt: skip


def _twice(kubelet: Component) -> Iterator[Finding]:
    for name in dict.fromkeys(word.partition("=")[0] for word in kubelet.argv[1:] if word.startswith("--")):
        values = flags(kubelet.argv, name)
        if name not in _LISTS and len(set(values)) > 1:
            yield Finding.of(
                FindingId.KUB009, name, f"the kubelet has {name} more than once; the last value, {values[-1]}, is used",
                tuple(f"{name}={value}" for value in values),
                "Only the last value is used.", Fix.of(f"remove all but one {name}"),
            )  # fmt: skip


def _bootstrap(node: NodeConfig, kubelet: Component) -> Iterator[Finding]:
    bootstrap = flag(kubelet, "--bootstrap-kubeconfig")
    joined = dict(node.kubelet_files)
    kubeconfig = flag(kubelet, "--kubeconfig")
    has_none = kubeconfig in joined and not joined[kubeconfig]
    if bootstrap and has_none:
        yield Finding.of(
            FindingId.KUB010, f"kubelet ({kubelet.source})",
            f"this node has not finished joining: {kubeconfig} does not exist",
            (f"it runs as: {' '.join(kubelet.argv)}",),
            "The kubelet only has the file for its first contact with the API server: the join was not completed "
            "(cluster-api-provider-hetzner#1492).",
            Fix.of("on a control plane: ", Command("kubeadm token create --print-join-command"), "; here: ",
                   Command("kubeadm reset"), ", then the printed command"),
        )  # fmt: skip
