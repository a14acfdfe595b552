"""`janitor cidr` in a terminal: the verdict, the picture, the findings, and the proposal."""

from io import StringIO

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from janitor.core.address_plan.proposal import BEYOND_RANGES
from janitor.core.model.findings import Severity
from janitor.core.model.text import count, listing, safe
from janitor.report.cidr_document import PlanReport, Suggestion, Value
from janitor.report.cidr_picture import LEGEND, Picture
from janitor.report.table import print_finding

_STYLES = {"P": "green", "S": "cyan", "n": "blue", "+": "magenta", "!": "bold white on red", ".": "dim"}


def to_table(report: PlanReport, *, width: int, colour: bool) -> str:
    """The report as text of `width` columns; without colour the text is the same."""
    out = StringIO()
    console = Console(
        file=out, width=width, color_system="standard" if colour else None, force_terminal=colour, highlight=False,
        no_color=not colour,
    )  # fmt: skip
    console.print(escape(headline(report)), style="bold")
    console.print()
    console.print(_values(report.values))
    _picture(console, report.picture, width)
    _limits(console, report)
    for finding in report.findings:
        console.print()
        print_finding(console, finding)
    if report.proposal is not None:
        _proposal(console, report, report.proposal, width)
    elif not report.clean:
        console.print()
        console.print(escape(_why_none(report)))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _why_none(report: PlanReport) -> str:
    """Why there is no proposal, as far as that is known."""
    bad = {f.id for f in report.findings if f.severity.rank >= Severity.WARNING.rank}
    if bad <= set(BEYOND_RANGES):
        return f"No other range solves {listing(sorted(bad))}; see its fix."
    if "CIDR001" in bad:
        return "There is no proposal until the invalid values are corrected (CIDR001)."
    if any(value.name == "network" for value in report.values):
        return "No similar plan without findings fits into this network: see the fixes, or use a larger --network."
    return "No similar plan without findings was found that keeps the given subnets and nodes."


def headline(report: PlanReport) -> str:
    """The verdict in one sentence."""
    bad = [f for f in report.findings if f.severity.rank >= Severity.WARNING.rank]
    names = {value.name for value in report.values}
    unsaid = [what for name, what in (("pods", "pods"), ("services", "Services")) if name not in names]
    if not bad and unsaid:
        return f"no errors or warnings, but the check is incomplete: no range of {' and '.join(unsaid)} was given"
    if not bad:
        room = (
            f"; room for {count(report.limits[0].nodes, 'node')} ({report.limits[0].reason})" if report.limits else ""
        )
        return safe(f"no errors or warnings{room}")
    worst = bad[0]
    more = f" (also {listing(list(dict.fromkeys(f.id for f in bad[1:])))})" if bad[1:] else ""
    return safe(f"{worst.severity}: {worst.id}: {worst.summary}{more}")


def _shown(name: str) -> str:
    return name.replace("_v6", " (IPv6)").replace("_", " ")


def _values(values: tuple[Value, ...]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for one in values:
        table.add_row(_shown(one.name), escape(safe(one.value)), escape(safe(one.source)))
    return table


def _picture(console: Console, picture: Picture, width: int) -> None:
    seen = "".join(strip.cells for strip in picture.strips)
    for strip in picture.strips:
        console.print()
        console.print(escape(safe(f"{strip.title}; one cell is {strip.each}")))
        for start in range(0, len(strip.cells), max(width - 4, 16)):
            cells = strip.cells[start : start + max(width - 4, 16)]
            console.print("  " + "".join(f"[{_STYLES[c]}]{c}[/]" for c in cells))
        console.print(f"  {strip.first} to {strip.last}", style="dim")
    if seen:
        console.print("  " + "  ".join(f"{letter} {what}" for letter, what in LEGEND.items() if letter in seen))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("RANGE", "WHAT", "COLLIDES WITH"):
        table.add_column(column, no_wrap=column == "RANGE")
    for row in picture.rows:
        marks = listing(list(row.overlaps), 4)
        style = "bold red" if row.overlaps else ""
        what = row.name if row.name == row.kind else f"{row.kind}: {row.name}"
        table.add_row(row.cidr, escape(safe(what)), escape(safe(marks)), style=style)
    console.print()
    console.print(table)


def _limits(console: Console, report: PlanReport) -> None:
    console.print()
    table = Table.grid(padding=(0, 2, 0, 0))
    for number, limit in enumerate(report.limits):
        table.add_row("maximum nodes:" if number == 0 else "", f"{limit.nodes:>5}", escape(limit.reason))
    if report.limits:
        console.print(table)
    if report.pools:
        console.print(escape(f"maximum agent pools: {report.pools}"))


def _proposal(console: Console, report: PlanReport, proposal: Suggestion, width: int) -> None:
    console.print()
    bad = {f.id for f in report.findings if f.severity.rank >= Severity.WARNING.rank}
    stays = listing(sorted(bad & set(BEYOND_RANGES)))
    but = f" except {stays}, which no range solves" if stays else ""
    console.print(f"Nearest plan without findings{but}:", style="bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    for change in proposal.changes:
        table.add_row(
            _shown(change.name), escape(safe(change.before or "(none)")), "->", f"[bold]{escape(change.after)}[/]"
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    names = {change.name for change in proposal.changes}
    kept = [f"{_shown(v.name)} {v.value}" for v in proposal.values if v.name not in names]
    if kept:
        console.print(escape(safe(f"  unchanged: {', '.join(kept)}")))
    _picture(console, proposal.picture, width)
