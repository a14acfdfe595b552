"""Reading a directory in which there is everything that is not a lease."""

import os
import socket
from pathlib import Path

import pytest

from janitor.core.model.evidence import LeaseFile, Unknown
from janitor.core.model.lease import parse_lease
from janitor.host.cni.leases import lease_directories, read_directory
from janitor.host.kernel.mounts import own_mounts
from janitor.host.node import files_only
from janitor.report.words import hint

ID = "a" * 64


def read(path: Path) -> dict[str, LeaseFile]:
    directory = read_directory(files_only("/"), str(path), own_mounts())
    assert directory is not None
    assert isinstance(directory.entries, tuple)
    return {file.name: file for file in directory.entries}


def test_everything_that_can_lie_there(tmp_path: Path) -> None:
    (tmp_path / "10.0.0.2").write_bytes(f"{ID}\r\neth0".encode())
    (tmp_path / "10.0.0.3").write_bytes(b"")
    (tmp_path / "10.0.0.4").mkdir()
    (tmp_path / "10.0.0.5").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "10.0.0.6")
    (tmp_path / "10.0.0.7").write_bytes(b"\0" * 70)
    with (tmp_path / "10.0.0.8").open("wb") as huge:
        huge.truncate(1 << 40)
    (tmp_path / "fd00::9").write_bytes(ID.encode())
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "10.0.0.10"))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).write_bytes(b"x")
    (tmp_path / "lock").touch()
    files = read(tmp_path)
    kinds = {name: file.kind for name, file in files.items() if file.kind != "file"}
    assert kinds == {"10.0.0.4": "directory", "10.0.0.5": "symlink", "10.0.0.6": "fifo", "10.0.0.10": "socket"}
    shapes = {name: parse_lease(file).shape for name, file in files.items() if file.kind == "file"}
    assert shapes == {
        "10.0.0.2": "lease", "10.0.0.3": "corrupt", "10.0.0.7": "corrupt", "10.0.0.8": "foreign", "fd00::9": "lease",
        "lock": "bookkeeping", "\\xff\\xfe": "foreign",
    }  # fmt: skip
    assert files["10.0.0.5"].content == b""


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    file = tmp_path / "10.0.0.2"
    file.write_bytes(ID.encode())
    os.utime(file, (1, 1))
    os.utime(tmp_path, (1, 1))
    read(tmp_path)
    assert [(p.stat().st_atime, p.stat().st_mtime) for p in (file, tmp_path)] == [(1, 1), (1, 1)]


def paths(root: Path, wanted: tuple[str, ...], data_dirs: tuple[str, ...] = ()) -> list[str]:
    directories = lease_directories(files_only(str(root)), wanted, data_dirs, own_mounts())
    assert isinstance(directories, tuple)
    return [directory.path for directory in directories]


def test_a_directory_with_two_names_is_read_once(tmp_path: Path) -> None:
    """/var/lib/cni as a link to a larger disk, which the CNI configuration, or an operator, names as it is."""
    for name in ("one", "two"):
        (tmp_path / "data/cni/networks" / name).mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/cni").symlink_to("/data/cni")
    at, real = "/var/lib/cni/networks", "/data/cni/networks"
    assert paths(tmp_path, ()) == [f"{at}/one", f"{at}/two"]
    assert paths(tmp_path, (f"{real}/one",)) == [f"{real}/one", f"{at}/two"]
    assert paths(tmp_path, (), (real,)) == [f"{real}/one", f"{real}/two"]
    assert paths(tmp_path, (f"{at}/two",), (real,)) == [f"{real}/one", f"{at}/two"]
    # Two configurations with a name each: what either says of its network is kept.
    assert paths(tmp_path, (f"{real}/one", f"{at}/one"), ()) == [f"{real}/one", f"{at}/one", f"{at}/two"]
    assert paths(tmp_path, ("/nowhere/x",)) == ["/nowhere/x", f"{at}/one", f"{at}/two"]


def test_a_directory_that_is_not_there_has_no_entries(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == {}


def test_a_file_in_its_place_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_directory(files_only("/"), str(tmp_path / "file"), own_mounts()) is None


def test_a_directory_that_is_gone_is_on_the_file_system_of_what_is_above_it(tmp_path: Path) -> None:
    """After the popular `rm -rf` of a network's directory its missing leases must still be found out."""
    found = read_directory(files_only("/"), str(tmp_path / "networks/gone"), own_mounts())
    assert found is not None
    assert (found.entries, found.filesystem) == ((), own_mounts().filesystem_of(str(tmp_path)))
    assert found.filesystem


def test_root_and_more_data_directories(tmp_path: Path) -> None:
    for path in ("var/lib/cni/networks/cbr0", "srv/leases/pods", "elsewhere/net"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "srv/leases/pods/10.0.0.2").write_bytes(ID.encode())
    found = lease_directories(files_only(str(tmp_path)), ("/elsewhere/net",), ("/srv/leases",), own_mounts())
    assert not isinstance(found, Unknown)
    assert [d.path for d in found] == ["/elsewhere/net", "/srv/leases/pods", "/var/lib/cni/networks/cbr0"]
    assert all(d.filesystem for d in found)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_unreadable_without_being_root(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/10.0.0.2").write_bytes(ID.encode())
    (tmp_path / "net/10.0.0.2").chmod(0o600)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    for parent in [tmp_path, *tmp_path.parents[:-2]]:
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        file = read(tmp_path / "net")["10.0.0.2"]
        directory = read_directory(files_only("/"), str(closed), own_mounts())
    finally:
        os.seteuid(0)
    assert isinstance(file.content, Unknown)
    assert hint(file.content.reason) == "run janitor as root"
    assert directory is not None
    assert isinstance(directory.entries, Unknown)
