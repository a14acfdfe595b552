"""Hetzner's metadata service: what the cloud knows about this server. Asked only if the machine looks like theirs."""

import errno
import http.client
import io
import socket
import time
from typing import Any, Final, cast

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Machine, PrivateNetwork
from janitor.core.model.routing import Route
from janitor.core.model.unknown import unseen
from janitor.host.files import printable, read_bounded
from janitor.host.kubernetes import yaml_files
from janitor.host.node import Node

ADDRESS: Final = "169.254.169.254"
_BASE: Final = "/hetzner/v1/metadata"
_PORT: Final = 80
_TIMEOUT_S = 1.0
_DEADLINE_S = 3.0  # for all requests
_LIMIT = 1 << 20


def vendor(node: Node) -> str:
    """The machine's vendor according to DMI; "" if unknown."""
    try:
        text = read_bounded(node.path("/sys/class/dmi/id/sys_vendor"), 256)
    except OSError:
        return ""
    return printable(text.decode("utf-8", "replace").strip())


def is_hetzner(made_by: str, routes: tuple[Route, ...] | Unknown) -> bool:
    """Whether the machine looks like a Hetzner Cloud server, by DMI or by its route to the metadata service."""
    known = () if isinstance(routes, Unknown) else routes
    return made_by == "Hetzner" or any(route.destination == f"{ADDRESS}/32" for route in known)


def machine(made_by: str, routes: tuple[Route, ...] | Unknown, wanted: bool) -> tuple[Machine, ...] | Unknown:
    """The service's answers. Unknown with the reason if it was not asked or did not answer."""
    if not wanted:
        return unseen(Code.METADATA_NOT_ASKED)
    if not is_hetzner(made_by, routes):
        return unseen(Code.NOT_HETZNER)
    try:
        end = time.monotonic() + _DEADLINE_S
        facts = {name: _get(name, end) for name in ("instance-id", "hostname", "region")}
        networks = _networks(_get("private-networks", end))
    except (OSError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return unseen(Code.METADATA_FAILED, address=ADDRESS, error=what)
    return (Machine(facts["instance-id"], facts["hostname"], facts["region"], networks),)


def _get(name: str, end: float) -> str:
    """One complete answer before `end` (time.monotonic): a slow service must not stall the scan for hours."""
    data = b""
    with socket.create_connection((ADDRESS, _PORT), timeout=_left(end)) as connection:
        connection.sendall(f"GET {_BASE}/{name} HTTP/1.0\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n".encode())
        while len(data) < _LIMIT:
            connection.settimeout(_left(end))
            part = connection.recv(1 << 16)
            if not part:
                break
            data += part
    answer = http.client.HTTPResponse(cast(socket.socket, _Received(data)))
    answer.begin()
    if answer.status != http.client.OK:
        raise http.client.HTTPException(f"{name}: {answer.status} {answer.reason}")
    return answer.read().decode("utf-8", "replace").strip()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, f"no complete answer within {_DEADLINE_S:.0f} s")
    return min(_TIMEOUT_S, left)


class _Received:
    """Received data in the form of a socket, which http.client needs to parse it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, *_: object, **__: object) -> Any:
        """All of the data."""
        return io.BytesIO(self.data)


def _networks(text: str) -> tuple[PrivateNetwork, ...] | Unknown:
    """`private-networks` is a YAML list; "" or `[]` if the server is attached to none."""
    try:
        listed = yaml_files.value(text.encode()) or []
        return tuple(_network(entry) for entry in listed)
    except (ValueError, TypeError, AttributeError):
        return unseen(Code.BAD_METADATA_NETWORKS)


def _network(entry: dict[str, Any]) -> PrivateNetwork:
    def text(name: str) -> str:
        return yaml_files.scalar(entry.get(name))

    aliases = tuple(str(ip) for ip in entry.get("alias_ips") or ())
    return PrivateNetwork(
        text("network_id"), text("network_name"), text("ip"), aliases, text("network"), text("subnet"), text("gateway")
    )
