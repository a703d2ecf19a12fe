"""What callers do when a picture takes its time: the real SDK's retries, hand-over, announced waits, heartbeats."""

import asyncio
import base64
import json

import openai
import pytest

from proxy.pictures.codec import inspect
from tests.faults.wire import LABS, PATH, SCHNELL, Line, assert_failed, eventually
from tests.service import Service, running

pytestmark = pytest.mark.anyio
HOLD_S = 0.6


@pytest.fixture
def _impatient_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK as it is but for its pauses between retries, which take seconds."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)
    monkeypatch.setattr(
        "openai._base_client.BaseClient._parse_retry_after_header",
        lambda _self, headers=None: 0.02 if headers else None,
    )


def sdk(service: Service) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="none", base_url=f"{service.url}/v1")


def is_picture(answer: openai.types.ImagesResponse) -> bool:
    assert answer.data is not None
    encoded = answer.data[0].b64_json
    assert encoded is not None
    return inspect(base64.b64decode(encoded)).width == 256


async def ask_async(service: Service, prompt: str) -> openai.types.ImagesResponse:
    async with sdk(service) as client:
        return await client.images.generate(prompt=prompt, model=SCHNELL, size="256x256", response_format="b64_json")


async def ask_in_a_thread(service: Service, prompt: str) -> openai.types.ImagesResponse:
    def ask() -> openai.types.ImagesResponse:
        with openai.OpenAI(api_key="none", base_url=f"{service.url}/v1") as client:
            return client.images.generate(prompt=prompt, model=SCHNELL, size="256x256", response_format="b64_json")

    return await asyncio.to_thread(ask)


async def test_the_sdk_brings_a_job_of_three_holds_home_with_one_submit() -> None:
    async with running(timeouts={"hold": 0.8}) as service:
        answers = await asyncio.gather(
            ask_async(service, "a fox [seconds:2.4] [tag:a]"),
            ask_in_a_thread(service, "a fox [seconds:2.4] [tag:s]"),
        )
        assert all(map(is_picture, answers))
        for tag in "as":
            assert (await service.counts(tag))["submits"] == 1


async def test_the_client_is_killed_in_mid_job_and_the_call_repeated() -> None:
    async with running() as service:
        prompt = "a fox [seconds:0.5] [tag:t]"
        doomed = asyncio.create_task(ask_async(service, prompt))
        await eventually(lambda: [generation.submitted for generation in service.engine.generations] == [True])
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        await eventually(lambda: [generation.waiters for generation in service.engine.generations] == [0])
        assert is_picture(await ask_async(service, prompt))
        assert (await service.counts("t"))["submits"] == 1


@pytest.mark.usefixtures("_impatient_sdk")
async def test_four_equal_calls_all_cut_by_the_hold_are_four_pictures_for_four_submits() -> None:
    async with running(timeouts={"hold": HOLD_S}) as service:
        prompt = f"a fox [seconds:{HOLD_S * 1.5}] [tag:t]"
        answers = await asyncio.gather(*(ask_async(service, prompt) for _ in range(4)))
        assert all(map(is_picture, answers))
        assert len({answer.data[0].b64_json for answer in answers if answer.data}) == 4
        assert (await service.counts("t"))["submits"] == 4


@pytest.mark.usefixtures("_impatient_sdk")
async def test_four_equal_calls_all_cut_by_their_clients_are_four_pictures_for_four_submits() -> None:
    async with running() as service:
        async with openai.AsyncOpenAI(api_key="none", base_url=f"{service.url}/v1", timeout=0.5) as client:

            async def ask() -> openai.types.ImagesResponse:
                return await client.images.generate(
                    prompt="a fox [seconds:0.8] [tag:t]", model=SCHNELL, size="256x256", response_format="b64_json"
                )

            answers = await asyncio.gather(*(ask() for _ in range(4)))
        assert len({answer.data[0].b64_json for answer in answers if answer.data}) == 4
        assert (await service.counts("t"))["submits"] == 4


# --- hand-over ------------------------------------------------------------------------------------------------


async def test_a_job_is_handed_over_followed_and_collected() -> None:
    async with running() as service:
        values = {"model": LABS, "size": "256x256"}
        handed = await service.generate("a fox [seconds:0.9] [tag:t]", {"prefer": "respond-async"}, **values)
        assert handed.status == 202
        job = handed.json
        assert handed.headers["location"] == f"/v1/images/generations/{job['id']}"
        assert job["url"] == service.url + handed.headers["location"]
        assert (job["object"], job["status"], job["n"], job["finished"]) == ("image.generation", "queued", 1, 0)
        states = []
        while (state := await service.get(job["url"])).status == 202:
            states.append((state.json["status"], state.json["progress"]))
            await asyncio.sleep(0.05)
        assert state.status == 200
        assert list(state.json["data"][0]) == ["url"]
        assert any(status == "in_progress" for status, _ in states)
        assert states == sorted(states, key=lambda each: each[1])
        assert (await service.get(job["url"])).json == state.json
        repeated = await service.generate("a fox [seconds:0.9] [tag:t]", {"prefer": "respond-async"}, **values)
        assert repeated.json["id"] != job["id"], "what was handed over is nobody else's"


async def test_a_job_is_abandoned() -> None:
    async with running(providers={"max_jobs": 1}) as service:
        handed = await service.generate("a [seconds:9] [tag:t]", {"prefer": "respond-async"}, model=LABS)
        async with service.http.delete(handed.json["url"]) as response:
            assert response.status == 204
        gone = await service.get(handed.json["url"])
        assert_failed(gone, 404, "invalid_request_error", None)
        assert (await service.generate("b [seconds:0]", model=LABS)).status == 200, "its slot is free"


async def test_a_job_belongs_to_its_key() -> None:
    async with running(environment={"IMAGES_PROXY_KEYS": "one,two"}) as service:
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        handed = await service.generate("a [seconds:9]", {**one, "prefer": "respond-async"}, model=LABS)
        assert (await service.get(handed.json["url"], two)).status == 404
        assert (await service.get(handed.json["url"])).status == 401
        assert (await service.get(handed.json["url"], one)).status == 202


async def test_a_job_that_failed_tells_its_status() -> None:
    async with running() as service:
        prompt = "a [seconds:0] [fault:failed]"
        handed = await service.generate(prompt, {"prefer": "respond-async"}, model=LABS)
        await eventually(lambda: all(generation.done for generation in service.engine.generations))
        answer = await service.get(handed.json["url"])
        assert_failed(answer, 502, "image_generation_server_error", "image_generation_failed")


async def test_a_preferred_wait_ends_with_the_job_in_hand() -> None:
    async with running() as service:
        prompt = "a [seconds:1.5] [tag:t]"
        first = await service.generate(prompt, {"prefer": "wait=1"}, model=LABS)
        assert first.status == 202
        second = await service.generate("b [seconds:0]", {"prefer": "respond-async, wait=5"}, model=SCHNELL)
        assert second.status == 200
        await eventually(lambda: all(generation.done for generation in service.engine.generations))
        assert (await service.get(first.json["url"])).status == 200
        assert (await service.counts("t"))["submits"] == 1


async def test_after_a_504_the_job_can_be_watched_and_the_retry_still_gets_the_picture() -> None:
    async with running(timeouts={"hold": 0.2}) as service:
        prompt = "a [seconds:0.3] [tag:t]"
        late = await service.generate(prompt, model=SCHNELL)
        assert late.status == 504
        assert (await service.get(late.headers["x-images-generation"])).status == 202
        await eventually(lambda: all(generation.done for generation in service.engine.generations))
        retried = await service.generate(prompt, {"x-stainless-retry-count": "1"}, model=SCHNELL)
        assert (retried.status, retried.headers["x-images-reattached"]) == (200, "true")
        assert (await service.counts("t"))["submits"] == 1


# --- heartbeats -----------------------------------------------------------------------------------------------


async def test_blanks_come_while_nothing_else_does() -> None:
    async with running(timeouts={"heartbeat": 0.05}) as service, Line.to(service) as line:
        line.post({"prompt": "a [seconds:0.3]", "model": SCHNELL, "response_format": "b64_json"})
        head = (await line.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200")
        assert "transfer-encoding: chunked" in head
        assert "content-type: application/json" in head
        assert "x-images-provider: prodia" in head
        assert not any(generation.done for generation in service.engine.generations), "they come before the picture"
        body = await line._chunks()
        assert body.startswith(b"   ")
        assert list(json.loads(body)["data"][0]) == ["b64_json"]


async def test_what_is_over_before_the_first_blank_keeps_its_status_and_length() -> None:
    async with running(timeouts={"heartbeat": 5}) as service:
        quick = await service.generate("a [seconds:0]", model=SCHNELL)
        assert quick.status == 200
        assert int(quick.headers["content-length"]) == len(quick.body)
        refused = await service.generate("a fox [fault:unsafe]", model=SCHNELL)
        assert_failed(refused, 400, "image_generation_user_error", "content_policy_violation")


async def test_a_late_failure_breaks_the_answer_off_and_the_retry_is_told_why() -> None:
    async with running(timeouts={"heartbeat": 0.05}) as service:
        body = {"prompt": "a fox [seconds:0.3] [tag:t] [fault:failed]", "model": SCHNELL}
        async with Line.to(service) as line:
            line.post(body)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
                await line.answer()
        retried = await service.post(PATH, body, {"x-stainless-retry-count": "1"})
        assert_failed(retried, 502, "image_generation_server_error", "image_generation_failed")
        assert (await service.counts("t"))["submits"] == 1
        figures = (await service.get("/metrics")).body.decode()
        assert 'code="image_generation_failed"' in figures
        assert 'code="internal_error"' not in figures


@pytest.mark.usefixtures("_impatient_sdk")
async def test_the_sdk_hears_the_true_failure_behind_blanks() -> None:
    async with running(timeouts={"heartbeat": 0.05}) as service:
        with pytest.raises(openai.APIStatusError) as failure:
            await ask_async(service, "a fox [seconds:0.3] [tag:t] [fault:failed]")
        assert failure.value.code == "image_generation_failed"
        assert (await service.counts("t"))["submits"] == 1


@pytest.mark.usefixtures("_impatient_sdk")
async def test_the_hold_ends_blanks_too_and_the_retry_attaches() -> None:
    async with running(timeouts={"heartbeat": 0.05, "hold": HOLD_S}) as service:
        answer = await ask_async(service, f"a fox [seconds:{HOLD_S * 1.5}] [tag:t]")
        assert is_picture(answer)
        assert (await service.counts("t"))["submits"] == 1


async def test_a_caller_who_leaves_between_blanks_is_noticed() -> None:
    async with running(timeouts={"heartbeat": 0.05}) as service:
        async with Line.to(service) as line:
            line.post({"prompt": "a [seconds:0.4] [tag:t]", "model": SCHNELL})
            await line.reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: [generation.waiters for generation in service.engine.generations] == [0])
        again = await service.generate("a [seconds:0.4] [tag:t]", model=SCHNELL)
        assert again.json["data"]
        assert (await service.counts("t"))["submits"] == 1
