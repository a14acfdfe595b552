"""Marks and numbers as files, and the one line of the configuration that the boot stage reads."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from janitor.config import ConfigError, load
from janitor.core.model.evidence import LeaseDirectory, Unknown
from janitor.core.model.node_mark import MARK, Owner
from janitor.host.cni import node_mark
from janitor.host.kernel.procfs import Proc
from janitor.host.node import files_only, node_with
from tests.reasons import words

DATA_DIR = "/var/lib/cni/networks"
MACHINE = hashlib.sha256(b"janitor " + b"5" * 32).hexdigest()[:32]
NODE = Owner("", "5" * 32, first=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / f".{DATA_DIR}/net").mkdir(parents=True)
    return tmp_path


def leave(root: Path, node: Owner = NODE, filesystem: str = "ext4") -> str:
    marks = node_mark.read_marks(files_only(str(root)), DATA_DIR)
    directory = LeaseDirectory(f"{DATA_DIR}/net", "net", (), filesystem, None, marks)
    return words(node_mark.leave_marks(files_only(str(root)), (directory,), (node,)))


def test_a_mark_names_the_node_and_stays(root: Path) -> None:
    assert node_mark.read_marks(files_only(str(root)), DATA_DIR) == ()
    assert leave(root) == ""
    (mark,) = node_mark.read_marks(files_only(str(root)), DATA_DIR)  # type: ignore[misc]
    assert (mark.machine_id, mark.first, len(mark.number)) == (NODE.machine_id, True, 32)
    own = root / node_mark.NUMBER.lstrip("/")
    before = (own.stat(), (root / f".{DATA_DIR}/{MARK}").stat())
    assert leave(root, mark) == ""
    assert before == (own.stat(), (root / f".{DATA_DIR}/{MARK}").stat())
    assert sorted(os.listdir(root / f".{DATA_DIR}")) == [MARK, "net"]


def test_nobodys_mark_is_taken_over(root: Path) -> None:
    leave(root, Owner("c" * 32, "6" * 32, first=True))
    before = (root / f".{DATA_DIR}/{MARK}").read_bytes()
    assert leave(root, Owner("d" * 32, "5" * 32, first=True)) == ""
    assert (root / f".{DATA_DIR}/{MARK}").read_bytes() == before


def test_a_lost_number_is_the_marks_again(root: Path) -> None:
    leave(root)
    (mark,) = node_mark.read_marks(files_only(str(root)), DATA_DIR)  # type: ignore[misc]
    (root / node_mark.NUMBER.lstrip("/")).unlink()
    leave(root)
    assert mark.number in (root / node_mark.NUMBER.lstrip("/")).read_text()


def test_a_copy_is_none(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in the image of a node whose files were copied: it gets a number, and its directory a mark, of its own."""
    leave(root)
    clone = tmp_path_factory.mktemp("clone") / "root"
    shutil.copytree(root, clone)
    assert node_mark.read_marks(files_only(str(clone)), DATA_DIR) == ()
    assert leave(clone) == ""
    (first,) = node_mark.read_marks(files_only(str(root)), DATA_DIR)  # type: ignore[misc]
    (second,) = node_mark.read_marks(files_only(str(clone)), DATA_DIR)  # type: ignore[misc]
    assert first.number != second.number


@pytest.mark.parametrize("what", ["half", "two lines", "a link", "a FIFO", "a directory", "long"])
def test_what_is_no_mark_is_not_known_and_stays(root: Path, what: str) -> None:
    leave(root)
    mark = root / f".{DATA_DIR}/{MARK}"
    line = mark.read_bytes()
    mark.rename(root / "elsewhere")
    if what == "a link":
        mark.symlink_to(root / "elsewhere")
    elif what == "a FIFO":
        os.mkfifo(mark)
    elif what == "a directory":
        mark.mkdir()
    else:
        mark.write_bytes({"half": line[:40], "two lines": line * 2, "long": line + b"x" * 300}[what])
    found = node_mark.read_marks(files_only(str(root)), DATA_DIR)
    assert isinstance(found, Unknown)
    assert MARK in words(found.reason)
    leave(root)
    assert node_mark.read_marks(files_only(str(root)), DATA_DIR) == found


@pytest.mark.parametrize("blank", [b"", bytes(90)])
def test_a_blank_one_as_a_power_cut_leaves_it_is_none(root: Path, blank: bytes) -> None:
    mark = root / f".{DATA_DIR}/{MARK}"
    mark.write_bytes(blank)
    assert node_mark.read_marks(files_only(str(root)), DATA_DIR) == ()
    assert leave(root) == ""
    assert len(node_mark.read_marks(files_only(str(root)), DATA_DIR)) == 1  # type: ignore[arg-type]


def test_nothing_is_written_where_others_may(root: Path) -> None:
    assert leave(root, filesystem="fuse.sshfs") == ""
    assert not (root / f".{DATA_DIR}/{MARK}").exists()
    assert not (root / node_mark.NUMBER.lstrip("/")).exists()


def test_a_number_that_is_no_files_is_none_and_is_said(root: Path) -> None:
    (root / "var/lib/janitor/node").mkdir(parents=True)
    assert "could not be marked" in leave(root)
    assert node_mark.read_marks(files_only(str(root)), DATA_DIR) == ()


@pytest.mark.parametrize(
    ("link", "first"), [("pid:[4026531836]", True), ("pid:[4026532201]", False), ("pid:[1]", False)]
)
def test_the_first_pid_namespace_is_the_kernels(root: Path, link: str, first: bool) -> None:
    (root / "proc/1/ns").mkdir(parents=True)
    (root / "proc/1/ns/pid").symlink_to(link)
    (root / "etc").mkdir()
    (root / "etc/machine-id").write_text("5" * 32 + "\n")
    assert node_mark.this_node(node_with(str(root), Proc(f"{root}/proc"))) == (Owner("", MACHINE, first),)
    (root / "proc/1/ns/pid").unlink()
    assert isinstance(node_mark.this_node(node_with(str(root), Proc(f"{root}/proc", ours=False))), Unknown)


SAID = {
    "data_dirs_are_ours = true\n": True,
    "\tdata_dirs_are_ours=true # kind\r\ninterval = 1\r\n": True,
    "data_dirs_are_ours = true": True,
    "# data_dirs_are_ours = true\n": False,
    "data_dirs_are_ours = false\n": False,
    'grace = 700\n[checks]\nLEASE009 = "repair"\n': False,
    "": False,
}
DOUBTFUL = (
    "data_dirs_are_ours = truely\n",
    "data_dirs_are_ours = 1\n",
    "data_dirs_are_ours = true\ndata_dirs_are_ours = true\n",
    "data_dirs_are_ours = true\ndata_dirs_are_ours = false\n",
    "[rules]\ndata_dirs_are_ours = true\n",
    'textfile = """\ndata_dirs_are_ours = true\n"""\n',
    "textfile = '''\ndata_dirs_are_ours = true\n'''\n",
)


@pytest.mark.parametrize("text", [*SAID, *DOUBTFUL])
def test_the_boot_stage_takes_for_said_only_what_the_configuration_says(root: Path, text: str) -> None:
    file = root / node_mark.CONFIGURATION.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode())
    assert node_mark.said_ours(files_only(str(root))) is SAID.get(text, False)
    try:
        assert not node_mark.said_ours(files_only(str(root))) or load(file).data_dirs_are_ours
        assert text in DOUBTFUL or load(file).data_dirs_are_ours is SAID[text]
    except ConfigError:
        assert text in DOUBTFUL


def test_no_configuration_says_nothing(root: Path) -> None:
    assert node_mark.said_ours(files_only(str(root))) is False
