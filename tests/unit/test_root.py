"""--root: nothing is looked up outside it, whatever links there are inside."""

from pathlib import Path

import pytest

from janitor.core.leases.scope import LOCAL_FILESYSTEMS
from janitor.core.model.evidence import Unknown
from janitor.host.changes import state
from janitor.host.files import inside
from janitor.host.kernel import procfs
from janitor.host.kubernetes import kubelet
from janitor.host.kubernetes.kubelet import endpoints
from janitor.host.node import node_with
from tests.lab.cache import REPOSITORY
from tests.nodes import booted
from tests.reasons import not_seen, words


def test_absolute_links_stay_inside(tmp_path: Path) -> None:
    root = str(tmp_path)
    (tmp_path / "run/containerd").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "up").symlink_to("../../../../etc")
    assert inside(root, "/var/run/containerd/x.sock") == f"{root}/run/containerd/x.sock"
    assert inside(root, "/up/passwd") == f"{root}/etc/passwd"
    assert inside(root, "/../../etc") == f"{root}/etc"
    assert inside("/", "/var/run") == "/var/run"


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"symbolic links"):
        inside(str(tmp_path), "/a/x")


def test_a_disk_at_rest_has_no_processes(tmp_path: Path) -> None:
    proc = procfs.find_proc(str(tmp_path))
    assert isinstance(proc, Unknown)
    assert "no /proc is mounted" in words(proc.reason)


def socket_at(root: Path, path: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


NOWHERE = not_seen("no /proc")


def test_well_known_sockets(tmp_path: Path) -> None:
    for address in kubelet.WELL_KNOWN:
        socket_at(tmp_path, address.removeprefix("unix://"))
    assert endpoints(node_with(str(tmp_path), NOWHERE), (), ()) == tuple((a, "well-known") for a in kubelet.WELL_KNOWN)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/var/lib/kubelet/kubeadm-flags.env",
         'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/x.sock --pod-infra-container-image=pause"\n'),
        ("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS='--container-runtime-endpoint /run/x.sock'\n"),
        ("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/x.sock\n"),
        ("/var/lib/kubelet/config.yaml", '{"containerRuntimeEndpoint": "/run/x.sock"}'),
    ],
)  # fmt: skip
def test_the_kubelets_own_files(tmp_path: Path, path: str, content: str) -> None:
    file = tmp_path / path.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert endpoints(node_with(str(tmp_path), NOWHERE), (), ()) == (("unix:///run/x.sock", "kubelet"),)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "\tx", "containerRuntimeEndpoint: 7", "[" * 5_000])
def test_a_kubelet_configuration_of_no_use(tmp_path: Path, content: str) -> None:
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet/config.yaml").write_text(content)
    assert endpoints(node_with(str(tmp_path), NOWHERE), (), ()) == ()


def test_each_socket_once_with_the_strongest_reason(tmp_path: Path) -> None:
    socket_at(tmp_path, "/run/containerd/containerd.sock")
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    found = endpoints(
        node_with(str(tmp_path), NOWHERE), ("/var/run/containerd/containerd.sock",), ("unix:///run/crio/crio.sock",)
    )
    assert found == (
        ("unix:///var/run/containerd/containerd.sock", "flag"),
        ("unix:///run/crio/crio.sock", "configuration"),
    )


def test_notes_of_another_boot_prove_nothing(tmp_path: Path) -> None:
    from janitor.core.model.evidence import FileIdentity

    file = FileIdentity("/x/10.0.0.2", 1, 2, 3, 4, "d")
    state.write_ledger(booted(tmp_path, "this-boot"), (file,))
    assert state.read_ledger(booted(tmp_path, "this-boot")) == (file,)
    assert state.read_ledger(booted(tmp_path, "next-boot")) == ()
    assert state.read_observations(booted(tmp_path, "this-boot")) == ()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 200_000,
        '{"boot_id": "b", "files": [], "x": Infinity}',
        '{"boot_id": "b", "files": 7}',
        '{"boot_id": "b", "files": [7]}',
    ],
)
def test_damaged_notes_are_unknown(tmp_path: Path, content: str) -> None:
    (tmp_path / "run/janitor").mkdir(parents=True)
    (tmp_path / "run/janitor/ledger.json").write_text(content)
    assert isinstance(state.read_ledger(booted(tmp_path, "b")), Unknown)


def test_both_boot_stages_know_the_same_local_file_systems() -> None:
    script = (REPOSITORY / "cloud-init/janitor-boot.sh").read_text()
    (line,) = [line for line in script.splitlines() if line.lstrip().startswith("ext2 | ")]
    assert set(line.strip().removesuffix(") ;;").split(" | ")) == LOCAL_FILESYSTEMS
