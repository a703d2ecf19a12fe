"""One connection, guarded: uvicorn's httptools protocol with the limits it lacks.

Out of the box it accepts headers of any size, waits for ever for them and for the body, and one pipelined request
hides the client's disconnect. The parts of uvicorn used here are listed in the package's docstring, and tests/server
checks every promise below.

* Request line and headers: limited in bytes and lines (431), and due within ``header_s`` of the connection's start
  or of a later request's first byte (408).
* Body, while the application reads it: no pause longer than ``stall_s``, and ``body_s`` of waiting in all (408).
  A body of more than ``SMALL_BODY`` bytes, or of unknown length, may take longer as long as it flows: every
  ``SLOWEST`` bytes received allow one second more, so a large upload passes on a slow link and a trickle doesn't.
* One request at a time. Whatever follows an unanswered request is read (or a disconnect would go unseen) and dropped,
  and the connection ends with the first answer.
* An upgrade (websocket, h2c) is declined by serving the request as an ordinary one, body included.
* Every refusal is OpenAI's envelope. An answer given before the whole request was read is followed by a half-close
  and a bounded drain: closing at once would send a reset, and the client would lose the answer (RFC 9112, 9.6).
"""

import asyncio
import logging
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from proxy.errors import Failure, HeadersTooLarge, InvalidRequest, RequestTimeout
from proxy.logs import new_request_id
from proxy.server.exchange import READ_FIRST_S, Exchange, WireLimits, check_coding, origin_form, refusal

TRANSPORT = "images_proxy.transport"
"""The extension of each request's scope that holds the connection's ``transport`` (an asyncio.Transport)."""
LINGER_GAP_S = 2.0
"""Seconds without a byte after which a connection that is being drained is closed."""
LINGER_S = 30.0
LINGER_BYTES = 64 * 1024 * 1024
"""Seconds and bytes that draining one connection may take in all."""

logger = logging.getLogger(__name__)


class GuardedConfig(uvicorn.Config):
    """uvicorn's settings as this service uses them, and the connection's limits."""

    def __init__(self, app: ASGIApp, limits: WireLimits, *, cut_s: int) -> None:
        """``cut_s``: seconds that a stop waits for running handlers before it cancels them."""
        super().__init__(
            app,
            http=GuardedProtocol,
            ws="none",
            interface="asgi3",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,  # it would write paths and queries; the application logs each request itself
            proxy_headers=False,  # the application reads them, from server.trusted_proxies only
            server_header=False,
            date_header=True,
            backlog=2048,
            # Above the 60 s for which nginx and AWS keep an idle connection: were we the first to close, a request
            # just being sent would be lost (https://nginx.org/en/docs/http/ngx_http_upstream_module.html#keepalive_timeout).
            timeout_keep_alive=75,
            timeout_graceful_shutdown=cut_s,
            workers=1,
        )
        self.limits = limits


class GuardedProtocol(HttpToolsProtocol):
    """One connection: passes one request at a time to the application, once its headers are complete."""

    # The parent's attributes nearly fill a key-sharing dictionary (PEP 412); more of them would give each of
    # thousands of connections a dictionary of its own.
    __slots__ = (
        "discarded", "framing_bytes", "in_head", "limits", "linger_until", "lingering", "pipelined",
        "timer", "trailer_count", "upgrading",
    )  # fmt: skip

    def __init__(
        self,
        config: GuardedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = config.limits
        self.in_head = True
        self.framing_bytes = self.trailer_count = self.discarded = 0
        self.pipelined = self.lingering = self.upgrading = False
        self.linger_until = 0.0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def answering(self) -> bool:
        """Whether the application has a request whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    # --- the connection ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first request's headers."""
        super().connection_made(transport)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every timer and wake the application."""
        self._stop_timer()
        # uvicorn stops this timer only after a clean close; after a reset it would keep the connection for 75 s.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End an idle or lingering connection now, a busy one after its answer."""
        if self.lingering:
            self.transport.close()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Feed the parser as far as the limits allow; refuse or drop the rest."""
        self._unset_keepalive_if_required()
        if self.pipelined or self.lingering:
            self.discarded += len(data)
            return
        try:
            self._feed(memoryview(data))
        except Failure as failure:
            self._reject(failure)
        except httptools.HttpParserError as error:
            # What a callback below raises arrives as the context of httptools' own HttpParserCallbackError.
            cause = error.__context__
            self._reject(cause if isinstance(cause, Failure) else InvalidRequest("This is not a valid HTTP request."))
        else:
            # The first bytes of another request on a kept connection: its headers are due from now on.
            if self.in_head and self.timer is None and not self.answering:
                self._start_header_timer()

    def _feed(self, data: memoryview) -> None:
        # In pieces, because the parser would collect a header of any length before it calls back. Body bytes don't
        # count (on_body sets the count back), so a large first read with short headers passes.
        limit = self.limits.header_bytes
        while data:
            piece = data[: limit - self.framing_bytes]
            taken, upgraded = len(piece), False
            self.framing_bytes += taken
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                taken, upgraded = upgrade.args[0], True
            if upgraded:  # not in the "except" clause: there the upgrade would become the refusal's __context__
                self._decline_upgrade()
            data = data[taken:]
            if self.framing_bytes >= limit:
                raise HeadersTooLarge(f"The request's line and headers are over {limit} bytes.")

    def _decline_upgrade(self) -> None:
        # After an upgrade the parser treats the rest as another protocol and skips the body. So a new parser gets
        # the same headers without Upgrade and reads the rest as HTTP (RFC 9110, 7.8: a server may ignore Upgrade).
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        head.append(b"\r\n")
        self.upgrading = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"".join(head))

    # --- what the parser calls --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request, unless another is still unanswered."""
        if self.answering:
            raise InvalidRequest("Pipelined requests are not served.")
        super().on_message_begin()
        self.trailer_count = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header and keep it; a trailer is counted and dropped, since the application is already running."""
        if self.in_head:
            super().on_header(name, value)
        else:
            self.trailer_count += 1
        if len(self.headers) + self.trailer_count > self.limits.header_count:
            raise HeadersTooLarge(f"The request has more than {self.limits.header_count} headers.")

    def on_headers_complete(self) -> None:
        """Check what the parser leaves unchecked and start the application."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise InvalidRequest("This service is not a tunnel: CONNECT is not served.")
        if self.parser.should_upgrade():
            self.upgrading = True  # the same headers come again, without Upgrade, from the new parser
            return
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        if version not in {"1.0", "1.1"}:
            raise InvalidRequest("This service speaks HTTP/1.0 and HTTP/1.1.")
        if len(hosts) > 1 or (not hosts and version == "1.1"):  # RFC 9112, 3.2
            raise InvalidRequest("A request needs exactly one Host header.")
        check_coding(version, self.headers)
        self.url = origin_form(self.url, hosts[0] if hosts else None)
        self.in_head = False
        self.framing_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self.framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Close the request's body; the next byte belongs to another request."""
        if self.upgrading:
            return
        self.in_head = True
        self.framing_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # ASGI has no message that resets a connection; the simulator, which plays such faults, uses the transport.
        cycle.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}
        super()._start_asgi_task(cycle, Exchange(self, cycle, app).run)  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """Wait for the next request, or end a connection on which something was left unread."""
        if self.pipelined or self.cycle.more_body:
            self.server_state.total_requests += 1  # as the parent does, which is not called here
            self._linger()
        else:
            super().on_response_complete()

    # --- refusals and the end ---------------------------------------------------------------------------------

    def _reject(self, failure: Failure) -> None:
        # The request being answered came whole: what is wrong came after it, and must not cost it its answer.
        if self.answering and not self.cycle.more_body:
            self.pipelined = True
        else:
            self.refuse(failure)

    def refuse(self, failure: Failure) -> None:
        """Answer with ``failure`` if no answer has begun, report a disconnect to the application, and end."""
        begun = self.answering and self.cycle.response_started
        if self.answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.is_closing() or self.lingering:
            return
        if begun:  # too late for a status: only a cut-off answer can still show the failure
            self.transport.close()
            return
        request_id = new_request_id()
        logger.info("refused %s: %d %s", request_id, failure.status, failure.code)
        self.transport.write(refusal(failure, request_id, self.server_state.default_headers))
        self._linger()

    def _linger(self) -> None:
        if self.transport.is_closing():
            return
        self.lingering = True
        self.flow.resume_reading()  # it may be paused over a large body, and then the peer's close would go unseen
        self.transport.write_eof()
        self.linger_until = self.loop.time() + LINGER_S
        self._stop_timer()
        self.timer = self.loop.call_later(LINGER_GAP_S, self._check_linger, self.discarded)

    def _check_linger(self, before: int) -> None:
        over = self.loop.time() >= self.linger_until or self.discarded > LINGER_BYTES
        if over or self.discarded == before:
            self.transport.close()
        else:
            self.timer = self.loop.call_later(LINGER_GAP_S, self._check_linger, self.discarded)

    def _start_header_timer(self) -> None:
        self.timer = self.loop.call_later(self.limits.header_s, self._on_header_due)

    def _on_header_due(self) -> None:
        self.timer = self.loop.call_later(READ_FIRST_S, self._on_header_timeout)

    def _on_header_timeout(self) -> None:
        self.timer = None
        self.refuse(RequestTimeout(f"The request's headers did not arrive within {self.limits.header_s:g} s."))

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
