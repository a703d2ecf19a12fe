"""The Responses API: every answer and every event is read with the types of the openai SDK, strictly."""

import asyncio
import base64
import hashlib
import io
import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from PIL import Image
from pydantic import TypeAdapter

from tests.e2e.parts import data_url, decoded, picture, read_events, streamed, submits
from tests.service import Answer, Service, running
from tests.time_skip import clock

pytestmark = pytest.mark.anyio

RESPONSES = "/v1/responses"
LABS = "imagelabs/sdxl-turbo"
TALKER = "gpt-5.6"
_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_OPENING = ["response.created", "response.in_progress"]
_MAKING = [
    "response.output_item.added",
    "response.image_generation_call.in_progress",
    "response.image_generation_call.generating",
]
_DONE = ["response.image_generation_call.completed", "response.output_item.done"]
_MESSAGE = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
_ALL = [*_OPENING, *_MAKING, *_DONE, *_MESSAGE, "response.completed"]


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


@pytest.fixture(scope="module")
async def keyed() -> AsyncIterator[Service]:
    async with running(speed=400, environment={"IMAGES_PROXY_KEYS": "first key,second key"}) as service:
        yield service


def asking(words: Any, /, **values: Any) -> dict[str, Any]:
    """Return a request of a model that talks, with the image tool; ``tool_…`` are the tool's options."""
    options = {name.removeprefix("tool_"): values.pop(name) for name in list(values) if name.startswith("tool_")}
    forced = options.pop("choice", None)
    tool = {"type": "image_generation", "size": "256x256", **options}
    return {"model": TALKER, "input": words, "tools": [tool], **({"tool_choice": forced} if forced else {}), **values}


def user(*parts: Any) -> dict[str, Any]:
    """Return a user's message."""
    texts = ({"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts)
    return {"role": "user", "content": list(texts)}


def attached(url: str) -> dict[str, Any]:
    """Return a picture as a message's part."""
    return {"type": "input_image", "detail": "auto", "image_url": url}


def read(values: Any) -> Response:
    """Read a response; fails when it isn't what OpenAI's own types say, or lacks what they make optional."""
    response = Response.model_validate(values, strict=True)
    assert {"status", "metadata", "usage", "background", "previous_response_id", "error"} <= values.keys()
    return response


async def made(service: Service, values: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Post a request and return its finished response."""
    answer = await service.post(RESPONSES, values, headers)
    assert answer.status == 200, answer.json
    response = read(answer.json)
    assert response.status == "completed"
    return response


def result(response: Response) -> str:
    """Return the base64 of a response's picture."""
    call = response.output[0]
    assert call.type == "image_generation_call"
    assert call.status == "completed"
    assert call.result
    image = decoded(call.result)
    assert call.size == f"{image.width}x{image.height}"
    return call.result


def action(response: Response) -> str | None:
    """Return whether a response's picture was generated or edited."""
    call = response.output[0]
    assert call.type == "image_generation_call"
    return call.action


async def events(service: Service, values: dict[str, Any], path: str = RESPONSES) -> list[dict[str, Any]]:
    """Post a streamed request and return its events; their form is checked on the way."""
    async with streamed(service, path, {**values, "stream": True}) as response:
        assert response.status == 200, await response.text()
        return checked(await response.read())


def checked(body: bytes, first: int = 0) -> list[dict[str, Any]]:
    """Return a stream's events. Fails unless each is one of OpenAI's, and they are numbered without a gap."""
    found, _ = read_events(body)
    values: list[dict[str, Any]] = []
    for event in found:
        assert event.name == event.json["type"]
        _EVENTS.validate_python(event.json, strict=True)
        values.append(event.json)
    assert [event["sequence_number"] for event in values] == list(range(first, first + len(values)))
    return values


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """Return the events' types."""
    return [event["type"] for event in found]


async def until_ended(service: Service, response_id: str) -> Answer:
    """Ask for a response until it has ended."""
    async with asyncio.timeout(10):
        while True:
            answer = await service.get(f"{RESPONSES}/{response_id}")
            if answer.json["status"] not in ("queued", "in_progress"):
                return answer
            assert read(answer.json).output == []
            await clock().sleep(0.05)


async def refused(service: Service, values: Any, status: int, param: str | None, code: str | None) -> str:
    """Post what is refused before anything is bought, and return the message."""
    answer = await service.post(RESPONSES, values)
    assert answer.status == status, answer.json
    error = answer.json["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert answer.headers["x-should-retry"] == "false"
    message: str = error["message"]
    return message


# --- whole ------------------------------------------------------------------------------------------------------------


async def test_a_picture_by_the_tool(service: Service) -> None:
    answer = await service.post(RESPONSES, asking("a windmill", metadata={"a": "b"}, tool_quality="low"))
    response = read(answer.json)
    assert decoded(result(response)).size == (256, 256)
    assert [item.type for item in response.output] == ["image_generation_call", "message"]
    assert (response.model, response.status, response.metadata) == (TALKER, "completed", {"a": "b"})
    assert response.output_text == ""  # the client draws the picture itself
    (tool,) = response.tools
    assert tool.type == "image_generation"
    assert (tool.size, tool.quality, tool.action) == ("256x256", "low", "auto")
    assert (response.background, response.error, response.previous_response_id) == (False, None, None)
    usage = response.usage
    assert usage is not None
    assert usage.input_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert answer.headers["x-images-attempts"] == "1"
    assert answer.headers["x-images-provider"]
    assert answer.headers["x-request-id"]


async def test_a_picture_without_the_tool_comes_with_its_address(service: Service) -> None:
    response = await made(service, {"model": "dall-e-3", "input": "a windmill", "size": "512x512"})
    address = response.output_text.removeprefix("![image](").removesuffix(")")
    assert (await service.get(address)).body == base64.b64decode(result(response))
    assert decoded(result(response)).size == (512, 512)
    assert response.model == "dall-e-3"
    assert response.tools == []


async def test_the_same_by_every_address(service: Service) -> None:
    for path in ("/responses", "/v1/v1/responses/", "//v1/responses", "/openai/v1/responses", "/v1responses"):
        answer = await service.post(path, asking("a path"))
        assert answer.status == 200, path
    answer = await service.post("/openai/responses?api-version=2025-04-01-preview", asking("a path"))
    response_id = read(answer.json).id
    assert (await service.get(f"/openai/responses/{response_id}")).status == 200
    assert (await service.get(f"/responses/{response_id}/")).status == 200


@pytest.mark.parametrize(
    ("values", "provider"),
    [
        ({"model": TALKER, "tool_model": LABS}, "imagelabs"),
        ({"model": LABS}, "imagelabs"),
        ({"model": LABS, "tool_model": "dall-e-3"}, "prodia"),
        ({"model": TALKER}, "prodia"),
        ({"model": None}, "prodia"),
    ],
    ids=["the tool's", "the request's", "the tool's before the request's", "the default", "none at all"],
)
async def test_which_model_makes_the_picture(service: Service, values: dict[str, Any], provider: str) -> None:
    answer = await service.post(RESPONSES, asking("a choice", **values))
    assert answer.status == 200, answer.json
    assert answer.headers["x-images-provider"] == provider
    assert read(answer.json).model == (values["model"] or "dall-e-3")


async def test_unknown_models(service: Service) -> None:
    await refused(service, {"model": TALKER, "input": "a cat"}, 404, "model", "model_not_found")
    await refused(service, asking("a cat", tool_model="nonesuch"), 404, "model", "model_not_found")
    tools = [{"type": "web_search"}, {"type": "function", "name": "f", "parameters": {}}]
    await refused(service, {"model": TALKER, "input": "a cat", "tools": tools}, 404, "model", "model_not_found")


async def test_what_cannot_be_honoured_is_reported(service: Service) -> None:
    values = asking("a cat", tool_moderation="low", tool_n=3, tool_format="png", conversation="conv_1")
    answer = await service.post(RESPONSES, values)
    assert answer.status == 200
    assert len(answer.json["output"]) == 2
    assert set(answer.headers["x-images-dropped"].split(", ")) == {"moderation", "n", "format", "conversation"}


async def test_the_form_of_the_picture(service: Service) -> None:
    response = await made(service, asking("a cat", tool_output_format="webp"))
    assert decoded(result(response)).format == "WEBP"
    call = response.output[0]
    assert call.type == "image_generation_call"
    assert call.output_format == "webp"


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": 7}, "input", "invalid_type"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": [{"role": "assistant", "content": "me"}]}, "input", "invalid_value"),
        ({"input": [user(attached("data:image/png;base64,eA=="))]}, "input", "invalid_value"),
        ({"input": [user("x", attached("data:image/png;base64,eA=="))]}, "input", "invalid_image_file"),
        ({"input": [user("x", attached("https://example.org/x.png"))]}, "input", "invalid_value"),
        ({"input": [user("x", {"type": "input_image", "file_id": "file-1"})]}, "input", "invalid_value"),
        ({"input": "x", "tools": {}}, "tools", "invalid_type"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata", "invalid_value"),
        ({"input": "x", "metadata": {str(number): "" for number in range(17)}}, "metadata", "invalid_value"),
        ({"input": "x", "model": 7}, "model", "invalid_type"),
        ({"input": "x", "model": "m" * 300}, "model", "string_above_max_length"),
        ({"input": "x", "background": True, "store": False}, "store", "invalid_value"),
        ({"input": "x", "tools": [{"type": "image_generation", "size": "1x1"}]}, "size", "invalid_value"),
        ({"input": "x", "tools": [{"type": "image_generation", "action": "draw"}]}, "action", "invalid_value"),
        (
            {"input": "x", "tools": [{"type": "image_generation", "partial_images": 9}]},
            "partial_images",
            "integer_above_max_value",
        ),
        ({"input": "x", "tools": [{"type": "image_generation", "action": "edit"}]}, "input", "invalid_value"),
        (
            {"input": "x", "tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}]},
            "input_image_mask",
            "invalid_value",
        ),
        (
            {"input": "x", "tools": [{"type": "image_generation", "input_image_mask": {"image_url": "data:;base64,"}}]},
            "input_image_mask",
            "invalid_value",
        ),
    ],
)
async def test_what_is_refused(service: Service, values: dict[str, Any], param: str, code: str) -> None:
    assert len(await refused(service, {"model": "dall-e-3", **values}, 400, param, code)) > 10


# --- pictures in ------------------------------------------------------------------------------------------------------


async def test_an_attached_picture_is_edited(service: Service) -> None:
    given = attached(data_url(picture(256, 256)))
    assert action(await made(service, asking([user("a hat for it", given)]))) == "edit"
    # Frontends put the picture into a message of its own.
    assert action(await made(service, asking([user(given), user("a hat for it")]))) == "edit"
    talk = [user("look", given), {"role": "assistant", "content": "Nice."}, user("a dog")]
    assert action(await made(service, asking(talk))) == "generate"
    assert action(await made(service, asking([user("a dog", given)], tool_action="auto"))) == "edit"


async def test_a_picture_of_ours_is_named_by_its_address(service: Service) -> None:
    answer = await service.generate("a house", model="dall-e-2", size="256x256", output_format="png")
    address = answer.json["data"][0]["url"]
    assert address.startswith(service.url)
    assert action(await made(service, asking([user("paint it", attached(address))]))) == "edit"
    gone = f"{service.url}/images/{'0' * 32}.png"
    await refused(service, asking([user("paint it", attached(gone))]), 400, "input", "invalid_value")


async def test_a_mask(service: Service) -> None:
    mask = {"image_url": data_url(picture(256, 256, "white"))}
    given = [user("a hat for it", attached(data_url(picture(256, 256))))]
    assert action(await made(service, asking(given, tool_input_image_mask=mask))) == "edit"
    small = {"image_url": data_url(picture(64, 64, "white"))}
    await refused(service, asking(given, tool_input_image_mask=small), 400, "mask", "invalid_value")


async def test_pictures_are_no_text(service: Service) -> None:
    # Each is larger than ``max_body``, so it must be cut out while it arrives, as base64 alone too.
    noise = Image.frombytes("RGB", (700, 700), random.Random(7).randbytes(3 * 700 * 700))  # noqa: S311
    out = io.BytesIO()
    noise.save(out, format="PNG")
    given = base64.b64encode(out.getvalue()).decode()
    assert len(given) > service.engine.settings.server.max_body
    call = {"type": "image_generation_call", "id": "ig_x", "status": "completed", "result": given}
    values = asking([user("a cat", attached(f"data:image/png;base64,{given}")), call, user("darker")])
    body = io.BytesIO(json.dumps(values).encode())
    async with service.http.post(service.url + RESPONSES, data=body) as response:
        assert action(read((await Answer.read(response)).json)) == "edit"


# --- conversations ----------------------------------------------------------------------------------------------------


async def test_a_follow_up_edits_the_picture_before_it(service: Service) -> None:
    first = await made(service, asking("a boat"))
    call = first.output[0]
    assert call.type == "image_generation_call"
    for values in (
        asking("make it red", previous_response_id=first.id),
        asking([user("a boat"), {"type": "image_generation_call", "id": call.id}, user("make it red")]),
        asking([user("a boat"), {"type": "item_reference", "id": call.id}, user("make it red")]),
        asking([user("a boat"), call.model_dump(), user("make it red")]),
        asking([user("a boat"), {**call.model_dump(), "id": "ig_unknown"}, user("make it red")]),
    ):
        second = await made(service, values)
        assert action(second) == "edit"
        assert second.previous_response_id == values.get("previous_response_id")
    fresh = await made(service, asking("a cat", previous_response_id=first.id, tool_action="generate"))
    assert action(fresh) == "generate"


async def test_the_picture_that_is_edited_is_the_one_before(service: Service) -> None:
    first = await made(service, asking("a boat"))
    key = {"idempotency-key": "the same picture"}
    second = await made(service, asking("make it red", previous_response_id=first.id), key)
    # The same key with another picture would be refused.
    given = attached(f"data:image/png;base64,{result(first)}")
    assert (await made(service, asking([user("make it red", given)]), key)).id == second.id
    other = await service.post(RESPONSES, asking([user("make it red", attached(data_url(picture())))]), key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")


async def test_a_follow_up_with_a_model_that_cannot_edit_goes_on(service: Service) -> None:
    model = "prodia/inference.flux-fast.schnell.txt2img.v2"
    first = await made(service, asking("a boat", tool_model=model))
    answer = await service.post(RESPONSES, asking("a cat", previous_response_id=first.id, tool_model=model))
    assert action(read(answer.json)) == "generate"
    assert answer.headers["x-images-dropped"] == "previous_response_id"
    values = asking("a cat", previous_response_id=first.id, tool_model=model, tool_action="edit")
    await refused(service, values, 400, "model", "invalid_value")


async def test_a_conversation_goes_on_after_a_failure(service: Service) -> None:
    first = await made(service, asking("a boat"))
    values = asking("[fault:unsafe] x", previous_response_id=first.id, background=True)
    failed = (await service.post(RESPONSES, values)).json["id"]
    assert (await until_ended(service, failed)).json["status"] == "failed"
    assert action(await made(service, asking("make it red", previous_response_id=failed))) == "edit"


async def test_a_follow_up_of_what_is_not_finished_or_has_no_picture(service: Service) -> None:
    slow = asking("a tide [seconds:30]", background=True, tool_model=LABS, tool_size="auto")
    running = (await service.post(RESPONSES, slow)).json["id"]
    values = asking("make it red", previous_response_id=running)
    await refused(service, values, 400, "previous_response_id", "invalid_value")
    item = {"type": "image_generation_call", "id": running.replace("resp_", "ig_")}
    await refused(service, asking([item, user("make it red")]), 404, "input", None)
    await service.post(f"{RESPONSES}/{running}/cancel", {})
    # A conversation that has no picture yet begins with one.
    assert action(await made(service, values)) == "generate"


async def test_too_many_pictures(service: Service) -> None:
    given = attached(data_url(picture(64, 64)))
    await refused(service, asking([user("x", *[given] * 17)]), 400, "input", "invalid_value")


async def test_a_model_of_ours_that_lacks_its_token_is_told() -> None:
    async with running(environment={"PRODIA_TOKEN": ""}) as service:
        answer = await service.post(RESPONSES, asking("x", model="prodia/inference.flux-fast.schnell.txt2img.v2"))
        assert (answer.status, answer.code) == (503, "provider_not_configured")


async def test_what_is_not_known_or_no_longer(service: Service) -> None:
    for values, param in (
        (asking("x", previous_response_id="resp_0"), "previous_response_id"),
        (asking([{"type": "item_reference", "id": "ig_0"}, user("x")]), "input"),
    ):
        await refused(service, values, 404, param, None)
    for path in (f"{RESPONSES}/resp_0", f"{RESPONSES}/imggen_0"):
        assert (await service.get(path)).status == 404
    assert (await service.post(f"{RESPONSES}/resp_0/cancel", {})).status == 404


# --- what is no picture -----------------------------------------------------------------------------------------------

_TITLE = "Generate a concise, 5-word-or-less title for the conversation, using its same language."
_FUNCTION = {"type": "function", "name": "f", "parameters": {}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        asking(_TITLE),
        asking("User: hi\nAI: hello", instructions=_TITLE),
        {"model": "dall-e-3", "input": [{"role": "developer", "content": _TITLE}, user("a cat")]},
        asking("a cat", text={"format": {"type": "json_schema", "name": "t", "schema": {"properties": {"a": {}}}}}),
        asking("a cat", tool_choice="none"),
        asking("a cat", tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [_FUNCTION]}),
    ],
    ids=["title", "instructions", "developer", "schema", "none", "other tools only"],
)
async def test_text_never_buys(service: Service, values: dict[str, Any], stream: bool) -> None:
    before = await submits(service)
    if stream:
        found = await events(service, values)
        text = next(event["delta"] for event in found if event["type"] == "response.output_text.delta")
        response = read(found[-1]["response"])
        assert kinds(found)[:2] == _OPENING
        assert kinds(found)[-1] == "response.completed"
    else:
        response = await made(service, values)
        text = response.output_text
    assert text
    assert response.output_text == text
    assert [item.type for item in response.output] == ["message"]
    assert await submits(service) == before


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "f"},
        {"type": "web_search_preview"},
        {"type": "allowed_tools", "mode": "required", "tools": [_FUNCTION]},
        7,
    ],
)
async def test_a_forced_function_is_refused(service: Service, choice: Any) -> None:
    values = {"model": "dall-e-3", "input": "a cat", "tools": [_FUNCTION], "tool_choice": choice}
    await refused(service, values, 400, "tool_choice", "invalid_value")
    if choice != "required":
        await refused(service, asking("a cat", tool_choice=choice), 400, "tool_choice", "invalid_value")


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "image_generation"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "image_generation"}]},
    ],
)
async def test_a_tool_choice_that_is_the_picture(service: Service, choice: Any) -> None:
    assert result(await made(service, asking("a cat", tool_choice=choice)))


async def test_a_forced_picture_comes_with_the_text_that_its_schema_demands(service: Service) -> None:
    # Without it an agent would call the model again, and again buy a picture.
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    form = {"format": {"type": "json_schema", "name": "t", "schema": schema}}
    response = await made(service, asking("a cat", text=form, tool_choice={"type": "image_generation"}))
    assert result(response)
    assert response.output_text == '{"title": "Picture"}'


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream(service: Service) -> None:
    found = await events(service, asking("a tide"))
    assert kinds(found) == _ALL
    item = next(event["item"] for event in found if event["type"] == "response.output_item.done")
    response = read(found[-1]["response"])
    assert item["result"] == result(response)
    assert [item.id for item in response.output] == [found[2]["item"]["id"], found[7]["item"]["id"]]
    assert {event["response"]["id"] for event in found if "response" in event} == {response.id}
    assert (await service.get(f"{RESPONSES}/{response.id}")).json["output"][0]["result"] == item["result"]


async def test_previews_are_those_that_a_provider_shows(service: Service) -> None:
    values = asking("a slow tide [seconds:1.5]", tool_model=LABS, tool_size="auto", tool_partial_images=2)
    found = await events(service, values)
    previews = [event for event in found if event["type"] == "response.image_generation_call.partial_image"]
    assert 1 <= len(previews) <= 2
    assert [event["partial_image_index"] for event in previews] == list(range(len(previews)))
    for event in previews:
        assert decoded(event["partial_image_b64"]).size
        assert event["output_format"]
    assert kinds(found) == [*_ALL[:5], *["response.image_generation_call.partial_image"] * len(previews), *_ALL[5:]]
    # A provider that shows none, and a request that wants none.
    assert kinds(await events(service, asking("a tide", tool_partial_images=2))) == _ALL
    assert kinds(await events(service, asking("a slow tide [seconds:1.2]", tool_model=LABS))) == _ALL


async def test_a_failure_before_the_stream_has_its_own_status(service: Service) -> None:
    for fault, status, code in (("unsafe", 400, "content_policy_violation"), ("401", 502, "provider_auth")):
        values = asking(f"a cat [fault:{fault}]", stream=True)
        answer = await service.post(RESPONSES, values)
        assert (answer.status, answer.code) == (status, code)
    answer = await service.post(RESPONSES, {"model": TALKER, "input": "x", "stream": True})
    assert (answer.status, answer.code) == (404, "model_not_found")


async def test_a_failure_inside_the_stream(service: Service) -> None:
    values = asking("a cat [fault:failed] [seconds:1]", tool_model=LABS, tool_size="auto")
    found = await events(service, values)
    assert kinds(found) == [*_OPENING, *_MAKING, "response.failed"]
    response = read(found[-1]["response"])
    assert response.status == "failed"
    assert response.error is not None
    assert (response.error.code, response.error.type) == ("server_error", "image_generation_server_error")
    call = response.output[0]
    assert call.type == "image_generation_call"
    assert call.status == "failed"
    assert call.error is not None
    assert call.error.code == "image_generation_failed"
    assert (await service.get(f"{RESPONSES}/{response.id}")).json["status"] == "failed"


async def test_a_stream_that_began_with_a_heartbeat() -> None:
    async with running(speed=20, timeouts={"heartbeat": 0.1, "submit": 0.5}) as service:
        values = asking("a cat [seconds:0.5]", tool_model=LABS, tool_size="auto")
        assert kinds(await events(service, values)) == _ALL
        # The comment was the answer's beginning, so there is no status left to tell it by.
        values = asking("a cat [fault:hang]", tool_model=LABS, tool_size="auto")
        found = await events(service, values)
        assert kinds(found) == [*_OPENING, "response.failed"]
        assert read(found[-1]["response"]).status == "failed"


async def test_a_stream_that_ends_before_its_response() -> None:
    async with running(speed=20, timeouts={"hold": 1}) as service:
        found = await events(service, asking("a cat [seconds:3]", tool_model=LABS, tool_size="auto"))
        assert kinds(found)[-1] == "error"
        assert found[-1]["code"] == "generation_pending"
        # The picture is still made, and its response leads to it.
        answer = await until_ended(service, found[0]["response"]["id"])
        assert result(read(answer.json))
        assert await submits(service) == 1


async def test_the_shapes_of_clients_that_cannot_be_run_here(service: Service) -> None:
    # Home Assistant's ai_task: https://github.com/home-assistant/core/blob/dev/homeassistant/components/openai_conversation/entity.py
    talk = [
        {"type": "message", "role": "developer", "content": "You are a helpful assistant."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a lamp"}]},
    ]
    tool = {"type": "image_generation", "model": "gpt-image-2", "output_format": "png", "input_fidelity": "high"}
    values = {
        "model": "gpt-5-mini",
        "input": talk,
        "max_output_tokens": 3000,
        "user": "01K",
        "store": True,
        "reasoning": {"effort": "low", "summary": "off"},
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "medium"},
        "prompt_cache_retention": "24h",
        "tools": [{"type": "web_search", "search_context_size": "medium"}, tool],
        "tool_choice": {"type": "image_generation"},
    }
    found = await events(service, values)
    assert kinds(found) == _ALL
    assert decoded(found[6]["item"]["result"]).format == "PNG"
    # Flowise's agent: nulls, and the tool among functions.
    flow = {"model": "gpt-4.1", "input": [{"role": "user", "content": "a lamp"}], "stream": None, "metadata": None}
    functions = [{"type": "function", "name": "f", "parameters": {}, "strict": False}, {"type": "image_generation"}]
    assert result(await made(service, {**flow, "tools": functions, "parallel_tool_calls": None, "background": None}))


# --- kept responses ---------------------------------------------------------------------------------------------------


async def test_a_background_response(service: Service) -> None:
    answer = await service.post(RESPONSES, asking("a long tide [seconds:1]", background=True, metadata={"a": "b"}))
    assert answer.status == 200
    first = read(answer.json)
    assert first.status in ("queued", "in_progress")
    assert (first.background, first.output, first.usage) == (True, [], None)
    ended = await until_ended(service, first.id)
    last = read(ended.json)
    assert (last.id, last.status, last.metadata) == (first.id, "completed", {"a": "b"})
    assert result(last)
    assert ended.headers["x-images-provider"]
    assert (await service.get(f"{RESPONSES}/{first.id}")).json == ended.json


async def test_a_background_response_that_fails(service: Service) -> None:
    for fault, code in (("unsafe", "image_content_policy_violation"), ("401", "server_error")):
        answer = await service.post(RESPONSES, asking(f"a cat [fault:{fault}]", background=True))
        ended = read((await until_ended(service, answer.json["id"])).json)
        assert ended.status == "failed"
        assert ended.error is not None
        assert ended.error.code == code


@pytest.mark.parametrize("values", [{}, {"background": True}, {"stream": True}, {"background": True, "stream": True}])
async def test_a_limit_refuses_with_its_own_status(values: dict[str, Any]) -> None:
    async with running(speed=400, limits={"pictures": ["1"]}) as service:
        # Side by side, so that all are let in before the first is written.
        calls = (service.post(RESPONSES, asking(f"cat {number}", **values)) for number in range(4))
        first, *refusals = sorted(await asyncio.gather(*calls), key=lambda answer: answer.status)
        assert first.status == 200
        for answer in refusals:
            assert (answer.status, answer.code) == (429, "organization_spend_limit_exceeded"), answer.json
        assert await submits(service) <= 1


async def test_a_background_response_as_a_stream_that_is_picked_up_again(service: Service) -> None:
    values = asking("a long tide [seconds:1]", background=True, tool_model=LABS, tool_size="auto", stream=True)
    seen = b""
    async with streamed(service, RESPONSES, values) as response:
        while b"response.queued" not in seen:
            seen += await response.content.readany()
    first = checked(seen[: seen.rindex(b"\n\n") + 2])
    response_id = first[0]["response"]["id"]
    after = first[1]["sequence_number"]
    answer = await service.get(f"{RESPONSES}/{response_id}?stream=true&starting_after={after}")
    rest = checked(answer.body, after + 1)
    assert kinds(rest) == ["response.in_progress", *_ALL[2:]]
    assert result(read(rest[-1]["response"]))
    # The same afterwards, and from the beginning.
    answer = await service.get(f"{RESPONSES}/{response_id}?stream=true")
    assert kinds(checked(answer.body))[-1] == "response.completed"
    answer = await service.get(f"{RESPONSES}/{response_id}?stream=true&starting_after=99")
    assert kinds(checked(answer.body, 100))[-1] == "response.completed"
    answer = await service.get(f"{RESPONSES}/{response_id}?stream=true&starting_after=x")
    assert (answer.status, answer.json["error"]["param"]) == (400, "starting_after")


async def test_cancelling_hides_and_does_not_unbuy(service: Service) -> None:
    tag = "[tag:cancelled]"
    values = asking(f"a long tide [seconds:30] {tag}", background=True, tool_model=LABS, tool_size="auto")
    response_id = (await service.post(RESPONSES, values)).json["id"]
    async with asyncio.timeout(5):
        while not (await service.counts("cancelled"))["submits"]:  # noqa: ASYNC110 (the simulator tells nobody)
            await asyncio.sleep(0.01)
    for _ in range(2):
        answer = await service.post(f"{RESPONSES}/{response_id}/cancel", {})
        assert answer.status == 200
        assert read(answer.json).status == "cancelled"
    assert (await service.get(f"{RESPONSES}/{response_id}")).json["status"] == "cancelled"
    answer = await service.get(f"{RESPONSES}/{response_id}?stream=true")
    assert kinds(checked(answer.body))[-1] == "response.failed"
    assert (await service.counts("cancelled"))["submits"] == 1


async def test_cancelling_what_has_ended_or_is_no_background_response(service: Service) -> None:
    done = await made(service, asking("a cat"))
    answer = await service.post(f"{RESPONSES}/{done.id}/cancel", {})
    assert (answer.status, answer.json["error"]["param"]) == (400, "id")
    background = (await service.post(RESPONSES, asking("a cat", background=True))).json["id"]
    await until_ended(service, background)
    assert (await service.post(f"{RESPONSES}/{background}/cancel", {})).json["status"] == "completed"


async def test_deleting(service: Service) -> None:
    values = asking("a long tide [seconds:30]", background=True, tool_model=LABS, tool_size="auto")
    for response_id in ((await made(service, asking("a cat"))).id, (await service.post(RESPONSES, values)).json["id"]):
        path = f"{service.url}{RESPONSES}/{response_id}"
        async with service.http.delete(path) as response:
            assert response.status == 200
            assert await response.json() == {"id": response_id, "object": "response", "deleted": True}
        async with service.http.delete(path) as response:
            assert response.status == 404
        assert (await service.get(f"{RESPONSES}/{response_id}")).status == 404
        await refused(service, asking("x", previous_response_id=response_id), 404, "previous_response_id", None)


async def test_what_is_not_stored_is_not_kept(service: Service) -> None:
    response = await made(service, asking("a cat", store=False))
    assert result(response)
    assert (await service.get(f"{RESPONSES}/{response.id}")).status == 404


async def test_a_response_is_its_creators(keyed: Service) -> None:
    first, second = ({"authorization": f"Bearer {name} key"} for name in ("first", "second"))
    response = await made(keyed, asking("a cat"), first)
    path = f"{RESPONSES}/{response.id}"
    assert (await keyed.get(path, first)).status == 200
    assert (await keyed.get(path, second)).status == 404
    assert (await keyed.get(path)).status == 401
    answer = await keyed.post(RESPONSES, asking("x", previous_response_id=response.id), second)
    assert answer.status == 404
    assert (await keyed.post(f"{path}/cancel", {}, second)).status == 404


# --- one intent, one paid picture -------------------------------------------------------------------------------------


async def test_repeats_join(service: Service) -> None:
    values = asking("the same [tag:joined] [seconds:0.6]")
    key = {"idempotency-key": "responses-1"}
    answers = await asyncio.gather(*(service.post(RESPONSES, values, key) for _ in range(3)))
    assert {answer.status for answer in answers} == {200}
    assert len({read(answer.json).id for answer in answers}) == 1
    again = await service.post(RESPONSES, values, {"x-stainless-retry-count": "1", **key})
    assert again.headers["x-images-reattached"] == "true"
    assert (await service.counts("joined"))["submits"] == 1
    other = await service.post(RESPONSES, asking("another"), key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")


async def test_a_counted_repeat_of_a_background_response_is_the_same(service: Service) -> None:
    values = asking("the same [tag:counted] [seconds:0.6]", background=True)
    first = await service.post(RESPONSES, values)
    second = await service.post(RESPONSES, values, {"x-stainless-retry-count": "1"})
    assert first.json["id"] == second.json["id"]
    await until_ended(service, first.json["id"])
    assert (await service.counts("counted"))["submits"] == 1


async def test_whoever_comes_back_after_a_cut_gets_the_same_picture(service: Service) -> None:
    values = asking("the same [tag:cut] [seconds:0.6]")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await service.post(RESPONSES, values)
    answer = await service.post(RESPONSES, values)
    assert answer.headers["x-images-reattached"] == "true"
    assert result(read(answer.json))
    assert (await service.counts("cut"))["submits"] == 1


# --- the SDK itself ---------------------------------------------------------------------------------------------------


async def test_the_sdks_own_helpers(service: Service) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as sdk:
        tool: Any = {"type": "image_generation", "size": "1024x1024", "partial_images": 1}
        async with sdk.responses.stream(model=TALKER, input="a tide", tools=[tool]) as stream:
            seen = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert seen == _ALL
        again = await sdk.responses.retrieve(final.id)
        digests = {hashlib.sha256(result(each).encode()).digest() for each in (final, again)}
        assert len(digests) == 1
        waiting = await sdk.responses.create(model=TALKER, input="a cat", tools=[tool], background=True)
        async for event in await sdk.responses.retrieve(waiting.id, stream=True):
            last = event
        assert last.type == "response.completed"
        assert (await sdk.responses.cancel(waiting.id)).status == "completed"
        await sdk.responses.delete(waiting.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(waiting.id)
