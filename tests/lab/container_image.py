"""The image of the real Dockerfile, built by buildah from wheels and Debian packages, without a registry.

`python -m tests.lab.container_image` prints where the image is. With `context DIRECTORY` it makes wheels/ and packages/
there, for any other builder.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from janitor import __version__
from tests.lab import image_builder
from tests.lab.cache import REPOSITORY, MissingError, cache
from tests.lab.image_builder import missing as missing  # what a test that runs the image asks

NAME = f"localhost/janitor:{__version__}"
_PYTHON = "3.11"  # Debian 12's
_WHEEL = ("pyproject.toml", "README.md", "LICENSE", "agent")
_BUILDERS = ("tests/lab/container_image.py", "tests/lab/image_builder.py")
_INPUTS = ("Dockerfile", ".dockerignore", "constraints.txt", *_WHEEL, *_BUILDERS)


def archive() -> Path:
    """The image as an OCI archive called NAME. Takes a minute the first time."""

    def fill(there: Path) -> None:
        for name in ("Dockerfile", ".dockerignore"):
            shutil.copy(REPOSITORY / name, there)
        context(there / "dist")

    digest = image_builder.digest(REPOSITORY, *_INPUTS)
    return image_builder.archive(NAME, digest, fill, "--build-arg", f"VERSION={__version__}")


def context(directory: Path) -> None:
    """Make the Dockerfile's build context in `directory`: wheels/ and packages/, replacing older ones."""
    for name in ("wheels", "packages"):
        shutil.rmtree(directory / name, ignore_errors=True)
    shutil.copytree(_dependencies(), directory / "wheels")
    _wheel(directory / "wheels")
    shutil.copytree(image_builder.packages("python3"), directory / "packages")


def _dependencies() -> Path:
    """The wheels of janitor's dependencies, in the versions of constraints.txt, and of pip."""
    digest = image_builder.digest(REPOSITORY, "pyproject.toml", "constraints.txt")
    with image_builder.made(f"wheels-{digest}") as (path, to_be_made):
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
    """janitor's own wheel, built from a copy of the sources: a build may leave files beside them."""
    directory.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="janitor-wheel-") as tmp:
        for name in _WHEEL:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, Path(tmp) / name)
        _pip("wheel", "--no-deps", "--wheel-dir", str(directory), tmp)


def _pip(*words: str) -> None:
    image_builder.run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words])


def main(words: list[str]) -> int:
    """The entry point for make. Exit code 0; 2 with a message if something is missing here; 64 for wrong usage."""
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
