"""Finding and running the node's own programs, as root and in the node's namespaces.

Programs are looked for only in directories that the distribution or the node's configuration names. The file that was
judged (trusted.py) is the one that runs: it is executed by its descriptor. Standard library only.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.unknown import unseen
from janitor.host.files import describe_os_error, unknown
from janitor.host.kernel.exposed import exposed_mounts
from janitor.host.kernel.mounts import Mount, mount_table
from janitor.host.kernel.namespaces import CLONE_FS, CLONE_NEWNET, CLONE_NEWNS, call, in_thread
from janitor.host.kernel.procfs import NODE_ROOT, Proc, find_proc, mounted_parts
from janitor.host.kernel.trusted import Exposed, Untrusted, open_trusted, table_of
from janitor.host.kernel.whose import Whose

SYSTEM_DIRS: Final = (
    "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin",
    "/run/current-system/sw/bin",  # NixOS
    "/opt/bin",  # Flatcar
)  # fmt: skip
DISTRIBUTION_DIRS: Final = (
    "/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/k3s/data/current/bin/aux",
    "/var/lib/rancher/k3s/data/*/bin", "/var/lib/rancher/k3s/data/*/bin/aux", "/var/lib/rancher/rke2/data/*/bin",
    "/var/lib/k0s/bin",
    "/snap/microk8s/current/usr/sbin", "/snap/microk8s/current/sbin", "/snap/microk8s/current/usr/bin",
    "/snap/microk8s/current/bin",
)  # fmt: skip
"""Where k3s, RKE2, k0s and microk8s have their own programs. `*` is one directory of any name."""

KEY: Final = "program_dirs"
"""The setting that lists directories which the operator vouches for."""

_TOOLS: Final = ("iptables", "ip6tables", "nft", "ipset", "ebtables", "conntrack", "sysctl", "firewall-cmd")
"""Programs that CNI plugins run by name."""
_STARS: Final = 64
_HEAD: Final = 512
_LIMIT: Final = 4 << 20
_FRESH_S: Final = 5.0
_GRACE_S: Final = 0.2


class NotRun(Exception):  # noqa: N818 (it is a verdict)
    """A program is missing, not trusted, or failed to do what it was run for. The sentence says which, and why."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and its output."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one node, at one moment. `named` are directories that the operator vouches for.

    `base` is the node's root as janitor sees it. `proc` is None if programs run in janitor's own namespaces.
    """

    base: str
    proc: Proc | None
    exposed: Exposed
    named: tuple[str, ...] = ()
    mounts: Mapping[str, Mount] | None = field(default=None, repr=False)

    def locate(self, name: str, directories: Sequence[str], *, strict: bool = False) -> str:
        """The path of the program in the first of these directories that has it and can be trusted. NotRun.

        `strict`: an untrusted copy is not skipped but ends the search, for programs that another copy cannot replace.
        """
        refused: Untrusted | None = None
        if not name or "/" in name:
            raise NotRun(f"'{name}' is not a valid program name")
        for directory in directories:
            path = f"{directory.rstrip('/')}/{name}"
            try:
                fd = self.open(path)
            except Untrusted as error:
                refused = refused or error
                if strict:
                    break
                continue
            except OSError:
                continue
            mode = os.fstat(fd).st_mode
            os.close(fd)
            if mode & 0o111:
                return path
        if refused is not None:
            raise NotRun(f"{name} is not run: {refused}; if that is intended, add its directory to {KEY}") from None
        raise NotRun(f"{name} is in none of {', '.join(directories) or 'the directories that the node names'}")

    def open(self, path: str, *, directory: bool = False) -> int:
        """As open_trusted. In the directories that the operator vouches for, pods may have mounts."""
        vouched = any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in self.named)
        exposed = Exposed({}) if vouched else self.exposed
        return open_trusted(self.base, path, exposed, directory=directory, mounts=self.mounts)

    def read(self, path: str, limit: int) -> bytes:
        """A configuration file that only root can have written. Untrusted; OSError, also beyond `limit` bytes."""
        return _read(self.open(path), limit)

    def trusted(self, patterns: Sequence[str], tools: Sequence[str] = ()) -> tuple[str, ...]:
        """The directories that exist and are trusted, and in which each of `tools`, if present, is trusted."""
        found = []
        for path in self.expanded(patterns):
            try:
                os.close(self.open(path, directory=True))
                for tool in tools:
                    try:
                        os.close(self.open(f"{path}/{tool}"))
                    except OSError:
                        continue  # it does not exist
            except (Untrusted, OSError):
                continue
            found.append(path)
        return tuple(found)

    def expanded(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """The paths, with `/*` replaced by each entry that exists, newest first. At most one `*` per path."""
        return tuple(dict.fromkeys(path for pattern in patterns for path in self._matching(pattern)))

    def search_path(self) -> tuple[str, ...]:
        """The PATH for a program that runs others."""
        return self.trusted((*self.named, *SYSTEM_DIRS, *DISTRIBUTION_DIRS), _TOOLS)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 30,
        limit: int = _LIMIT,
    ) -> Done:
        """Run the program at the path argv[0] in the node's mount and network namespaces, until it ends. NotRun.

        Its environment is only a PATH, LC_ALL and `environment`. Processes that it leaves behind are killed.
        """
        name = argv[0].rpartition("/")[2]
        fds: list[int] = []
        namespaces: list[int] = []
        try:
            words, program = self._prepare(argv, fds)
            enter = self._entrance(namespaces)
            variables = {"PATH": os.path.dirname(argv[0]), "LC_ALL": "C", **(environment or {})}

            def start() -> "subprocess.Popen[bytes]":
                enter()
                return subprocess.Popen(
                    words,
                    executable=f"/proc/self/fd/{program}",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=variables,
                    cwd="/",
                    start_new_session=True,
                    pass_fds=fds,
                )

            process = in_thread(start) if self.proc is not None else start()
        except Untrusted as error:
            raise NotRun(f"{name} is not run: {error}") from None
        except (OSError, ValueError) as error:
            why = describe_os_error(error) if isinstance(error, OSError) else str(error)
            raise NotRun(f"starting {argv[0]}: {why}") from None
        finally:
            for fd in (*fds, *namespaces):
                os.close(fd)
        return _attend(process, name, stdin, time.monotonic() + timeout_s, timeout_s, limit)

    def _prepare(self, argv: Sequence[str], fds: list[int]) -> tuple[list[str], int]:
        """What to execute: arguments and descriptor. A script is an argument of its interpreter, which is executed."""
        fds.append(self.open(argv[0]))
        line = _first_line(fds[0])
        if line is None:
            return list(argv), fds[0]
        interpreter, _, rest = line.partition(" ")
        fds.append(self.open(interpreter))
        if _first_line(fds[1]) is not None:
            raise Untrusted(f"the interpreter {interpreter} of {argv[0]} is a script itself")
        words = [interpreter, *([rest.strip()] if rest.strip() else []), f"/proc/self/fd/{fds[0]}", *argv[1:]]
        return words, fds[1]

    def _entrance(self, fds: list[int]) -> Callable[[], None]:
        """A function that moves a thread of its own into the node's namespaces."""
        steps: list[tuple[int, int]] = []
        if self.proc is not None:
            # janitor as a systemd service may have its own mount namespace, but paths in it are the node's.
            kinds = (("net", CLONE_NEWNET),) if self.base == "/" else (("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS))
            for kind, flag in kinds:
                fds.append(os.open(f"{self.proc.path}/1/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
                there, here = os.fstat(fds[-1]), os.stat(f"/proc/thread-self/ns/{kind}")
                if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                    steps.append((fds[-1], flag))

        def enter() -> None:
            if any(flag == CLONE_NEWNS for _, flag in steps):
                call("unshare", CLONE_FS)  # setns(2) refuses a thread that shares its root directory with others
            for fd, flag in steps:
                call("setns", fd, flag)

        return enter

    def _matching(self, pattern: str) -> list[str]:
        """The directory itself; for `*`, every entry that exists, newest first."""
        above, star, rest = pattern.partition("/*")
        if not star:
            return [pattern]
        try:
            fd = self.open(above, directory=True)
        except (Untrusted, OSError):
            return []
        try:
            listing = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return []
        finally:
            os.close(fd)
        try:
            with os.scandir(listing) as entries:
                aged = [(-entry.stat(follow_symlinks=False).st_mtime, entry.name) for entry in entries]
        except OSError:
            return []
        finally:
            os.close(listing)
        return [f"{above}/{name}{rest}" for _, name in sorted(aged)[:_STARS]]


def programs_of(root: str, named: tuple[str, ...] = ()) -> Programs | Unknown:
    """The programs of the node under `root`. Unknown if its pods' mounts cannot be seen."""
    proc = find_proc(root)
    if isinstance(proc, Unknown):
        return proc
    exposed = exposed_mounts(proc, Whose(proc).contained)
    if isinstance(exposed, Unknown):
        return exposed
    beside = mounted_parts(root) and proc.path == "/proc"
    base = "/" if root == "/" else NODE_ROOT if beside else f"{proc.path}/1/root"
    return _made(base, proc, exposed, named)


def programs_here() -> Programs | Unknown:
    """The programs of janitor's own system, for a look at another system's disk. Pods' mounts count if visible."""
    proc = find_proc("/")
    exposed = exposed_mounts(proc, Whose(proc).contained) if isinstance(proc, Proc) else proc
    return _made("/", None, Exposed({}) if isinstance(exposed, Unknown) else exposed, ())


def _made(base: str, proc: Proc | None, exposed: Exposed, named: tuple[str, ...]) -> Programs | Unknown:
    try:
        return Programs(base, proc, exposed, named, mount_table(table_of(base)))
    except OSError as error:
        return unknown(Code.CANNOT_READ_MOUNT_TABLE, error)


class Recent:
    """The programs of a node, at most some seconds old: reading all mounts of all pods takes time."""

    def __init__(self, root: str, named: tuple[str, ...]) -> None:
        self._root, self._named = root, named
        self._at = 0.0
        self._last: Programs | Unknown = unseen(Code.PROGRAMS_NOT_ASKED)

    def __call__(self) -> Programs | Unknown:
        """As programs_of."""
        now = time.monotonic()
        if not self._at or now - self._at > _FRESH_S:
            self._last, self._at = programs_of(self._root, self._named), time.monotonic()
        return self._last


def _read(fd: int, limit: int) -> bytes:
    """The contents of the file behind an O_PATH descriptor, which is closed. OSError if it is longer than `limit`."""
    try:
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(fd)
    with os.fdopen(reader, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"it is longer than {limit >> 10} KiB")
    return data


def _first_line(fd: int) -> str | None:
    """The rest of a script's `#!` line; None if it is no script."""
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = os.read(reader, _HEAD)
    finally:
        os.close(reader)
    if not head.startswith(b"#!"):
        return None
    line, end, _ = head[2:].partition(b"\n")
    if not end or not line.strip().startswith(b"/"):
        raise ValueError("the first line of the script does not name an interpreter")
    return os.fsdecode(line.strip().replace(b"\t", b" "))


def _attend(
    process: "subprocess.Popen[bytes]", name: str, stdin: bytes, until: float, seconds: float, limit: int
) -> Done:
    """Write its input, read its output and wait for its end. In any case, its whole session is killed."""
    heard: dict[int, bytearray] = {}
    try:
        with selectors.DefaultSelector() as ears:
            for pipe in (process.stdout, process.stderr, process.stdin):
                assert pipe is not None  # noqa: S101 (for the type checker)
                os.set_blocking(pipe.fileno(), False)
                if pipe is process.stdin:
                    ears.register(pipe.fileno(), selectors.EVENT_WRITE)
                else:
                    ears.register(pipe.fileno(), selectors.EVENT_READ)
                    heard[pipe.fileno()] = bytearray()
            rest, ended = memoryview(stdin), False
            while set(heard) & set(ears.get_map()) and not (ended and time.monotonic() > until):
                for key, _ in ears.select(max(0.0, min(0.05, until - time.monotonic()))):
                    if key.fd in heard:
                        data = os.read(key.fd, 1 << 16)
                        if not data:
                            ears.unregister(key.fd)
                        heard[key.fd] += data
                    else:
                        rest = _write_some(key.fd, rest)
                        if not rest:
                            ears.unregister(key.fd)
                            process.stdin.close()  # type: ignore[union-attr]
                if sum(map(len, heard.values())) > limit:
                    raise NotRun(f"{name} printed more than {limit >> 20} MiB")
                if not ended and time.monotonic() > until:
                    raise NotRun(f"{name} did not end within {seconds:g} s")
                if not ended and _has_ended(process.pid):
                    # A process that it started may hold its output open forever.
                    ended, until = True, min(until, time.monotonic() + _GRACE_S)
        while not _has_ended(process.pid):
            if time.monotonic() > until:
                raise NotRun(f"{name} did not end within {seconds:g} s")
            time.sleep(0.002)
    finally:
        _end(process)
    out, err = (bytes(part) for part in heard.values())
    return Done(process.returncode, out, err)


def _has_ended(pid: int) -> bool:
    """Does not reap it: until then, its process ID cannot be reused."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left of it, or only zombies
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        pass  # it waits for a device that does not answer; the kernel ends it when that does
    for pipe in (process.stdin, process.stdout, process.stderr):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:
            pass  # what was not read is not needed


def _write_some(fd: int, data: memoryview) -> memoryview:
    """What is left to write; nothing if nobody reads it any more."""
    try:
        return data[os.write(fd, data[: 1 << 16]) :] if data else data
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]
