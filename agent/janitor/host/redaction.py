"""What must not leave a node: values of options that are secrets, by their names. Standard library only.

Names are matched generously: a value that is missing from a bundle costs a question, one too many costs a cluster.
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
# Any pod may choose the text. So a name is taken as a whole, once, and from its beginning on: then the time that this
# takes grows with the text, and not with its square or cube.
_GIVEN = re.compile(
    rf"""(?P<before>(?<![A-Za-z0-9_.-])(?=[A-Za-z0-9_.-]*?(?:{_WORDS}))(?P<name>[A-Za-z0-9_.-]++)"""
    r"""["']?(?P<sign>\s*[=:]\s*|\s+)["']?)(?P<value>[^\s"']+)""",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S+")


def masked(text: str) -> str:
    """Free text, a command line for one, as it was written but for its secrets."""
    return _GIVEN.sub(_without, _WORD.sub(_without_user, text))


def _without_user(match: re.Match[str]) -> str:
    """A URL without what is before the last @: a password may hold slashes."""
    scheme, sign, rest = match[0].partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}{sign}{HIDDEN}{at}{place}" if at else match[0]


def _without(match: re.Match[str]) -> str:
    blank = not match["sign"].strip()
    no_value = match["value"].startswith("-") or (blank and not match["name"].startswith("-"))
    return match[0] if no_value or _A_FILE.search(match["name"]) else f"{match['before']}{HIDDEN}"


def hidden(name: str, value: str) -> str:
    """`value` without the secrets in it, or a remark in its place where `name` says that it is one."""
    secret = value and _SECRET.search(name) and not _A_FILE.search(name)
    return HIDDEN if secret else masked(value)


def hidden_setting(name: str, value: Any, text: str) -> str:
    """The same for a setting of a file: `text` is `value` in one line. What is nested is not looked into, nor kept."""
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value))
    return HIDDEN if nested else hidden(name, text)


def without_secrets(words: list[str]) -> tuple[str, ...]:
    """A command line with the values of its secret options replaced; URLs lose what stands before their `@`."""
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
