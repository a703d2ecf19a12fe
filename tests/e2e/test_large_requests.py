"""What a JSON body may hold: pictures in data URLs up to the limit for pictures, all else up to the one for text."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.e2e.parts import CHAT, EDITS, GENERATIONS, data_url, picture, submits
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

EDITOR = "prodia/inference.flux-2.pro.img2img.v1"
MAX_TEXT, MAX_PICTURE = 4_096, 200_000
IMG2IMG = "/sdapi/v1/img2img"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400, server={"max_body": MAX_TEXT, "max_upload": MAX_PICTURE}) as service:
        yield service


def png(size: int) -> bytes:
    """Return a picture, in a form that holds every character of base64, with so many bytes behind its end."""
    return picture(64, 64) + (bytes(range(256)) * (size // 256 + 1))[:size]


def edit(text: str, *sizes: int) -> tuple[str, dict[str, Any]]:
    images = [{"image_url": data_url(png(size))} for size in sizes]
    return EDITS, {"model": EDITOR, "prompt": "paint it red", "user": text, "images": images}


def chat(text: str, *sizes: int) -> tuple[str, dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": data_url(png(size))}} for size in sizes]
    said = [{"role": "system", "content": text}, {"role": "user", "content": [{"type": "text", "text": "red"}, *parts]}]
    return CHAT, {"model": EDITOR, "messages": said}


def img2img(text: str, *sizes: int) -> tuple[str, dict[str, Any]]:
    images = [data_url(png(size)) for size in sizes]
    return IMG2IMG, {"model": EDITOR, "prompt": "paint it red", "infotext": text, "init_images": images}


async def post_raw(service: Service, path: str, body: bytes) -> Answer:
    async with service.http.post(service.url + path, data=aiohttp.BytesPayload(body), headers=JSON) as response:
        return await Answer.read(response)


@pytest.mark.parametrize("surface", [edit, chat, img2img])
async def test_pictures_may_exceed_the_limit_of_text(service: Service, surface: Any) -> None:
    assert (await service.post(*surface("x" * 2_000, 100_000))).status == 200
    assert (await service.post(*surface("x" * 2_000, 40_000, 40_001))).status == 200


@pytest.mark.parametrize("surface", [edit, chat, img2img])
async def test_text_may_not(service: Service, surface: Any) -> None:
    before = await submits(service)
    refused = await service.post(*surface("x" * MAX_TEXT, 1_000))
    assert (refused.status, refused.code) == (413, "request_too_large")
    assert await submits(service) == before


@pytest.mark.parametrize("surface", [edit, chat, img2img])
async def test_a_picture_may_not_exceed_its_own(service: Service, surface: Any) -> None:
    refused = await service.post(*surface("x", MAX_PICTURE + 1))
    assert (refused.status, refused.code) == (413, "request_too_large")


@pytest.mark.parametrize("surface", [edit, chat, img2img])
@pytest.mark.parametrize(("plain", "spelt"), [("/", "\\/"), ("+", "\\u002B"), ("=", "\\u003d")])
async def test_base64_as_other_encoders_spell_it(service: Service, surface: Any, plain: str, spelt: str) -> None:
    path, values = surface("x", next(size for size in (3_000, 3_001) if len(png(size)) % 3))
    body = json.dumps(values).replace(plain, spelt)
    assert spelt in body
    assert (await post_raw(service, path, body.encode())).status == 200


@pytest.mark.parametrize("surface", [edit, chat, img2img])
@pytest.mark.parametrize("data", ["YWJj", "%%%%", "YW=j", "", 'YW\\"J', "YW\\nJj", "#0", "YWJ"])
async def test_what_is_no_picture(service: Service, surface: Any, data: str) -> None:
    path, values = surface("x", 0)
    body = json.dumps(values).replace(data_url(png(0)), f"data:image/png;base64,{data}")
    refused = await post_raw(service, path, body.encode())
    assert refused.status == 400
    assert refused.json["error"]["param"] in ("messages", "images", "init_images")


async def test_a_picture_that_is_said_is_not_drawn(service: Service) -> None:
    before = await submits(service)
    said = [{"role": "user", "content": data_url(png(0))}]
    refused = await service.post(CHAT, {"model": "dall-e-2", "messages": said})
    assert (refused.status, refused.json["error"]["param"]) == (400, "messages")
    refused = await service.generate(data_url(png(0)), negative_prompt="x" * 40_000)
    assert refused.status in (400, 413)
    path, values = edit("x", 0)
    refused = await service.post(path, {**values, "negative_prompt": data_url(png(0))})
    assert (refused.status, refused.json["error"]["param"]) == (400, "negative_prompt")
    assert await submits(service) == before


async def test_thousands_of_members_are_refused(service: Service) -> None:
    many = {f"x{number}": 1 for number in range(200)}
    answer = await service.post(GENERATIONS, {"prompt": "a fox", "model": "dall-e-2", "size": "256x256", **many})
    assert answer.status == 200
    assert answer.headers["x-images-dropped"].endswith("+180 more")
    async with running(speed=400) as roomy:
        refused = await roomy.post(GENERATIONS, {"prompt": "a fox", **{f"x{number}": 1 for number in range(1_000)}})
        assert (refused.status, refused.code) == (400, "invalid_json")
