"""Debian trees for nodes with their own systemd: made once by debootstrap, kept in the lab's cache, never changed.

Packages that only some tests need (cloud-init, dracut, podman) are separate layers over the base.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cache import MissingError, cache

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "iptables", "python3", "containerd",
            "containernetworking-plugins", "runc")  # fmt: skip


def base() -> Path:
    """A minimal Debian with systemd, containerd and host-local. Takes about a minute the first time."""
    destination = cache() / f"tree-{SUITE}"
    with to_be_made(destination) as made:
        if made is not None:
            _run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(made)])
    return destination


def layer(*packages: str) -> Path:
    """A whole tree like the base, with these packages added; the base itself without packages."""
    if not packages:
        return base()
    destination = cache() / f"tree-{SUITE}-{'-'.join(packages)}"
    lower = base()
    with to_be_made(destination) as made:
        if made is not None:
            _run(["cp", "--archive", "--reflink=auto", str(lower), str(made)])
            for name in ("etc/apt/apt.conf.d", "etc/apt/sources.list.d"):  # this machine's own mirrors and proxies
                shutil.copytree(f"/{name}", made / name, dirs_exist_ok=True)
            script = (
                "apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
                f" {' '.join(packages)}"
            )
            _run(["chroot", str(made), "sh", "-c", script])
    return destination


@contextmanager
def to_be_made(destination: Path) -> Iterator[Path | None]:
    """Where to make a tree that is then moved into place; None if it exists. Only one process makes it; others wait."""
    with destination.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if destination.is_dir():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=cache(), prefix="making-") as directory:
            made = Path(directory) / "tree"
            yield made
            made.rename(destination)


@contextmanager
def opened(lower: Path) -> Iterator[Path]:
    """A tree's overlay as a directory for chroot(2), with /proc, /dev and an empty /run, in a child's mount namespace.

    Yields its root as seen through that child. Changes are discarded.
    """
    with tempfile.TemporaryDirectory(prefix="janitor-tree-") as directory:
        for name in ("upper", "work", "root"):
            (Path(directory) / name).mkdir()
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh", str(lower), directory]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            if child.stdout.readline() != b"ready\n":
                raise MissingError(f"the tree {lower} cannot be mounted")
            yield Path(f"/proc/{child.pid}/root{directory}/root")
        finally:
            child.stdin.close()
            child.stdout.close()
            child.wait()


def unmount(root: Path) -> None:
    """Unmount /proc, /dev and /run from an opened tree, so that only its files are left."""
    _, _, child, _, *inside = root.parts
    place = "/" + "/".join(inside)
    mounts = [f"{place}/{name}" for name in ("dev", "proc", "run")]
    subprocess.run(["nsenter", "--mount", "--target", child, "umount", "--lazy", *mounts], check=True)


_MOUNT = """
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" lab "$2/root" && mount -t proc lab "$2/root/proc" &&
    mount -t tmpfs lab "$2/root/run" && mount --rbind /dev "$2/root/dev" && echo ready && exec cat >/dev/null
"""


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        raise MissingError(
            f"{argv[0]}: exit {done.returncode}: {' '.join((done.stderr or done.stdout).split())[-400:]}"
        )
