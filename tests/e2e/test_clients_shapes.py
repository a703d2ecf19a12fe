"""Each client's own requests, field by field as it sends them, and what it reads in the answer."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.parts import EDITS, GENERATIONS, Field, decoded, picture, post_form
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

OPEN_WEBUI = {"user-agent": "Python/3.11 aiohttp/3.14.5", "X-OpenWebUI-User-Name": "Anna", "authorization": "Bearer x"}


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


def only(answer: Answer, field: str) -> str:
    """Return the one field of the one picture."""
    assert answer.status == 200, answer.body[:300]
    assert [list(item) for item in answer.json["data"]] == [[field]]
    value: str = answer.json["data"][0][field]
    return value


async def test_open_webui_generates(service: Service) -> None:
    path = "/v1//images/generations?api-version=2024-02-01"
    values = {"model": "dall-e-2", "prompt": "cat", "n": 1, "size": "512x512", "response_format": "b64_json"}
    answer = await service.post(path, values, OPEN_WEBUI)
    assert decoded(only(answer, "b64_json")).size == (512, 512)
    answer = await service.post(GENERATIONS, {"model": "gpt-image-1", "prompt": "cat", "n": 1, "size": "auto"})
    assert decoded(only(answer, "b64_json")).format == "PNG"


@pytest.mark.parametrize("names", [["image"], ["image[]"], ["image[]", "image[]"]])
async def test_open_webui_edits(service: Service, names: list[str]) -> None:
    fields: list[Field] = [("model", "gpt-image-1"), ("prompt", "a red hat"), ("n", "1"), ("size", "1024x1024")]
    answer = await post_form(service, [*fields, *((name, picture()) for name in names)])
    decoded(only(answer, "b64_json"))


async def test_librechats_dalle_tool_reads_only_the_url(service: Service) -> None:
    values = {
        "model": "dall-e-3",
        "quality": "hd",
        "style": "vivid",
        "size": "1792x1024",
        "prompt": "a lighthouse",
        "n": 1,
    }
    address = only(await service.post(GENERATIONS, values), "url")
    assert re.search(r"\.(jpg|jpeg|png|gif|bmp|tiff|svg)$", urlsplit(address).path)
    assert (await service.get(address)).headers["content-type"] == "image/png"


async def test_librechats_agent_tools(service: Service) -> None:
    values = {"background": "auto", "output_format": "png", "quality": "auto", "size": "auto"}
    answer = await service.post(GENERATIONS, {"model": "gpt-image-1", "prompt": "two owls", "n": 1, **values})
    decoded(only(answer, "b64_json"))
    fields: list[Field] = [("model", "gpt-image-1"), ("prompt", "two owls"), ("quality", "auto"), ("size", "auto")]
    answer = await post_form(service, [*fields, ("image[]", picture()), ("image[]", picture(colour="navy"))])
    decoded(only(answer, "b64_json"))


async def test_lobechat_sends_nulls_and_camel_case(service: Service) -> None:
    values = {
        "model": "flux-schnell",
        "n": 1,
        "prompt": "a fox",
        "width": 640,
        "height": 512,
        "cfg": 3.5,
        "steps": 4,
        "seed": None,
        "samplerName": None,
        "aspectRatio": None,
        "promptExtend": True,
        "thinkingLevel": "low",
    }
    answer = await service.post(GENERATIONS, values)
    picture_served = await service.get(only(answer, "url"))
    assert picture_served.body.startswith(b"\x89PNG")
    assert answer.json["size"] == "640x512"
    answer = await service.post(
        GENERATIONS, {"model": "flux-schnell", "prompt": "a fox", "aspectRatio": "16:9", "n": 1}
    )
    width, height = (int(side) for side in answer.json["size"].split("x"))
    assert abs(width / height - 16 / 9) < 0.03
    fields: list[Field] = [("model", "gpt-image-1"), ("prompt", "a fox"), ("input_fidelity", "high"), ("n", "1")]
    decoded(only(await post_form(service, [*fields, ("image", picture())]), "b64_json"))


async def test_sillytaverns_stable_diffusion_cpp_sequence(service: Service) -> None:
    async with service.http.options(service.url + GENERATIONS) as connect:
        assert 200 <= connect.status < 300
    models = await service.get("/v1/models")
    assert models.json["data"][0]["id"]
    values: dict[str, Any] = {
        "model": "dall-e-2",
        "prompt": "best quality, tavern",
        "negative_prompt": "blurry",
        "width": 512,
        "height": 768,
        "steps": 20,
        "cfg_scale": 7,
        "seed": -1,
        "batch_size": 1,
        "sampler_name": "euler_a",
        "scheduler": "karras",
        "clip_skip": 1,
    }
    answer = await service.post("/v1/sdapi/v1/txt2img", values)
    assert answer.status == 200
    assert decoded(answer.json["images"][0]).size == (512, 768)
    answer = await service.post("/sdapi/v1/txt2img", {**values, "batch_size": 2, "n_iter": None, "seed": 5})
    assert len(answer.json["images"]) == 2
    assert isinstance(answer.json["info"], str)
    assert {"scheduler", "clip_skip"} <= set(answer.headers["x-images-dropped"].split(", "))
    override = {"sd_model_checkpoint": "dall-e-2", "eta_ddim": 1}
    values |= {"model": None, "override_settings": override, "quality": "hd", "bad name": 1, "hr_scale": None}
    dropped = (await service.post("/sdapi/v1/txt2img", values)).headers["x-images-dropped"].split(", ")
    assert dropped[-5:] == ["scheduler", "clip_skip", "quality", "override_settings.eta_ddim", "+1 more"]
    refused = await service.post("/sdapi/v1/txt2img", {**values, "batch_size": "two"})
    assert (refused.status, refused.json["error"]["param"]) == (400, "batch_size")
    listed = await service.get("/sdapi/v1/sd-models")
    assert "dall-e-2" in [item["model_name"] for item in listed.json]
    assert (await service.get("/sdapi/v1/options")).json["sd_model_checkpoint"] == "dall-e-3"
    assert "Euler a" in [item["name"] for item in (await service.get("/sdapi/v1/samplers")).json]


async def test_nextchat_doubles_the_version(service: Service) -> None:
    values = {"model": "dall-e-3", "prompt": "a bridge", "response_format": "b64_json", "n": 1}
    values |= {"size": "1024x1792", "quality": "standard", "style": "natural"}
    answer = await service.post("/v1/v1/images/generations", values, {"origin": "http://localhost:3000"})
    decoded(only(answer, "b64_json"))
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    failed = await service.post("/v1/v1/images/generations", {**values, "size": "1x1"})
    assert failed.json["error"]["message"]


async def test_chatbox_names_no_form(service: Service) -> None:
    values = {"model": "gpt-image-1.5", "prompt": "a boat", "n": 1}
    decoded(only(await service.post(GENERATIONS, values), "b64_json"))


async def test_cherry_studio(service: Service) -> None:
    values: dict[str, Any] = {"model": "dall-e-3", "prompt": "tea", "response_format": "b64_json"}
    decoded(only(await service.post(GENERATIONS, values), "b64_json"))
    painting = {"prompt": "tea", "model": "gpt-image-1", "background": "opaque", "n": 2, "moderation": "low"}
    answer = await service.post(GENERATIONS, painting)
    assert len(answer.json["data"]) == 2
    fields: list[Field] = [("prompt", "tea"), ("model", "gpt-image-1"), ("image", picture()), ("image", picture())]
    decoded(only(await post_form(service, fields), "b64_json"))
    failed = await service.post(GENERATIONS, {"prompt": "tea", "model": "nonesuch"})
    assert failed.json["error"]["message"]


async def test_big_agi_reads_strictly(service: Service) -> None:
    values: dict[str, Any] = {"model": "gpt-image-1", "prompt": "gears", "n": 1, "size": "1536x1024"}
    values |= {"quality": "high", "background": "opaque", "output_format": "webp", "output_compression": 80}
    answer = await service.post("/v1/v1/images/generations", {**values, "moderation": "low", "user": "Big-AGI"})
    assert decoded(only(answer, "b64_json")).format == "WEBP"
    assert answer.json["output_format"] == "webp"
    assert type(answer.json["created"]) is int
    assert type(answer.json["usage"]["total_tokens"]) is int
    assert b"null" not in answer.body[:200] + answer.body[-400:]
    local = {"model": "stablediffusion", "prompt": "gears", "n": 1, "size": "512x512", "response_format": "b64_json"}
    assert decoded(only(await service.post(GENERATIONS, local), "b64_json")).size == (512, 512)


async def test_anythingllm(service: Service) -> None:
    values = {"model": "dall-e-3", "prompt": "a waiting", "size": "1024x1024", "n": 1}
    address = only(await service.post("/api/v1/images/generations", values), "url")
    assert (await service.get(address)).status == 200
    models = await service.get("/api/v1/models?show_all=true")
    assert any(re.search("dall-e|gpt-image", item["id"], re.IGNORECASE) for item in models.json["data"])
    assert all("image" in item["labels"] for item in models.json["data"])


async def test_n8n(service: Service) -> None:
    models = await service.get("//models")
    shown = [item["id"] for item in models.json["data"] if "dall-e" in item["id"] or "gpt-image" in item["id"]]
    assert {"dall-e-2", "dall-e-3", "gpt-image-1"} <= set(shown)
    values = {"prompt": "a graph", "model": "dall-e-3", "response_format": "b64_json", "n": 1, "quality": "hd"}
    decoded(only(await service.post("//images/generations", {**values, "style": "natural"}), "b64_json"))
    fields: list[Field] = [("model", "gpt-image-1"), ("prompt", "a graph"), ("image[]", picture())]
    decoded(only(await post_form(service, fields), "b64_json"))


async def test_dify_counts_usage(service: Service) -> None:
    values = {"model": "gpt-image-1", "prompt": "a kite", "n": 1, "size": "auto", "quality": "low"}
    answer = await service.post(GENERATIONS, values)
    usage = answer.json["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert {"text_tokens", "image_tokens"} <= set(usage["input_tokens_details"])


async def test_home_assistant_wants_an_address(service: Service) -> None:
    values = {"model": "dall-e-3", "prompt": "a hall", "size": "1024x1024", "quality": "standard"}
    answer = await service.post(GENERATIONS, {**values, "style": "vivid", "response_format": "url", "n": 1})
    only(answer, "url")


async def test_clients_without_a_model(service: Service) -> None:
    mattermost = {"prompt": "a tree", "size": "256x256", "response_format": "b64_json", "n": 1}
    assert decoded(only(await service.post(GENERATIONS, mattermost), "b64_json")).size == (256, 256)
    command_line = {"prompt": "a tree", "n": 1, "response_format": "url", "size": "1024x1024"}
    only(await service.post("/v1images/generations", command_line), "url")


async def test_ruby_openai_numbers_its_pictures(service: Service) -> None:
    fields: list[Field] = [("prompt", "three cups"), ("model", "gpt-image-1")]
    answer = await post_form(service, [*fields, *((f"image[{number}]", picture()) for number in range(3))])
    decoded(only(answer, "b64_json"))
    assert answer.json["usage"]["input_tokens_details"]["image_tokens"] == 3 * 263


async def test_go_openai_sends_empty_strings(service: Service) -> None:
    fields: list[Field] = [
        ("image", picture()),
        ("prompt", "a gopher"),
        ("n", "1"),
        ("size", ""),
        ("model", "dall-e-2"),
    ]
    only(await post_form(service, [*fields, ("response_format", ""), ("quality", "")]), "url")


async def test_curl_without_a_content_type(service: Service) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = b'{"prompt": "from a shell", "size": "256x256", "response_format": "b64_json"}'
    async with service.http.post(service.url + GENERATIONS, data=body, headers=headers) as response:
        decoded(only(await Answer.read(response), "b64_json"))


async def test_variations(service: Service) -> None:
    fields: list[Field] = [("image", picture()), ("n", "2"), ("size", "1024x1024"), ("response_format", "b64_json")]
    answer = await post_form(service, [*fields, ("model", "dall-e-2")], "/v1/images/variations")
    assert answer.status == 200
    assert [decoded(item["b64_json"]).format for item in answer.json["data"]] == ["PNG", "PNG"]
    assert (await post_form(service, fields[1:], EDITS)).json["error"]["param"] == "image"
