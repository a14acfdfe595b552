"""What the kernel witness makes of what a pod wrote: tables, mount tables, cgroups, and files that do not answer."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janitor.core.model.evidence import Holder
from janitor.host.files import read_bounded
from janitor.host.kernel import budget, control_groups, netns, nsfile
from janitor.host.kernel.budget import Allowance, Budget, each
from janitor.host.kernel.census import Places
from janitor.host.kernel.holders import Register
from janitor.host.kernel.mounts import namespace_pins
from janitor.host.kernel.net_tables import Asked, Filter, Tables, read_tables, up_here
from janitor.host.kernel.procfs import Proc
from janitor.host.runtime.listeners import _listening
from janitor.host.runtime.sockets import listening

POD = "0a1b2c3d-0000-4000-8000-0123456789ab"
ID, OTHER = "a" * 64, "b" * 64


# Tables.

V4 = st.integers(0x0A340000, 0x0A3400FF).map(IPv4Address)
V6 = st.integers(0xFD << 120, (0xFD << 120) + 255).map(IPv6Address)


def leaf(address: IPv4Address, kinds: list[str]) -> str:
    return f"     |-- {address}\n" + "".join(f"        {kind}\n" for kind in kinds)


KINDS = st.lists(
    st.sampled_from(["/32 host LOCAL", "/32 link UNICAST", "/24 universe UNICAST", "/32 link BROADCAST"]), min_size=1
)


@given(st.dictionaries(V4, KINDS), st.sets(V6), st.sets(V6), st.sets(st.one_of(V4, V6)))
def test_kept_is_what_is_asked_about(
    trie: dict[IPv4Address, list[str]], local: set[IPv6Address], routed: set[IPv6Address], asked: set[object]
) -> None:
    def read(what: Asked) -> Tables:
        with tempfile.TemporaryDirectory() as net:
            text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n" + "".join(leaf(a, k) for a, k in trie.items())
            Path(net, "fib_trie").write_text(text)
            Path(net, "if_inet6").write_text("".join(f"{int(a):032x} 01 80 10 80 e\r\u00e9\n" for a in local))
            lines = "".join(f"{int(a):032x} 80 {'0' * 32} 00 {'0' * 32} 0 0 0 0 lo\n" for a in routed)
            Path(net, "ipv6_route").write_text(lines + f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} 0 0 0 0 lo\n")
            return read_tables(net, Filter(what), 10)

    up = {str(a) for a, kinds in trie.items() if "/32 host LOCAL" in kinds} | {str(a) for a in local}
    to = {str(a) for a, kinds in trie.items() if "/32 link UNICAST" in kinds} | {str(a) for a in routed}
    everything = read(Asked(everything=True))
    assert (set(everything.addresses), set(everything.routes)) == (up, to - up)
    names = frozenset(map(str, asked))
    named = read(Asked(names))
    assert (set(named.addresses), set(named.routes)) == (up & names, (to & names) - up)
    ranged = read(Asked(names, ("10.52.0.0/24",)))
    assert set(ranged.addresses) == {a for a in up if a in names or ":" not in a}


def test_what_is_in_a_range_only_is_kept_up_to_a_number(tmp_path: Path) -> None:
    addresses = [IPv4Address(f"10.0.{n >> 8}.{n & 255}") for n in range(4096)]
    (tmp_path / "fib_trie").write_text("".join(leaf(a, ["/32 host LOCAL"]) for a in addresses))
    found = read_tables(str(tmp_path), Filter(Asked(frozenset({"10.0.15.255"}), ("10.0.0.0/20",))), 10)
    assert (len(found.addresses), found.more, found.cut) == (1025, True, False)
    assert "10.0.15.255" in found.addresses


def test_a_table_cut_short_says_so(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(leaf(IPv4Address("10.0.0.1"), ["/32 host LOCAL"]) * 20_000)
    assert read_tables(str(tmp_path), Filter(Asked()), 0).cut


def test_a_table_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fib_trie")
    with pytest.raises(OSError, match="not a regular file"):
        read_tables(str(tmp_path), Filter(Asked()), 1)


# Mount tables.


def test_pins_are_found_in_any_piece_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    other = "36 35 98:0 / /mnt/net:[1] rw,noatime master:1 - tmpfs \\040-\\040nsfs rw\n"
    pin = "40 35 0:4 net:[4026532000] /run/a\\040b rw shared:2 - nsfs nsfs rw\n"
    table.write_text(other * 9_000 + pin + other * 9_000 + pin.replace("net:", "mnt:").strip())
    assert namespace_pins(str(table), lambda: True).found == (
        ("net", 4026532000, "/run/a b"),
        ("mnt", 4026532000, "/run/a b"),
    )
    assert namespace_pins(str(table), lambda: False).cut


# Whose a process is.


def process(proc: Path, pid: int, cgroup: str, uid: int = 0, capabilities: int = 0, user: int = 1) -> None:
    directory = proc / str(pid)
    (directory / "ns").mkdir(parents=True)
    (directory / "comm").write_text("x\n")
    (directory / "cgroup").write_text(cgroup)
    sets = "".join(f"Cap{name}:\t{capabilities:016x}\n" for name in ("Inh", "Prm", "Eff", "Amb"))
    (directory / "status").write_text(f"Name:\tx\\nUid:\t1 1 1 1\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n{sets}")
    (directory / "ns/user").symlink_to(f"user:[{user}]")


@pytest.mark.parametrize(
    ("first", "cgroup", "holder"),
    [
        ("0::/init.scope\n", "0::/system.slice/containerd.service\n", Holder()),
        ("0::/init.scope\n", f"0::/kubepods/burstable/pod{POD}/{ID}\n", Holder(ID, POD)),
        (
            "0::/init.scope\n",
            f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope\n",
            Holder(ID, POD),
        ),
        ("0::/init.scope\n", f"0::/../../kubepods/pod{POD}/crio-{ID}.scope/x/{OTHER}\n", Holder(ID, POD)),
        # A node that is a container itself, as kind's are.
        (f"0::/docker/{ID}/init.scope\n", f"0::/docker/{ID}/system.slice/kubelet.service\n", Holder()),
        (f"0::/docker/{ID}/init.scope\n", f"0::/docker/{ID}/kubelet/pod{POD}/{OTHER}\n", Holder(OTHER, POD)),
        ("9:pids:/\n1:name=systemd:/init.scope\n", f"9:pids:/docker/{ID}\n1:name=systemd:/\n", Holder(ID)),
    ],
)
def test_the_outermost_container_counts(tmp_path: Path, first: str, cgroup: str, holder: Holder) -> None:
    process(tmp_path, 1, first)
    process(tmp_path, 7, cgroup)
    assert Register(Proc(str(tmp_path))).holder(7) == holder


@pytest.mark.parametrize(
    ("other", "confined"),
    [
        ({}, False),
        ({"uid": 1000}, True),
        ({"uid": 1000, "capabilities": 1 << 12}, False),
        ({"uid": 1000, "capabilities": 1 << 12, "user": 2}, True),
        ({"user": 2}, True),
        ({"cgroup": f"0::/kubepods/{ID}\n"}, True),
    ],
)
def test_who_is_confined(tmp_path: Path, other: dict[str, int | str], confined: bool) -> None:
    process(tmp_path, 1, "0::/init.scope\n")
    process(tmp_path, 7, **({"cgroup": "0::/system.slice/x.service\n"} | other))  # type: ignore[arg-type]
    assert Register(Proc(str(tmp_path))).whose(7).confined == confined


@pytest.mark.parametrize(
    ("other", "space", "apart"),
    [
        ({}, 2, False),
        ({"cgroup": f"0::/kubepods/{ID}\n"}, 2, True),
        ({"cgroup": f"0::/kubepods/{ID}\n"}, 1, False),  # as the plugins of a kubelet that is a container itself
        ({"uid": 1000}, 1, True),
        ({"uid": 1000, "capabilities": 1 << 12}, 1, False),
        ({"uid": 1000, "user": 2}, 1, True),
        ({"user": 2}, 1, False),
    ],
)
def test_who_can_write_no_lease(tmp_path: Path, other: dict[str, int | str], space: int, apart: bool) -> None:
    process(tmp_path, 1, "0::/init.scope\n")
    process(tmp_path, 7, **({"cgroup": "0::/system.slice/x.service\n"} | other))  # type: ignore[arg-type]
    (tmp_path / "1/ns/pid").symlink_to("pid:[1]")
    (tmp_path / "7/ns/pid").symlink_to(f"pid:[{space}]")
    assert Register(Proc(str(tmp_path))).apart(7) == apart


def test_who_cannot_be_read_is_not_confined(tmp_path: Path) -> None:
    process(tmp_path, 1, "0::/init.scope\n")
    process(tmp_path, 7, f"0::/kubepods/{ID}\n")
    (tmp_path / "7/cgroup").unlink()
    assert not Register(Proc(str(tmp_path))).whose(7).confined
    assert not Register(Proc(str(tmp_path))).whose(8).confined


def test_whose_group_lies_too_deep_to_be_told_is_in_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's, which has made groups within its own; it has root's user ID and the node's namespaces."""

    def read(path: str, limit: int) -> bytes:
        if path.endswith("/7/cgroup"):
            raise OSError(errno.ENAMETOOLONG, "File name too long", path)
        return read_bounded(path, limit)

    monkeypatch.setattr(control_groups, "read_bounded", read)
    process(tmp_path, 1, "0::/init.scope\n")
    process(tmp_path, 7, "")
    assert Register(Proc(str(tmp_path))).whose(7).confined
    assert control_groups.place(control_groups.groups(Proc(str(tmp_path)), 7), {"": "/"}).why


# Budgets.


@pytest.fixture
def crowd(tmp_path: Path) -> Proc:
    process(tmp_path, 1, "0::/init.scope\n")
    process(tmp_path, 7, f"0::/kubepods/pod{POD}/{ID}\n")
    process(tmp_path, 8, "0::/system.slice/x.service\n")
    return Proc(str(tmp_path))


def test_what_blocks_is_left_behind_and_named(crowd: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE_S", 0.2)
    reader, writer = os.pipe()
    one = Budget(crowd)
    seen: list[int] = []

    def visit(pid: int) -> int:
        return pid if pid != 7 else len(os.read(reader, 1))

    each([1, 7, 8], one, visit, lambda pid, _: seen.append(pid))
    os.write(writer, b"x")  # it comes back too late, and adds nothing
    time.sleep(0.1)
    assert seen == [1, 8]
    assert [o.holder for o in one.overlooked.values()] == [Holder(ID, POD)]
    os.close(reader)
    os.close(writer)


def test_what_blocks_of_the_nodes_own_ends_the_look(crowd: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE_S", 0.2)
    reader, writer = os.pipe()
    with pytest.raises(OSError, match=r"process 8 .*blocked"):
        each([8], Budget(crowd), lambda _: os.read(reader, 1), lambda _pid, _seen: None)
    os.close(writer)
    time.sleep(0.1)
    os.close(reader)


def test_a_share_is_counted_once_the_free_time_is_used_up(crowd: Proc) -> None:
    one = Budget(crowd)
    one.charge(7, budget.QUICK_S + 0.1)
    assert Allowance(one, 8).left()
    assert Allowance(one, 7).left()
    one.charge(8, budget.FREE_S)
    assert not Allowance(one, 7).left()
    assert Allowance(one, 8).left(), "the node's own have no share"


@pytest.mark.parametrize("pods", [1, 40], ids=["one pod", "one container each"])
def test_containers_without_number_leave_the_nodes_own_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: int
) -> None:
    """Each takes as long as it may: of one pod all have one share, and half of the whole time is for all of them."""
    for name, value in (("WHOLE_S", 4.0), ("HALF_S", 2.0), ("FREE_S", 0.2), ("QUICK_S", 0.2), ("SHARE_S", 0.2)):
        monkeypatch.setattr(budget, name, value)
    process(tmp_path, 1, "0::/init.scope\n")
    for number in range(40):
        pod = POD[:-2] + f"{number % pods:02d}"
        process(tmp_path, 10 + number, f"0::/kubepods/pod{pod}/{number:064x}\n")
    process(tmp_path, 90, "0::/system.slice/x.service\n")
    one = Budget(Proc(str(tmp_path)))

    def visit(pid: int) -> bool:
        with Allowance(one, pid) as allowance:
            while pid not in (1, 90) and allowance.left():
                pass
            return allowance.left()

    last: dict[int, bool] = {}
    each(one.proc.pids(), one, visit, last.__setitem__)
    assert not last[49], "the share of one pod, or half of the whole time, was over before the last container"
    assert last[90]


def test_many_that_block_do_not_end_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one who is confined a read that blocks is left behind, and each of his containers may have one."""
    monkeypatch.setattr(budget, "PATIENCE_S", 0.05)
    process(tmp_path, 1, "0::/init.scope\n")
    for number in range(12):
        process(tmp_path, 10 + number, f"0::/kubepods/pod{POD}/{number:064x}\n")
    process(tmp_path, 90, "0::/system.slice/x.service\n")
    reader, writer = os.pipe()
    seen: list[int] = []
    proc = Proc(str(tmp_path))
    each(proc.pids(), Budget(proc), lambda pid: pid in (1, 90) or os.read(reader, 1), lambda pid, _: seen.append(pid))
    assert seen == [1, 90]
    os.close(writer)
    time.sleep(0.1)
    os.close(reader)


def test_who_has_used_up_his_share_is_only_asked_for_each_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod may have thousands of namespaces with long tables: reading a piece of each would take minutes."""
    process(tmp_path, 7, f"0::/kubepods/pod{POD}/{ID}\n")
    (tmp_path / "7/ns/net").symlink_to("net:[5]")
    read: list[float] = []

    def tables(_net: str, _filter: Filter, seconds: float) -> Tables:
        read.append(seconds)
        return Tables((), (), cut=True)

    monkeypatch.setattr(netns, "read_tables", tables)
    monkeypatch.setattr(netns._Reader, "_inside", lambda *_: {"10.0.0.1"})
    process(tmp_path, 1, "0::/init.scope\n")
    one = Budget(Proc(str(tmp_path)))
    reader = netns._Reader(one.proc, one, Filter(Asked()), None)
    places = Places(tasks=[(7, f"{tmp_path}/7")])
    assert reader.read(5, places).addresses == ("10.0.0.1",)
    reader.spent = reader.shares[POD] = 100.0
    assert reader.read(5, places).addresses == ("10.0.0.1",)
    assert len(read) == 1


def test_addresses_that_are_up_are_found_with_few_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(socket.socket):
        def __init__(self, *words: int) -> None:
            made.append(words)
            super().__init__(*words)

    monkeypatch.setattr(socket, "socket", Counted)
    asked = frozenset({*(f"203.0.113.{n}" for n in range(1, 250)), "127.0.0.1", "127.0.0.2", "2001:db8::1"})
    assert up_here(asked) == {"127.0.0.1", "127.0.0.2"}
    assert len(made) <= 4


def test_names_of_sockets_are_no_lines_of_the_table() -> None:
    """The kernel writes the name of a socket as it is, and any pod of the node's network may have one."""
    name = b"\0x\n1 2 3 zz 0001 01 7 /run/a.sock\n: 2 0 00010000 1 1 x /run/b.sock"
    with socket.socket(socket.AF_UNIX) as hostile, socket.socket(socket.AF_UNIX) as real:
        hostile.bind(name)
        hostile.listen()
        with tempfile.TemporaryDirectory() as directory:
            real.bind(f"{directory}/s\udcff")
            real.listen()
            found = dict(listening("/proc/self/net/unix"))
            assert found[f"{directory}/s\udcff"] == f"socket:[{os.fstat(real.fileno()).st_ino}]"
            assert not {"/run/a.sock", "/run/b.sock"} & set(found)
            assert _listening(Proc("/proc"), os.getpid(), f"unix://{directory}/s\udcff")


# Places that a pod made.


@pytest.fixture
def pin(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    if os.geteuid() != 0:
        pytest.skip("not root")
    place = tmp_path / "d/pin"
    place.parent.mkdir()
    place.touch()
    done = subprocess.run(["mount", "--bind", "/proc/self/ns/net", str(place)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no mounts here")
    yield tmp_path, os.stat("/proc/self/ns/net").st_ino
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("openat2", [True, False])
def test_a_pin_is_opened_and_nothing_else_is(
    pin: tuple[Path, int], openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, inode = pin
    if not openat2:
        monkeypatch.setattr(nsfile, "_OPENAT2", 100_000)  # ENOSYS
    fd = nsfile.open_mounted(str(root), "/d/pin", inode)
    assert os.fstat(fd).st_ino == inode
    os.close(fd)
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("d/pin")
    (root / "way").symlink_to("d")
    for place in ("/fifo", "/link", "/way/pin", "/d/none", "/d"):
        with pytest.raises(OSError):
            nsfile.open_mounted(str(root), place, inode)
    with pytest.raises(FileNotFoundError):
        nsfile.open_mounted(str(root), "/d/pin", inode + 1)
