"""``x-images-dry-run``: told what a call would do, by the same checks and errors, and nothing is sent anywhere."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from tests.e2e.parts import CHAT, EDITS, GENERATIONS, Field, data_url, form, picture
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

DRY = {"x-images-dry-run": "true"}
SCHNELL = "prodia/inference.flux-fast.schnell.txt2img.v2"
LABS = "imagelabs/sdxl-turbo"
VARIATIONS = "/v1/images/variations"
TEXT2IMG = "/sdapi/v1/txt2img"
TAG = "[tag:dry]"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    models = {"two-ways": {"routes": [SCHNELL, LABS]}}
    async with running(speed=400, models=models) as service:
        yield service


async def bought(service: Service) -> dict[str, int]:
    return {name: number for name, number in (await service.counts("dry")).items() if number}


async def post_parts(service: Service, path: str, fields: list[Field], headers: Mapping[str, str]) -> Answer:
    async with service.http.post(service.url + path, data=form(fields), headers=headers) as response:
        return await Answer.read(response)


async def test_it_tells_the_routes_in_order_and_what_becomes_of_the_parameters(service: Service) -> None:
    asked = {"model": "two-ways", "n": 2, "size": "1792x1024", "quality": "hd", "style": "vivid", "moderation": "low"}
    answer = await service.post(GENERATIONS, {"prompt": f"a barn {TAG}", **asked, "colour": "red"}, DRY)
    assert answer.status == 200
    assert answer.headers["x-images-dry-run"] == "true"
    told = answer.json
    assert {name: told[name] for name in ("object", "model", "operation", "n", "response_format", "reattached")} == {
        "object": "image.dry_run",
        "model": "two-ways",
        "operation": "generate",
        "n": 2,
        "response_format": "url",
        "reattached": False,
    }
    assert told["ignored"] == ["colour"]
    first, second = told["routes"]
    assert f"{first['provider']}/{first['model']}" == SCHNELL
    assert f"{second['provider']}/{second['model']}" == LABS
    assert first["dropped"] == ["moderation"]
    assert "quality=hd->steps 4" in first["mapped"]
    assert first["seconds"] == 0.3
    assert (first["price"], first["price_source"]) == ("0.0025", "table")
    assert told["cost"] == "0.005"
    assert await bought(service) == {}


async def test_it_tells_what_the_call_itself_then_does(service: Service) -> None:
    asked = {"model": "two-ways", "size": "1792x1024", "quality": "hd", "style": "vivid", "moderation": "low"}
    body = {"prompt": f"a barn {TAG}", **asked}
    told = (await service.post(GENERATIONS, body, DRY)).json["routes"][0]
    made = await service.post(GENERATIONS, body)
    assert made.headers["x-images-provider"] == told["provider"]
    assert made.headers["x-images-model"] == told["model"]
    assert made.headers["x-images-mapped"] == "; ".join(told["mapped"])
    assert made.headers["x-images-dropped"] == ", ".join(told["dropped"])
    assert made.json["size"] == told["size"]
    assert "x-images-dry-run" not in made.headers


async def test_times_are_those_seen_here_once_there_are_some(service: Service) -> None:
    values = {"prompt": "a barn", "model": LABS, "size": "512x512"}
    before = (await service.post(GENERATIONS, values, DRY)).json["routes"][0]["seconds"]
    for number in range(8):
        made = await service.post(GENERATIONS, {**values, "prompt": f"a barn {number} [seconds:1]"})
        assert made.status == 200
    after = (await service.post(GENERATIONS, values, DRY)).json["routes"][0]["seconds"]
    assert before == 8.0  # published
    assert after not in (None, before)


async def test_a_price_is_the_operators_the_published_one_or_unknown() -> None:
    models = {"dear": {"routes": [LABS]}, "unpriced": {"routes": ["prodia/inference.flux-2.klein.4b.img2img.v1"]}}
    async with running(speed=400, models=models, providers={"prices": {"sdxl-turbo": 0.125}}) as service:
        told = (await service.generate("a barn", DRY, model="dear", n=3)).json
        assert (told["routes"][0]["price"], told["routes"][0]["price_source"]) == ("0.125", "config")
        assert told["cost"] == "0.375"
        fields: list[Field] = [("prompt", "a hat"), ("model", "unpriced"), ("image", picture())]
        told = (await post_parts(service, EDITS, fields, DRY)).json
        assert (told["routes"][0]["price"], told["routes"][0]["price_source"], told["cost"]) == (None, "unknown", None)


EDIT = {"prompt": f"a hat {TAG}", "model": "dall-e-3", "images": [{"image_url": data_url(picture())}]}
PARTS: list[Field] = [("prompt", f"a hat {TAG}"), ("model", "dall-e-3"), ("image", picture())]


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        (GENERATIONS, {"prompt": f"a hat {TAG}"}, "generate"),
        (GENERATIONS, {"prompt": f"a hat {TAG}", "stream": True}, "generate"),
        (EDITS, EDIT, "edit"),
        (EDITS, {**EDIT, "mask": {"image_url": data_url(picture())}}, "inpaint"),
        (VARIATIONS, {"images": EDIT["images"]}, "edit"),
        (CHAT, {"model": "dall-e-3", "messages": [{"role": "user", "content": f"a hat {TAG}"}]}, "generate"),
        (TEXT2IMG, {"prompt": f"a hat {TAG}"}, "generate"),
        ("/sdapi/v1/img2img", {"prompt": f"a hat {TAG}", "init_images": [data_url(picture())]}, "edit"),
        ("/v1/responses", {"model": "dall-e-3", "input": f"a hat {TAG}"}, "generate"),
        ("/v1/responses", {"model": "dall-e-3", "input": f"a hat {TAG}", "stream": True}, "generate"),
        ("/v1/responses", {"model": "dall-e-3", "input": f"a hat {TAG}", "background": True}, "generate"),
    ],
)
async def test_every_way_of_asking_for_pictures_has_it(
    service: Service, path: str, body: dict[str, Any], operation: str
) -> None:
    answer = await service.post(path, body, {**DRY, "Prefer": "respond-async"})
    assert (answer.status, answer.json["object"]) == (200, "image.dry_run")
    assert answer.json["operation"] == operation
    assert answer.json["routes"]
    assert await bought(service) == {}
    assert not list(service.engine.generations)


@pytest.mark.parametrize(
    ("path", "fields", "operation"),
    [
        (EDITS, PARTS, "edit"),
        (EDITS, [*PARTS, ("mask", picture())], "inpaint"),
        (VARIATIONS, [("image", picture())], "edit"),
    ],
)
async def test_so_have_forms(service: Service, path: str, fields: list[Field], operation: str) -> None:
    answer = await post_parts(service, path, fields, DRY)
    assert (answer.status, answer.json["operation"]) == (200, operation)
    assert await bought(service) == {}


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": ""},
        {"prompt": "a barn", "n": 11},
        {"prompt": "a barn", "n": 2, "stream": True},
        {"prompt": "a barn", "size": "1x1"},
        {"prompt": "a barn", "model": "dal-e-3"},
        {"prompt": "ab", "model": SCHNELL},
    ],
)
async def test_it_is_refused_as_the_call_would_be(service: Service, values: dict[str, Any]) -> None:
    dry, real = await service.post(GENERATIONS, values, DRY), await service.post(GENERATIONS, values)
    assert dry.status >= 400
    assert (dry.status, dry.json) == (real.status, real.json)


@pytest.mark.parametrize("fields", [[("prompt", "a hat")], [*PARTS, ("mask", picture(64, 64))], [*PARTS[:2]]])
async def test_a_form_is_refused_as_the_call_would_be(service: Service, fields: list[Field]) -> None:
    dry, real = await post_parts(service, EDITS, fields, DRY), await post_parts(service, EDITS, fields, {})
    assert dry.status == 400
    assert (dry.status, dry.json) == (real.status, real.json)


async def test_a_process_that_is_full_or_stops_refuses_it() -> None:
    async with running(speed=400, server={"max_in_flight": 1}) as service:
        running_one = await service.generate("a barn [seconds:4000]", {"Prefer": "respond-async"}, model=LABS)
        assert running_one.status == 202
        assert (await service.generate("another", DRY)).code == "server_is_overloaded"
        service.engine.drain(60.0)
        assert (await service.generate("another", DRY)).code == "server_is_overloaded"


async def test_it_tells_that_the_call_would_join_an_earlier_one(service: Service) -> None:
    key = {"Idempotency-Key": "one"}
    body = {"prompt": f"a barn {TAG}", "model": LABS}
    assert (await service.post(GENERATIONS, body, {**DRY, **key})).json["reattached"] is False
    assert (await service.post(GENERATIONS, body, key)).status == 200
    told = await service.post(GENERATIONS, body, {**DRY, **key})
    assert (told.json["reattached"], told.json["cost"]) == (True, "0")
    assert "x-images-reattached" not in told.headers
    other = await service.post(GENERATIONS, {**body, "prompt": "a cow"}, {**DRY, **key})
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert (await bought(service))["submits"] == 1


@pytest.mark.parametrize(("value", "buys"), [("false", True), ("0", True), ("", True), ("yes", False), ("ture", False)])
async def test_in_doubt_nothing_is_bought(service: Service, value: str, buys: bool) -> None:
    answer = await service.generate(f"a barn {TAG}", {"x-images-dry-run": value}, model=LABS)
    assert answer.status == 200
    assert bool(await bought(service)) is buys


async def test_a_page_may_send_the_header_and_read_the_answers(service: Service) -> None:
    origin = service.url
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked = {**preflight, "Access-Control-Request-Headers": "x-images-dry-run"}
    async with service.http.options(service.url + GENERATIONS, headers=asked) as response:
        assert "x-images-dry-run" in response.headers["access-control-allow-headers"]
    answer = await service.generate("a barn", {**DRY, "Origin": origin})
    assert "x-images-dry-run" in answer.headers["access-control-expose-headers"].split(", ")


async def test_it_asks_for_a_key_like_everything_that_makes_pictures() -> None:
    async with running(speed=400, environment={"IMAGES_PROXY_KEYS": "a-key-for-the-tests"}) as service:
        assert (await service.generate("a barn", DRY)).status == 401


async def test_without_a_usable_route_it_says_so() -> None:
    async with running(speed=400, providers={"enabled": False}) as service:
        dry, real = await service.generate("a barn", DRY), await service.generate("a barn")
        assert (dry.status, dry.code) == (503, "provider_not_configured")
        assert dry.json == real.json


async def test_the_schema_names_the_header(service: Service) -> None:
    async with aiohttp.ClientSession() as http, http.get(service.url + "/openapi.json") as response:
        document = await response.json()
    for path in (GENERATIONS, EDITS, VARIATIONS):
        (parameter,) = document["paths"][path]["post"]["parameters"]
        assert (parameter["name"], parameter["in"], parameter["required"]) == ("x-images-dry-run", "header", False)
        schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert {"$ref": "#/components/schemas/DryRun"} in schema["oneOf"]
    described = document["components"]["schemas"]["DryRun"]
    told = (await service.generate("a barn", DRY)).json
    assert set(described["properties"]) == set(described["required"]) == set(told)
    assert set(described["properties"]["routes"]["items"]["properties"]) == set(told["routes"][0])
