"""Whose a control group is: as real nodes and their pods have them, in both versions and with both drivers."""

from __future__ import annotations

import pytest

from janitor.host.kernel.control_groups import place, top

ID = "4f" * 32
POD = "0a1b2c3d-0000-4000-8000-000000000000"
INIT = {"": "/init.scope"}
V1 = ("name=systemd", "memory", "cpu,cpuacct", "pids", "cpuset")


def v1(path: str, cpuset: str = "/") -> dict[str, str]:
    """All hierarchies with one path, but for the one that systemd never uses."""
    return {name: cpuset if name == "cpuset" else path for name in V1}


HOST = [
    # (process 1's groups, the process's, the unit it belongs to)
    (INIT, {"": "/init.scope"}, ""),
    (INIT, {"": "/"}, ""),  # the kernel's threads; all processes where nobody makes groups
    (INIT, {"": "/system.slice/kubelet.service"}, "kubelet.service"),
    (INIT, {"": "/runtime.slice/containerd.service"}, "containerd.service"),  # Slice=
    (INIT, {"": "/a.slice/a-b.slice/kubelet.service"}, "kubelet.service"),
    (INIT, {"": "/system.slice/k3s.service"}, "k3s.service"),
    (INIT, {"": "/system.slice/rke2-server.service"}, "rke2-server.service"),  # its containerd and kubelet are children
    (INIT, {"": "/system.slice/snap.microk8s.daemon-kubelite.service"}, "snap.microk8s.daemon-kubelite.service"),
    (INIT, {"": "/system.slice/k0sworker.service"}, "k0sworker.service"),
    (INIT, {"": "/system.slice/containerd.service/supervisor"}, "containerd.service"),  # Delegate=
    (INIT, {"": "/user.slice/user-0.slice/session-3.scope"}, ""),  # by hand
    (INIT, {"": "/user.slice/user-1000.slice/session-c2.scope"}, ""),  # sudo; its user ID decides
    ({"": "/docker/" + ID + "/init.scope"}, {"": f"/docker/{ID}/kubelet.slice/kubelet.service"}, "kubelet.service"),
    ({"": "/init"}, {"": "/init"}, ""),  # k3d
    ({"": "/lxc.payload.node/ns/init.scope"}, {"": "/lxc.payload.node/ns/system.slice/k3s.service"}, "k3s.service"),
    (v1("/init.scope"), v1("/system.slice/containerd.service"), "containerd.service"),
    (v1("/"), v1("/"), ""),
    (v1("/init.scope", "/"), v1("/system.slice/kubelet.service", "/"), "kubelet.service"),
]

CONTAINERS = [
    # systemd's driver
    {"": f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD}.slice/cri-containerd-{ID}.scope"},
    {"": f"/kubepods.slice/kubepods-pod{POD}.slice/crio-{ID}.scope"},
    {"": f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD}.slice/cri-containerd-{ID}.scope"},
    {"": f"/own.slice/own-kubepods.slice/own-kubepods-pod{POD}.slice/cri-containerd-{ID}.scope"},  # --cgroup-root
    # the other one
    {"": f"/kubepods/burstable/pod{POD}/{ID}"},
    {"": f"/elsewhere/kubepods/pod{POD}/{ID}"},
    {"": f"/k8s.io/{ID}"},
    v1(f"/kubepods/besteffort/pod{POD}/{ID}", f"/kubepods/besteffort/pod{POD}/{ID}"),
    # A leader that has ended shows one hierarchy's top; its threads are in the pod's.
    v1("/") | {"name=systemd": f"/kubepods/besteffort/pod{POD}/{ID}"},
    # containers of other runtimes
    {"": f"/system.slice/docker-{ID}.scope"},
    {"": f"/docker/{ID}"},
    {"": f"/docker/buildkit/{ID}"},
    {"": f"/machine.slice/libpod-{ID}.scope"},
    {"": "/machine.slice/systemd-nspawn@node.service"},
    {"": f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"},
    {"": "/lxc.payload.web/system.slice/kubelet.service"},
    {"": "/default/redis"},
    {"": "/system.slice/podman.service/libpod-payload-0123"},
    # names that a pod with a writable group may make below its own
    {"": f"/kubepods.slice/kubepods-pod{POD}.slice/cri-containerd-{ID}.scope/system.slice/kubelet.service"},
    {"": f"/kubepods/pod{POD}/{ID}/init.scope"},
    {"": "/system.slice/run-r1.scope/kubelet.service"},
    {"": "/system.slice/web.service/kubepods/x"},
    # names that an unprivileged user may make below his own
    {"": "/user.slice/user-1000.slice/user@1000.service/app.slice/kubelet.service"},
    {"": "/user.slice/user-1000.slice/user@1000.service/system.slice/systemd-networkd.service"},
    {"": "/user.slice/user-1000.slice/session-3.scope/kubelet.service"},
    # as a container sees its neighbour
    {"": f"/../../pod{POD}/{ID}"},
    {"": "/../../../../system.slice/kubelet.service"},
    {"": ""},
    {},
    {"": "/system.slice/kubelet.service", "rdma": "/"},  # a hierarchy that process 1 is not in
]


@pytest.mark.parametrize(("first", "own", "unit"), HOST)
def test_the_nodes_own(first: dict[str, str], own: dict[str, str], unit: str) -> None:
    found = place(own, top(first))
    assert (found.why, found.unit) == (None, unit)


@pytest.mark.parametrize("own", CONTAINERS)
def test_containers_whatever_they_are_called(own: dict[str, str]) -> None:
    tops = top(v1("/init.scope")) if "memory" in own else top(INIT)
    found = place(own, tops)
    assert found.why
    assert not found.unit


def test_openrc_only_where_this_node_has_it() -> None:
    for path in ("/openrc.kubelet", "/kubelet"):
        assert place({"": path}, {"": "/"}, openrc=True).unit == "kubelet"
        assert place({"": path}, {"": "/"}).why
    assert place({"": f"/docker/{ID}"}, {"": "/"}, openrc=True).why
