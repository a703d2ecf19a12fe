"""The one door to providers, on real sockets: sent once, bounded in time and bytes, and told apart when it fails."""

import asyncio
import gzip
import io
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import proxy.upstream.client
from proxy import __version__
from proxy.errors import ProviderBadResponse, ProviderBadResult, StateUnavailable
from proxy.pictures.drafts import Drafts, FileDraft
from proxy.providers.boundary import Call, Reply
from proxy.simulator.pictures import padded_png
from proxy.upstream.addresses import AddressRefused, ResultAddresses
from proxy.upstream.client import MAX_ANSWER, Interrupted, NotSent, ResultNotReady, Upstream
from proxy.upstream.incoming import NotWhole
from tests.providers.examples import content
from tests.providers.raw_server import Request, Script, answer, hang_up, raw_server, saying, silent
from tests.time_skip import backend

pytestmark = pytest.mark.anyio

PICTURE = padded_png(8, 8, 16_000)
Connect = Callable[..., Upstream]


@pytest.fixture
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    return backend(skip=not full)


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """Make connections whose pictures go to the test's folder."""
    store = Drafts(tmp_path)
    made: list[Upstream] = []

    def make(results: ResultAddresses | None = None, **more: Any) -> Upstream:
        made.append(Upstream(more.pop("draft", store.draft), results or ResultAddresses(allow_private=True), **more))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def upstream(connect: Connect) -> Upstream:
    return connect()


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def _reset(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


# --- sent once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("script", [hang_up, _reset])
async def test_a_submit_dropped_on_a_fresh_connection_was_sent_once(
    upstream: Upstream, method: Any, script: Script
) -> None:
    async with raw_server(script) as server:
        call = Call(method, f"{server.url}/generate", query={"prompt": "x"})
        with pytest.raises(Interrupted):
            await upstream.send(call, 2.0)
        await asyncio.sleep(0.01)
        assert (len(server.requests), server.connections) == (1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("ending", [hang_up, _reset])
async def test_a_submit_dropped_on_a_reused_connection_was_sent_once(
    upstream: Upstream, method: Any, ending: Script
) -> None:
    async def answer_then_drop(request: Request, writer: asyncio.StreamWriter) -> None:
        await (saying(answer()) if request.target == "/first" else ending)(request, writer)

    async with raw_server(answer_then_drop) as server:
        await upstream.send(Call("GET", f"{server.url}/first"), 2.0)
        with pytest.raises(Interrupted):
            await upstream.send(Call(method, f"{server.url}/generate"), 2.0)
        await asyncio.sleep(0.01)
        assert [request.connection for request in server.requests] == [1, 1]
        assert server.connections == 1


async def test_a_safe_call_is_sent_again_when_its_idle_connection_was_dropped(upstream: Upstream) -> None:
    async def drop_once(request: Request, writer: asyncio.StreamWriter) -> None:
        await (hang_up if len(server.requests) == 2 else saying(answer()))(request, writer)

    async with raw_server(drop_once) as server:
        for _ in range(2):
            assert (await upstream.send(Call("GET", f"{server.url}/job/1", safe=True), 2.0)).status == 200
        assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_aiohttp_itself_would_have_sent_it_twice() -> None:
    """The reason for all of this: without the middleware one GET becomes two."""
    async with raw_server(hang_up) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(f"{server.url}/generate")
        assert len(server.requests) == 2


async def test_an_answer_that_breaks_off_is_not_asked_for_again(upstream: Upstream) -> None:
    async def half(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b'{"job": "0f4c6b0e"}')[:-5])
        writer.close()

    async with raw_server(half) as server:
        with pytest.raises(Interrupted):
            await upstream.send(Call("GET", server.url), 2.0)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\xff" * 50 + b"\r\n\r\n"]
)
async def test_an_answer_that_is_not_http_is_an_interruption(upstream: Upstream, garbage: bytes) -> None:
    async with raw_server(saying(garbage)) as server:
        with pytest.raises(Interrupted):
            await upstream.send(Call("POST", server.url, json={}), 2.0)
        assert len(server.requests) == 1


# --- provably not sent ----------------------------------------------------------------------------------------


async def test_a_refused_connection_was_not_sent(upstream: Upstream) -> None:
    with pytest.raises(NotSent):
        await upstream.send(Call("GET", f"http://127.0.0.1:{_unused_port()}/generate"), 2.0)


async def test_a_name_that_does_not_resolve_was_not_sent(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NotSent):
        await upstream.send(Call("GET", "https://nonexistent.invalid/generate"), 2.0)


async def test_a_failed_tls_handshake_was_not_sent(upstream: Upstream) -> None:
    async def no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(no_tls, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(NotSent):
            await upstream.send(Call("POST", f"https://127.0.0.1:{port}/job", json={}), 2.0)


async def test_a_tls_handshake_that_never_ends_was_not_sent(upstream: Upstream) -> None:
    async with raw_server(silent) as server:
        with pytest.raises(NotSent):
            await upstream.send(Call("POST", f"https://127.0.0.1:{server.port}/job", json={}), 0.05)
        assert server.requests == []


async def test_an_unreachable_outbound_proxy_was_not_sent(connect: Connect) -> None:
    upstream = connect(http_proxy=f"http://127.0.0.1:{_unused_port()}")
    with pytest.raises(NotSent):
        await upstream.send(Call("POST", "http://provider.test/job", json={}), 2.0)


async def test_an_outbound_proxy_that_opens_no_tunnel_has_sent_nothing(connect: Connect) -> None:
    async with raw_server(saying(answer(status=407))) as server:
        upstream = connect(http_proxy=server.url, credentials={"authorization": "s3cret"})
        with pytest.raises(NotSent):
            await upstream.send(Call("POST", "https://provider.test/job"), 2.0)
        (request,) = server.requests
        assert (request.method, request.target) == ("CONNECT", "provider.test:443")
        assert "authorization" not in request.headers


async def test_an_outbound_proxy_carries_the_call(connect: Connect) -> None:
    async with raw_server(saying(answer(b'{"a": 1}'))) as server:
        reply = await connect(http_proxy=server.url).send(Call("GET", "http://provider.test/job?x=1"), 2.0)
        assert reply.json() == {"a": 1}
        assert server.requests[0].target == "http://provider.test/job?x=1"


# --- bounded in time ------------------------------------------------------------------------------------------


async def test_a_call_over_its_time_is_an_interruption(upstream: Upstream) -> None:
    async with raw_server(silent) as server:
        with pytest.raises(Interrupted):
            await upstream.send(Call("GET", server.url), 0.03)
        assert len(server.requests) == 1


async def _half_then_silent(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(PICTURE, "image/png")[:2000])
    await asyncio.Event().wait()


@pytest.mark.parametrize("picture", [True, False])
async def test_a_body_that_stalls_is_an_interruption(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, picture: bool
) -> None:
    monkeypatch.setattr(proxy.upstream.client, "STALL_S", 0.02)
    async with raw_server(_half_then_silent) as server:
        with pytest.raises(Interrupted):
            await upstream.send(Call("GET", server.url, picture=picture), 30.0)
    assert _files(tmp_path) == []


async def test_a_body_that_drips_is_cut_at_the_total(upstream: Upstream) -> None:
    async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.005)

    async with raw_server(drip) as server:
        with pytest.raises(Interrupted):
            await upstream.send(Call("GET", server.url), 0.05)


async def test_cancelling_a_call_ends_it_and_leaves_no_file(connect: Connect, tmp_path: Path) -> None:
    opened, arrived = asyncio.Event(), asyncio.Event()

    def draft() -> FileDraft:
        opened.set()
        return FileDraft(tmp_path / "a", io.FileIO(tmp_path / "a", "wb"))

    upstream = connect(draft=draft)

    async def half_then_silent(request: Request, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await _half_then_silent(request, writer)

    async with raw_server(half_then_silent) as server:
        task = asyncio.ensure_future(upstream.send(Call("GET", server.url, picture=True), 30.0))
        await opened.wait()
        await arrived.wait()
        assert _files(tmp_path) == [tmp_path / "a"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert _files(tmp_path) == []


# --- bounded in bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MAX_ANSWER + 1, 4 * MAX_ANSWER])
async def test_an_answer_over_its_limit_is_a_bad_response(upstream: Upstream, size: int) -> None:
    async with raw_server(saying(answer(b" " * size), answer())) as server:
        with pytest.raises(ProviderBadResponse, match="larger"):
            await upstream.send(Call("GET", server.url), 2.0)
        assert (await upstream.send(Call("GET", server.url), 2.0)).body == b"{}"


async def test_an_answer_at_its_limit_is_read(upstream: Upstream) -> None:
    async with raw_server(saying(answer(b" " * MAX_ANSWER), answer(b" " * 9))) as server:
        assert len((await upstream.send(Call("GET", server.url), 2.0)).body) == MAX_ANSWER
        with pytest.raises(ProviderBadResponse):
            await upstream.send(Call("GET", server.url), 2.0, max_bytes=8)
    assert upstream.traffic.received == MAX_ANSWER


@pytest.mark.parametrize("status", [404, 429, 502, 503])
@pytest.mark.parametrize("picture", [True, False])
async def test_a_refusals_status_counts_however_long_its_page_is(
    upstream: Upstream, tmp_path: Path, status: int, picture: bool
) -> None:
    page = b"<title>Just a moment...</title>" + b" " * (4 * MAX_ANSWER)
    async with raw_server(saying(answer(page, "text/html", status, retry_after="2"))) as server:
        reply = await upstream.send(Call("POST", server.url, picture=picture), 2.0)
    assert (reply.status, reply.retry_after) == (status, 2.0)
    assert len(reply.body) <= MAX_ANSWER
    assert _files(tmp_path) == []


@pytest.mark.parametrize("picture", [True, False])
async def test_a_compression_bomb_is_capped(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, picture: bool
) -> None:
    monkeypatch.setattr(proxy.upstream.client, "MAX_PICTURE", 300_000)
    bomb = gzip.compress(bytes(20_000_000))
    assert len(bomb) < 40_000
    written: list[int] = []
    monkeypatch.setattr(FileDraft, "discard", _measuring(FileDraft.discard, written))
    async with raw_server(saying(answer(bomb, "image/png", content_encoding="gzip"))) as server:
        with pytest.raises(ProviderBadResponse, match="larger"):
            await upstream.send(Call("GET", server.url, picture=picture), 5.0)
    assert all(size <= 300_000 for size in written)
    assert len(written) == int(picture)
    assert _files(tmp_path) == []


def _measuring(discard: Callable[[FileDraft], None], sizes: list[int]) -> Callable[[FileDraft], None]:
    def measure(draft: FileDraft) -> None:
        sizes.append(draft.path.stat().st_size)
        discard(draft)

    return measure


# --- what comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_not_followed(upstream: Upstream, status: int) -> None:
    async with raw_server(saying(answer(status=status, location="/elsewhere"))) as server:
        reply = await upstream.send(Call("GET", server.url), 2.0)
        assert (reply.status, reply.headers["location"]) == (status, "/elsewhere")
        assert len(server.requests) == 1


async def test_a_credential_goes_with_every_call_of_the_api_and_with_no_fetch(connect: Connect) -> None:
    """Not even where the result lies on the host and port of the API, nor by a redirect to it."""
    scripts = [answer(), answer(), answer(PICTURE, "image/png"), answer(status=302, location="/elsewhere"), answer()]
    async with raw_server(saying(*scripts)) as server:
        upstream = connect(credentials={"x-key": "s3cret"})
        await upstream.send(Call("POST", f"{server.url}/submit", {"accept": "image/png"}, json={}), 2.0)
        await upstream.send(Call("GET", f"{server.url}/ask", safe=True), 2.0)
        await upstream.fetch(f"{server.url}/result.png")
        with pytest.raises(ProviderBadResult):
            await upstream.fetch(f"{server.url}/moved.png")
        await upstream.send(Call("GET", f"{server.url}/ask", safe=True), 2.0)
        said = {request.target: "s3cret" in str(request.headers) for request in server.requests}
    assert said == {"/submit": True, "/ask": True, "/result.png": False, "/moved.png": False}
    assert "s3cret" not in repr(upstream)


async def test_no_cookie_is_kept_and_the_service_names_itself(upstream: Upstream) -> None:
    async with raw_server(saying(answer(set_cookie="session=1; Path=/"))) as server:
        for _ in range(2):
            await upstream.send(Call("GET", server.url), 2.0)
        assert all("cookie" not in request.headers for request in server.requests)
        assert {request.headers["user-agent"] for request in server.requests} == {f"images-proxy/{__version__}"}
        assert server.connections == 1


async def test_the_environments_proxy_is_not_used(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{_unused_port()}")
    monkeypatch.setenv("no_proxy", "")
    async with raw_server(saying(answer())) as server:
        assert (await upstream.send(Call("GET", server.url), 2.0)).status == 200


async def test_headers_are_asked_for_in_lower_case(upstream: Upstream) -> None:
    async with raw_server(saying(answer(X_Odd="Value"))) as server:
        call = Call("GET", server.url)
        reply = await upstream.send(call, 2.0)
    assert reply.headers["x-odd"] == "Value"
    assert reply == Reply(200, reply.headers, b"{}")
    assert "Value" not in repr(reply)
    assert server.url not in repr(reply)


async def test_a_picture_streams_into_a_file(upstream: Upstream, tmp_path: Path) -> None:
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        reply = await upstream.send(Call("POST", server.url, json={}, picture=True), 2.0)
    assert reply.picture is not None
    assert _files(tmp_path) == [reply.picture]
    assert (content(reply.picture), reply.body) == (PICTURE, b"")
    assert upstream.traffic.received == len(PICTURE)


async def test_a_picture_cut_short_leaves_no_file(upstream: Upstream, tmp_path: Path) -> None:
    async def half(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(PICTURE, "image/png")[:3000])
        writer.close()

    async with raw_server(half) as server:
        with pytest.raises(Interrupted):
            await upstream.send(Call("POST", server.url, json={}, picture=True), 2.0)
    assert _files(tmp_path) == []


class _SlowDisk(io.FileIO):
    """Takes a few bytes at a time, as an unbuffered file may."""

    def write(self, data: Any, /) -> int:
        return super().write(bytes(data[:100])) or 0


class _FillingDisk(io.FileIO):
    """Has room for so many bytes."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path, "x+b")
        self.room = room

    def write(self, data: Any, /) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = super().write(bytes(data[: self.room])) or 0
        self.room -= taken
        return taken


async def test_a_slow_disk_gets_every_byte(connect: Connect, tmp_path: Path) -> None:
    upstream = connect(draft=lambda: FileDraft(tmp_path / "a", _SlowDisk(tmp_path / "a", "wb")))
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        reply = await upstream.send(Call("GET", server.url, picture=True), 2.0)
    assert content(reply.picture) == PICTURE
    assert _files(tmp_path) == [tmp_path / "a"]


def _in_two_halves(data: bytes) -> Script:
    async def script(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data[: len(data) // 2])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(data[len(data) // 2 :])

    return script


@pytest.mark.parametrize("room", [0, 5000, 15_000])
async def test_a_picture_that_the_disk_has_no_room_for_comes_whole_all_the_same(
    connect: Connect, tmp_path: Path, room: int
) -> None:
    upstream = connect(draft=lambda: FileDraft(tmp_path / "a", _FillingDisk(tmp_path / "a", room)))
    async with raw_server(_in_two_halves(answer(PICTURE, "image/png"))) as server:
        reply = await upstream.send(Call("POST", server.url, picture=True), 2.0)
    assert reply.picture == PICTURE
    assert _files(tmp_path) == []


@pytest.mark.parametrize("fate", ["removed", "exchanged for a file", "moved"])
async def test_a_picture_whose_folder_goes_while_it_comes_is_not_lost(
    connect: Connect, tmp_path: Path, fate: str
) -> None:
    folder = tmp_path / "pictures"
    store = Drafts(folder)
    store.open(0)

    async def half_then_the_rest(_: Request, writer: asyncio.StreamWriter) -> None:
        said = answer(PICTURE, "image/png")
        writer.write(said[:5000])
        await writer.drain()
        while not any(path.stat().st_size for path in folder.iterdir()):  # noqa: ASYNC110 (a file tells nobody)
            await asyncio.sleep(0.005)
        folder.rename(tmp_path / "elsewhere")
        if fate != "moved":
            shutil.rmtree(tmp_path / "elsewhere")
        if fate == "exchanged for a file":
            folder.touch()
        writer.write(said[5000:])

    upstream = connect(draft=store.draft)
    async with raw_server(half_then_the_rest) as server:
        reply = await upstream.send(Call("POST", server.url, picture=True), 2.0)
    assert reply.picture == PICTURE


def _full() -> FileDraft:
    raise OSError(28, "No space left on device")


async def test_what_cannot_be_stored_is_not_bought(connect: Connect) -> None:
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        with pytest.raises(StateUnavailable):
            await connect(draft=_full).send(Call("POST", server.url, picture=True), 2.0)
        assert server.requests == []


async def test_what_is_bought_already_comes_without_a_file_too(connect: Connect) -> None:
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        upstream = connect(draft=_full)
        assert (await upstream.send(Call("GET", server.url, picture=True, safe=True), 2.0)).picture == PICTURE
        assert await upstream.fetch(f"{server.url}/a.png") == PICTURE


def _until_the_end(data: bytes) -> Script:
    """Return a script for an answer without a length: its end is the connection's."""

    async def script(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\nconnection: close\r\n\r\n" + data)
        writer.close()

    return script


@pytest.mark.parametrize("data", [PICTURE[:9000], PICTURE[:-1], PICTURE[:100] + bytes(9000)])
async def test_a_picture_that_only_its_connection_ends_is_told_cut_by_its_structure(
    upstream: Upstream, tmp_path: Path, data: bytes
) -> None:
    async with raw_server(_until_the_end(data)) as server:
        with pytest.raises(NotWhole):
            await upstream.send(Call("POST", server.url, picture=True), 2.0)
        with pytest.raises(NotWhole):
            await upstream.fetch(f"{server.url}/a.png")
    async with raw_server(_until_the_end(PICTURE)) as server:
        assert content(await upstream.fetch(f"{server.url}/a.png")) == PICTURE
    assert len(_files(tmp_path)) == 1


# --- fetching results -----------------------------------------------------------------------------------------


async def test_a_result_is_fetched_into_a_file(upstream: Upstream, tmp_path: Path) -> None:
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        paths: list[Any] = [await upstream.fetch(f"{server.url}/{name}.png") for name in "ab"]
        assert server.requests[0].headers["accept"] == "image/*"
        assert [request.target for request in server.requests] == ["/a.png", "/b.png"]
    assert [path.read_bytes() for path in paths] == [PICTURE, PICTURE]
    assert set(_files(tmp_path)) == set(paths)


@pytest.mark.parametrize(
    "response",
    [
        answer(b"<html>expired</html>", "text/html"),
        answer(b"{}", "application/json"),
        answer(b"svg", "text/xml"),
        answer(PICTURE, "image/png", 404),
        answer(PICTURE, "image/png", 203),
        answer(PICTURE, "image/png", 302, location="/other.png"),
    ],
    ids=["html", "json", "xml", "404", "203", "redirect"],
)
async def test_what_is_not_a_picture_is_a_bad_result(upstream: Upstream, tmp_path: Path, response: bytes) -> None:
    async with raw_server(saying(response)) as server:
        with pytest.raises(ProviderBadResult, match="does not lead to a picture"):
            await upstream.fetch(f"{server.url}/a.png")
        assert len(server.requests) == 1
    assert _files(tmp_path) == []


@pytest.mark.parametrize("script", [hang_up, silent, saying(answer(bytes(2000), "image/png"))])
async def test_a_result_that_cannot_be_fetched_is_a_bad_result(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Script
) -> None:
    monkeypatch.setattr(proxy.upstream.client, "MAX_PICTURE", 1000)
    async with raw_server(script) as server:
        with pytest.raises(ProviderBadResult, match="could not be fetched"):
            await upstream.fetch(f"{server.url}/a.png", timeout_s=0.05)
    assert _files(tmp_path) == []


async def test_a_loopback_result_is_refused_before_any_connection(connect: Connect) -> None:
    upstream = connect(ResultAddresses())
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        for address in (f"http://127.0.0.1:{server.port}/a.png", "https://127.0.0.1/a.png", "https://[::1]/a.png"):
            with pytest.raises(ProviderBadResult, match="not allowed"):
                await upstream.fetch(address)
            with pytest.raises(ProviderBadResult, match="not allowed"):
                upstream.check_result(address)
        assert server.connections == 0
    assert upstream.check_result("https://pictures.test/a.png") == "https://pictures.test/a.png"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.8", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::a00:8", "fd00::1"]
)
async def test_a_name_that_resolves_to_a_private_address_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    upstream = connect(ResultAddresses())
    _resolve_to(monkeypatch, address)
    with pytest.raises(ProviderBadResult, match="could not be fetched") as caught:
        await upstream.fetch("https://pictures.test/a.png", timeout_s=2.0)
    assert not isinstance(caught.value, ResultNotReady), "it will never be there"
    assert AddressRefused in {type(error) for error in _causes(caught.value)}


async def test_allowed_private_hosts_may_resolve_to_the_loopback(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve_to(monkeypatch, "127.0.0.1")
    async with raw_server(saying(answer(PICTURE, "image/png"))) as server:
        path = await upstream.fetch(f"http://pictures.test:{server.port}/a.png")
    assert content(path) == PICTURE


def _resolve_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    def resolve(_: str, port: int, *__: Any, **___: Any) -> list[Any]:
        if ":" in address:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "os_error", None)]
    return found


async def test_connections_may_be_closed_twice_and_opened_again(upstream: Upstream) -> None:
    await upstream.close()
    async with raw_server(saying(answer())) as server:
        assert (await upstream.send(Call("GET", server.url), 2.0)).status == 200
        await upstream.close()
        await upstream.close()
        assert (await upstream.send(Call("GET", server.url), 2.0)).status == 200
        assert server.connections == 2
