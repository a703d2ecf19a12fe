"""Pictures that are not to be fetched, files that are no pictures, pictures that are slow or cut."""

import asyncio
import base64
import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from proxy.simulator.pictures import padded_png
from tests.providers.raw_server import RawServer, Request, Script, answer, raw_server, saying
from tests.service import Service, running

from .scripted import JOB, Upstream, before
from .wire import LABS, LEGACY, SCHNELL, V1, assert_failed

pytestmark = pytest.mark.anyio
ISE = "image_generation_server_error"
NOT_PUBLISHED = "*.part"
STRICT = {"allow_private_hosts": False, "image_hosts": []}


@pytest.fixture(autouse=True)
def _quick_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.generations.results._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("proxy.generations.results._LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr("proxy.jobs.poll._POLL_BACKOFF_S", 0.02)


ADDRESSES = [
    (V1, "http://images.prodia.xyz/1.png"),
    (V1, "https://evil.test/1.png"),
    (V1, "https://images.prodia.xyz@evil.test/1.png"),
    (V1, "https://images.prodia.xyz:8443/1.png"),
    (V1, "https://images.prodia.xyz./1.png"),
    (V1, "file:///etc/passwd"),
    (LABS, "https://10.0.0.1/1.png"),
    (LABS, "https://169.254.169.254/latest"),
    (LABS, "https://[::ffff:127.0.0.1]/1.png"),
    (LABS, "https://localhost/1.png"),
    (LABS, "http://192.0.2.1/1.png"),
    (LABS, "https://a.test/" + "a" * 2048),
]


@pytest.mark.parametrize("form", ["url", "b64_json"])
async def test_addresses_that_are_not_allowed(form: str) -> None:
    async with running(providers=STRICT) as service:

        async def refuse(number: int, model: str, address: str) -> None:
            prompt = f"[seconds:0.02] [tag:t{number}] [fault:bad-url:{address}]"
            answer = await service.generate(prompt, model=model, response_format=form)
            assert_failed(answer, 502, ISE, "provider_bad_result")
            assert address not in answer.body.decode()
            counts = await service.counts(f"t{number}")
            assert (counts["submits"], counts["fetches"]) == (1, 0)

        await asyncio.gather(*(refuse(number, *each) for number, each in enumerate(ADDRESSES)))


async def test_redirects_are_not_followed() -> None:
    done = JSONResponse({"job": JOB, "status": "succeeded"})
    for target in ("http://169.254.169.254/latest", "/pictures/other.png"):
        upstream = Upstream(polls=[done], picture=RedirectResponse(target))
        async with before(upstream) as service:
            answer = await service.generate("a", model=LEGACY, response_format="b64_json")
            assert_failed(answer, 502, ISE, "provider_bad_result")
            assert set(upstream.calls()) == {"/generate", f"/job/{JOB}", f"/pictures/{JOB}.png"}


@pytest.mark.parametrize("fault", ["not-a-picture", "pixels", "expired:tiny"])
async def test_what_was_fetched_is_no_picture(service: Service, tag: str, fault: str) -> None:
    before = set(service.engine.directory.iterdir())
    prompt = f"[seconds:0.02] [tag:{tag}] [fault:{fault}]"
    answer = await service.generate(prompt, model=LEGACY, response_format="b64_json")
    assert_failed(answer, 502, ISE, "provider_bad_result")
    assert (await service.counts(tag))["submits"] == 1
    assert not list(service.engine.directory.glob(NOT_PUBLISHED))
    assert set(service.engine.directory.iterdir()) == before


async def test_an_endless_picture_and_a_bomb_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.client.MAX_PICTURE", 1_000_000)
    async with running() as service:
        answer = await service.generate("[seconds:0.02] [fault:huge]", model=V1, response_format="b64_json")
        assert_failed(answer, 502, ISE, "provider_bad_result")
        assert service.engine.runtimes["prodia-v1"].upstream.traffic.received < 4_000_000
        assert not list(service.engine.directory.glob(NOT_PUBLISHED))
    bomb = Response(
        gzip.compress(b"\0" * 20_000_000), headers={"content-encoding": "gzip", "content-type": "image/png"}
    )
    done = JSONResponse({"job": JOB, "status": "succeeded"})
    async with before(Upstream(polls=[done], picture=bomb)) as service:
        answer = await service.generate("a", model=LEGACY, response_format="b64_json")
        assert_failed(answer, 502, ISE, "provider_bad_result")
        assert not list(service.engine.directory.glob(NOT_PUBLISHED))


# --- pictures that are slow in coming -------------------------------------------------------------------------


def _png() -> bytes:
    return padded_png(64, 64, 20_000)


def _until_the_end(data: bytes) -> bytes:
    """Return an answer without a length: its end is the connection's."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\nconnection: close\r\n\r\n" + data


def ending(*responses: bytes) -> Script:
    """Return a script that gives these responses in order, the last one again and again, and hangs up each time."""
    say = saying(*responses)

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        await say(request, writer)
        writer.close()

    return script


@asynccontextmanager
async def pictures_at(host: RawServer, **tables: Any) -> AsyncIterator[tuple[Service, Upstream]]:
    """Run the service before a provider whose pictures lie at ``host``."""
    upstream = Upstream(polls=[JSONResponse({"job": JOB, "status": "succeeded", "imageUrl": f"{host.url}/a.png"})])
    async with before(upstream, **tables) as service:
        yield service, upstream


@pytest.mark.parametrize("values", [{"response_format": "b64_json"}, {"output_format": "webp"}, {"stream": True}])
@pytest.mark.parametrize(
    "trouble",
    [
        answer(b"not yet", "text/plain", 404),
        answer(b"", "text/plain", 503),
        answer(_png(), "image/png")[:5000],
        b"",
        b"\x15\x03\x01",
    ],
    ids=["404", "503", "broken off", "hangs up", "no HTTP"],
)
async def test_a_picture_that_cannot_be_fetched_yet_is_fetched_until_it_comes(
    trouble: bytes, values: dict[str, Any]
) -> None:
    async with (
        raw_server(ending(*[trouble] * 7, answer(_png(), "image/png"))) as host,
        pictures_at(host) as (service, upstream),
    ):
        assert (await service.generate("a", model=LEGACY, **values)).status == 200
        assert upstream.calls().count("/generate") == 1
        assert len(host.requests) == 8


async def test_a_picture_whose_host_is_down_is_waited_for_and_a_retry_goes_on_waiting() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/a.png"
    upstream = Upstream(polls=[JSONResponse({"job": JOB, "status": "succeeded", "imageUrl": address})])
    async with before(upstream, timeouts={"hold": 0.4}) as service:
        for attempt in range(3):
            headers = {"x-stainless-retry-count": str(attempt)}
            waited = await service.generate("a", headers, model=LEGACY, response_format="b64_json")
            assert_failed(waited, 504, "timeout_error", "generation_pending", retry=True)
        host = RawServer(saying(answer(_png(), "image/png")))
        listener = await asyncio.start_server(host.accept, "127.0.0.1", port)
        retry = await service.generate("a", {"x-stainless-retry-count": "3"}, model=LEGACY, response_format="b64_json")
        assert retry.status == 200
        assert upstream.calls().count("/generate") == 1
        listener.close()
        await host.stop()


@pytest.mark.parametrize(
    ("trouble", "told"),
    [(answer(b"not yet", "text/plain", 404), "status 404"), (b"", "no answer")],
    ids=["404", "hangs up"],
)
async def test_the_log_says_once_that_a_picture_cannot_be_fetched(
    trouble: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = answer(_png(), "image/png")
    async with (
        raw_server(ending(trouble, good, *[trouble] * 5, good)) as host,
        pictures_at(host) as (service, _),
    ):
        said = f"a finished picture of prodia-legacy cannot be fetched ({told}); it is tried again"
        for prompt, lines in (("once late", []), ("a secret fox", [said])):
            assert (await service.generate(prompt, model=LEGACY, response_format="b64_json")).status == 200
            assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == lines
        assert len(host.requests) == 8
        assert not any(word in caplog.text for word in ("fox", host.url, "a.png"))


async def test_a_picture_whose_host_asks_for_patience_is_not_fetched_before() -> None:
    busy = answer(b"", "text/plain", 503, retry_after="1")
    loop = asyncio.get_running_loop()
    async with raw_server(saying(busy, answer(_png(), "image/png"))) as host, pictures_at(host) as (service, _):
        started = loop.time()
        assert (await service.generate("a", model=LEGACY, response_format="b64_json")).status == 200
        assert loop.time() - started >= 1
        assert len(host.requests) == 2


async def test_a_picture_that_never_comes_ends_with_its_lifetime() -> None:
    late = answer(b"", "text/plain", 503, retry_after="3600")
    async with (
        raw_server(saying(late)) as host,
        pictures_at(host, timeouts={"lifetime": 0.6}) as (service, upstream),
    ):
        for attempt in range(3):
            headers = {"x-stainless-retry-count": str(attempt)}
            failed = await service.generate("a", headers, model=LEGACY, response_format="b64_json")
            assert_failed(failed, 502, ISE, "provider_bad_result")
        assert upstream.calls().count("/generate") == 1
        assert len(host.requests) == 2, "the last fetch comes at the end, whatever the host asks for"


CUT = {"half": _png()[:9000], "no end": _png()[:-12], "garbage": _png()[:200] + bytes(9000)}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
async def test_a_cut_picture_is_fetched_again(data: bytes) -> None:
    good = answer(_png(), "image/png")
    async with (
        raw_server(ending(_until_the_end(data), _until_the_end(data), good)) as host,
        pictures_at(host) as (service, upstream),
    ):
        whole = await service.generate("a", model=LEGACY, response_format="b64_json")
        assert base64.b64decode(whole.json["data"][0]["b64_json"]) == _png()
        assert upstream.calls().count("/generate") == 1


@pytest.mark.parametrize("page", [_until_the_end(CUT["half"]), answer(b"<html>Sign in</html>", "text/html")])
async def test_a_picture_that_is_always_cut_is_unusable(page: bytes) -> None:
    async with raw_server(ending(page)) as host, pictures_at(host) as (service, upstream):
        for attempt in range(2):
            headers = {"x-stainless-retry-count": str(attempt)}
            failed = await service.generate("a", headers, model=LEGACY, response_format="b64_json")
            assert_failed(failed, 502, ISE, "provider_bad_result")
        assert upstream.calls().count("/generate") == 1
        assert len(host.requests) == 3
        assert not list(service.engine.directory.glob(NOT_PUBLISHED))


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
async def test_a_cut_picture_in_the_paying_answer_is_unusable_and_not_bought_again(data: bytes) -> None:
    async with raw_server(ending(_until_the_end(data))) as host, running(providers={"base_url": host.url}) as service:
        for attempt in range(3):
            headers = {"x-stainless-retry-count": str(attempt)}
            failed = await service.generate("a fox", headers, model=SCHNELL, response_format="b64_json")
            assert_failed(failed, 502, ISE, "provider_bad_result")
        assert len([request for request in host.requests if request.target == "/job?price=true"]) == 1
        assert not list(service.engine.directory.glob(NOT_PUBLISHED))


@pytest.mark.parametrize(("cuts", "status"), [(2, 200), (9, 502)])
async def test_a_cut_picture_that_is_collected_with_our_key_is_collected_again(cuts: int, status: int) -> None:
    cut = _until_the_end(CUT["half"])
    outputs = [cut] * cuts + [answer(_png(), "image/png")]
    whole = saying(*outputs)

    async def async_job(request: Request, writer: asyncio.StreamWriter) -> None:
        steps = {
            "/job/async?price=true": answer(json.dumps({"id": JOB}).encode()),
            f"/job/async/{JOB}/job.state.current": answer(b"completed", "text/plain"),
            f"/job/async/{JOB}/output": answer(b'["a.png"]'),
        }
        if request.target.endswith("/a.png"):
            await whole(request, writer)
            writer.close()
        else:
            writer.write(steps.get(request.target, answer(status=404)))

    async with (
        raw_server(async_job) as host,
        running(providers={"base_url": host.url, "mode": "async"}) as service,
    ):
        got = await service.generate("a fox", model=SCHNELL, response_format="b64_json")
        assert got.status == status
        if status == 502:
            assert_failed(got, 502, ISE, "provider_bad_result")
        targets = [request.target for request in host.requests]
        assert targets.count("/job/async?price=true") == 1
        assert targets.count(f"/job/async/{JOB}/output/a.png") == 3
