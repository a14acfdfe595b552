"""The summary sentence for each network, for whoever is on call."""

from dataclasses import dataclass

from janitor.core.leases.judgement import Verdict
from janitor.core.model.finding_ids import Family, FindingId, Severity
from janitor.core.model.text import count, duration, safe
from janitor.report.document import NetworkRow, Report

_COUNTABLE = 1 << 32
_UNSEEN = "janitor could not see everything (SCAN001)"


@dataclass(frozen=True, slots=True)
class Headline:
    """A sentence, and the finding about unseen parts that it mentions, if any."""

    text: str
    unseen: FindingId | None = None


def headlines(report: Report, *, leases: bool = True) -> list[Headline]:
    """What is broken first, then one line per network that CRI uses; a single line if there is none.

    Problems of leases are in the line of their network; every other serious finding has a line of its own. Without
    `leases` the report is about other findings (`--only rules`).
    """
    bad = [f for f in report.findings if f.severity.rank >= Severity.ERROR.rank and f.id.family is not Family.LEASE]
    alarms = [Headline(safe(f"{f.severity.upper()}: {f.summary} ({f.id})")) for f in bad if f.status == "problem"]
    if not leases:
        return alarms or ([] if report.findings else [Headline("nothing to report")])
    return alarms + _leases(report)


def _leases(report: Report) -> list[Headline]:
    lines = [_line(network, report) for network in report.networks if network.in_scope]
    if lines:
        return lines
    if report.status == "unknown":
        return [Headline(f"the leases of this node cannot be judged: {_UNSEEN}", FindingId.SCAN001)]
    others = sum(network.files for network in report.networks)
    if others:
        return [Headline(f"no leases in a network that CRI uses; {count(others, 'foreign file')} (LEASE008)")]
    return [Headline("no host-local leases on this node")]


def _line(network: NetworkRow, report: Report) -> Headline:
    missing = network.verdicts.get(Verdict.MISSING, 0)
    alarm = f"{count(missing, 'address', 'addresses')} in use but NOT RESERVED (LEASE003); " if missing else ""
    foreign = network.verdicts.get(Verdict.FOREIGN, 0)
    beside = f", plus {count(foreign, 'foreign file')}" if foreign else ""
    others = (Verdict.MISSING, Verdict.FOREIGN)
    held = ", ".join(f"{number} {verdict}" for verdict, number in network.verdicts.items() if verdict not in others)
    if network.ranges:
        used = "; ".join(
            f"{', '.join(r.subnets)}: {_used(r.used, r.capacity)} used{' (FULL: no new pod can start)' * (not r.free)}"
            for r in network.ranges
        )
        sentence = f"{network.name} {used}"
    else:
        sentence = f"{network.name}: {count(network.files - foreign, 'address', 'addresses')} used"
    outcome = _outcome(network, report)
    text = safe(f"{alarm}{sentence}{': ' if held else ''}{held}{beside}; {outcome.text}")
    return Headline(text, outcome.unseen)


def _used(used: int, capacity: int) -> str:
    """`used of capacity`; without the capacity for a range as large as a /64."""
    return f"{used} of {capacity}" if capacity < _COUNTABLE else f"{used}"


def _outcome(network: NetworkRow, report: Report) -> Headline:
    if network.freeable:
        return Headline(f"'janitor clean' would free {network.freeable}")
    pending = [x for x in report.leases if x.verdict == Verdict.PENDING and x.network == network.name]
    if any(lease.unseen for lease in pending) or report.status == "unknown":
        return Headline(f"none is proven dead: {_UNSEEN}", FindingId.SCAN001)
    waits = [lease.provable_in_s for lease in pending if lease.provable_in_s is not None]
    if waits:
        return Headline(f"none is proven dead yet; 'janitor clean' would watch them for {duration(max(waits))}")
    if pending:
        return Headline(f"none is proven dead; 'janitor explain {pending[0].address}' says why")
    return Headline("nothing to free")
