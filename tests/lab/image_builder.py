"""Container images built by buildah from a Dockerfile, Debian packages and files of this machine, without a registry.

debootstrap makes the substitute for debian:12-slim. All of buildah's storage is in a temporary directory. Slow results
are kept in the lab's cache, each under a digest of its inputs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import tree
from tests.lab.cache import MissingError, cache

BASE = "docker.io/library/debian:12-slim"
_KEPT_S = 86400  # images of other states of this tree


def missing(*tools: str) -> str | None:
    """Which of these programs (by default those that build the image) are not installed, or None."""
    absent = [name for name in tools or ("buildah", "debootstrap", "apt-get") if shutil.which(name) is None]
    return (
        f"not installed: {', '.join(absent)} (Debian has them: apt-get install {' '.join(absent)})" if absent else None
    )


def archive(name: str, digest: str, context: Callable[[Path], None], *told: str) -> Path:
    """The image `name` as an OCI archive. `digest` covers all its inputs.

    `context` fills a directory with the Dockerfile and its build context; `told` are further arguments of the build.
    """
    kind = name.rpartition("/")[2].partition(":")[0]
    with made(f"image-{kind}-{digest}.tar") as (path, to_be_made):
        if to_be_made:
            for old in cache().glob(f"image-{kind}-*.tar"):
                if time.time() - old.stat().st_mtime > _KEPT_S:
                    old.unlink()
            with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as directory:
                (Path(directory) / "context").mkdir()
                context(Path(directory) / "context")
                _build(Path(directory), path, name, told)
    return path


def _build(directory: Path, destination: Path, name: str, told: Iterable[str]) -> None:
    # All of its storage is below `directory`. It also keeps a cache in /var/lib, which is overlaid while it runs.
    # buildah insists on a policy.json.
    policy = directory / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(directory)}

    def buildah(*words: str) -> str:
        stored = ["--root", str(directory / "storage"), "--runroot", str(directory / "run")]
        apart = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _APART, "sh", str(directory / "apart")]
        return run([*apart, "buildah", *stored, *words], env=env, cwd=directory / "context").strip()

    try:
        bare = buildah("from", "--signature-policy", str(policy), "scratch")
        buildah("add", "--quiet", bare, str(base()), "/")
        buildah("commit", "--quiet", "--rm", "--signature-policy", str(policy), bare, BASE)
        buildah("bud", "--quiet", "--pull=never", "--signature-policy", str(policy), *told, "--tag", name, ".")
        part = directory / "image.tar"
        plain = ["--quiet", "--disable-compression", "--signature-policy", str(policy)]
        buildah("push", *plain, name, f"oci-archive:{part}:{name}")
        part.rename(destination)
    finally:
        shutil.rmtree(directory / "storage", ignore_errors=True)


_APART = """
mkdir -p "$1" && mount -t tmpfs lab "$1" && mkdir "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/var/lib,upperdir=$1/upper,workdir=$1/work" lab /var/lib
shift && exec "$@"
"""


def base() -> Path:
    """A minimal Debian 12 without Python, like debian:12-slim."""
    with made(f"tree-{tree.SUITE}-minimal") as (path, to_be_made):
        if to_be_made:
            with tempfile.TemporaryDirectory(dir=cache(), prefix="making-") as directory:
                tree_ = Path(directory) / "tree"
                run(["debootstrap", "--variant=minbase", tree.SUITE, str(tree_)])
                for name in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale",
                             "usr/share/man", "var/log"):  # fmt: skip
                    shutil.rmtree(tree_ / name)
                    (tree_ / name).mkdir()
                tree_.rename(path)
    return path


def packages(*names: str) -> Path:
    """A directory with these Debian packages and their dependencies beyond the base."""
    lower = base()
    with made(f"packages-{'-'.join(names)}-{tree.SUITE}") as (path, to_be_made):
        if to_be_made:
            with tempfile.TemporaryDirectory(dir=cache(), prefix="download-") as directory:
                tmp = Path(directory)
                (tmp / "archives/partial").mkdir(parents=True)
                status = shutil.copy(lower / "var/lib/dpkg/status", tmp / "status")
                told = [f"-oDir::State::status={status}", f"-oDir::Cache::archives={tmp}/archives",
                        "-oAPT::Sandbox::User=root", "-oDebug::NoLocking=1"]  # fmt: skip
                words = ["install", "--download-only", "--yes", "--no-install-recommends", *names]
                run(["apt-get", "-qq", *told, *words])
                shutil.rmtree(tmp / "archives/partial")
                (tmp / "archives/lock").unlink(missing_ok=True)
                (tmp / "archives").rename(path)
    return path


def digest_of(text: str) -> str:
    """The digest of a text that lists an image's inputs, and of this module, which builds it."""
    return hashlib.sha256(text.encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def digest(top: Path, *names: str) -> str:
    """The digest of these files below `top`, and of all files in these directories except bytecode."""
    found = hashlib.sha256()
    for name in names:
        place = top / name
        files = sorted(p for p in place.rglob("*") if p.is_file() and p.suffix != ".pyc") if place.is_dir() else [place]
        for file in files:
            found.update(f"{file.relative_to(top)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


@contextmanager
def made(name: str) -> Iterator[tuple[Path, bool]]:
    """A path in the cache, and whether it has still to be made. Only one process makes it; others wait."""
    path = cache() / name
    with (cache() / f"{name.partition('-')[0]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path, not path.exists()


def run(argv: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program to its end; returns its output. MissingError with its message."""
    try:
        done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=600,
                              check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-800:]
        raise MissingError(f"{' '.join(argv[:8])}: exit {done.returncode}: {said}")
    return done.stdout
