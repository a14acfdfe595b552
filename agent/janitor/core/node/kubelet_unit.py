"""The variables of the kubelet's unit: which flags an environment file removes, and the file's corrected text."""

from collections.abc import Iterator
from dataclasses import dataclass

from janitor.core.model.evidence_node import Assignment, Unit
from janitor.core.node.systemd_syntax import environment_file


@dataclass(frozen=True, slots=True)
class Overruled:
    """A variable that `Environment=` sets and a file overrides, and the words that the kubelet loses by that."""

    variable: str
    inline: Assignment
    file: Assignment
    lost: tuple[str, ...]


def overruled(unit: Unit) -> Iterator[Overruled]:
    """The overridden variables that do not look intended.

    Two cases are intended: a flag to which the file gives another value, and a default in the same file as the
    EnvironmentFile= that may replace it.
    """
    has = _names(unit.argv)
    for name in dict.fromkeys(a.variable for a in unit.assignments):
        inline, file = _last(unit, name, from_file=False), _last(unit, name, from_file=True)
        if inline is None or file is None or not inline.value:
            continue
        by = [_file(one.source) for one in unit.environment_files if one.path == file.source]
        if file.value.strip() and _file(inline.source) in by:
            continue
        known = has | _names(file.value.split())
        lost = tuple(word for flag in _flags(inline.value) if flag[0].partition("=")[0] not in known for word in flag)
        if lost:
            yield Overruled(name, inline, file, lost)


def wanted(unit: Unit) -> dict[str, str]:
    """Every flag that the kubelet was meant to have, and its source. An overridden earlier value does not count."""
    found = {word: unit.exec_source for word in unit.argv[1:] if word.startswith("--")}
    for name in dict.fromkeys(a.variable for a in unit.assignments if a.variable.startswith("KUBELET_")):
        counts = counting(unit, name)
        if counts is not None:
            found |= {word: counts.source for word in counts.value.split() if word.startswith("--")}
    for one in overruled(unit):
        found |= {word: one.inline.source for word in one.lost if word.startswith("--")}
    return found


def unreached(unit: Unit, path: str, running: tuple[str, ...]) -> tuple[str, ...]:
    """The words of an unread file whose flags are neither in the unit's command line nor in the process."""
    has = _names(unit.argv) | _names(running)
    words = [flag for one in unit.unread if one.source == path for flag in _flags(one.value)]
    return tuple(word for flag in words if flag[0].partition("=")[0] not in has for word in flag)


def counting(unit: Unit, name: str) -> Assignment | None:
    """The assignment of a variable that takes effect: the last one of a file, else the last one of the unit."""
    return _last(unit, name, from_file=True) or _last(unit, name, from_file=False)


def mended(text: str, one: Overruled) -> str | None:
    """The environment file's text with the lost words added; None if changing one line cannot safely do that."""
    if any(c in one.file.value + one.inline.value for c in "\"'\\$`\n("):  # quotes, escapes, a value that was not kept
        return None
    if not all(c.isprintable() or c in "\n\t" for c in text):
        return None
    value = " ".join([*one.file.value.split(), *one.lost])
    line = f'{one.variable}="{value}"\n' if " " in value else f"{one.variable}={value}\n"
    lines = text.splitlines(keepends=True)
    before = [pair for pair in environment_file(text) if pair[0] != one.variable]
    places = [i for i, old in enumerate(lines) if old.partition("=")[0].strip() == one.variable]
    for at, rest in ([(places[-1], places[-1] + 1)] if places else []) + [(len(lines), len(lines))]:
        new = "".join([*lines[:at], line, *lines[rest:]])
        # Lines, even comments, may continue on the next one: accept only what systemd would read as intended.
        read = environment_file(new)
        if dict(read).get(one.variable) == value and [pair for pair in read if pair[0] != one.variable] == before:
            return new
    return None


def _last(unit: Unit, name: str, *, from_file: bool) -> Assignment | None:
    found = [a for a in unit.assignments if a.variable == name and a.from_file == from_file]
    return found[-1] if found else None


def _file(source: str) -> str:
    """The file of `file:line`."""
    return source.rpartition(":")[0] or source


def _flags(value: str) -> list[list[str]]:
    """Each flag with its following words: `--node-ip 10.0.0.3` has two."""
    found: list[list[str]] = []
    for word in value.split():
        if word.startswith("-") or not found:
            found.append([word])
        else:
            found[-1].append(word)
    return found


def _names(words: tuple[str, ...] | list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("-")}
