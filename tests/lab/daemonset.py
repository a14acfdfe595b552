"""A pod of a DaemonSet on a node of the lab, made from its manifest as the kubelet does: by CRI requests.

Every field of the manifest is either handled here as the kubelet handles it, or an error, so nothing goes untested
because it was overlooked. Probes are HTTP requests in the host's network, like the kubelet's.
"""

from __future__ import annotations

import copy
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from janitor.host.runtime import cri_pb2 as cri
from tests.lab.daemon import GET
from tests.lab.machine import OURS
from tests.lab.networkd import wait_for
from tests.lab.node import Node

_PROPAGATION = {"": cri.PROPAGATION_PRIVATE, "None": cri.PROPAGATION_PRIVATE,
                "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER}  # fmt: skip
_PROFILES = {"RuntimeDefault": cri.SecurityProfile.RuntimeDefault, "Unconfined": cri.SecurityProfile.Unconfined}
# What the kubelet hides of /proc if procMount is Default (kubernetes/kubernetes, pkg/securitycontext/util.go).
_MASKED = ("asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
# Fields that the kubelet does not handle, or without effect on a single node without a control plane.
_NOT_OURS = {"serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "tolerations", "nodeSelector",
             "priorityClassName", "dnsPolicy", "terminationGracePeriodSeconds", "imagePullPolicy", "ports"}  # fmt: skip
_UNITS = {"Mi": 1 << 20, "Gi": 1 << 30, "": 1}


class MissingHostPathError(Exception):
    """A hostPath does not match its type: the kubelet does not start the pod, and reports an event."""


class DaemonPod:
    """A context manager; `change` may modify the pod's specification before it runs."""

    def __init__(
        self, node: Node, objects: list[dict[str, Any]], image: str, change: Callable[[dict[str, Any]], None]
    ) -> None:
        self.node = node
        daemonset = next(o for o in objects if o["kind"] == "DaemonSet")
        self.maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
        self.name = f"janitor-{time.monotonic_ns()}"
        self.namespace = daemonset["metadata"]["namespace"]
        self.spec = copy.deepcopy(daemonset["spec"]["template"]["spec"])
        change(self.spec)
        (self.container,) = self.spec["containers"]
        self.container["image"] = image
        self.sandbox = self.id = ""

    # Starting it, as the kubelet does.

    def __enter__(self) -> Self:
        kubelet = self.node.kubelet
        sandbox = self._sandbox()
        request = cri.RunPodSandboxRequest(config=sandbox)
        self.sandbox = kubelet.call("RunPodSandbox", request, cri.RunPodSandboxResponse).pod_sandbox_id
        try:
            config = self._container()
            made = cri.CreateContainerRequest(pod_sandbox_id=self.sandbox, config=config, sandbox_config=sandbox)
            self.id = kubelet.call("CreateContainer", made, cri.CreateContainerResponse).container_id
            kubelet.call("StartContainer", cri.StartContainerRequest(container_id=self.id), cri.StartContainerResponse)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _namespaces(self) -> cri.NamespaceOption:
        def mode(key: str) -> cri.NamespaceMode:
            return cri.NODE if self.spec.get(key) else cri.POD

        pid = cri.NODE if self.spec.get("hostPID") else cri.CONTAINER
        return cri.NamespaceOption(network=mode("hostNetwork"), pid=pid, ipc=mode("hostIPC"))

    def _sandbox(self) -> cri.PodSandboxConfig:
        known = {"containers", "volumes", "securityContext", "hostNetwork", "hostPID", "hostIPC"} | _NOT_OURS
        _nothing_else(self.spec, known)
        seccomp = cri.SecurityProfile(profile_type=_PROFILES[self.spec["securityContext"]["seccompProfile"]["type"]])
        privileged = bool(self.container["securityContext"]["privileged"])
        return cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=self.name, uid=self.name, namespace=self.namespace),
            log_directory=f"/run/podlogs/{self.name}",
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self.node.machine.name}",
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=self._namespaces(), seccomp=seccomp, privileged=privileged
                ),
            ),
        )

    def _container(self) -> cri.ContainerConfig:
        known = {"name", "image", "command", "args", "env", "securityContext", "resources", "livenessProbe",
                 "readinessProbe", "volumeMounts"} | _NOT_OURS  # fmt: skip
        _nothing_else(self.container, known)
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=self.container["name"]),
            image=cri.ImageSpec(image=self.container["image"]),
            command=self.container.get("command", []),
            args=self.container.get("args", []),
            mounts=[self._mount(wanted) for wanted in self.container["volumeMounts"]],
            log_path="0.log",
            linux=cri.LinuxContainerConfig(resources=self._resources(), security_context=self._security()),
        )

    def _mount(self, wanted: dict[str, Any]) -> cri.Mount:
        _nothing_else(wanted, {"name", "mountPath", "readOnly", "mountPropagation"})
        volume = next(v for v in self.spec["volumes"] if v["name"] == wanted["name"])
        if "configMap" in volume:
            path = f"/run/volumes/{self.name}"
            here = self.node.root / path.lstrip("/")
            (here / "..2026_11_21").mkdir(parents=True)
            (here / "..data").symlink_to("..2026_11_21")  # so that an update is atomic
            for name, text in self.maps[volume["configMap"]["name"]].items():
                (here / "..data" / name).write_text(OURS * (name == "janitor.toml") + text)
                (here / name).symlink_to(f"..data/{name}")
        else:
            path = volume["hostPath"]["path"]
            here = self.node.root / path.lstrip("/")
            kind = volume["hostPath"].get("type", "")
            if kind == "DirectoryOrCreate":
                here.mkdir(parents=True, exist_ok=True)
            elif kind == "Directory" and not here.is_dir():
                raise MissingHostPathError(path)
        propagation = _PROPAGATION[wanted.get("mountPropagation", "")]
        return cri.Mount(container_path=wanted["mountPath"], host_path=path, readonly=wanted.get("readOnly", False),
                         propagation=propagation)  # fmt: skip

    def _resources(self) -> cri.LinuxContainerResources:
        wanted = self.container["resources"]
        limit, shares = wanted["limits"].get("memory", "0"), wanted["requests"]["cpu"]
        return cri.LinuxContainerResources(
            memory_limit_in_bytes=_bytes(limit), cpu_shares=int(shares.removesuffix("m")) * 1024 // 1000
        )

    def _security(self) -> cri.LinuxContainerSecurityContext:
        wanted = {**self.spec.get("securityContext", {}), **self.container["securityContext"]}
        known = {"privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "runAsUser", "runAsGroup",
                 "capabilities", "appArmorProfile", "seLinuxOptions", "seccompProfile"}  # fmt: skip
        _nothing_else(wanted, known)
        capabilities = wanted["capabilities"]
        return cri.LinuxContainerSecurityContext(
            capabilities=cri.Capability(add_capabilities=capabilities["add"], drop_capabilities=capabilities["drop"]),
            privileged=wanted["privileged"],
            namespace_options=self._namespaces(),
            selinux_options=cri.SELinuxOption(type=wanted["seLinuxOptions"]["type"]),
            run_as_user=cri.Int64Value(value=wanted["runAsUser"]),
            run_as_group=cri.Int64Value(value=wanted["runAsGroup"]),
            readonly_rootfs=wanted["readOnlyRootFilesystem"],
            no_new_privs=not wanted["allowPrivilegeEscalation"],
            masked_paths=["/sys/firmware", *(f"/proc/{name}" for name in _MASKED)],
            readonly_paths=[f"/proc/{name}" for name in _READ_ONLY],
            seccomp=cri.SecurityProfile(profile_type=_PROFILES[wanted["seccompProfile"]["type"]]),
            apparmor=cri.SecurityProfile(profile_type=_PROFILES[wanted["appArmorProfile"]["type"]]),
        )

    # What it logs and answers.

    def log(self) -> str:
        """The container's output, without the runtime's prefix on each line."""
        path = self.node.root / f"run/podlogs/{self.name}/0.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def wait_for(self, text: str, timeout: float = 20) -> str:
        """Wait until it has logged this; returns the log."""
        try:
            wait_for(lambda: re.search(text, self.log()) is not None, text, timeout)
        except TimeoutError:
            raise AssertionError(f"not in its log: {text}\n{self.log()[-4000:]}\n{self.status()}") from None
        return self.log()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of its answer; (0, why) if it does not answer."""
        done = self.node.run([sys.executable, "-c", GET, path])
        status, _, body = done.stdout.partition(" ")
        return (int(status), body) if done.returncode == 0 else (0, done.stderr)

    def probe(self, kind: str) -> tuple[int, str]:
        """Perform a probe of the manifest once."""
        http = self.container[f"{kind}Probe"]["httpGet"]
        assert (http["host"], http["port"]) == ("127.0.0.1", 9742)
        return self.get(http["path"])

    def status(self) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=self.id)
        return self.node.kubelet.call("ContainerStatus", request, cri.ContainerStatusResponse).status

    def pid(self) -> int:
        """Its first process, by its process ID on this machine."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.id in (path / "cgroup").read_text() and (path / "comm").read_text() == "janitor\n":
                    parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                    if self.id not in Path(f"/proc/{parent}/cgroup").read_text():
                        return int(path.name)
            except OSError:
                continue
        raise AssertionError(f"no process of {self.id}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kubelet = self.node.kubelet
        kubelet.stop(self.sandbox)
        kubelet.remove(self.sandbox)
        assert "Traceback" not in self.log(), self.log()


def _nothing_else(found: dict[str, Any], known: set[str]) -> None:
    if unknown := found.keys() - known:
        raise ValueError(f"the lab's kubelet does not know {', '.join(sorted(unknown))}")


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D*)", text).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]
