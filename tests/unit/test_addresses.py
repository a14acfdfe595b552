"""Range arithmetic, and the same against the real host-local: it gives out exactly `capacity` addresses."""

import json
import os
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from janitor.core.model.addresses import capacity, describe, in_ranges, make_range
from janitor.core.model.lease import parse_lease
from janitor.host.cni.leases import read_directory
from janitor.host.kernel.mounts import own_mounts
from janitor.host.node import files_only

HOST_LOCAL = Path("/usr/lib/cni/host-local")


@pytest.mark.parametrize(
    ("subnet", "more", "start", "end"),
    [
        ("10.52.0.0/24", {}, "10.52.0.1", "10.52.0.254"),
        ("fd00::/120", {}, "fd00::1", "fd00::ff"),
        ("10.52.0.0/24", {"start": "10.52.0.20", "end": "10.52.0.30"}, "10.52.0.20", "10.52.0.30"),
    ],
)
def test_defaults(subnet: str, more: dict[str, str], start: str, end: str) -> None:
    made = make_range(subnet, **more)
    assert (made.start, made.end) == (start, end)


@pytest.mark.parametrize(
    ("subnet", "more"),
    [
        ("10.52.0.0/31", {}),
        ("10.52.0.7/24", {}),
        ("10.52.0.0/24", {"start": "10.53.0.1"}),
        ("10.52.0.0/24", {"start": "10.52.0.9", "end": "10.52.0.8"}),
        ("nonsense", {}),
    ],
)
def test_refused(subnet: str, more: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_range(subnet, **more)


def test_families_do_not_mix() -> None:
    assert not in_ranges(ip_address("10.52.0.7"), ((make_range("fd00::/64"),),))
    assert in_ranges(ip_address("fd00::7"), ((make_range("10.52.0.0/24"),), (make_range("fd00::/64"),)))


def test_describe() -> None:
    assert describe(((make_range("10.52.0.0/24"),), (make_range("fd00::/64"),))) == "10.52.0.0/24, fd00::/64"


def test_a_range_of_ipv6_is_counted_without_walking_it() -> None:
    assert capacity((make_range("fd00::/64"),)) == 2**64 - 2


def add(data_dir: Path, range_set: list[dict[str, str]], number: int) -> subprocess.CompletedProcess[str]:
    conf = {
        "cniVersion": "0.3.1", "name": "net", "type": "x",
        "ipam": {"type": "host-local", "dataDir": str(data_dir), "ranges": [range_set]},
    }  # fmt: skip
    environment = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"{number:064x}", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }  # fmt: skip
    return subprocess.run([HOST_LOCAL], input=json.dumps(conf), env=environment, capture_output=True, text=True)


@pytest.mark.system
@pytest.mark.skipif(not os.access(HOST_LOCAL, os.X_OK), reason=f"{HOST_LOCAL} is not installed")
@pytest.mark.parametrize(
    "range_set",
    [
        [{"subnet": "10.9.0.0/28"}],
        [{"subnet": "fd00:9::/124"}],
        [{"subnet": "10.9.0.0/28", "rangeStart": "10.9.0.4", "rangeEnd": "10.9.0.9"}],
        [{"subnet": "10.9.0.0/28", "gateway": "10.9.0.14"}],
        [{"subnet": "10.9.0.0/29"}, {"subnet": "10.9.1.0/29", "rangeStart": "10.9.1.3"}],
    ],
)
def test_the_real_host_local_agrees(range_set: list[dict[str, str]], tmp_path: Path) -> None:
    made = tuple(
        make_range(r["subnet"], r.get("rangeStart", ""), r.get("rangeEnd", ""), r.get("gateway", "")) for r in range_set
    )
    results = [add(tmp_path, range_set, number) for number in range(1, capacity(made) + 2)]
    assert [r.returncode for r in results] == [0] * capacity(made) + [1]
    assert "no IP addresses available in range set" in results[-1].stdout
    # What it wrote is what we read: one lease for each container, and its two kinds of bookkeeping.
    directory = read_directory(files_only("/"), str(tmp_path / "net"), own_mounts())
    assert directory is not None
    assert isinstance(directory.entries, tuple)
    parsed = [parse_lease(file) for file in directory.entries]
    assert sorted(p.container_id for p in parsed if p.shape == "lease") == [
        f"{number:064x}" for number in range(1, capacity(made) + 1)
    ]
    assert {f.name for f in directory.entries if parse_lease(f).shape == "bookkeeping"} == {
        "lock",
        "last_reserved_ip.0",
    }
    assert all(in_ranges(p.address, (made,)) for p in parsed if p.address is not None)
    assert {f.size for f in directory.entries if parse_lease(f).shape == "lease"} == {70}
