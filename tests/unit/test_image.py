"""Making the image where that cannot be done: one sentence and an exit code. test_daemonset.py runs the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cache import REPOSITORY


@pytest.mark.parametrize(
    ("words", "installed", "code", "sentence"),
    [
        ([], [], 2, "making the image: not installed: buildah, debootstrap, apt-get (Debian has them"),
        (["context", "{tmp}/dist"], [], 2, "making the context of the image: not installed: debootstrap, apt-get"),
        (["context"], [], 64, "[context DIRECTORY]"),
        (["images"], [], 64, "[context DIRECTORY]"),
        # The programs are there, and no package index is: what failed is named, and what it said.
        ([], ["buildah", "debootstrap", "apt-get"], 2, " wheel --no-deps --wheel-dir: exit 1: "),
    ],
)
def test_where_the_image_cannot_be_made(
    words: list[str], installed: list[str], code: int, sentence: str, tmp_path: Path
) -> None:
    for name in installed:
        (tmp_path / name).write_text("#!/bin/sh\nexit 7\n")
        (tmp_path / name).chmod(0o755)
    argv = [sys.executable, "-m", "tests.lab.container_image", *(word.format(tmp=tmp_path) for word in words)]
    env = {"PATH": str(tmp_path), "JANITOR_LAB_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    done = subprocess.run(argv, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1), done.stderr
    assert sentence in done.stderr
