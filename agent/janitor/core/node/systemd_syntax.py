"""systemd's syntax: unit files, environment files, words and their quotes, `$VARIABLE` in a command line.

For places where systemd cannot be asked: a disk, or a container without its bus. Follows systemd 252
(src/basic/extract-word.c, env-file.c, env-util.c, src/shared/conf-parser.c); a test compares it with the real one.
Standard library only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SPACE: Final = " \t\n\r"
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"',
                   "'": "'", "s": " "}  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BRACED: Final = re.compile(r"\$\$|\$\{([^}]*)\}|\$\{.*", re.DOTALL)  # an unclosed brace stays as it is


@dataclass(frozen=True, slots=True)
class UnitLine:
    """`key = value` in a section of a unit file; `number` is its first line, from 1."""

    section: str
    key: str
    value: str
    number: int


def unit_lines(text: str, ignored: list[UnitLine] | None = None) -> list[UnitLine]:
    """The assignments of a unit file. Lines that end in a backslash continue; comments between them are skipped.

    What is neither a section, an assignment nor a comment goes to `ignored`: systemd skips it.
    """
    found: list[UnitLine] = []
    section, pending, begun = "", "", 0
    for number, raw in enumerate(text.replace("\ufeff", "", 1).split("\n"), 1):  # skip a byte order mark
        if raw.lstrip(_SPACE).startswith(("#", ";")):
            continue
        line = pending + raw if pending or begun else raw
        begun = begun or number
        if _continues(line):
            pending = line[:-1] + " "
            continue
        line = line.strip(_SPACE)
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            found.append(UnitLine(section, key.strip(_SPACE), value.strip(_SPACE), begun))
        elif line and ignored is not None:
            ignored.append(UnitLine(section, line, "", begun))
        pending, begun = "", 0
    return found


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


class Unbalanced(ValueError):  # noqa: N818 (it is what is wrong with the text)
    """An unclosed quote, or an unknown escape."""


def words(text: str) -> list[str]:
    """The words of a list of assignments; quotes may stand anywhere. Unbalanced if systemd ignores the line."""
    return [word for word, _ in _words(text, _Way())]


def value_words(text: str) -> list[str]:
    """The words that `$VARIABLE` expands to: quotes group, a backslash takes the next character literally."""
    return [word for word, _ in _words(text, _Way(escapes=False, open_quotes=True))]


def command_words(text: str) -> list[str]:
    """The words of a command up to a `;`. Unknown escapes stay as they are; Unbalanced for open quotes."""
    found: list[str] = []
    ended = False
    for word, raw in _words(text, _Way(keep_unknown=True)):
        if ended:
            raise Unbalanced("it contains two commands, which only Type=oneshot allows")
        ended = raw == ";"
        if ended:
            continue
        found.append(";" if raw == "\\;" else word)
    return found


@dataclass(frozen=True, slots=True)
class _Way:
    """The flags of extract_first_word: CUNESCAPE, UNESCAPE_RELAX, RELAX."""

    escapes: bool = True
    keep_unknown: bool = False
    open_quotes: bool = False


def _words(text: str, way: _Way) -> Iterator[tuple[str, str]]:
    """Each word, and its source text."""
    at, size = 0, len(text)
    while True:
        while at < size and text[at] in _SPACE:
            at += 1
        if at >= size:
            return
        begun, word, quote = at, "", ""
        while at < size and (quote or text[at] not in _SPACE):
            c = text[at]
            if c == "\\":
                piece, at = _escaped(text, at + 1, way)
                word += piece
                continue
            if quote and c == quote:
                quote = ""
            elif not quote and c in "\"'":
                quote = c
            else:
                word += c
            at += 1
        if quote and not way.open_quotes:
            raise Unbalanced(f"a {quote} is not closed")
        yield word, text[begun:at]


def _escaped(text: str, at: int, way: _Way) -> tuple[str, int]:
    """The character that an escape stands for, and where the escape ends."""
    if at >= len(text):
        if way.keep_unknown or way.open_quotes:
            return "\\" if way.keep_unknown else "", at
        raise Unbalanced("a \\ at the end escapes nothing")
    c = text[at]
    if not way.escapes:
        return c, at + 1
    if c in _ESCAPES:
        return _ESCAPES[c], at + 1
    for pattern, base, skip in ((r"x[0-9a-fA-F]{2}", 16, 1), (r"[0-7]{3}", 8, 0), (r"u[0-9a-fA-F]{4}", 16, 1)):
        match = re.compile(pattern).match(text, at)
        if match and (number := int(match[0][skip:], base)):
            return chr(number), match.end()
    if way.keep_unknown:
        return "\\" + c, at + 1
    raise Unbalanced(f"\\{c} is not a valid escape")


def environment_file(text: str) -> list[tuple[str, str]]:
    """The variables of an environment file, in order, including invalid names, which systemd ignores."""
    found: list[tuple[str, str]] = []
    state, key, value, keep = "before key", "", "", 0  # keep: length of value without trailing white space

    def done() -> None:
        found.append((key.strip(_SPACE), value[:keep] if state == "value" else value))

    for c in text:
        newline = c in "\n\r"
        match state:
            case "before key":
                if c in "#;":
                    state = "comment"
                elif c not in _SPACE:
                    state, key, value, keep = "key", c, "", 0
            case "key":
                if newline:
                    state = "before key"
                elif c == "=":
                    state = "before value"
                else:
                    key += c
            case "before value":
                if newline:
                    done()
                    state = "before key"
                elif c in "'\"":
                    state = c
                elif c == "\\":
                    state = "escape"
                elif c not in _SPACE:
                    value += c
                    state, keep = "value", len(value)
            case "value":
                if newline:
                    done()
                    state = "before key"
                elif c == "\\":
                    state, keep = "escape", len(value)
                else:
                    value += c
                    keep = keep if c in _SPACE else len(value)
            case "escape":
                state = "value"
                value += "" if newline else c
                keep = len(value)
            case "'":
                if c == "'":
                    state = "before value"
                else:
                    value += c
            case '"':
                if c == '"':
                    state = "before value"
                elif c == "\\":
                    state = "quoted escape"
                else:
                    value += c
            case "quoted escape":
                state = '"'
                value += c if c in '"\\`$' else "" if c == "\n" else "\\" + c
            case "comment":
                state = "comment escape" if c == "\\" else "before key" if newline else state
            case _:
                state = "comment"
    if state not in ("before key", "key", "comment", "comment escape"):
        done()
    return found


def is_name(name: str) -> bool:
    """Whether systemd accepts `name` as the name of a variable."""
    return _NAME.match(name) is not None


def expand(argv: list[str], environment: dict[str, str]) -> list[str]:
    """`$NAME` as a word of its own becomes the words of its value; `${NAME}`, anywhere, its value unsplit."""
    found: list[str] = []
    for word in argv:
        if word.startswith("$") and not word.startswith(("${", "$$")):
            found += value_words(environment.get(word[1:], ""))
        else:
            found.append(_BRACED.sub(lambda m: _replaced(m, environment), word))
    return found


def _replaced(match: re.Match[str], environment: dict[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    return match[0] if match[1] is None else environment.get(match[1], "")
