"""Where container runtimes answer: the CRI sockets that everybody knows. Standard library only."""

import os
from typing import Final

from janitor.host.files import read_bounded
from janitor.host.procfs import Proc

_LIMIT = 64 << 20
_LISTENS = 0x10000  # __SO_ACCEPTCON of linux/net.h

CRI: Final = (
    "/run/containerd/containerd.sock",  # kubeadm
    "/run/k3s/containerd/containerd.sock",  # k3s, RKE2
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)

DOCKER: Final = "/run/docker/containerd/containerd.sock"
"""docker's own containerd: no CRI, but pods of cri-dockerd's run behind it."""


def only_units_listen(proc: Proc) -> frozenset[str]:
    """The paths at which nobody but the first process listens, with any socket: a unit, whose service is not running.

    To connect there would start it. OSError where it cannot be told.
    """
    found: dict[str, set[str]] = {}
    for line in read_bounded(f"{proc.path}/1/net/unix", _LIMIT).split(b"\n")[1:]:
        fields = line.split(None, 7)  # a path may have spaces in it
        if len(fields) == 8 and int(fields[3], 16) & _LISTENS:
            found.setdefault(_plain(os.fsdecode(fields[7])), set()).add(f"socket:[{int(fields[6])}]")
    wanted = {path: links for path, links in found.items() if path in (*CRI, DOCKER)}
    if not wanted:
        return frozenset()
    holders = {pid: _open_files(f"{proc.path}/{pid}/fd") for pid in proc.pids()}
    elsewhere = frozenset().union(*(links for pid, links in holders.items() if pid != 1))
    units = holders.get(1, frozenset()) - elsewhere
    return frozenset(path for path, links in wanted.items() if links <= units)


def _plain(path: str) -> str:
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
