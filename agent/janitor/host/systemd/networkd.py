"""systemd-networkd as configured and as running. Directories are read as systemd does (systemd.syntax(7)).

Of files with the same name, the one in the first directory counts. Files are then read in the order of their names,
across directories, and the last assignment wins. networkd reads networkd.conf and its drop-ins only when it starts.
"""

import os
import re
from collections.abc import Iterator
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.routing import ManagedLink, Networkd, NetworkdSetting, NetworkFile
from janitor.core.node.systemd_syntax import UnitLine, unit_lines
from janitor.core.rules.networkd import DROP_IN
from janitor.host.files import describe_os_error, names, printable, read_bounded, unknown
from janitor.host.kernel.attribution import find_networkd
from janitor.host.kernel.procfs import Proc
from janitor.host.node import Node

_DIRECTORIES: Final = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")
_SETTINGS: Final = ("ManageForeignRoutingPolicyRules", "ManageForeignRoutes", "ManageForeignNextHops")
_LIBRARY = re.compile(r"libsystemd-shared-([0-9][^/]*?)\.so$")
_LIBRARY_DIRS: Final = ("/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/aarch64-linux-gnu/systemd", "/usr/lib/systemd",
                        "/usr/lib64/systemd", "/lib/systemd")  # fmt: skip
_LIMIT = 1 << 20
_TRUE: Final = ("1", "yes", "y", "true", "t", "on")
_FALSE: Final = ("0", "no", "n", "false", "f", "off")


def read_networkd(node: Node) -> tuple[Networkd, ...] | Unknown:
    """systemd-networkd's state; empty if this node has none. Unknown if it cannot be determined whether it runs."""
    proc = node.proc
    if isinstance(proc, Unknown):
        return proc
    problems: list[str] = []
    setting_problems: list[str] = []
    try:
        pid = find_networkd(proc)
        started = 0
        if pid:
            now = node.clock()
            started = now.realtime_ns - now.boottime_ns + proc.started_ns(pid)
    except OSError as error:
        return unknown(Code.CANNOT_FIND_NETWORKD, error, path=proc.path)
    try:
        links = tuple(_links(node))
    except OSError as error:
        return unknown(Code.CANNOT_READ_NETWORKD_STATE, error)
    found = Networkd(
        pid=pid,
        started_ns=started,
        version=_version(node, proc, pid),
        settings=tuple(_settings(node, setting_problems)),
        network_files=tuple(_network_files(node, problems)),
        links=links,
        problems=tuple(problems),
        setting_problems=tuple(setting_problems),
    )
    return (found,) if found.pid or found.version or found.links else ()


def drop_in(node: Node) -> str:
    """The text of janitor's own drop-in; "" if it does not exist or cannot be read."""
    try:
        return read_bounded(node.path(DROP_IN), _LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""


def _version(node: Node, proc: Proc, pid: int) -> str:
    """The version in dpkg if it is that of the running release; otherwise the release in the library's name.

    The loaded library shows which release runs; the one on the disk, which will run after the next start.
    """
    loaded = ""
    if pid:
        try:
            lines = read_bounded(f"{proc.path}/{pid}/maps", _LIMIT).decode("utf-8", "replace").splitlines()
            found = (_LIBRARY.search(line.removesuffix(" (deleted)")) for line in lines)
            loaded = next((match[1] for match in found if match), "")
        except OSError:
            pass
    on_disk = next(
        (match[1] for d in _LIBRARY_DIRS for name in _names(node.path(d)) if (match := _LIBRARY.search(f"/{name}"))),
        "",
    )
    release = loaded or on_disk
    packaged = _packaged(node)
    return packaged if packaged and (not release or packaged.startswith(release.partition("-")[0])) else release


def _packaged(node: Node) -> str:
    """The version of Debian's package `systemd`, without the epoch; "" on other systems."""
    try:
        text = read_bounded(node.path("/var/lib/dpkg/status"), 64 << 20).decode("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(r"^Package: systemd\n(?:.+\n)*?Version: (?:\d+:)?(\S+)$", text, re.MULTILINE)
    return match[1] if match else ""


def _settings(node: Node, problems: list[str]) -> Iterator[NetworkdSetting]:
    """The last valid assignment of each relevant setting."""
    effective: dict[str, NetworkdSetting] = {}
    main = [f"{d}/networkd.conf" for d in _DIRECTORIES if os.path.lexists(node.path(f"{d}/networkd.conf"))][:1]
    for path in [*main, *_in_order(node, "networkd.conf.d", ".conf", problems)]:
        content, changed = _read(node, path, problems)
        for line in _parse(path, content, problems):
            if line.section != "Network" or line.key not in _SETTINGS:
                continue
            value, where = line.value.lower(), f"{path}:{line.number}"
            if value not in (*_TRUE, *_FALSE):
                problems.append(f"{where}: {line.key}={line.value} is neither yes nor no, so systemd ignores it")
                continue
            yes = "yes" if value in _TRUE else "no"
            effective[line.key] = NetworkdSetting(line.key, yes, path, line.number, changed)
    yield from effective.values()


def _network_files(node: Node, problems: list[str]) -> Iterator[NetworkFile]:
    """Every .network file with its drop-ins, in the order in which networkd tries them."""
    for path in _in_order(node, "network", ".network", problems):
        found: dict[str, list[str]] = {}
        drop_ins = _in_order(node, f"network/{os.path.basename(path)}.d", ".conf", problems)
        for file in [path, *drop_ins]:
            content, _ = _read(node, file, problems)
            for line in _parse(file, content, problems):
                values = found.setdefault(f"{line.section}.{line.key}", [])
                if not line.value:
                    values.clear()  # an empty assignment resets the earlier ones
                values += line.value.split() if line.key == "Name" else [line.value] * bool(line.value)
        unmanaged = found.get("Link.Unmanaged", ["no"])
        keeps = found.get("Network.KeepConfiguration", [""])
        yield NetworkFile(
            path, tuple(found.get("Match.Name", ())), unmanaged[-1:] != [] and unmanaged[-1].lower() in _TRUE,
            keeps[-1].lower() if keeps else "", any(name.startswith("RoutingPolicyRule.") for name in found),
        )  # fmt: skip


def _links(node: Node) -> Iterator[ManagedLink]:
    """networkd's record of each link (/run/systemd/netif/links; its private, long-standing format). OSError."""
    directory = node.path("/run/systemd/netif/links")
    for name in names(directory):
        if not name.isdecimal():
            continue
        try:
            content = read_bounded(f"{directory}/{name}", _LIMIT).decode("utf-8", "replace")
            changed = os.stat(f"{directory}/{name}").st_mtime_ns
        except FileNotFoundError:
            continue  # the link is gone
        values = dict(line.split("=", 1) for line in content.splitlines() if "=" in line and line[0] != "#")
        file, state = values.get("NETWORK_FILE", ""), values.get("ADMIN_STATE", "")
        yield ManagedLink(int(name), printable(file), printable(state), changed)


def _in_order(node: Node, directory: str, suffix: str, problems: list[str]) -> list[str]:
    """The files in all directories of this name, sorted by name. Of equal names, the first directory's file counts."""
    found: dict[str, str] = {}
    for parent in _DIRECTORIES:
        path = f"{parent}/{directory}"
        try:
            for name in names(node.path(path)):
                if name.endswith(suffix):
                    found.setdefault(name, f"{path}/{name}")
        except OSError as error:
            problems.append(f"listing {path}: {describe_os_error(error)}")
    return [found[name] for name in sorted(found)]


def _read(node: Node, path: str, problems: list[str]) -> tuple[str, int]:
    """Text and mtime of a file. A link to /dev/null counts as empty: that is how systemd masks a file."""
    here = node.path(path)
    try:
        if os.path.realpath(here) == "/dev/null":
            return "", os.lstat(here).st_mtime_ns
        return read_bounded(here, _LIMIT).decode("utf-8", "replace"), os.stat(here).st_mtime_ns
    except OSError as error:
        problems.append(f"reading {printable(path)}: {describe_os_error(error)}")
        return "", 0


def _parse(path: str, content: str, problems: list[str]) -> Iterator[UnitLine]:
    ignored: list[UnitLine] = []
    lines = unit_lines(content, ignored)
    ignored += [line for line in lines if not line.section]
    problems += [
        f"{printable(path)}:{line.number}: '{printable(line.key[:60])}' is not an assignment, so systemd ignores it"
        for line in ignored
    ]
    yield from (line for line in lines if line.section)


def _names(directory: str) -> list[str]:
    try:
        return names(directory)
    except OSError:
        return []
