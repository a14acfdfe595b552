"""What is opened as the node's own, and what is refused: on real directories, links and mounts, as root."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from janitor.core.model.evidence import Unknown
from janitor.host.kernel import exposed, nsfile
from janitor.host.kernel.exposed import exposed_mounts
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.trusted import Exposed, Untrusted, open_trusted
from tests.lab.machine import Machine

pytestmark = pytest.mark.system

NOTHING = Exposed({})
CONTAINER = """
    mount -t tmpfs container "$1"; mkdir "$1/old" "$1/volume" "$1/proc"
    mount --bind "$2" "$1/volume"; mount -o "remount,bind,$3" "$1/volume"
    for directory in bin lib lib64 usr; do [ -e /$directory ] || continue; mkdir "$1/$directory"
        mount --rbind /$directory "$1/$directory"; mount -o remount,bind,ro "$1/$directory"; done
    mount -t proc proc "$1/proc"; cd "$1"; pivot_root . old; cd /; umount -l /old
    echo up; $4 sleep 1000
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A disk: its directories and files are root's."""
    for name in ("usr/sbin", "opt/cni/bin", "etc/alternatives", "var/lib/rancher/k3s/data/abc/bin/aux"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/sbin/tool").write_text("here")
    return tmp_path


def opened(root: Path, path: str, exposed: Exposed = NOTHING, *, directory: bool = False) -> str:
    fd = open_trusted(str(root), path, exposed, directory=directory)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(root))
    finally:
        os.close(fd)


def test_root_s_own_files_and_links_are_opened_as_distributions_have_them(root: Path) -> None:
    (root / "sbin").symlink_to("usr/sbin")
    (root / "etc/alternatives/tool").symlink_to("/usr/sbin/tool")
    (root / "usr/sbin/alternative").symlink_to("/etc/alternatives/tool")
    (root / "var/lib/rancher/k3s/data/abc/bin/multi").write_text("multi")
    (root / "var/lib/rancher/k3s/data/abc/bin/aux/iptables-save").symlink_to("../multi")
    (root / "var/lib/rancher/k3s/data/current").symlink_to("abc")
    assert opened(root, "/sbin/tool") == "/usr/sbin/tool"
    assert opened(root, "/sbin/alternative") == "/usr/sbin/tool"
    assert opened(root, "/var/lib/rancher/k3s/data/current/bin/aux/iptables-save") == (
        "/var/lib/rancher/k3s/data/abc/bin/multi"
    )
    assert opened(root, "/../../usr/./sbin/../sbin/tool") == "/usr/sbin/tool"
    assert opened(root, "/opt/cni/bin", directory=True) == "/opt/cni/bin"


def test_whatever_somebody_else_could_have_put_there_is_refused(root: Path) -> None:
    tool = root / "usr/sbin/tool"

    def refusal(path: str = "/usr/sbin/tool") -> str:
        with pytest.raises(Untrusted) as caught:
            opened(root, path)
        return str(caught.value)

    os.chown(root / "usr", 1000, 0)
    assert refusal() == "/usr, on the way to /usr/sbin/tool, is owned by user 1000, not by root"
    os.chown(root / "usr", 0, 0)
    (root / "usr/sbin").chmod(0o777)
    assert "written by everybody" in refusal()
    (root / "usr/sbin").chmod(0o775)
    assert opened(root, "/usr/sbin/tool")  # root's own group
    os.chown(root / "usr/sbin", 0, 50)
    assert "by its group" in refusal()
    (root / "usr/sbin").chmod(0o755)
    os.chown(root / "usr/sbin", 0, 0)
    tool.chmod(0o666)
    assert refusal() == "/usr/sbin/tool can be written by everybody"
    tool.chmod(0o755)
    (root / "usr/sbin/link").symlink_to("tool")
    os.chown(root / "usr/sbin/link", 1000, 0, follow_symlinks=False)
    assert "/usr/sbin/link is owned by user" in refusal("/usr/sbin/link")
    os.mkfifo(root / "usr/sbin/pipe")
    assert refusal("/usr/sbin/pipe") == "/usr/sbin/pipe is not a regular file"
    assert refusal("/usr/sbin") == "/usr/sbin is not a regular file"
    for path in ("var/lib/kubelet/pods/0a1b2c3d-0000-4000-8000-000000000000/volumes/x", "var/lib/containerd/x"):
        (root / path).mkdir(parents=True)
        (root / path / "tool").touch()
        assert "a pod can write to" in refusal(f"/{path}/tool")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "tmp/tool").touch()
    assert opened(root, "/tmp/tool")
    os.chown(root / "tmp/tool", 1000, 1000)
    assert "user 1000" in refusal("/tmp/tool")


def test_what_is_not_there_is_no_refusal(root: Path) -> None:
    (root / "circle").symlink_to("circle")
    for path in ("/usr/sbin/none", "/usr/sbin/tool/none", "/circle", "/" + "usr/../" * 300):
        with pytest.raises(OSError, match=r"\[Errno"):
            opened(root, path)


def container(machine: Machine, volume: Path, mode: str, within: str = "exec") -> None:
    """A container with this volume, as the first process of its own PID namespace."""
    where = machine.run(["mktemp", "-d", "/run/container.XXXXXX"], check=True).stdout.strip()
    argv = ["unshare", "--pid", "--fork", "--mount", "--propagation", "private", "sh", "-ec", CONTAINER, "sh"]
    process = machine.popen([*argv, where, str(volume), mode, within], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as pipe:
        assert pipe.readline() == "up\n"


OPEN = """
import os, sys
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.exposed import exposed_mounts
from janitor.host.kernel.trusted import Untrusted, open_trusted
contained = lambda pid: os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/1/ns/pid")
exposed = exposed_mounts(Proc("/proc"), contained)
for path in sys.argv[2:]:
    try:
        print(os.readlink(f"/proc/self/fd/{open_trusted(sys.argv[1], path, exposed)}").removeprefix(sys.argv[1]))
    except Untrusted as error:
        print(error)
"""


@pytest.mark.parametrize("within", ["exec", "exec chroot /usr /bin/env"], ids=["plain", "root changed"])
def test_what_a_pod_may_write_to_is_not_trusted_under_any_name(root: Path, machine: Machine, within: str) -> None:
    """A hostPath: what is in it is root's, because the container's root is. A read-only one does no harm."""
    container(machine, root / "opt/cni", "rw", within)
    container(machine, root / "usr/sbin", "ro")
    (root / "opt/cni/bin/portmap").touch()
    (root / "usr/sbin/portmap").symlink_to("/opt/cni/bin/portmap")
    paths = ["/opt/cni/bin/portmap", "/usr/sbin/portmap", "/usr/sbin/tool"]
    said = machine.run([sys.executable, "-c", OPEN, str(root), *paths], check=True).stdout.splitlines()
    for path, line in zip(paths[:2], said, strict=False):
        assert line.startswith(f"/opt/cni, on the way to {path}, is in a mount that process ")
        assert line.endswith(" can write to")
    assert said[2] == "/usr/sbin/tool"


def test_exchanged_directories_are_never_half_trusted(root: Path) -> None:
    """One is root's, one is not, and somebody exchanges them all the time: what is opened has been judged."""
    other = root / "opt/cni/other"
    other.mkdir()
    for directory, owner in ((root / "opt/cni/bin", 0), (other, 1000)):
        (directory / "portmap").write_text("")
        for path in (directory, directory / "portmap"):
            os.chown(path, owner, owner)
    over = threading.Event()

    def exchange() -> None:
        libc = ctypes.CDLL(None)
        names = [str(path).encode() for path in (root / "opt/cni/bin", other)]
        while not over.is_set():
            libc.renameat2(-100, names[0], -100, names[1], 2)

    thread = threading.Thread(target=exchange)
    thread.start()
    owners = {"refused": 0, "root": 0}
    try:
        for _ in range(1000):
            try:
                fd = open_trusted(str(root), "/opt/cni/bin/portmap", NOTHING)
            except Untrusted:
                owners["refused"] += 1
                continue
            assert os.fstat(fd).st_uid == 0
            os.close(fd)
            owners["root"] += 1
    finally:
        over.set()
        thread.join()
    assert all(owners.values()), owners


def test_without_a_look_at_every_pod_nothing_is_known() -> None:
    assert isinstance(exposed_mounts(Proc("/proc/none"), lambda _: False), Unknown)


def test_a_process_that_refuses_while_it_ends_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even root is refused for a moment (EACCES), and a pod may have any number of processes that are just ending."""
    refusals = [PermissionError(errno.EACCES, "Permission denied")] * 2

    def refusing(path: str, dir_fd: int = -100) -> tuple[int, int]:
        if path == f"/proc/{os.getpid()}/root" and refusals:
            raise refusals.pop()
        return nsfile.identity(path, dir_fd)

    monkeypatch.setattr(exposed, "identity", refusing)
    view = exposed._view(Proc("/proc"), os.getpid())
    assert view is not None
    assert (view[0], refusals) == (os.readlink("/proc/self/ns/mnt"), [])
