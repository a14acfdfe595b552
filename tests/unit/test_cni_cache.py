"""libcni's cache in all its formats and all its damage."""

import base64
import json
from pathlib import Path

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.evidence import CacheEntry, Pod, Unknown
from janitor.core.model.reason import because
from janitor.host.cni.cache import read_cache
from janitor.host.node import files_only
from tests.reasons import words

ID = "c" * 64
NAME = f"k8s-pod-network-{ID}-eth0"
CONFIG = {
    "cniVersion": "0.4.0", "name": "k8s-pod-network",
    "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "dataDir": "/run/ipam"}}, {"type": "portmap"}],
}  # fmt: skip
RESULT = {"cniVersion": "0.4.0", "ips": [{"address": "10.52.0.7/24"}, {"address": "fd00::7/64"}]}


def read(root: Path, content: bytes, name: str = NAME, cache: str = "results") -> CacheEntry:
    folder = root / "var/lib/cni" / cache
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    found = read_cache(files_only(str(root)))
    assert not isinstance(found, Unknown)
    (entry,) = found
    return entry


def version_1(config: object = CONFIG) -> bytes:
    return json.dumps({
        "kind": "cniCacheV1", "containerId": ID, "config": base64.b64encode(json.dumps(config).encode()).decode(),
        "ifName": "eth0", "networkName": "k8s-pod-network", "result": RESULT,
        "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-1"],
                    ["K8S_POD_UID", "u"]],
    }).encode()  # fmt: skip


def test_version_1(tmp_path: Path) -> None:
    entry = read(tmp_path, version_1())
    assert (entry.network, entry.container_id, entry.interface, entry.damage) == ("k8s-pod-network", ID, "eth0", None)
    assert (entry.cni_version, entry.ipam, entry.plugins) == ("0.4.0", ("host-local",), ("bridge", "portmap"))
    assert (entry.data_dir, entry.addresses) == ("/run/ipam", ("10.52.0.7/24", "fd00::7/64"))
    assert entry.pod == Pod("default", "web-1", "u")


def test_legacy(tmp_path: Path) -> None:
    entry = read(tmp_path, json.dumps({"cniVersion": "0.2.0", "ip4": {"ip": "10.52.0.7/24"}}).encode())
    assert (entry.network, entry.container_id, entry.interface, entry.damage) == ("k8s-pod-network", ID, "eth0", None)
    assert (entry.addresses, entry.cni_version, entry.pod) == (("10.52.0.7/24",), "0.2.0", None)


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "it is empty"),
        (b"\0" * 900, "900 NUL bytes"),
        (version_1()[:200], "it is not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"kind": "cniCacheV1"}', "cannot be decoded"),
        (b'{"kind": "cniCacheV1", "config": "!"}', "cannot be decoded"),
        (version_1([]), "not a JSON object"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 200_000, "it is not JSON"),
        (b'{"networkName": "\\ud800"}', "it is not JSON"),
        (version_1("[" * 9).replace(b"x", b"x"), "not a JSON object"),
    ],
)
def test_damage_leaves_what_the_name_says(tmp_path: Path, content: bytes, damage: str) -> None:
    entry = read(tmp_path, content)
    assert damage in words(entry.damage)
    assert (entry.network, entry.container_id, entry.interface) == ("k8s-pod-network", ID, "eth0")


@pytest.mark.parametrize("cache", ["results", "cache/results", "multus/results"])
def test_every_cache(tmp_path: Path, cache: str) -> None:
    assert read(tmp_path, b"", f"cni-loopback-{ID}-lo", cache).network == "cni-loopback"


@pytest.mark.parametrize(
    "content", [b"{}", b'{"result": 7, "kind": "x"}', b'{"ips": "x"}', b'{"ips": [7]}', b'{"ip4": 7}']
)
def test_odd_documents_do_not_matter(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content).addresses == ()


def test_a_name_of_nobody(tmp_path: Path) -> None:
    entry = read(tmp_path, b"", "README")
    assert (entry.container_id, entry.damage) == ("", because(Code.EMPTY))


def test_something_huge(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/cni/results"
    folder.mkdir(parents=True)
    with (folder / NAME).open("wb") as file:
        file.truncate(1 << 40)
    found = read_cache(files_only(str(tmp_path)))
    assert not isinstance(found, Unknown)
    assert "far more than libcni writes" in words(found[0].damage)
