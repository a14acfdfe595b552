"""Readers of the node's configuration on what is odd, endless, or another cluster's."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Unit
from janitor.core.model.routing import Route
from janitor.host.cni.reader import read_configuration
from janitor.host.kernel.procfs import Proc
from janitor.host.kubernetes import kubelet, metadata, yaml_files
from janitor.host.kubernetes.components import components
from janitor.host.kubernetes.node_config import PLAIN, read
from janitor.host.node import files_only, node_with
from janitor.host.systemd import systemd_units
from tests.lab.simulated_proc import FakeProc
from tests.reasons import not_seen, words

KUBELET = "etc/systemd/system/kubelet.service"


def test_components_of_other_clusters_are_not_this_nodes(tmp_path: Path) -> None:
    """A kind node and a hosted control plane have networks of their own; what is hidden is judged by its cgroup."""
    fake = FakeProc(tmp_path / "proc")
    fake.boot("5f0c7d1e-0000-4000-8000-000000000007", runtime=900)
    fake.add("kubelet", ["/usr/bin/kubelet", "--node-ip=172.18.0.2"], net=fake.new_namespace())
    fake.add("kube-apiserver", ["kube-apiserver", "--service-cluster-ip-range=10.5.0.0/16"], net=fake.new_namespace())
    fake.add("kubelet", ["/usr/bin/kubelet", "--node-ip=10.0.0.3"])
    fake.add("cluster-autosca", ["/cluster-autoscaler", "--v=4"], net=fake.new_namespace())
    hidden = fake.add("kubelet", ["/usr/bin/kubelet", "--node-ip=172.18.0.3"])
    (tmp_path / f"proc/{hidden}/ns/net").unlink()
    (tmp_path / f"proc/{hidden}/cgroup").write_text("0::/docker/0a1b/kubelet.slice\n")
    found = components(node_with(str(tmp_path), Proc(str(tmp_path / "proc"))), "kubeadm")
    assert not isinstance(found, Unknown)
    assert [c.argv for c in found] == [("/usr/bin/kubelet", "--node-ip=10.0.0.3"), ("/cluster-autoscaler", "--v=4")]


def unit(tmp_path: Path, text: str, drop_in: str = "") -> Unit:
    file = tmp_path / KUBELET
    file.parent.mkdir(parents=True)
    file.write_text(text)
    if drop_in:
        (tmp_path / f"{KUBELET}.d").mkdir()
        (tmp_path / f"{KUBELET}.d/20-x.conf").write_text(drop_in)
    found = systemd_units.read_unit(files_only(str(tmp_path)), "kubelet.service")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "drop_in", "refused"),
    [
        ("[Service]\nExecStart=/usr/bin/kubelet\n", "[Service]\nExecStart=/usr/bin/kubelet --a=1\n", True),
        ("[Service]\nExecStart=/usr/bin/kubelet\n", "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet --a=1\n", False),
        ("[Service]\nType=oneshot\nExecStart=/bin/true\n", "[Service]\nExecStart=/usr/bin/kubelet --a=1\n", False),
        ("\ufeff[Service]\nExecStart=/usr/bin/kubelet --a=1\n", "", False),
    ],
)
def test_two_starts_and_a_byte_order_mark(text: str, drop_in: str, refused: bool, tmp_path: Path) -> None:
    found = unit(tmp_path, text, drop_in)
    assert found.argv == ("/usr/bin/kubelet", "--a=1")
    assert [("a second ExecStart=" in c) for c in found.complaints] == [True] * refused


def test_a_huge_environment_file_is_one_sentence(tmp_path: Path) -> None:
    huge = tmp_path / "etc/default/kubelet"
    huge.parent.mkdir(parents=True)
    with huge.open("wb") as file:
        file.truncate(8 << 30)
    found = unit(tmp_path, "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet $X\n")
    assert found.complaints == ("/etc/default/kubelet is larger than 256 KiB, and was not read",)


def test_pipes_in_the_place_of_a_command_line(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path / "proc")
    fake.boot("5f0c7d1e-0000-4000-8000-000000000007", runtime=900)
    pid = fake.add("kubelet", ["/usr/bin/kubelet"])
    (tmp_path / f"proc/{pid}/cmdline").unlink()
    os.mkfifo(tmp_path / f"proc/{pid}/cmdline")
    node = node_with(str(tmp_path), Proc(str(tmp_path / "proc")))
    assert components(node, "") == ()
    assert kubelet.endpoints(node, (), ()) == ()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"a:\n" + b"- x\n" * 200_000, "it holds more than 50000 values"),
        (b"[" * 300_000, "it is nested too deeply"),
        (b"a: 2020-99-99", "it is not YAML"),
        (b"a: [", "line 1: it is not YAML"),
    ],
)
def test_yaml_without_end(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        yaml_files.documents(data)


def test_a_setting_with_a_list_without_end(tmp_path: Path) -> None:
    config = tmp_path / "var/lib/kubelet/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("kind: KubeletConfiguration\nclusterDNS:\n" + "- 10.0.0.1\n" * 40_000)
    node = files_only(str(tmp_path))
    settings = read(node, PLAIN, read_configuration(node, ()), ()).settings
    assert isinstance(settings, Unknown)
    assert "a list of 40000 values" in words(settings.reason)


@contextmanager
def service(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A server of our own on the loopback, ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def run() -> None:
            while not done.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(4096)
                        answer(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n4711\r\n0\r\n\r\n")


def plain(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n4711")


@pytest.mark.parametrize("answer", [plain, chunks])
def test_metadata(answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with service(answer) as (address, port):
        monkeypatch.setattr(metadata, "ADDRESS", address)
        monkeypatch.setattr(metadata, "_PORT", port)
        found = metadata.machine("", (Route(f"{address}/32", "", "eth0"),), wanted=True)
    assert not isinstance(found, Unknown)
    assert found[0].instance_id == "4711"
    assert isinstance(found[0].networks, Unknown)


@pytest.mark.parametrize(
    ("made_by", "routes", "asked"),
    [
        ("Hetzner", (), True), ("Hetzner", not_seen("no /proc"), True),
        ("", (Route("169.254.169.254/32", "172.31.1.1", "eth0"),), True),
        ("QEMU", (Route("0.0.0.0/0", "172.31.1.1", "eth0"),), False), ("", not_seen("no /proc"), False),
    ],
)  # fmt: skip
def test_only_what_looks_like_a_server_of_hetzner_is_asked(
    made_by: str, routes: tuple[Route, ...] | Unknown, asked: bool
) -> None:
    assert metadata.is_hetzner(made_by, routes) == asked


def test_metadata_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_DEADLINE_S", 0.3)
    with service(drip) as (address, port):
        monkeypatch.setattr(metadata, "ADDRESS", address)
        monkeypatch.setattr(metadata, "_PORT", port)
        found = metadata.machine("Hetzner", (), wanted=True)
    assert isinstance(found, Unknown)
    assert found.reason.code is Code.METADATA_FAILED
