"""A fix as lines for a terminal: sentences are wrapped; commands and files are not, because they are to be pasted."""

import textwrap

from janitor.core.model.text import safe
from janitor.report.finding_row import FixRow

_GLUE = "\0"  # cannot occur in text after safe()


def fix_lines(fix: FixRow, width: int) -> list[str]:
    """The lines, at most `width` columns each, except for a longer command or line of a file."""
    lines: list[str] = []
    line = "Fix: "
    for part in fix.parts:
        match part.kind:
            case "sentence":
                line += safe(part.text)
            case "command" | "snippet":
                line += safe(part.text).replace(" ", _GLUE)
            case "line break":
                lines += _broken(line, width)
                line = ""
            case "file" | "patch":
                lines += _broken(line, width)
                line = ""
                lines += [f"  {safe(verbatim)}" for verbatim in part.text.splitlines()]
    return lines + _broken(line, width)


def _broken(line: str, width: int) -> list[str]:
    broken = textwrap.wrap(
        line, max(width, 20), initial_indent="  ", subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [part.replace(_GLUE, " ") for part in broken]
