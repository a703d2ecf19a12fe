"""The twelve quirks most likely to break a naive proxy, the likeliest first, one test for each."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.e2e.parts import EDITS, GENERATIONS, Field, decoded, form, picture, post_form, read_events
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

SMALL = "256x256"


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


async def test_quirk_1_exactly_one_of_url_and_b64_json(service: Service) -> None:
    for field, other in (("url", "b64_json"), ("b64_json", "url")):
        for model in ("dall-e-3", "gpt-image-1"):
            answer = await service.generate("one field", model=model, size=SMALL, n=2, response_format=field)
            assert [list(item) for item in answer.json["data"]] == [[field], [field]]
            assert f'"{other}"' not in answer.body.decode()


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ("dall-e-3", "url"),
        ("dall-e-2", "url"),
        ("flux-schnell", "url"),
        ("imagelabs/sdxl-turbo", "url"),
        ("gpt-image-1", "b64_json"),
        ("openai/gpt-image-1", "b64_json"),
        ("gpt-image-9-future", "b64_json"),
        ("chatgpt-image-latest", "b64_json"),
    ],
)
async def test_quirk_2_the_models_name_decides_the_form(service: Service, model: str, field: str) -> None:
    answer = await service.generate("which form", model=model, size=SMALL)
    assert answer.status == 200
    assert list(answer.json["data"][0]) == [field]


async def test_quirk_3_retired_names_and_no_model_at_all(service: Service) -> None:
    for values in ({}, {"model": None}, {"model": ""}, {"model": "dall-e-2"}, {"model": "stablediffusion"}):
        answer = await service.generate("a name from last year", size=SMALL, **values)
        assert answer.status == 200, values
    answer = await service.generate("no such name", model="dalle3")
    assert (answer.status, answer.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": ["a"]}, 400),
        ({"prompt": "x", "n": "many"}, 400),
        ({"prompt": "x", "size": "huge"}, 400),
        ({"prompt": "x", "model": "nonesuch"}, 404),
        ("not an object", 400),
    ],
)
async def test_quirk_4_errors_are_openais_and_never_422_detail(service: Service, values: Any, status: int) -> None:
    answer = await service.post(GENERATIONS, values)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"


async def test_quirk_5_usage_is_complete_and_whole(service: Service) -> None:
    answers = [
        await service.generate("count this", size=SMALL),
        await service.generate("count this", model="gpt-image-1", size=SMALL, n=2),
        await post_form(service, [("image", picture()), ("prompt", "count this"), ("model", "gpt-image-1")]),
    ]
    for answer in answers:
        usage = answer.json["usage"]
        counts = [usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")]
        counts += [usage["input_tokens_details"][name] for name in ("text_tokens", "image_tokens")]
        assert all(type(count) is int for count in counts)
        assert counts[0] + counts[1] == counts[2]
        assert counts[3] + counts[4] == counts[0]
    assert answers[2].json["usage"]["input_tokens_details"]["image_tokens"] > 0


def _values(value: Any) -> Iterator[Any]:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _values(inner)


async def test_quirk_6_no_nulls_whole_created_bare_base64(service: Service) -> None:
    for values in ({"response_format": "url"}, {"response_format": "b64_json"}, {"model": "imagelabs/sdxl-turbo"}):
        answer = await service.post(GENERATIONS, {"prompt": "hygiene", "size": SMALL, **values})
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert None not in list(_values(answer.json))
        assert type(answer.json["created"]) is int
        assert answer.json["quality"] in ("low", "medium", "high")
        assert answer.json["background"] == "opaque"
        if "b64_json" in answer.json["data"][0]:
            assert decoded(answer.json["data"][0]["b64_json"]).format == "PNG"


async def test_quirk_7_a_counted_retry_buys_nothing(service: Service) -> None:
    async with running(speed=400, timeouts={"hold": 0.2}) as hasty:
        values = {"prompt": "slow [seconds:0.6] [tag:q7]", "model": "imagelabs/sdxl-turbo", "size": SMALL}
        first = await hasty.post(GENERATIONS, values, {"x-stainless-retry-count": "0"})
        assert (first.status, first.code, first.headers["x-should-retry"]) == (504, "generation_pending", "true")
        answer, count = first, 0
        while answer.status == 504:
            count += 1
            answer = await hasty.post(GENERATIONS, values, {"x-stainless-retry-count": str(count)})
        assert answer.status == 200
        assert answer.headers["x-images-reattached"] == "true"
        assert (await hasty.counts("q7"))["submits"] == 1
    failed = await service.generate("broken [fault:failed] [tag:q7f]", model="imagelabs/sdxl-turbo")
    assert failed.status == 502
    assert failed.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/images/generations/",
        "/images/generations",
        "/images/generations/",
        "//v1//images/generations",
        "/v1/v1/images/generations",
        "/api/v1/images/generations",
        "/v1images/generations",
        "/v1/images/generations?api-version=2024-02-01&unknown=1",
        "/openai/v1/images/generations?api-version=preview",
        "/openai/deployments/dall-e-2/images/generations?api-version=2024-02-01",
        "/deployments/dall-e-2/images/generations",
    ],
)
async def test_quirk_8_every_form_of_the_address(service: Service, path: str) -> None:
    url = service.url + path
    async with service.http.post(url, json={"prompt": "anywhere", "size": SMALL}, allow_redirects=False) as response:
        answer = await Answer.read(response)
    assert answer.status == 200
    assert answer.json["data"]


async def test_quirk_8_azures_key_and_the_paths_model() -> None:
    async with running(speed=400, environment={"IMAGES_PROXY_KEYS": "azure-key"}) as keyed:
        path = "/openai/deployments/gpt-image-1/images/generations?api-version=2025-04-01-preview"
        values = {"prompt": "from Azure", "size": SMALL}
        assert (await keyed.post(path, values)).status == 401
        assert (await keyed.post(path, values, {"api-key": "wrong"})).code == "invalid_api_key"
        answer = await keyed.post(path, values, {"api-key": "azure-key"})
        assert list(answer.json["data"][0]) == ["b64_json"]


async def test_quirk_9_unknown_null_and_odd_fields(service: Service) -> None:
    odd: dict[str, Any] = {
        "size": SMALL,
        "n": 1.0,
        "steps": "3",
        "seed": None,
        "quality": "auto",
        "background": "auto",
        "moderation": "auto",
        "style": None,
        "user": "",
        "aspectRatio": None,
        "samplerName": "euler",
        "promptExtend": True,
        "watermark": False,
        "cfg": "4.5",
        "whatever": {"deep": [1, None]},
    }
    answer = await service.generate("odd fields", **odd)
    assert answer.status == 200
    dropped = answer.headers["x-images-dropped"].split(", ")
    assert {"promptExtend", "watermark", "whatever", "sampler", "cfg"} <= set(dropped)
    for size in ("512x512", "auto", "", None, "1792x1024"):
        assert (await service.generate("odd size", size=size)).status == 200


async def test_quirk_10_options_and_cors(service: Service) -> None:
    url = service.url + GENERATIONS
    async with service.http.options(url) as bare:
        assert bare.status in (200, 204)
    asked = "authorization, content-type, x-stainless-os, x-stainless-retry-count"
    preflight = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
        "access-control-request-private-network": "true",
    }
    async with service.http.options(url, headers=preflight) as response:
        assert response.status in (200, 204)
        assert response.headers["access-control-allow-origin"] in ("*", "http://localhost:3000")
        allowed = {name.strip() for name in response.headers["access-control-allow-headers"].split(",")}
        assert {name.strip() for name in asked.split(",")} <= allowed
        assert response.headers["access-control-allow-private-network"] == "true"
    for path in (GENERATIONS, "/v1/nowhere"):
        failed = await service.post(path, {}, {"origin": "http://localhost:3000"})
        assert failed.status in (400, 404)
        assert failed.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_quirk_11_the_list_of_models(service: Service) -> None:
    for path in ("/v1/models", "/models", "/v1/models/", "/v1/v1/models", "/api/v1/models?show_all=true"):
        listed = await service.get(path)
        assert listed.status == 200
        assert listed.json["object"] == "list"
    assert None not in list(_values(listed.json))
    names = [item["id"] for item in listed.json["data"]]
    assert any("gpt-image" in name for name in names)
    assert any(name.startswith("dall-") for name in names)
    for item in listed.json["data"]:
        assert item["object"] == "model"
        assert type(item["created"]) is int
        assert item["owned_by"]
        assert item["type"] == "image"
        assert item["parameters"]["prompt"] == {"default": ""}
        assert item["supported_endpoint_types"] == ["image-generation"]
    async with service.http.head(f"{service.url}/v1/models") as head:
        assert head.status == 200
    assert (await service.get("/v1/models/imagelabs%2Fsdxl-turbo")).json["id"] == "imagelabs/sdxl-turbo"


async def test_quirk_12_addresses_that_everybody_can_fetch(service: Service) -> None:
    behind = {"x-forwarded-proto": "https", "x-forwarded-host": "pictures.example.org"}
    for headers, origin in ((None, service.url), (behind, "https://pictures.example.org")):
        answer = await service.generate("where", headers, size=SMALL, response_format="url")
        address = answer.json["data"][0]["url"]
        assert address.startswith(f"{origin}/images/")
        assert address.endswith((".png", ".jpg"))
        path = address.removeprefix(origin)
        for method in ("GET", "HEAD"):
            async with service.http.request(method, service.url + path) as response:
                assert response.status == 200
                assert response.content_type == "image/png"
                assert response.headers["access-control-allow-origin"] == "*"


async def test_quirk_12_a_stream_is_never_answered_with_json(service: Service) -> None:
    values = {"prompt": "streamed", "model": "gpt-image-1", "size": SMALL, "stream": True}
    fields: list[Field] = [("image", picture()), ("prompt", "streamed"), ("model", "gpt-image-1"), ("stream", "true")]
    generated = service.http.post(service.url + GENERATIONS, json=values)
    edited = service.http.post(service.url + EDITS, data=form(fields))
    for call, kind in ((generated, "image_generation"), (edited, "image_edit")):
        async with call as response:
            assert response.content_type == "text/event-stream"
            events, _ = read_events(await response.read())
            assert [event.name for event in events] == [f"{kind}.completed"]
            await asyncio.to_thread(decoded, json.loads(events[0].data)["b64_json"])
