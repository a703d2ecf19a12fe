"""POST /v1/chat/completions: what frontends that only chat send and draw."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.parts import CHAT, data_url, decoded, picture, read_events, streamed, submits
from tests.service import Service, running

pytestmark = pytest.mark.anyio

LABS = "imagelabs/sdxl-turbo"
MARKDOWN = re.compile(r"!\[image\]\((http[^)\s]+)\)\Z")


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


def said(text: Any, **values: Any) -> dict[str, Any]:
    """Return a chat request with one message."""
    return {"model": "dall-e-2", "size": "256x256", "messages": [{"role": "user", "content": text}], **values}


async def chunks(service: Service, values: dict[str, Any]) -> list[Any]:
    """Post a streamed chat and return its chunks; the stream's form is checked on the way."""
    async with streamed(service, CHAT, {**values, "stream": True}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        events, _ = read_events(await response.read())
    assert events[-1].data == "[DONE]"
    assert all(not event.name for event in events)
    return [event.json for event in events[:-1]]


async def test_a_picture_as_markdown(service: Service) -> None:
    answer = await service.post(CHAT, said("a windmill"))
    assert answer.status == 200
    assert (answer.json["object"], answer.json["model"]) == ("chat.completion", "dall-e-2")
    assert type(answer.json["created"]) is int
    choice = answer.json["choices"][0]
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "stop", "assistant")
    assert "images" not in choice["message"]
    found = MARKDOWN.match(choice["message"]["content"])
    assert found
    assert (await service.get(found[1])).body.startswith(b"\x89PNG")
    usage = answer.json["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


async def test_a_picture_as_a_stream(service: Service) -> None:
    first, content, last = await chunks(service, said("a windmill"))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert MARKDOWN.match(content["choices"][0]["delta"]["content"])
    assert content["choices"][0]["finish_reason"] is None
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert len({chunk["id"] for chunk in (first, content, last)}) == 1
    assert {chunk["object"] for chunk in (first, content, last)} == {"chat.completion.chunk"}


async def test_usage_ends_a_stream_that_asks_for_it(service: Service) -> None:
    *_, last = await chunks(service, said("a windmill", stream_options={"include_usage": True}))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_modalities_ask_for_images(service: Service, stream: bool) -> None:
    values = said("a windmill", modalities=["image", "text"])
    if stream:
        made = (await chunks(service, values))[1]["choices"][0]["delta"]
        assert "content" not in made
    else:
        made = (await service.post(CHAT, values)).json["choices"][0]["message"]
        assert made["content"] == ""
    image = made["images"][0]
    assert (image["type"], image["index"]) == ("image_url", 0)
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert decoded(data).size == (256, 256)


async def test_the_configuration_may_decide_the_form() -> None:
    models = {
        "gallery": {"chat_form": "markdown"},
        "album-*": {"chat_form": "auto", "routes": [LABS]},
        "plain": {"routes": [LABS]},
    }
    asked = {"modalities": ["image", "text"]}
    async with running(speed=400, chat={"form": "images"}, models=models) as service:
        for model, more, images in (
            ("plain", {}, True),
            ("openai/gallery", asked, False),
            ("gallery", asked, False),
            ("album-1", {}, False),
            ("album-1", asked, True),
            (LABS, {}, True),
        ):
            answer = await service.post(CHAT, said("a windmill", model=model, **more))
            assert ("images" in answer.json["choices"][0]["message"]) is images, model
        delta = (await chunks(service, said("a windmill", model="plain")))[1]["choices"][0]["delta"]
        assert shown_in(delta).startswith("data:image/png;base64,")
        assert (await service.post(CHAT, said("a windmill", model="nonesuch"))).code == "model_not_found"


@pytest.mark.parametrize("modalities", [None, ["image", "text"]])
async def test_several_pictures_are_choices(service: Service, modalities: Any) -> None:
    answer = (await service.post(CHAT, said("a windmill", n=2, modalities=modalities))).json
    messages = [choice.pop("message") for choice in answer["choices"]]
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}]
    assert len({shown_in(message) for message in messages}) == 2
    one = (await service.post(CHAT, said("a windmill", modalities=modalities))).json["usage"]
    usage = answer["usage"]
    assert usage["prompt_tokens"] == one["prompt_tokens"]
    assert usage["completion_tokens"] == 2 * one["completion_tokens"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def shown_in(message: dict[str, Any]) -> str:
    """Return the one picture's address in a message."""
    if "images" in message:
        (image,) = message["images"]
        assert image["index"] == 0
        url: str = image["image_url"]["url"]
        return url
    found = MARKDOWN.match(message["content"])
    assert found
    return found[1]


@pytest.mark.parametrize("modalities", [None, ["image", "text"]])
async def test_several_pictures_as_a_stream(service: Service, modalities: Any) -> None:
    values = said("a windmill", n=2, modalities=modalities, stream_options={"include_usage": True})
    *said_chunks, last = await chunks(service, values)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0
    assert all(len(chunk["choices"]) == 1 for chunk in said_chunks)
    shown = []
    for index in (0, 1):
        choices = [chunk["choices"][0] for chunk in said_chunks if chunk["choices"][0]["index"] == index]
        opening, content, closing = choices
        assert opening["delta"] == {"role": "assistant", "content": ""}
        assert [choice["finish_reason"] for choice in choices] == [None, None, "stop"]
        assert closing["delta"] == {}
        shown.append(shown_in(content["delta"]))
    assert len(set(shown)) == 2


async def test_a_late_failure_of_several_is_told_in_each_choice() -> None:
    async with running(speed=400, timeouts={"heartbeat": 0.05}) as service:
        values = said("a windmill [seconds:0.8] [fault:failed]", model=LABS, n=2, stream=True)
        async with streamed(service, CHAT, values) as response:
            events, _ = read_events(await response.read())
        choices = [event.json["choices"][0] for event in events[:-1]]
        for index in (0, 1):
            _, content, closing = [choice for choice in choices if choice["index"] == index]
            assert content["delta"]["content"].startswith("No picture: ")
            assert closing["finish_reason"] == "stop"


async def test_only_the_last_user_text_is_drawn(service: Service) -> None:
    messages = [
        {"role": "system", "content": "You are an artist. Give each picture a title and discuss it in the chat."},
        {"role": "user", "content": "a cat [tag:first]"},
        {"role": "assistant", "content": "![image](http://127.0.0.1/images/old.png)"},
        {"role": "user", "content": [{"type": "text", "text": "now a dog [tag:last]"}]},
    ]
    answer = await service.post(CHAT, {"model": "dall-e-2", "messages": messages, "size": "256x256"})
    assert answer.status == 200
    assert (await service.counts("first"))["submits"] == 0
    assert (await service.counts("last"))["submits"] == 1


async def test_attached_pictures_make_it_an_edit(service: Service) -> None:
    parts = [
        {"type": "text", "text": "paint it red [tag:attached]"},
        {"type": "image_url", "image_url": {"url": data_url(picture())}},
    ]
    answer = await service.post(CHAT, said(parts, model="gpt-image-1"))
    assert answer.status == 200
    assert ".img2img." in answer.headers["x-images-model"]
    parts[1] = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    refused = await service.post(CHAT, said(parts, model="gpt-image-1"))
    assert (refused.status, refused.json["error"]["param"]) == (400, "messages")
    assert (await service.counts("attached"))["submits"] == 1


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "draw",
        [],
        [{"role": "system", "content": "You draw."}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": "  \n"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(b"x")}}]}],
        [{"role": "user", "content": {"text": "draw"}}],
        ["draw"],
    ],
)
async def test_a_conversation_without_user_text_is_refused(service: Service, messages: Any) -> None:
    before = await submits(service)
    answer = await service.post(CHAT, {"model": "dall-e-2", "messages": messages})
    assert (answer.status, answer.json["error"]["param"]) == (400, "messages")
    assert await submits(service) == before


async def test_an_early_failure_has_its_status(service: Service) -> None:
    for stream in (False, True):
        refused = await service.post(CHAT, said("nude [fault:unsafe]", stream=stream))
        assert (refused.status, refused.code) == (400, "content_policy_violation")
        unknown = await service.post(CHAT, said("a windmill", model="gpt-4o", stream=stream))
        assert (unknown.status, unknown.code) == (404, "model_not_found")


async def test_a_late_failure_is_told_as_text() -> None:
    async with running(speed=400, timeouts={"heartbeat": 0.05}) as service:
        values = said("a windmill [seconds:0.8] [fault:failed]", model=LABS, stream=True)
        async with streamed(service, CHAT, values) as response:
            assert response.status == 200
            events, comments = read_events(await response.read())
        assert len(comments) >= 2
        deltas = [event.json["choices"][0] for event in events[:-1]]
        assert deltas[0]["delta"]["role"] == "assistant"
        assert deltas[1]["delta"]["content"].startswith("No picture: ")
        assert deltas[-1]["finish_reason"] == "stop"
        assert events[-1].data == "[DONE]"


async def test_heartbeats_while_polling() -> None:
    async with running(speed=400, timeouts={"heartbeat": 0.05}) as service:
        async with streamed(service, CHAT, said("slow [seconds:0.8]", model=LABS, stream=True)) as response:
            body = await response.read()
        events, comments = read_events(body)
        assert len(comments) >= 3
        assert body.startswith(b":")
        assert len(events) == 4


TOOL = {"type": "function", "function": {"name": "final_result", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "final_result"}}


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        "any",
        NAMED,
        {"type": "custom", "custom": {"name": "final_result"}},
        {"type": "tool", "name": "final_result"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}},
        {},
        True,
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_forced_tool_buys_nothing(service: Service, choice: Any, stream: bool) -> None:
    before = await submits(service)
    answer = await service.post(CHAT, said("a windmill", tools=[TOOL], tool_choice=choice, stream=stream))
    assert (answer.status, answer.code, answer.json["error"]["param"]) == (400, "invalid_value", "tool_choice")
    assert answer.headers["x-should-retry"] == "false"
    assert await submits(service) == before


async def test_a_forced_function_of_the_old_kind_buys_nothing(service: Service) -> None:
    before = await submits(service)
    values = said("a windmill", functions=[TOOL["function"]], function_call={"name": "final_result"})
    answer = await service.post(CHAT, values)
    assert (answer.status, answer.code, answer.json["error"]["param"]) == (400, "invalid_value", "function_call")
    assert await submits(service) == before


@pytest.mark.parametrize(
    "choice",
    [None, "", "auto", "none", {"type": "auto"}, {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}],
)
async def test_tools_on_offer_hinder_nobody(service: Service, choice: Any) -> None:
    values = said("a windmill", tools=[TOOL], tool_choice=choice, functions=[TOOL["function"]], function_call="auto")
    answer = await service.post(CHAT, values)
    assert answer.status == 200
    assert MARKDOWN.match(answer.json["choices"][0]["message"]["content"])
