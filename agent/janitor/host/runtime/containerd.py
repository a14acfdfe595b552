"""containerd's own API: every container, task and sandbox it has a record of, in every namespace.

In 1.6 and 1.7 a sandbox that is being created is listed here as a container before CRI lists it; in 2.x it is in the
sandbox store. Containers of nerdctl, buildkit and docker are in other namespaces of the same daemon.

A record contains the whole container with its environment and annotations. A pod can make these so large that a list,
or a single record, does not fit into one answer (16 MiB). So records are streamed, and CRI's containers that are no
sandboxes are left out: no lease and no entry of libcni's cache names one.
"""

from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import ContainerRecord, Unknown
from janitor.core.model.unknown import unseen
from janitor.host.runtime import containerd_pb2 as pb
from janitor.host.runtime.rpc import CallError, Channel

_NO_APPLICATION: Final = 'labels."io.cri-containerd.kind"!=container'
"""CRI sets this label on everything that it makes, overriding a pod's. A container without the label passes, too."""

_PARTS: Final = (*(f"^{digit}" for digit in "0123456789abcdef"), "^[^0-9a-f]")
"""A partition of all IDs. CRI's IDs are random hexadecimal."""


def records(channel: Channel) -> tuple[ContainerRecord, ...] | Unknown:
    """All records of containerd. Unknown if one of the lists is not available."""
    found: list[ContainerRecord] = []
    try:
        spaces = channel.call(
            "/containerd.services.namespaces.v1.Namespaces/List",
            pb.ListNamespacesRequest(),
            pb.ListNamespacesResponse,
        )
        for space in spaces.namespaces:
            header = (("containerd-namespace", space.name),)
            found += [ContainerRecord(space.name, name, "container") for name in _containers(channel, header)]
            tasks = channel.call(
                "/containerd.services.tasks.v1.Tasks/List",
                pb.ListTasksRequest(),
                pb.ListTasksResponse,
                header,
            )
            found += [ContainerRecord(space.name, t.container_id or t.id, "task") for t in tasks.tasks]
            found += _sandboxes(channel, space.name, header)
    except CallError as error:
        return unseen(Code.RECORDS_NOT_LISTED, error.reason)
    return tuple(dict.fromkeys(found))


def _containers(channel: Channel, header: tuple[tuple[str, str], ...]) -> list[str]:
    """The IDs of all containers that may have an address. CallError."""
    service, request = (
        "/containerd.services.containers.v1.Containers",
        pb.ListContainersRequest(filters=[_NO_APPLICATION]),
    )
    try:
        stream = channel.stream(f"{service}/ListStream", request, pb.ListContainerMessage, header)
        return [one.container.id for one in stream]
    except CallError as error:
        if not error.unimplemented:
            raise
    return [one.id for one in channel.call(f"{service}/List", request, pb.ListContainersResponse, header).containers]


def _sandboxes(channel: Channel, space: str, header: tuple[tuple[str, str], ...]) -> list[ContainerRecord]:
    """The sandbox store, new in 2.x; an older daemon does not know the method.

    It cannot stream, and its record has a pod's labels twice. A list that does not fit into one answer is requested in
    parts.
    """

    def listed(*filters: str) -> list[ContainerRecord]:
        request = pb.ListSandboxesRequest(filters=filters)
        answer = channel.call("/containerd.services.sandbox.v1.Store/List", request, pb.ListSandboxesResponse, header)
        return [ContainerRecord(space, sandbox.sandbox_id, "sandbox") for sandbox in answer.list]

    try:
        return listed()
    except CallError as error:
        if error.unimplemented:
            return []
        if not error.too_long:
            raise
        found = [record for part in _PARTS for record in listed(f'id~="{part}"')]
        if not found:
            raise  # the daemon does not support these filters
        return found
