"""A service as systemd would start it: its merged files, its environment, its command line.

All `Environment=` come first, in file order, then every `EnvironmentFile=`, which overrides them (systemd.exec(5)). A
drop-in replaces one of the same name in a directory of lower precedence. Standard library only.
"""

import glob
import os
from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.evidence_node import Assignment, EnvironmentFile, Unit
from janitor.core.node.systemd_syntax import (
    Unbalanced,
    UnitLine,
    command_words,
    environment_file,
    expand,
    is_name,
    unit_lines,
    words,
)
from janitor.host.files import describe_os_error, names, read_bounded
from janitor.host.node import Node
from janitor.host.redaction import hidden, masked, without_secrets

SEARCH_PATH: Final = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient", "/etc/systemd/system",
    "/etc/systemd/system.attached", "/run/systemd/system", "/run/systemd/system.attached", "/run/systemd/generator",
    "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
)  # fmt: skip
_LIMIT = 1 << 18  # far larger than any unit or environment file
_PREFIXES = "@-:+!|"
_OURS = ("KUBELET", "K3S", "RKE2")  # prefixes of the variables to keep; others may be secrets


@dataclass(slots=True)
class _Merged:
    """The combined contents of a unit's files."""

    assignments: list[Assignment] = field(default_factory=list)
    files: list[EnvironmentFile] = field(default_factory=list)
    exec_start: str = ""
    exec_source: str = ""
    starts: int = 0
    oneshot: bool = False
    complaints: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)


def read_unit(node: Node, name: str) -> Unit | None:
    """The service `name`; None if it does not exist or is masked. OSError if a directory cannot be read."""
    fragment = next((f"{place}/{name}" for place in SEARCH_PATH if _exists(node, f"{place}/{name}")), "")
    if not fragment or _masked(node, fragment):
        return None
    drop_ins, shadowed = _drop_ins(node, name)
    merged = _Merged()
    for path in (fragment, *drop_ins):
        try:
            text = read_bounded(node.path(path), _LIMIT).decode("utf-8", "replace")
        except OSError as error:
            merged.complaints.append(f"{path} cannot be read: {error.strerror}")
            continue
        for line in unit_lines(text):
            if line.section == "Service":
                _take(node, line, f"{path}:{line.number}", name, merged)
    if not merged.exec_start:
        return None
    if merged.starts > 1 and not merged.oneshot:
        merged.complaints.append(
            f"{merged.exec_source}: a second ExecStart=, so systemd rejects the unit; an empty ExecStart= before it "
            "clears the first"
        )
    from_files = [a for file in merged.files for a in _from_file(node, file, merged)]
    assignments = tuple(merged.assignments + from_files)
    argv = _command(merged, {a.variable: a.value for a in assignments})
    used = {a.variable for a in assignments if _mentions(merged.exec_start, a.variable)}
    return Unit(
        name, fragment, drop_ins, shadowed,
        tuple(_shown(a) for a in assignments if a.variable in used or a.variable.startswith(_OURS)),
        tuple(merged.files), masked(merged.exec_start), merged.exec_source, argv, tuple(merged.complaints),
        written=tuple(merged.contents.items()),
    )  # fmt: skip


def _shown(one: Assignment) -> Assignment:
    return Assignment(one.variable, hidden(one.variable, one.value), one.source, one.from_file)


def _mentions(text: str, variable: str) -> bool:
    return f"${variable}" in text or f"${{{variable}}}" in text


def _exists(node: Node, path: str) -> bool:
    try:
        return os.path.lexists(node.path(path))
    except OSError:
        return False


def _masked(node: Node, path: str) -> bool:
    """Whether it is a link to /dev/null, or empty: systemd treats both as masked."""
    try:
        place = os.path.join(node.path(os.path.dirname(path)), os.path.basename(path))
        return (os.path.islink(place) and os.readlink(place) == "/dev/null") or os.path.getsize(node.path(path)) == 0
    except OSError:
        return False


def _drop_ins(node: Node, name: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The drop-ins that are read, in order; and pairs of a drop-in that is not read and the one that replaces it."""
    chosen: dict[str, str] = {}
    shadowed: list[tuple[str, str]] = []
    places: set[str] = set()
    for folder in (f"{name}.d", "service.d"):
        for place in SEARCH_PATH:
            directory = f"{place}/{folder}"
            real = node.path(directory)
            if real in places:
                continue
            places.add(real)
            for file in names(real):
                if file.endswith(".conf"):
                    if file in chosen:
                        shadowed.append((f"{directory}/{file}", chosen[file]))
                    chosen.setdefault(file, f"{directory}/{file}")
    read = tuple(chosen[file] for file in sorted(chosen) if not _masked(node, chosen[file]))
    return read, tuple((path, by) for path, by in shadowed if "/service.d/" not in path)


def _take(node: Node, line: UnitLine, source: str, unit: str, merged: _Merged) -> None:
    value = line.value.replace("%n", unit).replace("%N", unit.rpartition(".")[0]).replace("%%", "%")
    match line.key:
        case "Environment" if not value:
            merged.assignments.clear()
        case "Environment":
            merged.assignments += _assignments(value, source, merged)
        case "EnvironmentFile" if not value:
            merged.files.clear()
        case "EnvironmentFile":
            merged.files += _environment_files(node, value, source)
        case "ExecStart" if not value:
            merged.exec_start, merged.exec_source, merged.starts = "", "", 0
        case "ExecStart":
            merged.exec_start, merged.exec_source, merged.starts = value, source, merged.starts + 1
        case "Type":
            merged.oneshot = value == "oneshot"


def _assignments(value: str, source: str, merged: _Merged) -> list[Assignment]:
    try:
        parts = words(value)
    except Unbalanced as problem:
        merged.complaints.append(f"{source}: Environment={masked(value)}: {problem}, so systemd ignores the line")
        return []
    found = []
    for part in parts:
        name, sign, text = part.partition("=")
        if sign and is_name(name):
            found.append(Assignment(name, text, source, False))
        else:
            merged.complaints.append(
                f"{source}: Environment={masked(value)}: '{masked(part)}' is not an assignment and is ignored; a value "
                'with spaces needs quotes around all of it: Environment="NAME=one two"'
            )
    return found


def _environment_files(node: Node, value: str, source: str) -> list[EnvironmentFile]:
    optional = value.startswith("-")
    pattern = value.removeprefix("-").strip()
    if any(c in pattern for c in "*?["):
        base = node.path("/")
        found = sorted(glob.glob(base.rstrip("/") + pattern))
        paths = [path if base == "/" else path[len(base.rstrip("/")) :] for path in found] or [pattern]
    else:
        paths = [pattern]
    states = [(path, "read" if os.path.isfile(node.path(path)) else "missing") for path in paths]
    return [EnvironmentFile(path, optional, state, source) for path, state in states]


def _from_file(node: Node, file: EnvironmentFile, merged: _Merged) -> list[Assignment]:
    if file.state != "read":
        return []
    try:
        data = read_bounded(node.path(file.path), _LIMIT + 1)
    except OSError as error:
        merged.complaints.append(f"{file.path} cannot be read: {describe_os_error(error)}")
        return []
    if len(data) > _LIMIT:
        merged.complaints.append(f"{file.path} is larger than {_LIMIT >> 10} KiB, and was not read")
        return []
    text = data.decode("utf-8", "replace")
    found = []
    for name, value in environment_file(text):
        if not is_name(name):
            merged.complaints.append(f"{file.path}: '{name}={hidden(name, value)}' is not an assignment; ignored" + (
                "; systemd does not know 'export'" if name.startswith("export ")
                else "; it begins with a byte order mark" if name.startswith("\ufeff") else ""
            ))  # fmt: skip
            continue
        if " #" in value:
            merged.complaints.append(f"{file.path}: {name}: what follows ' #' is part of the value, not a comment")
        found.append(Assignment(name, value, file.path, True))
    if all(n.startswith("KUBELET") and hidden(n, v) == v for n, v in environment_file(text)) and masked(text) == text:
        merged.contents[file.path] = text
    return found


def _command(merged: _Merged, environment: dict[str, str]) -> tuple[str, ...]:
    text = merged.exec_start
    literal = ":" in text[: len(text) - len(text.lstrip(_PREFIXES))]
    try:
        parts = command_words(text.lstrip(_PREFIXES))
    except Unbalanced as problem:
        merged.complaints.append(
            f"{merged.exec_source}: ExecStart={masked(text)}: {problem}, so systemd rejects the unit"
        )
        return ()
    for part in parts:
        braced = part.startswith("${") and part.endswith("}") and " " in environment.get(part[2:-1], "")
        if braced and not literal:
            merged.complaints.append(
                f"{merged.exec_source}: {part} becomes one word with its spaces, so several flags in it become one; "
                f"write ${part[2:-1]}"
            )
    return without_secrets(parts if literal else parts[:1] + expand(parts[1:], environment))


def extra_arguments(node: Node, path: str) -> list[Assignment]:
    """What a file that no unit names would add to the kubelet's flags; empty if it cannot be read."""
    try:
        text = read_bounded(node.path(path), _LIMIT).decode("utf-8", "replace")
    except OSError:
        return []
    found = [pair for pair in environment_file(text) if pair[0].endswith("KUBELET_EXTRA_ARGS") and pair[1].strip()]
    return [Assignment(name, hidden(name, value), path, True) for name, value in found]


def variables(unit: Unit) -> dict[str, str]:
    """The service's environment variables, with their final values."""
    return {a.variable: a.value for a in unit.assignments}
