"""The Responses API under faults: whoever repeats, reads on or asks again pays for one picture at most."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from proxy.jobs.breaker import Breaker
from tests.service import Answer, Service, running

from .wire import LABS, LEGACY, SCHNELL, V1, Line

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
FAULTS = (
    "",
    "busy:1",
    "unsafe",
    "drop",
    "504",
    "cut:submit",
    "gone",
    "failed",
    "not-a-picture",
    "stuck",
)
_ENDED = ("completed", "failed", "cancelled")


def asking(tag: str, fault: str, model: str, **values: Any) -> dict[str, Any]:
    """Return a request for a picture that takes a moment."""
    words = f"a fox [seconds:0.2] [tag:{tag}]{f' [fault:{fault}]' if fault else ''}"
    return {"model": "gpt-5.6", "input": words, "tools": [{"type": "image_generation", "model": model}], **values}


async def ended(service: Service, response_id: str) -> Answer:
    """Ask for a response until it has ended."""
    while True:
        answer = await service.get(f"{PATH}/{response_id}")
        if answer.json["status"] in _ENDED:
            return answer
        await asyncio.sleep(0.02)


async def whole(service: Service, values: dict[str, Any]) -> bool:
    """Ask as the SDK does, which repeats by itself. Returns whether there is a picture."""
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=5) as sdk:
        try:
            made = await sdk.responses.create(**values)
        except openai.APIError:
            return False
    return bool(made.output[0].result)


async def streamed(service: Service, values: dict[str, Any]) -> bool:
    """Lose a stream soon after it was asked for, and ask again until there is an end."""
    async with Line.to(service) as line:
        line.post({**values, "stream": True}, path=PATH)
        await asyncio.sleep(0.05)
    for attempt in itertools.count():
        # The counter first, then without any: whoever finds nobody waiting takes over what is there.
        headers = {"x-stainless-retry-count": "1"} if not attempt else {}
        answer = await service.post(PATH, {**values, "stream": True}, headers)
        if answer.status == 200 and b"generation_pending" not in answer.body:
            return b"response.completed" in answer.body
        if answer.status != 200 and answer.headers["x-should-retry"] != "true":
            return False
    raise AssertionError


async def background(service: Service, values: dict[str, Any]) -> bool:
    """Lose the answer to a background call, repeat the call, and ask until it has ended."""
    async with Line.to(service) as line:
        line.post({**values, "background": True}, path=PATH)
        await asyncio.sleep(0.02)
    headers = {"x-stainless-retry-count": "1"}
    answer = await service.post(PATH, {**values, "background": True}, headers)
    assert answer.status == 200
    return bool((await ended(service, answer.json["id"])).json["status"] == "completed")


MANNERS: dict[str, Callable[[Service, dict[str, Any]], Awaitable[bool]]] = {
    "whole": whole,
    "streamed": streamed,
    "background": background,
}


@pytest.mark.parametrize("model", [SCHNELL, V1, LEGACY, LABS], ids=["v2", "v1", "legacy", "labs"])
async def test_one_intent_is_one_paid_picture(model: str) -> None:
    async with running(timeouts={"hold": 0.5, "lifetime": 1.5, "submit": 0.5}) as service:
        delivered = {}
        for fault in FAULTS:
            for runtime in service.engine.runtimes.values():
                clock = service.engine.clock
                runtime.submit_breaker, runtime.poll_breaker = Breaker(clock), Breaker(clock)
            tags = {manner: f"{fault or 'well'}-{manner}".replace(":", "-") for manner in MANNERS}
            async with asyncio.timeout(60):
                ends = await asyncio.gather(
                    *(MANNERS[manner](service, asking(tag, fault, model)) for manner, tag in tags.items())
                )
            for (manner, tag), delivers in zip(tags.items(), ends, strict=True):
                assert (await service.counts(tag))["started"] <= 1, (fault, manner)
                delivered[fault, manner] = delivers
        for manner in MANNERS:
            assert delivered["", manner]
            assert not delivered["unsafe", manner]


async def test_what_was_given_up_is_followed_by_nobody_and_bought_once() -> None:
    async with running(timeouts={"lifetime": 5}) as service:
        values = asking("given-up", "stuck", LABS, background=True)
        first = (await service.post(PATH, values)).json["id"]
        while not (await service.counts("given-up"))["started"]:  # noqa: ASYNC110 (the simulator tells nobody)
            await asyncio.sleep(0.01)
        assert (await service.post(f"{PATH}/{first}/cancel", {})).json["status"] == "cancelled"
        polls = (await service.counts("given-up"))["polls"]
        await asyncio.sleep(0.3)
        counts = await service.counts("given-up")
        assert counts["polls"] <= polls + 1
        assert counts["started"] == 1
        assert service.engine.generations.running == 0
        # Whoever asks for it anew asks for another picture.
        assert (await service.post(PATH, values)).json["id"] != first


async def test_a_stop_sends_streams_away_and_nothing_is_bought_after_it() -> None:
    async with running(timeouts={"drain": 1}) as service:
        values = asking("stopped", "stuck", LABS)
        async with service.http.post(service.url + PATH, json={**values, "stream": True}) as response:
            service.engine.drain(0.2)
            body = await response.read()
        told = body.decode()
        assert "server_is_overloaded" in told
        answer = await service.post(PATH, asking("late", "", LABS))
        assert (answer.status, answer.code) == (503, "server_is_overloaded")
        assert (await service.counts("late"))["submits"] == 0


async def test_a_picture_that_is_gone_is_told_and_not_half_sent() -> None:
    async with running() as service:
        made = await service.post(PATH, asking("gone", "", LABS))
        response_id = made.json["id"]
        for file in service.engine.directory.glob("*.png"):
            file.unlink()
        for query in ("", "?stream=true"):
            answer = await service.get(f"{PATH}/{response_id}{query}")
            assert (answer.status, answer.code) == (502, "provider_bad_result")
        values = {"model": "dall-e-3", "input": "make it red", "previous_response_id": response_id}
        answer = await service.post(PATH, values)
        assert (answer.status, answer.json["error"]["param"]) == (404, "previous_response_id")


async def test_a_caller_who_leaves_a_large_answer_may_ask_again() -> None:
    async with running() as service:
        values = asking("left", "", LABS, stream=True)
        async with Line.to(service) as line:
            line.post(values, path=PATH)
            await line.reader.readuntil(b"image_generation_call.completed")
        answer = await service.post(PATH, values, {"x-stainless-retry-count": "1"})
        assert b"response.completed" in answer.body
        assert (await service.counts("left"))["started"] == 1
