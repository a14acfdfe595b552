"""docs/findings.md, generated from the table of findings: `python -m janitor.report.findings_page`."""

from collections.abc import Iterator

from janitor.core.model.finding_ids import Family, FindingId, Severity

_HEAD = """\
# Findings

This file is generated from `agent/janitor/core/model/finding_ids.py` by `make docs`.

For each finding, `janitor scan` reports the evidence, why it matters, and how to fix it. `--only` selects findings by
ID or by the name of their family. If a finding has several severities, the evidence decides which one applies. The
severity `unknown` means that something could not be checked. An ID keeps its meaning in all releases."""


def markdown() -> str:
    """The whole file."""
    return "\n".join((_HEAD, *(line for family in Family for line in _section(family)))) + "\n"


def _section(family: Family) -> Iterator[str]:
    yield from ("", f"## {family}: {family.subject}", "", f"`--only {family.word}`. Read from: {family.sources}.", "")
    yield from ("| ID | severity | finding | since |", "|---|---|---|---|")
    for one in FindingId:
        if one.family is family:
            severities = ", ".join(severity.value for severity in Severity if severity in one.severities)
            scope = " (`janitor cidr` only)" if one.plan_only else ""
            yield f"| {one} | {severities} | {one.description}{scope} | {one.since} |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
