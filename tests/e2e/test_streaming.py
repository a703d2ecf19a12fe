"""Streams of pictures, byte for byte as the SDKs read them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.e2e.parts import EDITS, GENERATIONS, Field, decoded, form, picture, post_form, read_events, streamed
from tests.service import Service, running

pytestmark = pytest.mark.anyio

LABS = "imagelabs/sdxl-turbo"
FIELDS = {"type", "b64_json", "created_at", "size", "quality", "background", "output_format"}


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


@pytest.fixture(scope="module")
async def beating() -> AsyncIterator[Service]:
    async with running(speed=400, timeouts={"heartbeat": 0.05}) as service:
        yield service


def checked(prompt: str, **values: Any) -> dict[str, Any]:
    return {"prompt": prompt, "model": "gpt-image-1", "size": "256x256", "stream": True, **values}


async def test_one_event_that_names_its_type(service: Service) -> None:
    async with streamed(service, GENERATIONS, checked("a pond")) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-images-model"]
        assert response.headers["x-request-id"]
        body = await response.read()
    events, comments = read_events(body)
    assert comments == []
    assert [event.name for event in events] == ["image_generation.completed"]
    value = events[0].json
    assert value["type"] == events[0].name
    assert set(value) == FIELDS | {"usage"}
    assert set(value["usage"]) == {"input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "cost"}
    assert type(value["created_at"]) is int
    assert f"{value['size']}" == "256x256"
    assert decoded(value["b64_json"]).size == (256, 256)
    assert b"[DONE]" not in body


async def test_a_url_cannot_be_streamed(service: Service) -> None:
    async with streamed(service, GENERATIONS, checked("a pond", response_format="url")) as response:
        events, _ = read_events(await response.read())
    assert "url" not in events[0].json
    assert decoded(events[0].json["b64_json"]).format == "PNG"


async def test_previews_that_the_provider_really_shows(service: Service) -> None:
    async with streamed(
        service, GENERATIONS, checked("a pond [seconds:1.5]", model=LABS, partial_images=2)
    ) as response:
        events, _ = read_events(await response.read())
    *previews, last = [event.json for event in events]
    assert last["type"] == "image_generation.completed"
    assert 1 <= len(previews) <= 2
    for number, preview in enumerate(previews):
        assert preview["type"] == "image_generation.partial_image"
        assert set(preview) == FIELDS | {"partial_image_index"}
        assert preview["partial_image_index"] == number
        width, height = decoded(preview["b64_json"]).size
        assert preview["size"] == f"{width}x{height}"


async def test_no_previews_unless_asked_for_or_where_there_are_none(service: Service) -> None:
    for values in (
        {"model": LABS},
        {"model": LABS, "partial_images": 0},
        {"model": "gpt-image-1", "partial_images": 3},
    ):
        async with streamed(service, GENERATIONS, checked("a pond [seconds:0.4]", **values)) as response:
            events, _ = read_events(await response.read())
        assert [event.name for event in events] == ["image_generation.completed"]


async def test_several_pictures_cannot_be_streamed(service: Service) -> None:
    answer = await service.post(GENERATIONS, checked("ponds [tag:several]", n=2))
    assert (answer.status, answer.json["error"]["param"]) == (400, "n")
    assert answer.json["error"]["message"] == "Streaming is only supported with n=1."
    assert (await service.counts("several"))["submits"] == 0


async def test_failures_before_the_first_byte_have_their_status(service: Service) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        (checked("a pond [fault:unsafe]"), 400, "content_policy_violation"),
        (checked("a pond [fault:failed]", model=LABS), 502, "image_generation_failed"),
        (checked("a pond", model="nonesuch"), 404, "model_not_found"),
        (checked("a pond", partial_images=4), 400, "integer_above_max_value"),
        (checked(""), 400, "empty_string"),
    ]
    for values, status, code in cases:
        answer = await service.post(GENERATIONS, values)
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["content-type"] == "application/json"


async def test_comments_while_nothing_happens(beating: Service) -> None:
    async with streamed(beating, GENERATIONS, checked("slow [seconds:0.8]", model=LABS)) as response:
        body = await response.read()
    events, comments = read_events(body)
    assert len(comments) >= 3
    assert all(comment.startswith(":") for comment in comments)
    assert [event.name for event in events] == ["image_generation.completed"]


async def test_a_failure_after_the_first_byte_is_nested(beating: Service) -> None:
    async with streamed(beating, GENERATIONS, checked("slow [seconds:0.8] [fault:failed]", model=LABS)) as response:
        assert response.status == 200
        events, _ = read_events(await response.read())
    assert [event.name for event in events] == ["error"]
    value = events[0].json
    assert value["type"] == "error"
    assert set(value["error"]) == {"message", "type", "param", "code"}
    assert value["error"]["code"] == "image_generation_failed"


async def test_the_sdk_raises_what_the_stream_tells(beating: Service) -> None:
    async with openai.AsyncOpenAI(base_url=f"{beating.url}/v1", api_key="none") as client:
        values: Any = {"model": LABS, "prompt": "slow [seconds:0.8] [fault:failed]", "stream": True}
        stream = await client.images.generate(**values)
        with pytest.raises(openai.APIError) as raised:
            async for _ in stream:
                pass
        assert raised.value.code == "image_generation_failed"


async def test_a_hold_that_ends_is_told_in_the_stream() -> None:
    async with running(speed=400, timeouts={"hold": 0.6, "heartbeat": 0.05}) as service:
        values = checked("slow [seconds:1.5] [tag:held]", model=LABS)
        async with streamed(service, GENERATIONS, values) as response:
            events, _ = read_events(await response.read())
        assert events[0].json["error"]["code"] == "generation_pending"
    async with running(speed=400, timeouts={"hold": 0.1}) as service:
        answer = await service.post(GENERATIONS, checked("slow [seconds:0.9]", model=LABS))
        assert (answer.status, answer.code) == (504, "generation_pending")


async def test_an_edit_is_streamed(service: Service) -> None:
    fields: list[Field] = [("prompt", "in oil"), ("model", LABS), ("stream", "true"), ("partial_images", "1")]
    fields[0] = ("prompt", "in oil [seconds:1.2]")
    async with service.http.post(service.url + EDITS, data=form([*fields, ("image", picture())])) as response:
        assert response.content_type == "text/event-stream"
        events, _ = read_events(await response.read())
    assert [event.name for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[-1].json["usage"]["input_tokens_details"]["image_tokens"] > 0
    refused = await post_form(service, [*fields, ("image", picture()), ("n", "2")])
    assert (refused.status, refused.json["error"]["param"]) == (400, "n")


async def test_a_reader_that_leaves_gets_its_picture_on_return(service: Service) -> None:
    values = checked("slow [seconds:1.5] [tag:leaver]", model=LABS, partial_images=1)
    async with streamed(service, GENERATIONS, values) as response:
        await response.content.readline()
        response.close()
    while any(generation.waiters for generation in service.engine.generations):  # noqa: ASYNC110 (the service tells no event)
        await asyncio.sleep(0.01)
    async with streamed(service, GENERATIONS, values) as response:
        events, _ = read_events(await response.read())
        assert response.headers["x-images-reattached"] == "true"
    assert events[-1].name == "image_generation.completed"
    assert (await service.counts("leaver"))["submits"] == 1


async def test_a_drain_ends_streams_too() -> None:
    async with running(timeouts={"heartbeat": 0.05}) as service:
        async with service.http.post(
            service.url + GENERATIONS, json={"prompt": "slow [seconds:30]", "stream": True}
        ) as response:
            assert (await response.content.readline()).startswith(b":")
            service.engine.drain(0)
            rest = await asyncio.wait_for(response.read(), 5)
        assert b"event: error" in rest
        assert b"server_is_overloaded" in rest
