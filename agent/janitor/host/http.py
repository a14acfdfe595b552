"""A small HTTP server for a caller's event loop: GET and HEAD, one request per connection, immediate answers.

It cannot harm the loop: nothing blocks, and the number of connections, the size of a request and its duration are
limited. That is enough for a scraper, a probe and a person. Standard library only.
"""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from janitor.core.model.retry import SECOND, earliest, is_due
from janitor.host.files import describe_os_error, os_error_identity
from janitor.host.kernel.procfs import clock

_CONNECTIONS: Final = 16
_BACKLOG: Final = 1024
"""Many connections may wait, and many are accepted at once: a flood of them must not keep a probe out."""
_AT_ONCE: Final = 128
_AT_ONCE_S: Final = 0.01
_LONGEST_REQUEST: Final = 8192
_PATIENCE_S: Final = 5
_AGAIN_S: Final = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    kind: str  # content type
    body: bytes


@dataclass(frozen=True, slots=True)
class Listening:
    """The port is open."""

    address: str


@dataclass(frozen=True, slots=True)
class NotListening:
    """The port could not be opened."""

    address: str
    why: str
    again_s: int


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """Making an answer raised an exception."""

    path: str
    why: str


ServerEvent = Listening | NotListening | AnswerFailed


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    until_ns: int
    received: bytes = b""
    left: bytes | None = None  # the rest of the answer; None while the request is still incomplete
    answered: bool = False  # all is sent; input is still discarded, since closing now would drop the answer


@dataclass(slots=True)
class Server:
    """Listens on `where` as soon as that is possible, and responds with `answer(path)`."""

    where: tuple[str, int]
    answer: Callable[[str], Answer]
    tell: Callable[[ServerEvent], None]
    names: tuple[str, ...] = ()  # host names accepted besides addresses and localhost
    _listening: socket.socket | None = None
    _connections: dict[int, _Connection] = field(default_factory=dict)
    _next_ns: int | None = 0  # when to try to listen or accept again; None while it listens
    _problem: tuple[object, ...] = ()  # the last reported reason why it does not listen

    def descriptors(self) -> tuple[list[int], list[int]]:
        """The descriptors to wait for, to read and to write."""
        readers = [fd for fd, one in self._connections.items() if one.left is None or one.answered]
        writers = [fd for fd in self._connections if fd not in readers]
        if self._listening is not None and self._next_ns is None:
            readers.append(self._listening.fileno())
        return readers, writers

    @property
    def due_ns(self) -> int | None:
        """When to call `run` even if no descriptor is ready."""
        return earliest(self._next_ns, *(one.until_ns for one in self._connections.values()))

    def run(self, ready: frozenset[int]) -> None:
        """Serve the descriptors that are ready, and drop connections that are too slow."""
        now = clock().boottime_ns
        if is_due(self._next_ns, now):
            self._next_ns = None
            if self._listening is None:
                self._listen(now)
        for fd, one in list(self._connections.items()):
            if (fd in ready and self._go_on(one)) or now >= one.until_ns:
                one.socket.close()
                del self._connections[fd]
        if self._listening is not None and self._listening.fileno() in ready:
            self._accept(now)

    def close(self, patience_s: float = 0) -> None:
        """Close all sockets."""
        del patience_s
        for one in self._connections.values():
            one.socket.close()
        self._connections.clear()
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _listen(self, now: int) -> None:
        host, port = self.where
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = None
        try:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(self.where)
            made.listen(_BACKLOG)
        except OSError as error:
            if made is not None:
                made.close()
            self._next_ns = now + _AGAIN_S * SECOND
            if (problem := os_error_identity(error)) != self._problem:
                self.tell(NotListening(f"{host} port {port}", describe_os_error(error), _AGAIN_S))
            self._problem = problem
            return
        self._listening, self._problem = made, ()
        self.tell(Listening(f"{host} port {port}"))

    def _accept(self, now: int) -> None:
        assert self._listening is not None  # noqa: S101 (for the type checker)
        until = time.monotonic() + _AT_ONCE_S
        for _ in range(_AT_ONCE):
            try:
                made, _ = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the client is gone and will try again
            except OSError:
                self._next_ns = now + SECOND  # no descriptor is left; without a pause, poll(2) would return at once
                return
            made.setblocking(False)
            self._welcome(_Connection(made, now + _PATIENCE_S * SECOND))
            if time.monotonic() > until:
                return

    def _welcome(self, one: _Connection) -> None:
        """Answer at once if the request is already there: a waiting connection may have to make room for others."""
        if self._go_on(one) or (one.left is not None and self._go_on(one)):
            one.socket.close()
            return
        if len(self._connections) >= _CONNECTIONS:  # the oldest one makes room: a probe must get through
            self._connections.pop(next(iter(self._connections))).socket.close()
        self._connections[one.socket.fileno()] = one

    def _go_on(self, one: _Connection) -> bool:
        """Continue one connection. True if it is finished."""
        try:
            if one.answered:
                return not one.socket.recv(_LONGEST_REQUEST)
            if one.left is None:
                data = one.socket.recv(_LONGEST_REQUEST)
                one.received += data
                if b"\r\n\r\n" in one.received or b"\n\n" in one.received:
                    one.left = self._respond(one.received)
                elif len(one.received) >= _LONGEST_REQUEST:
                    one.left = _response(Answer(431, "text/plain", b"request too long\n"), head=False)
                return not data
            one.left = one.left[one.socket.send(one.left) :]
            if not one.left:
                one.socket.shutdown(socket.SHUT_WR)
                one.answered = True
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return False

    def _respond(self, request: bytes) -> bytes:
        words = request.split(b"\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(Answer(400, "text/plain", b"not an HTTP request\n"), head=False)
        if not all(_may_ask_for(host, self.names) for host in _hosts(request)):
            return _response(
                Answer(421, "text/plain", b"unknown host name: add it to 'hosts' in janitor.toml\n"), head=False
            )
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _response(Answer(405, "text/plain", b"only GET and HEAD are allowed\n"), head=False)
        try:
            answer = self.answer(target.partition("?")[0])
        except Exception as error:  # noqa: BLE001 (a failed answer must not affect others)
            self.tell(AnswerFailed(target, f"{type(error).__name__}: {error}"))
            answer = Answer(500, "text/plain", b"a bug in janitor; its log says more\n")
        return _response(answer, head=method == "HEAD")


def _hosts(request: bytes) -> list[str]:
    """The values of the Host header; empty for clients other than browsers that do not send one."""
    lines = request.split(b"\r\n\r\n", 1)[0].split(b"\n\n", 1)[0].split(b"\n")[1:]
    fields = [line.decode("latin-1").partition(":") for line in lines]
    return [value.strip() for name, _, value in fields if name.strip().lower() == "host"]


def _may_ask_for(host: str, names: tuple[str, ...]) -> bool:
    """Whether this host name is accepted: an address, localhost, or one of `names`, with or without a port.

    This prevents DNS rebinding: a malicious web page can make its own name resolve to 127.0.0.1 and then read janitor's
    pages in a visitor's browser. That needs a name; it cannot work with an address.
    """
    if not host:
        return True  # like a missing header: no browser sends it
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::\d*)?", host)  # RFC 9110, 7.2
    if found is None:
        return False
    try:
        ip_address(found[1] or found[2])
    except ValueError:
        return found[2] is not None and found[2].lower().rstrip(".") in ("localhost", *names)
    return True


def _response(answer: Answer, *, head: bool) -> bytes:
    """The whole response. Content-Security-Policy prevents scripts and external resources."""
    lines = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.kind}; charset=utf-8",
        f"Content-Length: {len(answer.body)}",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else answer.body)
