"""CNI configuration is read once: what one view of a directory knows, the others know as well."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.addresses import describe
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.evidence_node import CniFile, NodeConfig, Setting
from janitor.core.model.reason import because
from janitor.host.cni import directories as cni_directories
from janitor.host.cni import unparsed as cni_doubts
from janitor.host.cni.cache import read_cache
from janitor.host.cni.config import read_networks, subnet_files
from janitor.host.cni.flannel import settings
from janitor.host.cni.plugins import cni_files
from janitor.host.cni.reader import Configuration, read_configuration
from janitor.host.fingerprint import places
from janitor.host.node import files_only
from tests.lab.boot_stages import SCRIPT
from tests.reasons import words
from tests.situations import evidence

ID = "c" * 64
BRIDGE = {"name": "mynet", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}
FLANNEL = {"name": "cbr0", "plugins": [{"type": "flannel", "subnetFile": "/run/other/subnet.env"}]}
NET_D = "etc/cni/net.d"


def write(root: Path, path: str, content: object) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def plugin(root: Path, path: str) -> None:
    write(root, path, b"#!/bin/sh\n").chmod(0o755)


def read(root: Path, *directories: str) -> Configuration:
    return read_configuration(files_only(str(root)), directories)


def files(root: Path) -> dict[str, CniFile]:
    found = cni_files(files_only(str(root)), read(root), ())
    assert not isinstance(found, Unknown)
    return {file.path.rpartition("/")[2]: file for file in found}


def network(root: Path) -> str:
    """The network that CRI uses, or why it cannot be told."""
    found = read_networks(files_only(str(root)), read(root))
    return words(found.reason) if isinstance(found, Unknown) else next(n.name for n in found if n.used_by_cri)


@pytest.mark.parametrize(
    "directory",
    ["/var/lib/rancher/rke2/data/v1.31.1-rke2r1-a1b2/bin", "/var/lib/k0s/bin/cni",
     "/var/snap/microk8s/current/opt/cni/bin"],
)  # fmt: skip
def test_a_plugin_is_not_missing_where_a_distribution_has_it(tmp_path: Path, directory: str) -> None:
    write(tmp_path, f"{NET_D}/10.conf", BRIDGE)
    plugin(tmp_path, "/opt/cni/bin/bridge")
    assert files(tmp_path)["10.conf"].missing == ("host-local",)
    plugin(tmp_path, f"{directory}/host-local")
    assert files(tmp_path)["10.conf"].missing == ()


@pytest.mark.parametrize(
    ("plugins", "missing"),
    [
        ([{"type": "flannel"}], ("host-local",)),
        ([{"type": "multus", "delegates": [BRIDGE]}], ("bridge", "host-local")),
        ([{"type": "multus-shim", "delegates": [{"plugins": [{"type": "ptp"}]}]}], ("ptp",)),
    ],
)
def test_what_a_plugin_runs_is_needed_too(tmp_path: Path, plugins: list[Any], missing: tuple[str, ...]) -> None:
    write(tmp_path, f"{NET_D}/10.conflist", {"name": "x", "plugins": plugins})
    for name in ("flannel", "multus", "multus-shim"):
        plugin(tmp_path, f"/opt/cni/bin/{name}")
    assert files(tmp_path)["10.conflist"].missing == missing


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xef\xbb\xbf" + json.dumps(BRIDGE).encode(), "it is not JSON (Unexpected UTF-8 BOM"),
        (json.dumps(BRIDGE).encode("utf-16"), "it is not JSON ('utf-8' codec"),
        (b"\0" * 200, "it is empty"),
        (b'{"plugins": [{"type": "bridge"}]}', "it has no valid network name"),
        (json.dumps(BRIDGE | {"x": "y" * (1 << 20)}).encode(), "it is larger than 1024 KiB"),
    ],
    ids=["byte order mark", "UTF-16", "NUL", "no name", "endless"],
)
def test_what_no_runtime_loads_is_said_by_every_view(tmp_path: Path, content: bytes, problem: str) -> None:
    write(tmp_path, f"{NET_D}/10.conflist", content)
    assert words(files(tmp_path)["10.conflist"].problem).startswith(problem)
    assert f"reading the CNI configuration /{NET_D}/10.conflist: {problem}" in network(tmp_path)


def test_what_only_go_understands_is_no_fault_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, f"{NET_D}/10.conf", json.dumps(BRIDGE).encode()[:-1] + b', "mtu": 1, "MTU": ' + b"9" * 5000 + b"}")
    assert files(tmp_path)["10.conf"].problem is None
    assert "it contains a key twice" in network(tmp_path)


def test_a_link_that_leads_nowhere_cannot_be_loaded(tmp_path: Path) -> None:
    write(tmp_path, f"{NET_D}/10.conf", BRIDGE)
    (tmp_path / NET_D / "05.conflist").symlink_to("gone")
    (tmp_path / NET_D / "06.old").symlink_to("gone")
    found = files(tmp_path)
    assert list(found) == ["05.conflist", "10.conf"]
    assert words(found["05.conflist"].problem) == "it cannot be read (No such file or directory)"


def test_libcni_passes_over_a_directory_with_a_configurations_name(tmp_path: Path) -> None:
    write(tmp_path, f"{NET_D}/00-old.conf/10.conf", BRIDGE)
    assert "no CNI configuration was found" in network(tmp_path)
    assert not cni_doubts.any_configuration(read(tmp_path))
    write(tmp_path, f"{NET_D}/10.conf", BRIDGE)
    assert network(tmp_path) == "mynet"
    assert list(files(tmp_path)) == ["10.conf"]


def test_a_type_that_is_no_text_is_none(tmp_path: Path) -> None:
    write(tmp_path, f"{NET_D}/10.conf", BRIDGE | {"type": 5})
    assert "it contains no plugin" in network(tmp_path)
    assert files(tmp_path)["10.conf"].problem == because(Code.CNI_NO_PLUGIN)


def test_files_are_listed_in_libcnis_order_whatever_they_are_called(tmp_path: Path) -> None:
    for name in ("20.conf", "10.conflist", "15.cni-bak"):
        write(tmp_path, f"{NET_D}/{name}", BRIDGE)
    assert [(name, file.usable) for name, file in files(tmp_path).items()] == [
        ("10.conflist", True), ("15.cni-bak", False), ("20.conf", True),
    ]  # fmt: skip


@pytest.mark.parametrize("data_dir", ["/run//ipam/", "/run/./x/../ipam"])
def test_a_data_directory_has_one_name(tmp_path: Path, data_dir: str) -> None:
    conf = BRIDGE | {"ipam": {"type": "host-local", "dataDir": data_dir}}
    write(tmp_path, f"{NET_D}/10.conf", conf)
    entry = {"kind": "cniCacheV1", "config": base64.b64encode(json.dumps(conf).encode()).decode()}
    write(tmp_path, f"{cni_directories.CACHES[0]}/mynet-{ID}-eth0", entry)
    cache, networks = read_cache(files_only(str(tmp_path))), read_networks(files_only(str(tmp_path)), read(tmp_path))
    assert not isinstance(cache, Unknown)
    assert not isinstance(networks, Unknown)
    assert (cache[0].data_dir, networks[0].directory) == ("/run/ipam", "/run/ipam/mynet")


def test_flannels_subnet_file_is_the_one_that_the_configuration_names(tmp_path: Path) -> None:
    write(tmp_path, f"{NET_D}/10.conflist", FLANNEL)
    write(tmp_path, "/run/flannel/subnet.env", b"FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.1.1/24\n")
    write(tmp_path, "/run/other/subnet.env", b"FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.1.1/24\n")
    found = read_networks(files_only(str(tmp_path)), read(tmp_path))
    assert not isinstance(found, Unknown)
    assert not isinstance(found[0].range_sets, Unknown)
    assert describe(found[0].range_sets) == "10.2.1.0/24"
    assert settings(files_only(str(tmp_path)), subnet_files(read(tmp_path))) == (
        Setting("flannel", "cluster-cidr", "10.2.0.0/16", "/run/other/subnet.env"),
        Setting("flannel", "pod-cidr", "10.2.1.0/24", "/run/other/subnet.env"),
    )


def test_a_subnet_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    """Docker makes a directory of a file that is not there and is to be mounted."""
    (tmp_path / "run/flannel/subnet.env").mkdir(parents=True)
    found = settings(files_only(str(tmp_path)), ())
    assert isinstance(found, Unknown)
    assert "reading /run/flannel/subnet.env" in words(found.reason)


def test_a_directory_that_cannot_be_listed_may_have_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "etc/cni").mkdir(parents=True)
    (tmp_path / NET_D).symlink_to("net.d")
    assert cni_doubts.any_configuration(read(tmp_path))
    assert "listing the CNI configuration in /etc/cni/net.d" in network(tmp_path)


def test_a_file_that_cannot_be_read_may_be_about_any_network(tmp_path: Path) -> None:
    write(tmp_path, "10.conf", BRIDGE)
    (tmp_path / "20.conf").symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read
    (tmp_path / "30.conf").symlink_to("gone")
    configuration = read(Path("/"), str(tmp_path))
    assert cni_doubts.obscure_files(files_only("/"), configuration) == (cni_doubts.ANY_NAME,)


def test_the_fingerprint_covers_every_directory_that_a_configuration_can_be_in() -> None:
    looked_at: Evidence = replace(evidence(), node_config=NodeConfig(cni_directories=("/srv/cni",)))
    assert {*cni_directories.CONFIGURATION, "/srv/cni"} <= set(places(looked_at).paths)


def test_both_forms_of_the_boot_stage_look_into_the_same_directories() -> None:
    script = SCRIPT.read_text()
    for directory in (*cni_directories.CONFIGURATION, *cni_directories.CACHES, cni_directories.DATA_DIR):
        assert directory in script
