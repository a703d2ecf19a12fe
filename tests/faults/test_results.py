"""Rows 28 and 29: pictures that are not to be fetched, and files that are no pictures."""

import asyncio
import gzip

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.service import Service, running

from .scripted import JOB, Upstream, before
from .wire import LABS, LEGACY, V1, assert_failed

pytestmark = pytest.mark.anyio
ISE = "image_generation_server_error"
NOT_PUBLISHED = "*.part"
STRICT = {"allow_private_hosts": False, "image_hosts": []}


@pytest.fixture(autouse=True)
def _quick_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.results._BETWEEN_FETCHES_S", 0.01)


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
async def test_row_28_addresses_that_are_not_allowed(form: str) -> None:
    async with running(providers=STRICT) as service:

        async def refuse(number: int, model: str, address: str) -> None:
            prompt = f"[seconds:0.02] [tag:t{number}] [fault:bad-url:{address}]"
            answer = await service.generate(prompt, model=model, response_format=form)
            assert_failed(answer, 502, ISE, "provider_bad_result")
            assert address not in answer.body.decode()
            counts = await service.counts(f"t{number}")
            assert (counts["submits"], counts["fetches"]) == (1, 0)

        await asyncio.gather(*(refuse(number, *each) for number, each in enumerate(ADDRESSES)))


async def test_row_28_redirects_are_not_followed() -> None:
    done = JSONResponse({"job": JOB, "status": "succeeded"})
    for target in ("http://169.254.169.254/latest", "/pictures/other.png"):
        upstream = Upstream(polls=[done], picture=RedirectResponse(target))
        async with before(upstream) as service:
            answer = await service.generate("a", model=LEGACY, response_format="b64_json")
            assert_failed(answer, 502, ISE, "provider_bad_result")
            assert set(upstream.calls()) == {"/generate", f"/job/{JOB}", f"/pictures/{JOB}.png"}


@pytest.mark.parametrize("fault", ["not-a-picture", "pixels", "expired:tiny"])
async def test_row_29_what_was_fetched_is_no_picture(service: Service, tag: str, fault: str) -> None:
    before = set(service.engine.store.directory.iterdir())
    prompt = f"[seconds:0.02] [tag:{tag}] [fault:{fault}]"
    answer = await service.generate(prompt, model=LEGACY, response_format="b64_json")
    assert_failed(answer, 502, ISE, "provider_bad_result")
    assert (await service.counts(tag))["submits"] == 1
    assert not list(service.engine.store.directory.glob(NOT_PUBLISHED))
    assert set(service.engine.store.directory.iterdir()) == before


async def test_row_29_an_endless_picture_and_a_bomb_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.MAX_PICTURE", 1_000_000)
    async with running() as service:
        answer = await service.generate("[seconds:0.02] [fault:huge]", model=V1, response_format="b64_json")
        assert_failed(answer, 502, ISE, "provider_bad_result")
        assert service.engine.outlets["prodia-v1"].upstream.traffic.received < 4_000_000
        assert not list(service.engine.store.directory.glob(NOT_PUBLISHED))
    bomb = Response(
        gzip.compress(b"\0" * 20_000_000), headers={"content-encoding": "gzip", "content-type": "image/png"}
    )
    done = JSONResponse({"job": JOB, "status": "succeeded"})
    async with before(Upstream(polls=[done], picture=bomb)) as service:
        answer = await service.generate("a", model=LEGACY, response_format="b64_json")
        assert_failed(answer, 502, ISE, "provider_bad_result")
        assert not list(service.engine.store.directory.glob(NOT_PUBLISHED))
