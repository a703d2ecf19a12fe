"""Requests that outlive the hold, callers that leave, and those who come back."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from tests.service import Answer, Service, running

from .wire import LABS, SCHNELL, Line, assert_failed, eventually

pytestmark = pytest.mark.anyio

RETRY = {"x-stainless-retry-count": "1"}


def waiters(service: Service) -> list[int]:
    return [generation.waiters for generation in service.engine.generations]


def swept(service: Service) -> list[int]:
    service.engine.generations.sweep()
    return waiters(service)


async def picture(service: Service, answer: Answer) -> bytes:
    return (await service.get(answer.json["data"][0]["url"])).body


async def test_a_slow_picture_is_carried_home_by_a_retry() -> None:
    async with running(timeouts={"hold": 0.3}) as service:
        prompt = "slow [seconds:0.5] [tag:t]"
        first = await service.generate(prompt, model=SCHNELL)
        assert_failed(first, 504, "timeout_error", "generation_pending", retry=True)
        assert first.headers["retry-after"] == "1"
        assert first.headers["x-images-attempts"] == "1"
        attempt, second = 0, first
        while second.status == 504 and attempt < 20:  # one retry is enough, unless the machine is busy
            attempt += 1
            second = await service.generate(prompt, {"x-stainless-retry-count": str(attempt)}, model=SCHNELL)
        assert second.status == 200
        assert second.headers["x-images-reattached"] == "true"
        assert (await picture(service, second))[:4] == b"\x89PNG"
        assert (await service.counts("t"))["submits"] == 1


async def test_the_announced_timeout_is_answered_before_it_is_over() -> None:
    async with running() as service:
        announced = [{"x-stainless-read-timeout": "2.1"}, {"x-stainless-timeout": "3"}]
        unreadable = {"x-stainless-read-timeout": "soon", "x-stainless-timeout": "-1", "prefer": "wait=x"}
        *cut, kept = await asyncio.gather(
            *(service.generate("a [seconds:9]", headers, model=LABS) for headers in announced),
            service.generate("b [seconds:1.2]", unreadable, model=SCHNELL),
        )
        for answer in cut:
            assert_failed(answer, 504, "timeout_error", "generation_pending", retry=True)
            assert int(answer.headers["openai-processing-ms"]) >= 1000
        assert kept.status == 200


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_caller_who_leaves(how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="proxy.requests")
    monkeypatched = logging.getLogger("proxy")
    before, monkeypatched.propagate = monkeypatched.propagate, True
    try:
        async with running(timeouts={"result": 0.3}) as service:
            tasks = len(asyncio.all_tasks())
            async with Line.to(service) as line:
                line.post({"prompt": "a [seconds:0.4] [tag:t]", "model": SCHNELL})
                await eventually(lambda: waiters(service) == [1])
                {"close": line.writer.close, "reset": line.reset, "half-close": line.half_close}[how]()
                await eventually(lambda: waiters(service) == [0], 1.0)
                fields = [getattr(record, "fields", {}) for record in caplog.records]
                assert [each["status"] for each in fields if each.get("route") == "create_image"] == [499]
                await eventually(lambda: [generation.done for generation in service.engine.generations] == [True])
            await eventually(lambda: swept(service) == [])
            assert (await service.counts("t"))["submits"] == 1
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 1)
    finally:
        monkeypatched.propagate = before


async def test_the_repeat_of_a_caller_who_left_gets_the_picture_without_a_counter() -> None:
    async with running() as service:
        body = {"prompt": "a [seconds:0.2] [tag:t]", "model": SCHNELL}
        async with Line.to(service) as line:
            line.post(body)
            await eventually(lambda: waiters(service) == [1])
        await eventually(lambda: [generation.done for generation in service.engine.generations] == [True])
        again = await service.post("/v1/images/generations", body)
        assert (again.status, again.headers["x-images-reattached"]) == (200, "true")
        assert (await service.counts("t"))["submits"] == 1
        third = await service.post("/v1/images/generations", body)
        assert "x-images-reattached" not in third.headers
        assert (await service.counts("t"))["submits"] == 2


async def test_four_equal_calls_that_were_all_cut() -> None:
    async with running() as service:
        body = {"prompt": "four [seconds:0.3] [tag:t]", "model": SCHNELL}

        async def cut() -> None:
            async with Line.to(service) as line:
                line.post(body)
                await eventually(lambda: waiters(service).count(1) == 4)

        await asyncio.gather(*(cut() for _ in range(4)))
        await eventually(lambda: waiters(service) == [0] * 4)
        answers = await asyncio.gather(*(service.post("/v1/images/generations", body, RETRY) for _ in range(4)))
        assert [answer.headers.get("x-images-reattached") for answer in answers] == ["true"] * 4
        assert len({await picture(service, answer) for answer in answers}) == 4
        assert (await service.counts("t"))["submits"] == 4


async def test_an_idempotency_key() -> None:
    async with running() as service:
        key = {"idempotency-key": '"mine"'}
        call: Callable[[str], object] = lambda prompt: service.generate(prompt, key, model=SCHNELL)  # noqa: E731
        same = "a [seconds:0.2] [tag:t]"
        first, second = await asyncio.gather(call(same), call(same))  # type: ignore[call-overload]
        third = await service.generate(same, {"idempotency-key": "mine"}, model=SCHNELL)
        assert first.json == second.json == third.json
        assert [answer.headers.get("x-images-reattached") for answer in (second, third)] == ["true", "true"]
        other = await service.generate("b [tag:t]", key, model=SCHNELL)
        assert_failed(other, 422, "invalid_request_error", "idempotency_key_reused")
        assert (await service.counts("t"))["submits"] == 1


async def test_a_follower_is_served_after_the_leader_left() -> None:
    async with running() as service:
        body = {"prompt": "a [seconds:0.3] [tag:t]", "model": SCHNELL}
        async with Line.to(service) as leader:
            leader.post(body, "Idempotency-Key: k\r\n")
            await eventually(lambda: waiters(service) == [1])
            key = {"idempotency-key": "k"}
            follower = asyncio.create_task(service.post("/v1/images/generations", body, key))
            await eventually(lambda: waiters(service) == [2])
        await eventually(lambda: waiters(service) == [1])
        assert (await follower).status == 200
        assert (await service.counts("t"))["submits"] == 1


async def test_a_partial_failure_keeps_what_was_made() -> None:
    async with running() as service:
        prompt = "a [seconds:0.1] [tag:t]"
        service.engine.runtimes["prodia"].slots = asyncio.Semaphore(10)
        results = service.engine._results
        fetched = results.deliverable
        failed: list[int] = []

        async def fail_once(resolved: object, made: object, late: object) -> object:
            if not failed:
                failed.append(1)
                message = "a full disk"
                raise OSError(message)
            return await fetched(resolved, made, late)  # type: ignore[arg-type]

        results.deliverable = fail_once  # type: ignore[assignment]
        first = await service.generate(prompt, model=SCHNELL, n=3)
        assert_failed(first, 500, "server_error", "internal_error")
        assert "disk" not in first.body.decode()
        second = await service.generate(prompt, model=SCHNELL, n=3)
        assert second.status == 200
        assert len(second.json["data"]) == 3
        assert second.headers["x-images-attempts"] == "1"
        assert (await service.counts("t"))["submits"] == 4


async def test_a_job_in_the_queue_is_polled_once_more_before_the_hold_is_over() -> None:
    async with running(timeouts={"hold": 1.4}) as service:
        answer = await service.generate("a [seconds:0.1] [tag:t]", model=LABS)
        assert answer.status == 200


async def test_who_left_the_queue_for_good_is_not_bought_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.generations.tasks._ABANDONED_S", 0.3)
    async with running(providers={"max_jobs": 1}) as service:
        busy = asyncio.create_task(service.generate("first [seconds:0.7] [tag:first]", model=SCHNELL))
        await eventually(lambda: waiters(service) == [1])
        handed = await service.generate("handed [seconds:0] [tag:handed]", {"prefer": "respond-async"}, model=SCHNELL)
        assert handed.status == 202
        async with AsyncExitStack() as stack:
            for number, model in enumerate((SCHNELL, SCHNELL, SCHNELL)):
                line = await stack.enter_async_context(Line.to(service))
                line.post({"prompt": f"left {number} [seconds:0] [tag:left]", "model": model, "n": 1 + number % 2})
            await eventually(lambda: sorted(waiters(service)) == [0, 1, 1, 1, 1])
        async with Line.to(service) as line:
            line.post({"prompt": "back [seconds:0] [tag:back]", "model": SCHNELL})
            await eventually(lambda: sum(waiters(service)) == 2)
        await asyncio.sleep(0.35)
        again = asyncio.create_task(service.generate("back [seconds:0] [tag:back]", RETRY, model=SCHNELL))
        assert (await busy).status == 200
        assert (await again).status == 200
        await eventually(lambda: service.engine.generations.running == 0)
        counts = {tag: (await service.counts(tag))["submits"] for tag in ("first", "handed", "left", "back")}
        assert counts == {"first": 1, "handed": 1, "left": 0, "back": 1}


async def test_a_failure_that_was_read_at_its_address_delays_no_stop() -> None:
    async with running() as service:
        handed = await service.generate("a [seconds:0] [fault:failed]", {"prefer": "respond-async"}, model=LABS)
        assert handed.status == 202
        await eventually(lambda: service.engine.generations.uncollected)
        assert (await service.get(handed.json["url"])).code == "image_generation_failed"
        assert not service.engine.busy
