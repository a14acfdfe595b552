"""CRI: what the runtimes report about their sandboxes.

Sandboxes are listed in every state, without a filter. A missing answer is Unknown, never an empty list. The calls are
those of the CRI API v1, `runtime.v1.RuntimeService`.
"""

import json
from dataclasses import dataclass
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    Endpoint,
    EndpointOrigin,
    NetworkMode,
    Pod,
    RuntimeProcess,
    Sandbox,
    Unknown,
    unseen,
)
from janitor.host.kernel.whose import Whose
from janitor.host.node import Node
from janitor.host.runtime import containerd, cri_pb2
from janitor.host.runtime.listeners import Pin, listener, pin
from janitor.host.runtime.rpc import CallError, Channel, open_channel, socket_path

NAMED: Final = ("flag", "configuration")
"""The origins of endpoints that the operator has named."""

_SERVICE = "/runtime.v1.RuntimeService/"
_MODES: dict[int, NetworkMode] = {cri_pb2.POD: "pod", cri_pb2.NODE: "node"}


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a runtime reports about itself before its sandboxes are listed. Directories may be empty.

    `pinned` is its socket, or None if it cannot be asked; `ask` closes it.
    """

    address: str
    origin: EndpointOrigin
    pinned: Pin | None
    name: str
    version: str
    cni_directories: tuple[str, ...]
    plugin_directories: tuple[str, ...]
    listeners: tuple[RuntimeProcess, ...] | Unknown
    problem: Unknown | None


def introduce(
    node: Node, address: str, origin: EndpointOrigin, deadline_s: float, whose: Whose | None = None
) -> Introduction:
    """Connect, and ask for the version and the CNI directories. Never raises.

    Without `whose`, or if the operator has named the socket, any listener is accepted as the runtime.
    """
    path = socket_path(node.root, address)
    pinned = path if isinstance(path, Unknown) else pin(path, address)
    if isinstance(pinned, Unknown):
        return Introduction(address, origin, None, "", "", (), (), pinned, pinned)
    answering = listener(pinned, address, node.proc, None if origin in NAMED else whose)
    listeners = answering.processes
    if answering.problem is not None:
        pinned.close()
        return Introduction(address, origin, None, "", "", (), (), listeners, answering.problem)
    try:
        with open_channel(address, pinned.path, deadline_s) as channel:
            version = channel.call(f"{_SERVICE}Version", cri_pb2.VersionRequest(), cri_pb2.VersionResponse)
            status = channel.call(f"{_SERVICE}Status", cri_pb2.StatusRequest(verbose=True), cri_pb2.StatusResponse)
    except CallError as error:
        pinned.close()
        return Introduction(address, origin, None, "", "", (), (), listeners, _no_runtime(error))
    return Introduction(
        address, origin, pinned, version.runtime_name, version.runtime_version,
        *_directories(dict(status.info)), listeners, None,
    )  # fmt: skip


def _no_runtime(error: CallError) -> Unknown:
    if error.unimplemented:
        return unseen(Code.NOT_CRI_V1, error.reason)
    return unseen(Code.RUNTIME_DOES_NOT_ANSWER, error.reason)


def _directories(info: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The directories of CNI configuration and plugins, from the JSON configuration in containerd's verbose status."""
    try:
        cni = json.loads(info["config"])["cni"]
        found = [cni.get("confDir")], [cni.get("binDir"), *(cni.get("binDirs") or ())]
    except (KeyError, TypeError, ValueError, AttributeError):
        return (), ()
    configuration, plugins = (
        tuple(dict.fromkeys(d for d in part if isinstance(d, str) and d.startswith("/"))) for part in found
    )
    return configuration, plugins


def ask(introduction: Introduction, deadline_s: float) -> Endpoint:
    """All sandboxes of one runtime, and its own records if it is containerd. Never raises."""
    who = introduction
    if who.problem is not None or who.pinned is None:
        problem = who.problem or unseen(Code.ENDPOINT_ASKED_ALREADY)
        return Endpoint(who.address, who.origin, who.name, who.version, problem, problem, who.listeners)
    try:
        with open_channel(who.address, who.pinned.path, deadline_s) as channel:
            sandboxes = _sandboxes(channel)
            records = containerd.records(channel) if who.name == "containerd" else ()
    finally:
        who.pinned.close()
    return Endpoint(who.address, who.origin, who.name, who.version, sandboxes, records, who.listeners)


def _sandboxes(channel: Channel) -> tuple[Sandbox, ...] | Unknown:
    try:
        listed = channel.call(
            f"{_SERVICE}ListPodSandbox", cri_pb2.ListPodSandboxRequest(), cri_pb2.ListPodSandboxResponse
        )
    except CallError as error:
        return unseen(Code.SANDBOXES_NOT_LISTED, error.reason)
    found: list[Sandbox] = []
    silent: Unknown | None = None
    for item in listed.items:
        sandbox = _sandbox(channel, item, silent)
        # After one timeout, do not wait for the status of the others: each would take as long.
        if isinstance(sandbox.addresses, Unknown) and _timed_out(sandbox.addresses):
            silent = sandbox.addresses
        found.append(sandbox)
    return tuple(found)


def _timed_out(part: Unknown) -> bool:
    return part.reason.cause is not None and part.reason.cause.code is Code.CALL_TIMED_OUT


def _sandbox(channel: Channel, item: cri_pb2.PodSandbox, silent: Unknown | None) -> Sandbox:
    ready = item.state == cri_pb2.SANDBOX_READY
    pod = Pod(item.metadata.namespace, item.metadata.name, item.metadata.uid)
    if silent is not None:
        return Sandbox(item.id, pod, ready, item.created_at, "unknown", silent)
    try:
        # For a stopped sandbox, only the verbose answer has the former addresses.
        status = channel.call(
            f"{_SERVICE}PodSandboxStatus",
            cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=item.id, verbose=not ready),
            cri_pb2.PodSandboxStatusResponse,
        )
    except CallError as error:
        failure = unseen(Code.SANDBOX_STATUS_UNKNOWN, error.reason)
        # Being listed is enough to keep the lease that names this sandbox. Leases that name nobody need its addresses.
        return Sandbox(item.id, pod, ready, item.created_at, "unknown", failure)
    network = status.status.network
    addresses = tuple(a for a in (network.ip, *(extra.ip for extra in network.additional_ips)) if a)
    mode = status.status.linux.namespaces.options.network
    former = () if addresses or ready else _former_addresses(dict(status.info))
    return Sandbox(item.id, pod, ready, item.created_at, _MODES.get(mode, "other"), addresses, former)


def _former_addresses(info: dict[str, str]) -> tuple[str, ...]:
    """The addresses in containerd's stored CNI result: `info.cniResult.Interfaces.*.IPConfigs[].IP`."""
    try:
        interfaces = json.loads(info["info"])["cniResult"]["Interfaces"].values()
        found = [config["IP"] for interface in interfaces for config in interface["IPConfigs"] or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
    return tuple(a for a in found if isinstance(a, str) and a not in ("127.0.0.1", "::1"))
