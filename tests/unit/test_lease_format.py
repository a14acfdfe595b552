"""Every form a file in a network's directory has been seen in."""

import pytest

from janitor.core.model.lease import canonical_address, parse_lease
from tests.reasons import not_seen, words
from tests.situations import lease

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("content", "interface", "stuck"),
    [
        (f"{ID}\r\neth0", "eth0", False),  # v0.8.0 and later: 70 bytes
        (ID, "", False),  # before v0.8.0
        (f"{ID}\n", "", False),  # the same, through echo; host-local trims it
        (f"{ID}\r\n", "", False),
        (f" {ID}\r\nnet1 ", "net1", False),
        (f"{ID}\neth0", "eth0", True),  # LF: no DEL matches it
        (f"{ID}\reth0", "eth0", True),
    ],
)
def test_leases(content: str, interface: str, stuck: bool) -> None:
    parsed = parse_lease(lease(content=content.encode()))
    assert (parsed.shape, parsed.container_id, parsed.interface, parsed.stuck) == ("lease", ID, interface, stuck)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"", "it is empty"),
        (b"\0" * 70, "70 bytes, all of them NUL"),
        (b"\r\n", "white space"),
        (ID[:40].encode() + b"\0" * 30, "cut off, and NUL"),
        (ID.encode() + b"\r\n" + b"\0" * 4, "cut off, and NUL"),
        (ID[:63].encode(), "cut off after 63 of 64 digits"),
    ],
)
def test_corrupt(content: bytes, note: str) -> None:
    parsed = parse_lease(lease(content=content))
    assert parsed.shape == "corrupt"
    assert note in words(parsed.note)


@pytest.mark.parametrize(
    "content",
    [
        f"k8s.io-{ID}\r\neth0",  # nerdctl, ctr run --cni
        "a3hd82kfmq90zxw71bvtp4c5e",  # buildkit: 25 digits of base 36
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6\r\neth0",  # rkt, Nomad
        "12345",  # opensvc: a process ID
        "kube-proxy\r\nsource-vip",  # RKE2 on Windows
        "reserved for the printer",
        ID.upper(),
        ID[:12],  # docker's short form
        ID[:32],  # an MD5, or a UUID without dashes
        ID[:40],  # a SHA-1
        ID + "0",
        f"{ID} {ID}",
    ],
)
def test_foreign_content(content: str) -> None:
    assert parse_lease(lease(content=content.encode())).shape == "foreign"


@pytest.mark.parametrize("content", [b"\xff\xfe" * 20, b"MZ\0\0" + b"\1" * 60, ID.encode() + b"\0" + b"x" * 9])
def test_binary(content: bytes) -> None:
    assert parse_lease(lease(content=content)).shape == "foreign"


def test_huge() -> None:
    assert parse_lease(lease(content=b"\0" * 4096, size=1 << 30)).shape == "foreign"


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo", "socket", "device"])
def test_not_a_regular_file(kind: str) -> None:
    assert parse_lease(lease(kind=kind, content=f"{ID}\r\neth0".encode())).shape == "foreign"


def test_unreadable() -> None:
    assert parse_lease(lease(content=not_seen("permission denied"))).shape == "unreadable"


@pytest.mark.parametrize("name", ["10.52.0.7", "fd00:42::7", "::1"])
def test_names_host_local_writes(name: str) -> None:
    assert str(canonical_address(name)) == name


@pytest.mark.parametrize(
    "name",
    ["notanip", "010.52.0.7", "10.52.0.7 ", "10.52.0.7~", "FD00::7", "fd00:0:0::7", "::ffff:10.52.0.7", "fe80::1%eth0",
     "fd00__7", ".10.52.0.7.swp", "10.52.0", "1", ""],
)  # fmt: skip
def test_names_it_does_not_write(name: str) -> None:
    assert canonical_address(name) is None


@pytest.mark.parametrize("name", ["lock", "last_reserved_ip.0", "last_reserved_ip.12", "last_reserved_ip"])
def test_bookkeeping(name: str) -> None:
    from dataclasses import replace

    assert parse_lease(replace(lease(), name=name)).shape == "bookkeeping"
