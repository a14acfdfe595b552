"""What must not leave a node: values of options that are secrets, by their names. Standard library only."""

import re
from typing import Final

HIDDEN: Final = "(not kept)"
_SECRET = re.compile(r"token|password|passwd|secret|credential|access-key|api-key|basic-auth", re.IGNORECASE)
_A_FILE = re.compile(r"(file|dir|path)$", re.IGNORECASE)


def hidden(name: str, value: str) -> str:
    """`value`, or a remark in its place where `name` says that it is a secret."""
    return HIDDEN if value and _SECRET.search(name) and not _A_FILE.search(name) else value


def without_secrets(words: list[str]) -> tuple[str, ...]:
    """A command line with the values of its secret options replaced; URLs lose what stands before their `@`."""
    found: list[str] = []
    following = ""
    for word in words:
        name, sign, value = word.partition("=")
        if following and not word.startswith("-"):
            found.append(hidden(following, word))
        elif sign and name.startswith("-"):
            found.append(f"{name}={_plain(hidden(name, value))}")
        else:
            found.append(_plain(hidden(name, word) if sign else word))
        following = word if word.startswith("-") and not sign else ""
    return tuple(found)


def _plain(value: str) -> str:
    return re.sub(r"://[^/@\s]+@", f"://{HIDDEN}@", value)
