"""`-o table`: the report for a terminal. The headlines first, then the findings, then the leases."""

from io import StringIO

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from janitor.core.leases.judgement import Verdict
from janitor.core.model.findings import Severity
from janitor.core.model.text import id_ranges, safe
from janitor.report.document import LeaseRow, ReasonRow, Report
from janitor.report.finding_row import FindingRow
from janitor.report.fixes import fix_lines
from janitor.report.headline import headlines

_STYLES = {
    Severity.CRITICAL: "bold red", Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan",
}  # fmt: skip
_VERDICTS = {
    Verdict.LIVE: "green", Verdict.HELD: "green", Verdict.PENDING: "yellow", Verdict.ORPHANED: "red",
    Verdict.CORRUPT: "red", Verdict.FOREIGN: "dim", Verdict.MISSING: "bold red",
}  # fmt: skip
_ROWS = 40  # more leases than that are for `-o json` and `janitor explain`


def to_table(
    report: Report, *, width: int, colour: bool, details: bool = False, every_lease: bool = False, leases: bool = True
) -> str:
    """The report as text of `width` columns; without colour the text is the same.

    Without `details`, a finding of severity info takes one line. At most 40 leases are shown unless `every_lease`; none
    without `leases`.
    """
    out = StringIO()
    console = Console(
        file=out, width=width, color_system="standard" if colour else None, force_terminal=colour, highlight=False,
        no_color=not colour,
    )  # fmt: skip
    first = headlines(report, leases=leases)
    for line in first:
        console.print(escape(line.text), style="bold")
    unseen = {f.id for f in report.findings if f.status == "unknown"}
    if report.status == "unknown" and unseen != {line.unseen for line in first} - {None}:
        console.print(
            f"janitor could not see everything ({', '.join(sorted(unseen))}): this report is incomplete.",
            style="yellow",
        )
    brief = [finding for finding in report.findings if finding.severity is Severity.INFO and not details]
    for finding in report.findings:
        if finding not in brief:
            console.print()
            print_finding(console, finding)
    if brief:
        console.print()
    for finding in brief:
        console.print(_title(finding))
    if brief:
        console.print(f"(details: --only {','.join(dict.fromkeys(f.id for f in brief))})", style="dim")
    if report.skipped:
        console.print()
    for part in report.skipped:
        console.print(escape(safe(f"skipped {id_ranges(part.ids)}: {part.reason.text}")), style="dim")
    if report.leases and leases:
        console.print()
        console.print(_leases(report, every_lease))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _title(finding: FindingRow) -> str:
    kind = "unknown" if finding.status == "unknown" else str(finding.severity)
    return f"[{_STYLES[finding.severity]}]{finding.id} {kind}[/]  {escape(safe(finding.summary))}"


def print_finding(console: Console, finding: FindingRow) -> None:
    """Print the whole finding."""
    console.print(_title(finding))
    for line in finding.evidence:
        text = Table.grid(padding=(0, 1, 0, 0))
        text.add_row("  -", escape(safe(line)))
        console.print(text)
    console.print(Padding(escape(finding.explanation), (0, 0, 0, 2)), style="dim")
    for line in fix_lines(finding.fix, console.width):
        console.print(escape(line), soft_wrap=True)


def _leases(report: Report, every_lease: bool) -> Table:
    rows = sorted(report.leases, key=lambda lease: list(_ORDER).index(lease.verdict))
    shown = rows if every_lease else rows[:_ROWS]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ADDRESS", "VERDICT", "POD", "CONTAINER", "WHY"):
        table.add_column(column, no_wrap=column in ("ADDRESS", "VERDICT", "CONTAINER"))
    above: ReasonRow | None = None
    for lease in shown:
        address, pod, container, why = (
            escape(safe(text or "-")) for text in (lease.address, lease.pod, lease.container_id[:13], _why(lease))
        )
        if not every_lease:  # leaked leases often have the same reason, and the terminal may have only 80 columns
            why = "as above" if lease.reason is not None and lease.reason == above else why
            above = lease.reason
        table.add_row(address, f"[{_VERDICTS[lease.verdict]}]{lease.verdict}[/]", pod, container, why)
    if len(rows) > len(shown):
        table.caption = f"and {len(rows) - len(shown)} more: use --all or -o json"
        table.caption_justify = "left"
    return table


_ORDER = (
    Verdict.MISSING, Verdict.CORRUPT, Verdict.ORPHANED, Verdict.PENDING, Verdict.HELD, Verdict.LIVE, Verdict.FOREIGN,
)  # fmt: skip


def _why(lease: LeaseRow) -> str:
    return lease.reason.text if lease.reason is not None else ""
