"""MD001: a Hetzner server whose metadata service does not answer."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.evidence_node import NodeConfig
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix
from janitor.core.node.node_view import kubernetes_missing
from janitor.report.words import text

_IDS = (FindingId.MD001,)


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """Skipped on other machines, and if the service was not asked."""
    node = evidence.node_config
    if missing := kubernetes_missing(node):
        yield Skipped(_IDS, missing)
    elif isinstance(node.machine, Unknown) and not _expected(node):
        yield Skipped(_IDS, node.machine.reason)
    elif isinstance(node.machine, Unknown):
        yield Finding.of(
            FindingId.MD001, "169.254.169.254",
            f"the metadata service does not answer: {text(node.machine.reason)}",
            (f"vendor: {node.vendor}",),
            "Without it janitor cannot compare this node with Hetzner's data about the server, and cloud-init cannot "
            "set the server up. A route or a firewall for 169.254.0.0/16 blocks it (CIDR017), or the service is down.",
            Fix.of(Command("ip route get 169.254.169.254"), "; ",
                   Command("curl -m 2 http://169.254.169.254/hetzner/v1/metadata/instance-id")),
        )  # fmt: skip


def _expected(node: NodeConfig) -> bool:
    """Whether it should answer. Other clouds have a service there too, which refuses unknown paths (400, 401, 404)."""
    return (
        node.vendor == "Hetzner"
        and isinstance(node.machine, Unknown)
        and (node.machine.reason.code is Code.METADATA_FAILED)
    )
