"""What surrounds the application on the wire: limits, one exchange of request and answer, the bytes of a refusal."""

import asyncio
import logging
import os
import re
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from proxy.errors import (
    AmbiguousTarget,
    Failure,
    InternalError,
    InvalidRequest,
    Overloaded,
    RequestTimeout,
    UnknownCoding,
    write,
)

SMALL_BODY = 1024 * 1024
"""Bytes: a body whose announced length is no larger must arrive within ``body_s``."""
SLOWEST = 8 * 1024
"""Bytes per second that a larger body must reach on average, once ``body_s`` is over."""
READ_FIRST_S = 0.05
"""After a stall of this process its timers come before what has arrived meanwhile; in this time that is read."""
HAS_LEFT = "images_proxy.has_left"
"""The name of our extension of ASGI: a function that says whether the peer has hung up."""
_ABSOLUTE = re.compile(rb"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What a client may take before and while the application reads its request."""

    header_bytes: int = 32768
    """Bytes of request line and headers together, and of a chunked body's framing between two pieces of data."""
    header_count: int = 100
    """Header lines of one request, its trailers included."""
    header_s: float = 5.0
    """Seconds to receive the headers."""
    body_s: float = 10.0
    """Seconds that the application may wait for the body in all."""

    @property
    def stall_s(self) -> float:
        """Seconds that may pass without a byte of the body."""
        return min(5.0, self.body_s)


def check_coding(version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse codings that a front end may read differently, which allows request smuggling (RFC 9112, 6.1 and 6.3).

    Raises UnknownCoding, InvalidRequest.
    """
    codings = [value.strip(b" \t").lower() for name, value in headers if name == b"transfer-encoding"]
    if not codings:
        return
    if codings != [b"chunked"]:
        raise UnknownCoding("The only Transfer-Encoding that this service understands is 'chunked'.")
    if version == "1.0":  # RFC 9112, 6.1: its framing must be taken for faulty
        raise InvalidRequest("HTTP/1.0 knows no Transfer-Encoding.")


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """Return the path and query of a request target; ``host`` is its Host header, or None.

    An absolute target outranks Host (RFC 9112, 3.2.2), but a front end's rules may have looked at either, so the two
    must agree. Raises AmbiguousTarget, InvalidRequest.
    """
    if target.startswith(b"/") or target == b"*":  # "*" is for OPTIONS (RFC 9112, 3.2.4)
        return target
    parts = _ABSOLUTE.fullmatch(target)
    if parts is None:
        raise InvalidRequest("The request target is neither a path nor an http address.")
    port = _DEFAULT_PORTS[parts["scheme"].lower()]
    authorities = {name.lower().removesuffix(port) for name in (parts["authority"], host) if name is not None}
    if len(authorities) > 1:
        raise AmbiguousTarget("The request target names another host than the Host header.")
    return parts["rest"] if parts["rest"].startswith(b"/") else b"/" + parts["rest"]


class Connection(Protocol):
    """What an exchange needs of its connection."""

    limits: WireLimits
    loop: asyncio.AbstractEventLoop
    pipelined: bool

    def refuse(self, failure: Failure) -> None:
        """Answer with ``failure`` if no answer has begun, report a disconnect to the application, and end."""


class Exchange:
    """One request and its answer: times the body's arrival, and answers every failure in JSON."""

    __slots__ = ("app", "connection", "cycle", "received", "timer", "waited_s")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle, app: ASGIApp) -> None:
        self.connection = connection
        self.cycle = cycle
        self.app = app
        self.waited_s = 0.0
        self.received = 0
        self.timer: asyncio.TimerHandle

    async def run(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Run the application; what it leaves unanswered is answered here in JSON, before uvicorn does it in text."""
        scope.setdefault("extensions", {})[HAS_LEFT] = self.has_left
        try:
            await self.app(scope, self.receive, self.send)
        except asyncio.CancelledError:  # only a stop cancels: the drain is over, or a second signal came
            self.connection.refuse(Overloaded("The service is stopping.", retry_after=1))
        except Exception:
            logger.exception("the application failed")
            self.connection.refuse(InternalError())
        else:
            if not self.cycle.response_complete and not self.cycle.disconnected:
                logger.error("the application returned without a complete answer")
                self.connection.refuse(InternalError())

    async def receive(self) -> Message:
        """Return the next piece of the body; ``http.disconnect`` after a timeout, which was answered with 408."""
        # Without a timer where nothing is waited for: the body is whole, or its next piece is here.
        if not self.cycle.more_body or self.cycle.message_event.is_set():
            return await self._read()
        loop = self.connection.loop
        started = loop.time()
        patience_s = self._patience_s()
        over = self._on_body_due if patience_s else self._on_body_timeout
        self.timer = loop.call_later(patience_s, over, started + patience_s)
        try:
            return await self._read()
        finally:
            self.timer.cancel()
            self.waited_s += loop.time() - started

    async def _read(self) -> Message:
        message: Message = await self.cycle.receive()  # type: ignore[assignment]
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer."""
        # Something is left unread. Without keep_alive uvicorn would close the transport with the answer's last byte,
        # and the reset could destroy the answer. The connection lingers instead, in on_response_complete.
        if self.cycle.more_body or self.connection.pipelined:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            else:
                self.cycle.keep_alive = True
        await self.cycle.send(message)  # type: ignore[arg-type]

    def has_left(self) -> bool:
        """Whether the peer has hung up, even if the event loop has not read that from the socket yet."""
        return self.cycle.disconnected or self.cycle.transport.is_closing() or _hung_up(self.cycle.transport)

    def _patience_s(self) -> float:
        limits = self.connection.limits
        allowed_s = limits.body_s
        if not self._is_small():
            allowed_s += self.received / SLOWEST
        return max(0.0, min(limits.stall_s, allowed_s - self.waited_s))

    def _is_small(self) -> bool:
        for name, value in self.cycle.scope["headers"]:
            if name == b"content-length":  # the parser accepts digits only
                return int(value) <= SMALL_BODY
        return False

    def _on_body_due(self, due: float) -> None:
        loop = self.connection.loop
        self.waited_s -= loop.time() - due  # a stall isn't the caller's fault
        self.timer = loop.call_later(READ_FIRST_S, self._on_body_timeout, due)

    def _on_body_timeout(self, _due: float) -> None:
        self.connection.refuse(RequestTimeout("The request's body did not arrive in time."))


def _hung_up(transport: asyncio.BaseTransport) -> bool:
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return True
    if hasattr(select, "POLLRDHUP"):  # Linux only; seen even if unread bytes came before the close (poll(2))
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))
    # The transport's socket has no recv. A duplicate does, and closing it leaves the connection open.
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        try:
            return not same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


def refusal(failure: Failure, request_id: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the whole answer to a refused request: OpenAI's envelope, readable from any origin."""
    written, body = write(failure)
    headers = {
        **written,
        "x-request-id": request_id,
        # The Origin header may not even have been read. There is nothing in here that a page may not see.
        "access-control-allow-origin": "*",
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {failure.status} {HTTPStatus(failure.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in default_headers]
    lines += [f"{name}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])
