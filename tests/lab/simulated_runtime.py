"""A container runtime without containers: the CRI and containerd calls that janitor and the lab make.

It keeps sandboxes in memory and lets its node start and stop the pods. Other methods (such as those of containerd 2's
sandbox store) are UNIMPLEMENTED, as in containerd 1.7.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from janitor.host.runtime import containerd_pb2 as ctrd
from janitor.host.runtime import cri_pb2 as cri
from tests.lab.simulated_network import NetworkError

VERSION = "1.7.24-simulated"


@dataclass
class Sandbox:
    """A pod in the runtime's database."""

    id: str
    metadata: cri.PodSandboxMetadata
    host_network: bool
    created_at: int
    ready: bool = True
    address: str = ""
    pause: int = 0


class Pods(Protocol):
    """What the runtime needs from its node."""

    def start_pod(self, sandbox: Sandbox) -> None:
        """Give it an address and processes. NetworkError if there is no address."""

    def stop_pod(self, sandbox: Sandbox) -> None:
        """Remove both. NetworkError if the network cannot be torn down."""


class Runtime:
    """The server of one boot. `sandboxes` is its database, which belongs to the node and outlives it."""

    def __init__(self, socket: Path, sandboxes: dict[str, Sandbox], node: Pods) -> None:
        self._sandboxes = sandboxes
        self._node = node
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4, thread_name_prefix="simulated-runtime"))
        self._serve(
            "runtime.v1.RuntimeService",
            Version=(cri.VersionRequest, self._version),
            Status=(cri.StatusRequest, self._status),
            ListPodSandbox=(cri.ListPodSandboxRequest, self._list),
            PodSandboxStatus=(cri.PodSandboxStatusRequest, self._sandbox_status),
            RunPodSandbox=(cri.RunPodSandboxRequest, self._run),
            StopPodSandbox=(cri.StopPodSandboxRequest, self._stop),
            RemovePodSandbox=(cri.RemovePodSandboxRequest, self._remove),
        )
        own = "containerd.services"
        self._serve(f"{own}.namespaces.v1.Namespaces", List=(ctrd.ListNamespacesRequest, self._namespaces))
        self._serve(f"{own}.containers.v1.Containers", List=(ctrd.ListContainersRequest, self._containers))
        self._serve(f"{own}.tasks.v1.Tasks", List=(ctrd.ListTasksRequest, self._tasks))
        socket.parent.mkdir(parents=True, exist_ok=True)
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def stop(self) -> None:
        """The process ends, and its socket is removed."""
        self._server.stop(grace=None).wait()

    def _serve(self, service: str, **methods: tuple[type[Any], Callable[[Any, grpc.ServicerContext], Any]]) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._one_at_a_time(method),
                request_deserializer=request.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (request, method) in methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _one_at_a_time(
        self, method: Callable[[Any, grpc.ServicerContext], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self._lock:
                return method(request, context)

        return call

    # CRI.

    def _version(self, _request: cri.VersionRequest, _context: grpc.ServicerContext) -> cri.VersionResponse:
        return cri.VersionResponse(
            version="0.1.0", runtime_name="containerd", runtime_version=VERSION, runtime_api_version="v1"
        )

    def _status(self, request: cri.StatusRequest, _context: grpc.ServicerContext) -> cri.StatusResponse:
        conditions = [cri.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")]
        config = json.dumps({"cni": {"binDir": "/opt/cni/bin", "confDir": "/etc/cni/net.d"}})
        info = {"config": config} if request.verbose else {}
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=conditions), info=info)

    def _list(self, _request: cri.ListPodSandboxRequest, _context: grpc.ServicerContext) -> cri.ListPodSandboxResponse:
        return cri.ListPodSandboxResponse(
            items=[
                cri.PodSandbox(id=box.id, metadata=box.metadata, state=_state(box), created_at=box.created_at)
                for box in self._sandboxes.values()
            ]
        )

    def _sandbox_status(
        self, request: cri.PodSandboxStatusRequest, context: grpc.ServicerContext
    ) -> cri.PodSandboxStatusResponse:
        box = self._find(request.pod_sandbox_id, context)
        mode = cri.NODE if box.host_network else cri.POD
        status = cri.PodSandboxStatus(
            id=box.id,
            metadata=box.metadata,
            state=_state(box),
            created_at=box.created_at,
            # As in containerd: the address is reported while the namespace exists.
            network=cri.PodSandboxNetworkStatus(ip=box.address if box.ready else ""),
            linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=cri.NamespaceOption(network=mode))),
        )
        result = {"Interfaces": {"eth0": {"IPConfigs": [{"IP": box.address}]}}} if box.address else None
        info = json.dumps({"pid": box.pause, "netNamespaceClosed": not box.ready, "cniResult": result})
        return cri.PodSandboxStatusResponse(status=status, info={"info": info} if request.verbose else {})

    def _run(self, request: cri.RunPodSandboxRequest, context: grpc.ServicerContext) -> cri.RunPodSandboxResponse:
        config = request.config
        mode = config.linux.security_context.namespace_options.network
        box = Sandbox(secrets.token_hex(32), config.metadata, mode == cri.NODE, time.time_ns())
        self._sandboxes[box.id] = box
        try:
            self._node.start_pod(box)
        except NetworkError as error:
            del self._sandboxes[box.id]
            message = f'failed to setup network for sandbox "{box.id}": {error}'
            context.abort(grpc.StatusCode.UNKNOWN, message)
        return cri.RunPodSandboxResponse(pod_sandbox_id=box.id)

    def _stop(self, request: cri.StopPodSandboxRequest, context: grpc.ServicerContext) -> cri.StopPodSandboxResponse:
        box = self._sandboxes.get(request.pod_sandbox_id)
        if box is not None:  # CRI requires success for an unknown sandbox
            self._end(box, context)
        return cri.StopPodSandboxResponse()

    def _remove(
        self, request: cri.RemovePodSandboxRequest, context: grpc.ServicerContext
    ) -> cri.RemovePodSandboxResponse:
        box = self._sandboxes.get(request.pod_sandbox_id)
        if box is not None:
            self._end(box, context)
            del self._sandboxes[box.id]
        return cri.RemovePodSandboxResponse()

    def _end(self, box: Sandbox, context: grpc.ServicerContext) -> None:
        try:
            self._node.stop_pod(box)
        except NetworkError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        box.ready = False

    def _find(self, identity: str, context: grpc.ServicerContext) -> Sandbox:
        if identity not in self._sandboxes:
            context.abort(grpc.StatusCode.NOT_FOUND, f'an error occurred when try to find sandbox "{identity}"')
        return self._sandboxes[identity]

    # containerd's own.

    def _namespaces(
        self, _request: ctrd.ListNamespacesRequest, _context: grpc.ServicerContext
    ) -> ctrd.ListNamespacesResponse:
        return ctrd.ListNamespacesResponse(namespaces=[ctrd.ContainerdNamespace(name="k8s.io")])

    def _containers(
        self, _request: ctrd.ListContainersRequest, _context: grpc.ServicerContext
    ) -> ctrd.ListContainersResponse:
        labels = {"io.cri-containerd.kind": "sandbox"}
        boxes = self._sandboxes.values()
        return ctrd.ListContainersResponse(containers=[ctrd.Container(id=box.id, labels=labels) for box in boxes])

    def _tasks(self, _request: ctrd.ListTasksRequest, _context: grpc.ServicerContext) -> ctrd.ListTasksResponse:
        boxes = [box for box in self._sandboxes.values() if box.ready]
        return ctrd.ListTasksResponse(
            tasks=[ctrd.Process(container_id=box.id, id=box.id, pid=box.pause) for box in boxes]
        )


def _state(box: Sandbox) -> cri.PodSandboxState:
    return cri.SANDBOX_READY if box.ready else cri.SANDBOX_NOTREADY
