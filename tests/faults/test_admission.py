"""More requests than may be held. Repeats that re-attach, and health, are let through."""

import asyncio
import threading

import pytest

from tests.e2e.parts import Field, picture, post_form
from tests.service import Service, running

from .wire import LABS, SCHNELL, Line, assert_failed, eventually, submits

pytestmark = pytest.mark.anyio
KEYS = {"IMAGES_PROXY_KEYS": "sesame,mellon"}
SESAME = {"authorization": "Bearer sesame"}
MELLON = {"authorization": "Bearer mellon"}


async def held(service: Service, number: int) -> None:
    """Wait until so many requests are held."""
    await eventually(lambda: sum(generation.waiters for generation in service.engine.generations) == number)


async def test_a_key_over_its_limit() -> None:
    async with running(environment=KEYS, server={"max_per_key": 2}) as service:
        calls = [
            asyncio.create_task(service.generate(f"{number} [seconds:0.5]", SESAME, model=SCHNELL))
            for number in range(2)
        ]
        await held(service, 2)
        refused = await service.generate("3 [seconds:0]", SESAME, model=SCHNELL)
        assert_failed(refused, 429, "rate_limit_error", "rate_limit_exceeded", retry=True)
        assert (await service.generate("4 [seconds:0]", MELLON, model=SCHNELL)).status == 200
        assert [answer.status for answer in await asyncio.gather(*calls)] == [200, 200]
        assert await submits(service) == 3
        assert (await service.generate("3 [seconds:0]", SESAME, model=SCHNELL)).status == 200


async def test_a_full_process() -> None:
    async with running(server={"max_in_flight": 1}) as service:
        call = asyncio.create_task(service.generate("1 [seconds:0.5]", model=SCHNELL))
        await held(service, 1)
        for headers in ({}, {"x-stainless-retry-count": "1"}, {"idempotency-key": "new"}):
            refused = await service.generate("another", headers, model=SCHNELL)
            assert_failed(refused, 503, "service_unavailable_error", "server_is_overloaded", retry=True)
        assert (await service.get("/healthz")).status == 200
        assert (await service.get("/readyz")).status == 200
        assert (await call).status == 200
        assert await submits(service) == 1


async def test_it_is_refused_before_its_body_is_read() -> None:
    async with running(server={"max_in_flight": 1}) as service:
        call = asyncio.create_task(service.generate("1 [seconds:0.3]", model=SCHNELL))
        await held(service, 1)
        async with Line.to(service) as line:
            line.send(b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n")
            assert (await line.answer()).status == 503
        assert (await call).status == 200


async def test_an_edit_whose_mask_is_still_to_be_decoded_is_held() -> None:
    async with running(server={"max_in_flight": 1}) as service:
        others = threading.Event()
        converter = service.engine.converter
        busy = asyncio.ensure_future(converter.run(lambda: bytes(others.wait(10))))
        fields: list[Field] = [
            ("prompt", "a hat [seconds:0]"),
            ("model", "gpt-image-1"),
            ("image", picture()),
            ("mask", picture()),
        ]
        call = asyncio.create_task(post_form(service, fields))
        await eventually(converter._pool._work_queue.qsize)
        refused = await service.generate("another", model=SCHNELL)
        others.set()
        assert_failed(refused, 503, "service_unavailable_error", "server_is_overloaded", retry=True)
        assert ((await call).status, await busy) == (200, b"\0")


async def test_what_was_left_behind_or_handed_over_fills_the_process_and_repeats_pass() -> None:
    async with running(server={"max_in_flight": 2}) as service:
        async with Line.to(service) as line:
            line.post({"prompt": "left [seconds:0.6]", "model": SCHNELL})
            await held(service, 1)
        await held(service, 0)
        handed = await service.generate("handed [seconds:0.6]", {"prefer": "respond-async"}, model=SCHNELL)
        assert handed.status == 202
        assert (await service.generate("another", model=SCHNELL)).status == 503
        again = await service.generate("left [seconds:0.6]", {"x-stainless-retry-count": "1"}, model=SCHNELL)
        assert (again.status, again.headers["x-images-reattached"]) == (200, "true")
        assert await submits(service) == 2


async def test_a_slot_that_stays_taken_for_the_hold() -> None:
    async with running(timeouts={"hold": 0.3}, providers={"max_jobs": 1}) as service:
        call = asyncio.create_task(service.generate("1 [seconds:1]", {"idempotency-key": "k"}, model=LABS))
        await held(service, 1)
        refused = await service.generate("2 [tag:two]", model=LABS)
        assert_failed(refused, 503, "service_unavailable_error", "server_is_overloaded", retry=True)
        assert (await service.counts("two"))["submits"] == 0
        assert_failed(await call, 504, "timeout_error", "generation_pending", retry=True)
