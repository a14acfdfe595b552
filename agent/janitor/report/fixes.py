"""A fix as lines for a terminal: sentences are broken; commands and files, which are to be pasted, are not."""

import re
import textwrap
from typing import Final

from janitor.core.prose import safe

_COMMAND: Final = re.compile(
    r"(?<![\w/.-])"
    # Flags and variables for a file: the next line would be another setting, or none.
    r"(?:(?<=: )--\w|[A-Z_]+=\"|"
    r"janitor (?:scan|clean|undo|explain|cidr)|(?:kubectl|systemctl|journalctl|crictl|hcloud|curl|apt-get) \S|"
    r"ip (?:rule|route|link|addr|-)|kubeadm (?:reset|token|join)|networkctl reload|patch -|rm (?:-|/))"
    # Up to where the sentence goes on.
    r"(?:(?!; |, |: |[.] |' | \(| and | or |[;,:.)']*$).)*"
)
_VERBATIM: Final = re.compile(r"[\[+\-@ \\#]|\w+=")
"""How lines of unit files and patches begin."""


def fix_lines(fix: str, width: int) -> list[str]:
    """The lines, at most `width` columns each unless a single command or a file's line is longer."""
    first, *more = fix.splitlines()
    lines = _broken(f"  Fix: {safe(first)}", width)
    for line in more:
        whole = not line or _VERBATIM.match(line) or _COMMAND.match(line)  # a command may have a comment
        lines += [f"  {safe(line)}"] if whole else _broken(f"  {safe(line)}", width)
    return lines


def _broken(line: str, width: int) -> list[str]:
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), line)
    broken = textwrap.wrap(
        whole, max(width, 20), subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [part.replace("\0", " ") for part in broken]
