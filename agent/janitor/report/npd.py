"""One line for node-problem-detector's custom plugin, which cuts it at 80 bytes. The node's condition shows it."""

from janitor.core.model.text import safe
from janitor.report.document import Report

_LONGEST = 79


def to_line(report: Report) -> str:
    """The worst finding, or how much is free."""
    problems = [f for f in report.findings if f.severity.rank >= report.fail_on.rank or f.status == "unknown"]
    if report.status == "unknown":  # unseen parts come first, without hiding the rest
        problems.sort(key=lambda f: f.status != "unknown")
    if report.status != "ok" and problems:
        more = f" (+{len(problems) - 1})" if len(problems) > 1 else ""
        return f"{_cut(f'{problems[0].id} {problems[0].summary}', _LONGEST - len(more))}{more}"
    frees = [
        f"{n.free} of {n.capacity} pod addresses free" for n in report.networks if n.in_scope and n.free is not None
    ]
    return _cut(f"ok: {', '.join(frees)}" if frees else "ok", _LONGEST)


def _cut(text: str, longest: int) -> str:
    plain = safe(text).encode("ascii", "replace").decode("ascii")
    return plain if len(plain) <= longest else f"{plain[: longest - 2]}.."
