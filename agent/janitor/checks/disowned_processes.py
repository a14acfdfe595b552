"""SCAN005: processes that look like a component of the node but are not trusted to be one."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Fix, Snippet
from janitor.core.model.text import count
from janitor.report.words import text

_SHOWN = 5


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding for all of them, because anybody can create any number."""
    if not evidence.disowned:
        return
    named = [f"{one.name} (process {one.pid}), as a {one.role}: {text(one.why)}" for one in evidence.disowned]
    more = len(named) - _SHOWN
    yield Finding.of(
        id=FindingId.SCAN005,
        subject="scan",
        summary=f"{count(len(named), 'process', 'processes')} not accepted as this node's kubelet or runtime",
        evidence=(*named[:_SHOWN], *((f"and {more} more",) if more > 0 else ())),
        explanation=(
            "A pod can give its processes any name, so janitor ignores the arguments and sockets of these processes. "
            "A kubelet in a container of its own, and a node in a container, look the same."
        ),
        fix=Fix.of(
            "if this node's kubelet uses one of them, set its socket: ",
            Snippet("--cri-endpoint unix:///…"),
            ", or cri_endpoints in /etc/janitor/janitor.toml; otherwise none is needed",
        ),
    )
