"""Who answers on a Unix socket: a socket pinned by its inode, and the process that listens on it.

A path does not tell who is behind it, and may lead elsewhere a moment later. So the socket is opened once with O_PATH,
and every connection goes through that descriptor: it is the same socket, whatever happens to the path. Standard library
only.
"""

import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import RuntimeProcess, Unknown
from janitor.core.model.reason import Reason, because
from janitor.core.model.unknown import unseen
from janitor.host.files import read_bounded, unknown
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.whose import Whose
from janitor.host.runtime.sockets import listening, plain

_SO_PEERPIDFD: Final = 77  # Linux 6.5
_TIMEOUT_S: Final = 5


@dataclass(frozen=True, slots=True)
class Listener:
    """Who answers on a socket. `problem` is None if the connection was accepted and the listener may be asked."""

    processes: tuple[RuntimeProcess, ...] | Unknown
    problem: Unknown | None = None


class Pin:
    """A socket, held by its inode. Until `close`, `path` leads to this socket only."""

    def __init__(self, path: str) -> None:
        """OSError from open(2); ENOTSOCK if it is no socket."""
        self._fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self.info = os.fstat(self._fd)
        if not stat.S_ISSOCK(self.info.st_mode):
            self.close()
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), path)

    @property
    def path(self) -> str:
        """A path short enough for sun_path, wherever the socket is."""
        return f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        """Release the socket. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def pin(path: str, address: str) -> Pin | Unknown:
    """The socket at `path`, called `address` in messages."""
    try:
        return Pin(path)
    except FileNotFoundError:
        return unseen(Code.NO_SOCKET, address=address)
    except OSError as error:
        if error.errno == errno.ENOTSOCK:
            return unseen(Code.NOT_A_SOCKET, address=address)
        return unknown(Code.CANNOT_CONNECT, error, address=address)


def listener(pinned: Pin, address: str, proc: Proc | Unknown, whose: Whose | None) -> Listener:
    """Who listens there, or why it cannot be asked.

    `whose` is None if the operator has named the socket; otherwise only a runtime of this node is accepted. A listener
    in another PID namespace cannot be seen, nor can the processes of its pods.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_TIMEOUT_S)
            probe.connect(pinned.path)
            pid, sure = _peer(probe)
    except ConnectionRefusedError:
        return _nobody(unseen(Code.NOBODY_LISTENS, address=address))
    except OSError as error:
        return _nobody(unknown(Code.CANNOT_CONNECT, error, address=address))
    if isinstance(proc, Unknown):
        return Listener(proc)
    try:
        if pid > 0 and proc.ours:
            name = proc.name(pid)
            if whose is not None:
                pid, why = _runtime(pid, sure, address, proc, whose)
                if why is not None:
                    whose.disown(pid, "runtime", why)
                    return _nobody(unseen(Code.LISTENER_NOT_TRUSTED, why, address=address, name=name, pid=pid))
            process = RuntimeProcess(pid, proc.name(pid), proc.started_ns(pid), pinned.info.st_ctime_ns)
            return Listener((process,))
    except OSError:
        pass  # not in this procfs: it is in another PID namespace
    return Listener(unseen(Code.LISTENER_OUT_OF_SIGHT, address=address))


def _peer(probe: socket.socket) -> tuple[int, bool]:
    """The process that made the listening socket, and whether it is certainly the one that has this ID now.

    SO_PEERCRED (unix(7)) gives an ID, which may have been reused; SO_PEERPIDFD gives the process. 0 if it cannot be
    seen; -1 if it has ended. OSError.
    """
    try:
        fd = struct.unpack("i", probe.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise OSError(error.errno, "the process that opened the socket has exited") from None
        return struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0], False
    try:
        lines = read_bounded(f"/proc/self/fdinfo/{fd}", 4096).split(b"\n")
        return next(int(line[4:]) for line in lines if line.startswith(b"Pid:")), True
    finally:
        os.close(fd)


def _runtime(pid: int, sure: bool, address: str, proc: Proc, whose: Whose) -> tuple[int, Reason | None]:
    """The runtime that answers there, and why it is not accepted as one.

    The peer of a socket that systemd made for a service (cri-docker.socket) is process 1. The runtime is then the
    service that holds the socket.
    """
    if pid == 1 and proc.kernel:
        sockets = _listening(proc, 1, address)
        for other in whose.named("runtime"):
            if _holds(proc, other, sockets) and not whose.not_the_nodes(other, "runtime"):
                return other, None
        return pid, because(Code.SOCKET_HELD_BY_INIT)
    why = whose.not_the_nodes(pid, "runtime")
    if not why and not sure and proc.kernel and not _holds(proc, pid, _listening(proc, pid, address)):
        why = because(Code.LISTENER_ENDED)
    return pid, why


def _listening(proc: Proc, pid: int, address: str) -> frozenset[str]:
    """The names, in the links of /proc/<pid>/fd, of the sockets that listen on this path. OSError."""
    wanted = plain(address.removeprefix("unix://"))
    return frozenset(link for path, link in listening(f"{proc.path}/{pid}/net/unix") if path == wanted)


def _holds(proc: Proc, pid: int, sockets: frozenset[str]) -> bool:
    directory = f"{proc.path}/{pid}/fd"
    try:
        for fd in os.listdir(directory):
            try:
                if os.readlink(f"{directory}/{fd}") in sockets:
                    return True
            except FileNotFoundError:
                continue  # closed meanwhile
    except OSError:
        pass  # it has ended
    return False


def _nobody(problem: Unknown) -> Listener:
    return Listener(problem, problem)
