"""Acts as the kubelet on a node's CRI socket: starts, stops, removes and lists pod sandboxes.

A channel lives for one call only. No gRPC thread outlives it, and a runtime that was killed and restarted needs nothing
here.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc

from janitor.host.runtime import cri_pb2 as cri

Answer = TypeVar("Answer")
RpcError = grpc.RpcError

_OPTIONS = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", 16 << 20)]


@dataclass(frozen=True)
class Pod:
    """A pod sandbox as CRI shows it."""

    id: str
    name: str
    namespace: str
    ready: bool
    addresses: tuple[str, ...] = ()

    @property
    def ip(self) -> str:
        """The first address; empty for host network, and once the namespace is gone."""
        return self.addresses[0] if self.addresses else ""


class Kubelet:
    """The kubelet of one node. `socket` is called for each request, because the path changes at each boot."""

    def __init__(self, socket: Callable[[], Path], cgroup_parent: str) -> None:
        self._socket = socket
        self._cgroup_parent = cgroup_parent

    def run(
        self,
        name: str | None = None,
        namespace: str = "default",
        *,
        host_network: bool = False,
        host_ports: Mapping[int, int] | None = None,
        timeout: float = 60,
    ) -> Pod:
        """Start a pod: RunPodSandbox, then its status. `host_ports` maps host port to container port."""
        name = name or f"pod-{uuid.uuid4().hex[:8]}"
        mode = cri.NODE if host_network else cri.POD
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=str(uuid.uuid4()), namespace=namespace),
            hostname="" if host_network else name,  # as the kubelet does: a pod must not set the host's name
            log_directory="/run/podlogs",
            port_mappings=[
                cri.PortMapping(protocol=cri.TCP, container_port=container, host_port=host)
                for host, container in (host_ports or {}).items()
            ],
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=self._cgroup_parent,
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(network=mode)),
            ),
        )
        request = cri.RunPodSandboxRequest(config=config)
        return self.pod(self.call("RunPodSandbox", request, cri.RunPodSandboxResponse, timeout).pod_sandbox_id)

    def run_async(self, name: str | None = None, namespace: str = "default", **options: Any) -> Future[Pod]:
        """The same without waiting, for tests that need a pod that is still being created."""
        future: Future[Pod] = Future()

        def body() -> None:
            try:
                future.set_result(self.run(name, namespace, **options))
            except BaseException as error:  # noqa: BLE001 - belongs to whoever asks the future
                future.set_exception(error)

        # A daemon thread: a failed test must not wait for a call that was blocked on purpose.
        threading.Thread(target=body, name=f"run-{name}", daemon=True).start()
        return future

    def stop(self, pod: Pod | str, timeout: float = 60) -> None:
        """StopPodSandbox: ends the pod's processes and runs CNI DEL."""
        request = cri.StopPodSandboxRequest(pod_sandbox_id=_id(pod))
        self.call("StopPodSandbox", request, cri.StopPodSandboxResponse, timeout)

    def remove(self, pod: Pod | str, timeout: float = 60) -> None:
        """RemovePodSandbox: the runtime forgets the sandbox."""
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=_id(pod))
        self.call("RemovePodSandbox", request, cri.RemovePodSandboxResponse, timeout)

    def list(self) -> tuple[Pod, ...]:
        """Every listed sandbox in the order of creation, without addresses."""
        response = self.call("ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse)
        return tuple(_pod(item) for item in sorted(response.items, key=lambda item: item.created_at))

    def pod(self, pod: Pod | str) -> Pod:
        """One sandbox with its addresses, as PodSandboxStatus shows it now."""
        status = self.status(pod).status
        more = [item.ip for item in status.network.additional_ips]
        return replace(_pod(status), addresses=tuple(ip for ip in (status.network.ip, *more) if ip))

    def status(self, pod: Pod | str) -> cri.PodSandboxStatusResponse:
        """The whole PodSandboxStatus, verbose."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=_id(pod), verbose=True)
        return self.call("PodSandboxStatus", request, cri.PodSandboxStatusResponse)

    def version(self, timeout: float = 10) -> str:
        """The version that the runtime reports."""
        response = self.call("Version", cri.VersionRequest(), cri.VersionResponse, timeout)
        return response.runtime_version

    def network_ready(self) -> bool:
        """Whether the runtime has found a CNI configuration."""
        response = self.call("Status", cri.StatusRequest(), cri.StatusResponse)
        return any(item.type == "NetworkReady" and item.status for item in response.status.conditions)

    def call(self, method: str, request: Any, answer: type[Answer], timeout: float = 30) -> Answer:
        with grpc.insecure_channel(f"unix:{self._socket()}", options=_OPTIONS) as channel:
            call = channel.unary_unary(
                f"/runtime.v1.RuntimeService/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,  # type: ignore[attr-defined]
            )
            response: Answer = call(request, timeout=timeout)
            return response


def _id(pod: Pod | str) -> str:
    return pod if isinstance(pod, str) else pod.id


def _pod(sandbox: cri.PodSandbox | cri.PodSandboxStatus) -> Pod:
    metadata = sandbox.metadata
    return Pod(sandbox.id, metadata.name, metadata.namespace, sandbox.state == cri.SANDBOX_READY)
