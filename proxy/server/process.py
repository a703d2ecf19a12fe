"""The service's process: listening, signals, and an orderly stop.

On the first SIGTERM it calls ``on_drain(drain_s)``: the application answers ``/readyz`` with 503, refuses new work and
finishes what it holds, while the listener stays open. Once nothing is in flight, or after ``drain_s``, uvicorn closes
the listener and idle connections, cancels what is stuck (it gets a 503 in JSON), and ends the lifespan. SIGINT does
the same without waiting. The exit status is 0: left alone, uvicorn would raise the signal again and die of it before
``finally`` and ``atexit`` ran. A second signal ends the process at once (128 + signal).
"""

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from proxy.server.connection import GuardedConfig
from proxy.server.exchange import WireLimits

CUT_S = 2
"""Seconds from the end of the drain until handlers that still run are cancelled."""
SETTLE_S = 0.2
"""Seconds that cancelled handlers get before their connections are closed."""
EXIT_WITHIN_S = 1.0
"""Seconds that ``finally`` blocks get after a second signal before the process ends without them."""
BACKLOG = 2048
UNREAD_S = 60.0
"""Seconds for which a peer may read nothing of what was sent to it before its connection is cut."""

logger = logging.getLogger(__name__)

Address = tuple[str, int]


class PortInUse(OSError):
    """Another process listens on the address."""


class StartupFailed(RuntimeError):
    """The application's lifespan did not start; its reason has been logged."""


class PlainServer(uvicorn.Server):
    """uvicorn without ``sys.exit``, and with a way to close everything."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the lifespan and the listeners. Raises ``StartupFailed`` where uvicorn would end the process."""
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise StartupFailed("The service could not start.") from error

    async def hang_up(self) -> None:
        """Cancel what still runs, so that it is answered, and close every listener and connection."""
        if not self.started:
            return
        for listener in self.servers:
            listener.close()
        running = set(self.server_state.tasks)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=SETTLE_S)
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await asyncio.sleep(0)  # asyncio calls connection_lost in the next turn of the loop


class Server(PlainServer):
    """uvicorn with the signals and the drain described above."""

    def __init__(
        self,
        config: GuardedConfig,
        *,
        drain_s: float,
        on_drain: Callable[[float], None],
        on_started: Callable[[list[Address]], None],
        busy: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self.busy = busy
        self.drain_s = drain_s
        self.on_drain = on_drain
        self.on_started = on_started
        self.exit_code = 0
        self._drain_until: float | None = None
        self._serving: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT on the loop while the server runs."""
        loop = asyncio.get_running_loop()
        self._serving = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then pass the addresses to ``on_started``."""
        await super().startup(sockets)
        self.on_started([listener.getsockname()[:2] for listener in sockets or ()])

    async def on_tick(self, counter: int) -> bool:
        """End the drain when nothing is in flight any more, or its time is over; uvicorn calls this every 0.1 s."""
        if self._drain_until is not None:
            now = asyncio.get_running_loop().time()
            settled = not self.server_state.tasks and not self.busy()
            self.should_exit = self.should_exit or settled or now >= self._drain_until
        return await super().on_tick(counter)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._drain_until is not None:
            self._exit_now(number)
            return
        patience_s = self.drain_s if number == signal.SIGTERM else 0.0
        now = asyncio.get_running_loop().time()
        self._drain_until = now + patience_s
        logger.info("%s: draining %d requests", number.name, len(self.server_state.tasks))
        self.on_drain(patience_s)

    def _exit_now(self, number: signal.Signals) -> None:
        # Cancelling lets finally blocks run; the timer is for handlers and threads that ignore it.
        self.exit_code = 128 + number
        # uvicorn would log a traceback for the cancelled lifespan, and this stop is no error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        backstop = threading.Timer(EXIT_WITHIN_S, os._exit, [self.exit_code])
        backstop.daemon = True
        backstop.start()
        if self._serving is not None:
            self._serving.cancel()


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets, one for each address of ``host``; ``port`` 0 picks a free one, the same for all.

    Raises ``PortInUse``, and ``OSError`` when the host is unknown or not one of this machine's.
    """
    # AI_PASSIVE: no host means every address of this machine (getaddrinfo(3)).
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    # A hosts file with two lines for one name yields its address twice.
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        if listeners and port == 0:
            port = listeners[0].getsockname()[1]
        try:
            listeners.append(_listen(family, (address[0], port, *address[2:])))
        except OSError as error:
            if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:  # "localhost" on a machine without IPv6
                missing = error
                continue
            for listener in listeners:
                listener.close()
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(error.errno, f"{host}:{port} is in use") from error
            raise
    if missing is not None and not listeners:
        raise missing
    return listeners


def _listen(family: int, address: tuple[str | int, ...]) -> socket.socket:
    # The protocol is given because asyncio sets TCP_NODELAY only on sockets that name it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart must not wait for the last run's connections to leave TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _probe_silent_peers(listener)
        if family == socket.AF_INET6:  # else "::" would take the IPv4 port too, which has a listener of its own
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # not left to asyncio: until one listens, two sockets may bind the same address
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _probe_silent_peers(listener: socket.socket) -> None:
    # Accepted sockets inherit these. A held connection is silent for minutes: without probes a peer that vanished
    # without a FIN is never noticed (RFC 9293, 3.8.4), and a NAT router forgets the connection.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A vanished peer is noticed after 30 + 3 x 10 s. The last option (Linux, tcp(7)) is for peers that are there but
    # read nothing: an answer would wait for them for ever.
    options = {
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": round(UNREAD_S * 1000),
    }
    for option, value in options.items():
        if hasattr(socket, option):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def raise_file_limit() -> None:
    """Raise the limit of open files as far as allowed: every held request is one, and the usual limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS reports an infinite hard limit and then refuses to set it; the service runs with what it has.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of the fastest event loop there is here: uvloop where installed."""
    return uvicorn.Config("", loop="auto").get_loop_factory()


async def serve(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    limits: WireLimits,
    drain_s: float,
    on_drain: Callable[[float], None],
    on_started: Callable[[list[Address]], None],
    busy: Callable[[], bool] = lambda: False,
) -> int:
    """Serve until a signal comes; return the exit status. For the main thread only, where signals are handled.

    ``on_started`` gets the bound addresses. ``on_drain`` gets the seconds that requests may still take: ``drain_s``
    after SIGTERM, 0 after SIGINT. ``busy``: whether there is work that no request waits for; the drain waits for it.
    Raises ``PortInUse``, ``OSError`` and ``StartupFailed``.
    """
    listeners = bind(host, port)
    config = GuardedConfig(app, limits, cut_s=CUT_S)
    server = Server(config, drain_s=drain_s, on_drain=on_drain, on_started=on_started, busy=busy)
    try:
        await server.serve(listeners)
    except asyncio.CancelledError:
        if not server.exit_code:  # cancelled from outside, and not by a second signal
            raise
    finally:
        await server.hang_up()
        for listener in listeners:
            listener.close()
    return server.exit_code


@asynccontextmanager
async def serving(
    app: ASGIApp, host: str = "127.0.0.1", port: int = 0, *, limits: WireLimits | None = None
) -> AsyncIterator[int]:
    """Serve ``app`` in the background of the running loop, without signals; yields the port.

    Raises ``PortInUse``, ``OSError`` and ``StartupFailed``.
    """
    listeners = bind(host, port)
    config = GuardedConfig(app, limits or WireLimits(), cut_s=1)
    # What uvicorn's serve() does first; serve() itself would handle signals.
    config.load()
    server = PlainServer(config)
    server.lifespan = config.lifespan_class(config)
    try:
        await server.startup(listeners)
        ticking = asyncio.create_task(server.main_loop())
        try:
            yield listeners[0].getsockname()[1]
        finally:
            ticking.cancel()
            # Not uvicorn's own shutdown, which waits for every connection to end by itself.
            await server.hang_up()
            await server.lifespan.shutdown()
    finally:
        for listener in listeners:
            listener.close()
