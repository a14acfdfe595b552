"""`clean --fix networkd` where there is nothing to be told: a sentence, its exit code, and no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import trees
from tests.unit.test_commands import janitor

DPKG = "Package: libc6\nVersion: 2.31-13\n\nPackage: systemd\nStatus: install ok installed\nVersion: {}\n"


def told(root: Path) -> tuple[int, str]:
    """The exit code and what was said; nothing may have been written."""
    before = sorted(root.rglob("*"))
    done = janitor("clean", "--fix", "networkd", "--yes", "--root", str(root))
    assert (done.stdout, sorted(root.rglob("*"))) == (b"", before)
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr.decode()


def test_a_disk_at_rest(tmp_path: Path) -> None:
    code, sentence = told(tmp_path)
    assert code == 2
    assert sentence.startswith(f"janitor: looking at systemd-networkd: no /proc is mounted at {tmp_path}/proc, so ")
    assert sentence.endswith("; run janitor on the running node\n")


def test_a_node_without_systemd_networkd(tmp_path: Path) -> None:
    trees.plain(tmp_path)
    assert told(tmp_path) == (
        1, "janitor: nothing to do: this node has no systemd-networkd\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("245.4-4ubuntu3.24", "never deletes foreign rules"),
        ("1:247.3-7+deb11u6", "never deletes foreign rules"),
        ("247.9-1~bpo10+1", "has no such setting: pin the rules (see RULE003)"),
        ("248.3-1ubuntu8", "has no such setting: pin the rules (see RULE003)"),
    ],
)
def test_a_version_that_needs_no_telling_or_does_not_listen(tmp_path: Path, version: str, sentence: str) -> None:
    trees.plain(tmp_path).write("/var/lib/dpkg/status", DPKG.format(version))
    assert told(tmp_path) == (1, f"janitor: systemd-networkd {version.removeprefix('1:')} {sentence}\n")
