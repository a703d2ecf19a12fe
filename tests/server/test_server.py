"""Listening, the plain background server, and what happens when either cannot start."""

import asyncio
import inspect
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import flow_control, httptools_impl

import proxy.server as package
from proxy.server.exchange import WireLimits
from proxy.server.process import PortInUse, StartupFailed, bind, serve, serving

from .client import HEAD, Client
from .service import Service


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def test_port_zero_picks_a_free_port() -> None:
    listeners = bind("127.0.0.1", 0)
    assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.1"]
    assert listeners[0].getsockname()[1] > 0
    close(listeners)


def test_all_addresses_of_a_host_share_the_port() -> None:
    listeners = bind("localhost", 0)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    close(listeners)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolve(_host: str, port: int, **_options: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr("socket.getaddrinfo", resolve)


def test_second_address_shares_the_port_and_a_missing_one_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.1", "192.0.2.1", "127.0.0.2")
    listeners = bind("several", 0)
    hosts, ports = zip(*(listener.getsockname() for listener in listeners), strict=True)
    assert hosts == ("127.0.0.1", "127.0.0.2")
    assert len(set(ports)) == 1
    close(listeners)


def test_second_address_in_use_frees_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = bind("127.0.0.2", 0)
    port = taken[0].getsockname()[1]
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    with pytest.raises(PortInUse):
        bind("several", port)
    resolve_to(monkeypatch, "127.0.0.1")
    close(bind("one", port))
    close(taken)


def test_port_in_use_is_an_error_of_its_own() -> None:
    taken = bind("127.0.0.1", 0)
    port = taken[0].getsockname()[1]
    with pytest.raises(PortInUse, match=f"127.0.0.1:{port} is in use"):
        bind("127.0.0.1", port)
    close(taken)
    close(bind("127.0.0.1", port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_foreign_or_unknown_host_is_an_os_error(host: str) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        bind(host, 0)
    assert not isinstance(caught.value, PortInUse)


def test_accepted_connections_are_probed_when_silent() -> None:
    listeners = bind("127.0.0.1", 0)
    listeners[0].setblocking(True)
    with Client(listeners[0].getsockname()[1]):
        accepted, _ = listeners[0].accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    close(listeners)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]
)
def test_background_server_serves_and_frees_its_port(host: str) -> None:
    async def scenario() -> int:
        async with serving(Service(), host) as port:
            with await asyncio.to_thread(Client, port, host) as client:
                assert (await asyncio.to_thread(client.get, "/x")).status == 200
        async with serving(Service(), host, port) as again:
            return again - port

    assert asyncio.run(scenario()) == 0


def test_background_server_stops_with_a_request_in_hand() -> None:
    async def scenario() -> tuple[int, str]:
        async with serving(Service()) as port:
            client = await asyncio.to_thread(Client, port)
            client.send(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(0.05)
        with client:
            answer = await asyncio.to_thread(client.answer)
            return answer.status, answer.json["error"]["code"]

    assert asyncio.run(scenario()) == (503, "server_is_overloaded")


def test_background_server_stops_with_the_client_gone() -> None:
    async def scenario() -> None:
        async with serving(Service()) as port:
            with await asyncio.to_thread(Client, port) as client:
                client.send(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_background_server_ends_idle_and_lingering_connections() -> None:
    async def scenario() -> list[bool]:
        with ExitStack() as clients:
            async with serving(Service()) as port:
                idle, refused = [clients.enter_context(await asyncio.to_thread(Client, port)) for _ in range(2)]
                await asyncio.to_thread(idle.get, "/x")
                refused.send(b"nonsense\r\n\r\n")
                await asyncio.to_thread(refused.answer)
            return [await asyncio.to_thread(client.ended) for client in (idle, refused)]

    assert asyncio.run(scenario()) == [True, True]


def test_failed_startup_is_an_exception_and_frees_the_port() -> None:
    bound: list[tuple[str, int]] = []

    async def scenario() -> None:
        async with serving(Service(broken_startup=True)):
            pytest.fail("it started")

    with pytest.raises(StartupFailed):
        asyncio.run(scenario())
    with pytest.raises(StartupFailed):
        asyncio.run(
            serve(
                Service(broken_startup=True),
                host="127.0.0.1",
                port=0,
                limits=WireLimits(),
                drain_s=1,
                on_drain=lambda _: None,
                on_started=bound.extend,
            )
        )
    assert bound == []


def test_defaults_are_those_of_the_design() -> None:
    limits = WireLimits()
    assert (limits.header_bytes, limits.header_count, limits.header_s, limits.body_s) == (32768, 100, 5, 10)
    assert limits.stall_s == 5


@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux tells of peers that read nothing")
async def test_a_peer_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.server.process.UNREAD_S", 0.3)
    left = asyncio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Service().live(receive, send)
            return
        await receive()
        headers = [(b"content-length", b"1000000000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending = asyncio.ensure_future(_send_for_ever(send))
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        sending.cancel()

    async with serving(flood) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
        await reader.readexactly(1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await left.wait()
        writer.close()


async def _send_for_ever(send: Send) -> None:
    while True:
        await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        await asyncio.sleep(0)


def _taken() -> list[tuple[str, str]]:
    """Return what the package's introduction says is taken from uvicorn: class and name."""
    items = (package.__doc__ or "").split("\n* ")[1:]
    words = [re.findall(r"``(\w+)``", item) for item in items]
    return [(kind, name) for kind, *names in words for name in names]


@pytest.mark.parametrize(("kind", "name"), _taken())
def test_what_is_taken_from_uvicorn_is_there_and_in_use(kind: str, name: str) -> None:
    modules = (uvicorn.config, uvicorn.server, httptools_impl, flow_control)
    source = inspect.getsource(next(getattr(module, kind) for module in modules if hasattr(module, kind)))
    assert re.search(rf"\b{name}\b", source)
    ours = "".join(path.read_text(encoding="utf-8") for path in Path(package.__path__[0]).glob("[!_]*.py"))
    assert re.search(rf"\b{name}\b", ours)
