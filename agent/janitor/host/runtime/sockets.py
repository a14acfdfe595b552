"""The well-known CRI sockets of container runtimes. Standard library only."""

import os
import re
from collections.abc import Iterator
from typing import Final

from janitor.host.files import open_quietly
from janitor.host.kernel.procfs import Proc

_LIMIT: Final = 1 << 30
_PIECE: Final = 1 << 20
_LONGEST: Final = 4096  # of a line
# A listening socket has the flag __SO_ACCEPTCON (linux/net.h) and no other.
_LISTENS: Final = re.compile(
    rb"^[0-9a-f]+: [0-9A-F]{8} 0{8} 00010000 [0-9A-F]{4} [0-9A-F]{2} +([0-9]+) (/.*)$", re.MULTILINE
)

CRI: Final = (
    "/run/containerd/containerd.sock",  # kubeadm
    "/run/k3s/containerd/containerd.sock",  # k3s, RKE2
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)

DOCKER: Final = "/run/docker/containerd/containerd.sock"
"""docker's own containerd. It has no CRI, but runs the pods of cri-dockerd."""


def only_units_listen(proc: Proc) -> frozenset[str]:
    """The well-known paths on which only process 1 listens: a socket unit whose service is not running.

    Connecting would start the service. OSError if that cannot be determined.
    """
    wanted: dict[str, set[str]] = {}
    for path, link in listening(f"{proc.path}/1/net/unix"):
        if path in (*CRI, DOCKER):
            wanted.setdefault(path, set()).add(link)
    if not wanted:
        return frozenset()
    holders = {pid: _open_files(f"{proc.path}/{pid}/fd") for pid in proc.pids()}
    elsewhere = frozenset().union(*(links for pid, links in holders.items() if pid != 1))
    units = holders.get(1, frozenset()) - elsewhere
    return frozenset(path for path, links in wanted.items() if links <= units)


def listening(table: str) -> Iterator[tuple[str, str]]:
    """The listening paths in a `net/unix` of proc(5), each with its socket's name in the links of /proc/<pid>/fd.

    The kernel does not escape names, not even newlines, and processes in that network may have any number of sockets.
    So anything that is no line of the table is skipped and not kept. OSError.
    """
    fd = open_quietly(table)
    try:
        rest, left = b"", _LIMIT
        while left > 0 and (part := os.read(fd, _PIECE)):
            left -= len(part)
            text = rest + part
            end = text.rfind(b"\n") + 1
            yield from _lines(text[:end])
            rest = text[end:][-_LONGEST:]
        yield from _lines(rest)
    finally:
        os.close(fd)


def _lines(text: bytes) -> Iterator[tuple[str, str]]:
    for found in _LISTENS.finditer(text):
        yield plain(os.fsdecode(found[2])), f"socket:[{int(found[1])}]"


def plain(path: str) -> str:
    """The path with /run instead of /var/run."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def _open_files(directory: str) -> frozenset[str]:
    links = set()
    try:
        for fd in os.listdir(directory):
            try:
                links.add(os.readlink(f"{directory}/{fd}"))
            except FileNotFoundError:
                continue  # closed meanwhile
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process has ended
    return frozenset(links)
