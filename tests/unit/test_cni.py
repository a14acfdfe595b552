"""CNI configuration as the distributions ship it, each written out under a root of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.addresses import describe
from janitor.core.model.evidence import Network, Unknown
from janitor.host.cni.config import read_networks
from janitor.host.cni.reader import read_configuration
from janitor.host.node import files_only
from tests.reasons import words

CANAL = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "calico", "ipam": {"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
FLANNEL = {
    "name": "cbr0",
    "cniVersion": "1.0.0",
    "plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": True}}],
}
BRIDGE = {"name": "mynet", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}
SUBNET_ENV = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


def write(root: Path, path: str, content: Any) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def networks(root: Path, *directories: str) -> dict[str, Network]:
    found = read_networks(files_only(str(root)), read_configuration(files_only(str(root)), directories))
    assert not isinstance(found, Unknown), found
    return {network.name: network for network in reversed(found)}  # of two with one name the one CRI uses


def problem(root: Path) -> str:
    found = read_networks(files_only(str(root)), read_configuration(files_only(str(root)), ()))
    assert isinstance(found, Unknown), found
    return words(found.reason)


def test_canal_before_and_after_flannel_has_written_its_file(tmp_path: Path) -> None:
    write(tmp_path, "/etc/cni/net.d/10-canal.conflist", CANAL)
    network = networks(tmp_path)["k8s-pod-network"]
    assert (network.directory, network.cni_version, network.plugins, network.used_by_cri) == (
        "/var/lib/cni/networks/k8s-pod-network", "0.3.1", ("calico", "portmap"), True,
    )  # fmt: skip
    assert isinstance(network.range_sets, Unknown)
    write(tmp_path, "/run/flannel/subnet.env", SUBNET_ENV)
    after = networks(tmp_path)["k8s-pod-network"].range_sets
    assert not isinstance(after, Unknown)
    assert describe(after) == "10.42.3.0/24"


def test_flannel_on_k3s_with_two_families(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist", FLANNEL)
    write(tmp_path, "/run/flannel/subnet.env", SUBNET_ENV + "FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n")
    sets = networks(tmp_path)["cbr0"].range_sets
    assert not isinstance(sets, Unknown)
    assert describe(sets) == "10.42.3.0/24, 2001:cafe:42::/64"


@pytest.mark.parametrize("content", ["", "FLANNEL_SUBNET=\n", "FLANNEL_SUBNET=nonsense\n"])
def test_a_subnet_file_of_no_use(tmp_path: Path, content: str) -> None:
    write(tmp_path, "/etc/cni/net.d/10-flannel.conflist", FLANNEL)
    write(tmp_path, "/run/flannel/subnet.env", content)
    assert isinstance(networks(tmp_path)["cbr0"].range_sets, Unknown)


def test_the_old_form_of_a_range(tmp_path: Path) -> None:
    ipam = {"type": "host-local", "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.10", "rangeEnd": "10.9.0.19",
            "gateway": "10.9.0.11"}  # fmt: skip
    write(tmp_path, "/etc/cni/net.d/10-old.conf", BRIDGE | {"ipam": ipam})
    ((part,),) = networks(tmp_path)["mynet"].range_sets  # type: ignore[misc]
    assert (part.start, part.end, part.gateway) == ("10.9.0.10", "10.9.0.19", "10.9.0.11")


def test_data_directory_and_disable_gc(tmp_path: Path) -> None:
    conf = BRIDGE | {
        "disableGC": True,
        "ipam": {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": "/run/ipam/"},
    }
    write(tmp_path, "/etc/cni/net.d/10-kindnet.conflist", {"name": "kindnet", "plugins": [conf], "disableGC": True})
    network = networks(tmp_path)["kindnet"]
    assert (network.directory, network.disable_gc) == ("/run/ipam/kindnet", True)


def test_only_the_first_file_is_used_by_cri(tmp_path: Path) -> None:
    write(tmp_path, "/etc/cni/net.d/10-a.conflist", CANAL)
    write(tmp_path, "/etc/cni/net.d/10-a.conf", BRIDGE)  # .conf sorts before .conflist
    write(tmp_path, "/etc/cni/net.d/87-podman-bridge.conflist", {"name": "podman", "plugins": [BRIDGE]})
    write(tmp_path, "/etc/cni/net.d/nerdctl-bridge.conflist", "garbage that CRI never loads")
    assert {name: n.used_by_cri for name, n in networks(tmp_path).items()} == {
        "mynet": True, "k8s-pod-network": False, "podman": False,
    }  # fmt: skip


def test_the_runtimes_own_directory_counts(tmp_path: Path) -> None:
    write(tmp_path, "/etc/cni/net.d/87-podman-bridge.conflist", {"name": "podman", "plugins": [BRIDGE]})
    write(tmp_path, "/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist", FLANNEL)
    assert list(networks(tmp_path, "/var/lib/rancher/k3s/agent/etc/cni/net.d")) == ["cbr0"]


@pytest.mark.parametrize(
    "multus",
    [
        {"clusterNetwork": "/host/etc/cni/net.d/10-canal.conflist"},
        {"clusterNetwork": "k8s-pod-network"},
        {"delegates": [CANAL]},
    ],
)
def test_multus_delegates(tmp_path: Path, multus: dict[str, Any]) -> None:
    write(tmp_path, "/etc/cni/net.d/00-multus.conf", {"name": "multus-cni-network", "type": "multus"} | multus)
    write(tmp_path, "/etc/cni/net.d/10-canal.conflist", CANAL)
    assert networks(tmp_path)["k8s-pod-network"].used_by_cri


def test_a_network_without_host_local(tmp_path: Path) -> None:
    write(tmp_path, "/etc/cni/net.d/05-cilium.conflist", {"name": "cilium", "plugins": [{"type": "cilium-cni"}]})
    assert networks(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "10-canal.conflist: it is empty"),
        ("\0" * 200, "it is empty"),
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ('{"name": "x"}', "it contains no plugin"),
        ('{"name": "x", "plugins": []}', "it contains no plugin"),
        ('{"name": "x", "plugins": ["y"]}', "it contains no plugin"),
        ('{"name": "../../etc", "type": "bridge"}', "no valid network name"),
        ('{"type": "bridge"}', "no valid network name"),
    ],
)
def test_garbage_that_the_runtime_would_load(tmp_path: Path, content: str, sentence: str) -> None:
    write(tmp_path, "/etc/cni/net.d/10-canal.conflist", content)
    write(tmp_path, "/etc/cni/net.d/20-other.conf", BRIDGE)
    assert sentence in problem(tmp_path)


@pytest.mark.parametrize(
    "ipam", [{"ranges": [[{}]]}, {"ranges": "x"}, {"ranges": [["x"]]}, {"subnet": 7}, {"subnet": "10.9.0.1/24"}, {}]
)
def test_ranges_that_cannot_be_understood(tmp_path: Path, ipam: dict[str, Any]) -> None:
    write(tmp_path, "/etc/cni/net.d/10-x.conf", BRIDGE | {"ipam": {"type": "host-local"} | ipam})
    assert isinstance(networks(tmp_path)["mynet"].range_sets, Unknown)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 200_000,
        '{"name": "x\\u0000", "type": "bridge"}',
        '{"name": "\\ud800", "type": "bridge"}',
        '{"name": "x", "type": "bridge", "ipam": {"type": "host-local", "dataDir": "/a\\u0000b"}}',
        '{"name": "x", "type": "bridge", "mtu": NaN}',
    ],
    ids=["deep", "NUL", "surrogate", "NUL in dataDir", "NaN"],
)
def test_hostile_json(tmp_path: Path, content: str) -> None:
    write(tmp_path, "/etc/cni/net.d/30-x.conf", content)
    assert "reading the CNI configuration /etc/cni/net.d/30-x.conf: it" in problem(tmp_path)
    write(tmp_path, "/etc/cni/net.d/10-good.conf", BRIDGE)
    assert list(networks(tmp_path)) == ["mynet"]  # what CRI never loads does not matter


def test_odd_types_in_a_good_place(tmp_path: Path) -> None:
    write(tmp_path, "/etc/cni/net.d/10-x.conf", {"name": "m", "type": "multus", "delegates": 5})
    assert networks(tmp_path) == {}
    ipam = {"type": "host-local", "subnet": "10.9.0.0/24", "ranges": 5}
    write(tmp_path, "/etc/cni/net.d/10-x.conf", BRIDGE | {"ipam": ipam})
    assert isinstance(networks(tmp_path)["mynet"].range_sets, Unknown)


def test_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    write(tmp_path, "/etc/cni/net.d/30-\udcff.conflist", {"name": "x", "plugins": [BRIDGE]})
    assert networks(tmp_path)["x"].source == "/etc/cni/net.d/30-\\xff.conflist"


def test_no_configuration_at_all(tmp_path: Path) -> None:
    assert "no CNI configuration was found in /etc/cni/net.d" in problem(tmp_path)


def test_the_shared_directory_beside_a_distributions_own_is_not_cris(tmp_path: Path) -> None:
    """What podman has in /etc/cni/net.d on k3s; but canal, where k3s has an old copy of it."""
    own = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
    write(tmp_path, "/etc/cni/net.d/10-mynet.conf", BRIDGE)
    assert networks(tmp_path)["mynet"].used_by_cri
    write(tmp_path, f"{own}/10-cilium.conflist", {"name": "cilium", "plugins": [{"type": "cilium-cni"}]})
    assert not networks(tmp_path)["mynet"].used_by_cri
    assert networks(tmp_path, "/etc/cni/net.d")["mynet"].used_by_cri, "the runtime says that it looks there"
    write(tmp_path, f"{own}/10-cilium.conflist", BRIDGE)
    both = read_networks(files_only(str(tmp_path)), read_configuration(files_only(str(tmp_path)), ()))
    assert not isinstance(both, Unknown)
    assert [network.used_by_cri for network in both] == [True, True]


def test_what_stands_around_multus_holds_for_its_delegates(tmp_path: Path) -> None:
    chain = [{"type": "multus", "delegates": [BRIDGE], "clusterNetwork": "cbr0"}, {"type": "firewall"}]
    write(tmp_path, "/etc/cni/net.d/00.conflist", {"name": "multus", "plugins": chain, "disableGC": True})
    write(tmp_path, "/etc/cni/net.d/10.conflist", FLANNEL)
    found = networks(tmp_path)
    assert [(n.used_by_cri, n.disable_gc, "firewall" in n.plugins) for n in found.values()] == [(True, True, True)] * 2
    assert sorted(found) == ["cbr0", "mynet"]
