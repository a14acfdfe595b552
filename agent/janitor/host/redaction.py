"""What must not leave a node: the values of options that are secrets by their names. Standard library only.

Names are matched generously: a value missing from a bundle costs a question, a leaked one costs a cluster.
"""

import re
from typing import Any, Final

HIDDEN: Final = "(not kept)"
_WORDS: Final = (
    r"token|password|passwd|secret|credential|access-?key|api-?key|join-?key|private-?key|auth(?!or|ent)|"
    r"https?_proxy|all_proxy|datastore-endpoint|extra-env"
)
_SECRET = re.compile(_WORDS, re.IGNORECASE)
_A_FILE = re.compile(r"(file|dir|path)$", re.IGNORECASE)
# Any pod may choose the text. So a name is matched once, as a whole and from its start: the time is then linear in the
# length of the text, not quadratic or cubic.
_GIVEN = re.compile(
    rf"""(?P<before>(?<![A-Za-z0-9_.-])(?=[A-Za-z0-9_.-]*?(?:{_WORDS}))(?P<name>[A-Za-z0-9_.-]++)"""
    r"""["']?(?P<sign>\s*[=:]\s*|\s+)["']?)(?P<value>[^\s"']+)""",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S+")


def masked(text: str) -> str:
    """Free text, such as a command line, without its secrets."""
    return _GIVEN.sub(_without, _WORD.sub(_without_user, text))


def _without_user(match: re.Match[str]) -> str:
    """A URL without everything before the last @: a password may contain slashes."""
    scheme, sign, rest = match[0].partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}{sign}{HIDDEN}{at}{place}" if at else match[0]


def _without(match: re.Match[str]) -> str:
    blank = not match["sign"].strip()
    no_value = match["value"].startswith("-") or (blank and not match["name"].startswith("-"))
    return match[0] if no_value or _A_FILE.search(match["name"]) else f"{match['before']}{HIDDEN}"


def hidden(name: str, value: str) -> str:
    """`value` without secrets, or a placeholder if `name` is that of a secret."""
    secret = value and _SECRET.search(name) and not _A_FILE.search(name)
    return HIDDEN if secret else masked(value)


def hidden_setting(name: str, value: Any, text: str) -> str:
    """The same for a setting in a file; `text` is `value` on one line. A nested value is never kept."""
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value))
    return HIDDEN if nested else hidden(name, text)


def without_secrets(words: list[str]) -> tuple[str, ...]:
    """A command line without the values of secret options, and without user and password in URLs."""
    found: list[str] = []
    following = ""
    for word in words:
        name, sign, value = word.partition("=")
        if following and not word.startswith("-"):
            found.append(hidden(following, word))
        elif sign and name.startswith("-"):
            found.append(f"{name}={hidden(name, value)}")
        else:
            found.append(hidden(name, word) if sign else masked(word))
        following = word if word.startswith("-") and not sign else ""
    return tuple(found)
