"""containerd's own API: every container, task and sandbox it has a record of, in every namespace.

In 1.6 and 1.7 a sandbox that is still being created is a container here before CRI lists it; in 2.x it is in
the sandbox store. Containers of nerdctl, buildkit and docker live in other namespaces of the same daemon.

A record holds the whole container, its environment and annotations included, which a pod may make so large that all
of them do not fit into one answer (16 MiB), or a single one does not. So they come one by one, and those of CRI's that
are no sandboxes are not asked for: no lease and no entry of libcni's cache names one.
"""

from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import ContainerRecord, Unknown
from janitor.core.model.unknown import unseen
from janitor.host.runtime import containerd_pb2 as pb
from janitor.host.runtime.rpc import CallError, Channel

_NO_APPLICATION: Final = 'labels."io.cri-containerd.kind"!=container'
"""CRI sets this label on all that it makes, over whatever a pod has by that name; who has none passes as well."""

_PARTS: Final = (*(f"^{digit}" for digit in "0123456789abcdef"), "^[^0-9a-f]")
"""Of all IDs; CRI's begin with any hexadecimal digit, by chance."""


def records(channel: Channel) -> tuple[ContainerRecord, ...] | Unknown:
    """Everything containerd knows, or Unknown as soon as one of the lists could not be had."""
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
    """The sandbox store, which came with 2.x: to a daemon without it the method is unknown.

    It has no stream, and a pod's labels are in its record twice: what does not fit into one answer is had in parts.
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
            raise  # it cannot be asked for parts
        return found
