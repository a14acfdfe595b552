"""The image of the real Dockerfile, built by buildah from wheels and Debian packages, without a registry.

What stands for debian:12-slim is made by debootstrap. All of buildah's storage is in a temporary directory; what takes
long is kept in the lab's cache: the base, the wheels and the finished image, each by a digest of what it is made of.

`python -m tests.lab.container_image` prints where the image is; with `context DIRECTORY` it makes wheels/ and packages/
there, for any other builder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from janitor import __version__
from tests.lab import tree
from tests.lab.cache import REPOSITORY, MissingError, cache

BASE = "docker.io/library/debian:12-slim"
NAME = f"localhost/janitor:{__version__}"
_PYTHON = "3.11"  # Debian 12's
_KEPT_S = 86400  # images of other states of this tree
_WHEEL = ("pyproject.toml", "README.md", "LICENSE", "agent")
_INPUTS = ("Dockerfile", ".dockerignore", "constraints.txt", *_WHEEL, "tests/lab/container_image.py")


def missing(*tools: str) -> str | None:
    """Which of these programs is not installed, by default of those that make the image, or None."""
    absent = [name for name in tools or ("buildah", "debootstrap", "apt-get") if shutil.which(name) is None]
    return (
        f"not installed: {', '.join(absent)} (Debian has them: apt-get install {' '.join(absent)})" if absent else None
    )


def archive() -> Path:
    """The image as an OCI archive called NAME. A minute the first time."""
    with _made(f"image-{_digest(*_INPUTS)}.tar") as (path, to_be_made):
        if to_be_made:
            for old in cache().glob("image-*.tar"):
                if time.time() - old.stat().st_mtime > _KEPT_S:
                    old.unlink()
            with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as directory:
                _build(Path(directory), path)
    return path


def context(directory: Path) -> None:
    """What the Dockerfile takes from its context: wheels/ and packages/, made anew in `directory`."""
    for name in ("wheels", "packages"):
        shutil.rmtree(directory / name, ignore_errors=True)
    shutil.copytree(_dependencies(), directory / "wheels")
    _wheel(directory / "wheels")
    shutil.copytree(_packages(), directory / "packages")


def _build(directory: Path, destination: Path) -> None:
    there = directory / "context"
    there.mkdir()
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(REPOSITORY / name, there)
    context(there / "dist")
    # Not in /var/lib/containers, which is the host's; policy.json is what buildah insists on.
    policy = directory / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(directory)}

    def buildah(*words: str) -> str:
        stored = ["--root", str(directory / "storage"), "--runroot", str(directory / "run")]
        return _run(["buildah", *stored, *words], env=env, cwd=there).strip()

    try:
        base = buildah("from", "--signature-policy", str(policy), "scratch")
        buildah("add", "--quiet", base, str(_base()), "/")
        buildah("commit", "--quiet", "--rm", "--signature-policy", str(policy), base, BASE)
        told = ["--build-arg", f"VERSION={__version__}", "--signature-policy", str(policy)]
        buildah("bud", "--quiet", "--pull=never", *told, "--tag", NAME, ".")
        part = directory / "image.tar"
        told = ["--quiet", "--disable-compression", "--signature-policy", str(policy)]
        buildah("push", *told, NAME, f"oci-archive:{part}:{NAME}")
        part.rename(destination)
    finally:
        shutil.rmtree(directory / "storage", ignore_errors=True)


def _base() -> Path:
    """A minimal Debian 12 without Python, as debian:12-slim is."""
    with _made(f"tree-{tree.SUITE}-minimal") as (path, to_be_made):
        if to_be_made:
            with tempfile.TemporaryDirectory(dir=cache(), prefix="making-") as directory:
                made = Path(directory) / "tree"
                _run(["debootstrap", "--variant=minbase", tree.SUITE, str(made)])
                for name in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale",
                             "usr/share/man", "var/log"):  # fmt: skip
                    shutil.rmtree(made / name)
                    (made / name).mkdir()
                made.rename(path)
    return path


def _packages() -> Path:
    """Debian's Python and what it needs beyond the base."""
    base = _base()
    with _made(f"packages-python-{tree.SUITE}") as (path, to_be_made):
        if to_be_made:
            with tempfile.TemporaryDirectory(dir=cache(), prefix="download-") as directory:
                tmp = Path(directory)
                (tmp / "archives/partial").mkdir(parents=True)
                status = shutil.copy(base / "var/lib/dpkg/status", tmp / "status")
                told = [f"-oDir::State::status={status}", f"-oDir::Cache::archives={tmp}/archives",
                        "-oAPT::Sandbox::User=root", "-oDebug::NoLocking=1"]  # fmt: skip
                words = ["install", "--download-only", "--yes", "--no-install-recommends", "python3"]
                _run(["apt-get", "-qq", *told, *words])
                shutil.rmtree(tmp / "archives/partial")
                (tmp / "archives/lock").unlink(missing_ok=True)
                (tmp / "archives").rename(path)
    return path


def _dependencies() -> Path:
    """The wheels of everything that janitor needs, in the versions of constraints.txt, and pip's."""
    with _made(f"wheels-{_digest('pyproject.toml', 'constraints.txt')}") as (path, to_be_made):
        if to_be_made:
            with tempfile.TemporaryDirectory(dir=cache(), prefix="download-") as directory:
                tmp = Path(directory)
                _wheel(tmp / "own")
                wheel = next((tmp / "own").iterdir())
                told = ["--only-binary=:all:", "--python-version", _PYTHON, "-c", str(REPOSITORY / "constraints.txt")]
                _pip("download", *told, "--dest", str(tmp / "wheels"), str(wheel), "pip")
                (tmp / "wheels" / wheel.name).unlink()
                (tmp / "wheels").rename(path)
    return path


def _wheel(directory: Path) -> None:
    """janitor's own wheel, from a copy of its sources: a build may leave things beside them."""
    directory.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="janitor-wheel-") as tmp:
        for name in _WHEEL:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, Path(tmp) / name)
        _pip("wheel", "--no-deps", "--wheel-dir", str(directory), tmp)


def _pip(*words: str) -> None:
    _run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words])


def _digest(*names: str) -> str:
    """Of the contents of these files and of all Python and data files below these directories."""
    found = hashlib.sha256()
    for name in names:
        top = REPOSITORY / name
        files = sorted(p for p in top.rglob("*") if p.is_file() and p.suffix != ".pyc") if top.is_dir() else [top]
        for file in files:
            found.update(f"{file.relative_to(REPOSITORY)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


@contextmanager
def _made(name: str) -> Iterator[tuple[Path, bool]]:
    """A place in the cache, and whether it has still to be made. One maker at a time, others wait for it."""
    path = cache() / name
    with (cache() / f"{name.partition('-')[0]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path, not path.exists()


def _run(argv: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=600,
                              check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-800:]
        raise MissingError(f"{' '.join(argv[:8])}: exit {done.returncode}: {said}")
    return done.stdout


def main(words: list[str]) -> int:
    """What make calls. The exit code: 0, 2 and a sentence where something is missing here, 64 for wrong usage."""
    if words and (words[0] != "context" or len(words) != 2):
        print("python -m tests.lab.container_image [context DIRECTORY]", file=sys.stderr)
        return 64
    try:
        if absent := missing("debootstrap", "apt-get") if words else missing():
            raise MissingError(absent)
        if words:
            context(Path(words[1]))
        else:
            print(archive())
    except (MissingError, OSError) as error:
        print(f"making the {'context of the image' if words else 'image'}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
