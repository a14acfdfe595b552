"""gRPC for host/runtime/cri.py and host/runtime/containerd.py: one channel per pass, deadlines, plain errors.

A channel is opened, used and closed within one pass, so that no gRPC thread survives it: such a thread would stay in
the network namespace in which it was started.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown, unseen
from janitor.core.model.reason import Fact, Reason, because
from janitor.host.files import inside, unknown

_OPTIONS = [
    # Since grpc 1.57, :authority would otherwise be the escaped path of the socket, which Go rejects.
    ("grpc.default_authority", "localhost"),
    # As in the kubelet: a thousand sandboxes exceed the default of 4 MiB.
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.enable_retries", 0),
]

_INITIALISING = "not initialized"
"""The text of containerd's CRI plugin while it starts (internal/cri/server): gRPC has no code for that."""

_LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), without its NUL

_Response = TypeVar("_Response", bound=Message)


class CallError(Exception):
    """A call without an answer. `unimplemented`: the server does not know the method.

    `too_long`: the answer does not fit into one message.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.unimplemented = reason.code is Code.CALL_UNIMPLEMENTED
        self.too_long = reason.code is Code.CALL_TOO_LONG


class Channel:
    """Calls on one endpoint. Each ends within `deadline_s` seconds, with an answer or with CallError."""

    def __init__(self, channel: grpc.Channel, address: str, deadline_s: float) -> None:
        self._channel = channel
        self._address = address
        self._deadline_s = deadline_s

    def call(
        self,
        method: str,
        request: Message,
        response: type[_Response],
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> _Response:
        """Call `/package.Service/Method` once."""
        stub: Callable[..., Any] = self._channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        with self._explained(method):
            answer = stub(request, timeout=self._deadline_s, metadata=metadata)
        assert isinstance(answer, response)  # noqa: S101 (narrows for the type checker; grpc guarantees it)
        return answer

    def stream(
        self,
        method: str,
        request: Message,
        response: type[_Response],
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Iterator[_Response]:
        """The same for a call with a stream of answers. The deadline is for the whole stream."""
        stub: Callable[..., Any] = self._channel.unary_stream(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        with self._explained(method):
            yield from stub(request, timeout=self._deadline_s, metadata=metadata)

    @contextmanager
    def _explained(self, method: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            # Every RpcError raised by a call is also a grpc.Call, but its class does not declare that.
            raise self._explain(method.rpartition("/")[2], cast(grpc.Call, error)) from None

    def _explain(self, name: str, error: grpc.Call) -> CallError:
        code, details = error.code(), " ".join((error.details() or "").split())[:200]
        initialising = _INITIALISING in details
        asked: dict[str, Fact] = {"address": self._address, "method": name}
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return CallError(because(Code.CALL_TIMED_OUT, **asked, seconds=f"{self._deadline_s:g}"))
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return CallError(because(Code.CALL_UNIMPLEMENTED, **asked, details=details))
        if code == grpc.StatusCode.UNAVAILABLE and not initialising:
            return CallError(because(Code.CALL_UNAVAILABLE, **asked, details=details))
        failure = Code.CALL_TOO_LONG if code == grpc.StatusCode.RESOURCE_EXHAUSTED else Code.CALL_FAILED
        return CallError(because(failure, **asked, details=details or code.name))


@contextmanager
def open_channel(address: str, path: str, deadline_s: float) -> Iterator[Channel]:
    """A channel to the socket at `path`, called `address` in messages."""
    channel = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)
    try:
        yield Channel(channel, address, deadline_s)
    finally:
        channel.close()


def socket_path(root: str, address: str) -> str | Unknown:
    """The path of an endpoint's socket as janitor sees it. Endpoints are `unix:///path`, `unix:path` or `/path`."""
    path = address.removeprefix("unix://").removeprefix("unix:")
    if not path.startswith("/") or not (path.isprintable() and path.isascii()):
        return unseen(Code.ENDPOINT_NOT_A_SOCKET, address=ascii(address))
    try:
        here = inside(root, path)
    except OSError as error:
        return unknown(Code.CANNOT_FIND_SOCKET, error, path=path)
    if len(here.encode()) > _LONGEST_SOCKET_PATH:
        return unseen(Code.SOCKET_PATH_TOO_LONG, path=here, most=_LONGEST_SOCKET_PATH)
    return here
