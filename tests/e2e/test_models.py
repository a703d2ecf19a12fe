"""What /v1/models tells of each model, so that a frontend can show before a call what it takes, costs and lasts."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.service import Service, running

pytestmark = pytest.mark.anyio

FLUX = "prodia/inference.flux-fast.schnell.txt2img.v2"
CHECKPOINT = "prodia-v1/dreamshaper_8.safetensors [9d40847d]"


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running() as started:
        yield started


async def one(service: Service, name: str) -> dict[str, Any]:
    answer = await service.get(f"/v1/models/{name}")
    assert answer.status == 200
    told: dict[str, Any] = answer.json
    return told


async def test_every_name_is_told_in_less_than_a_kilobyte(service: Service) -> None:
    listed = (await service.get("/v1/models")).json["data"]
    assert len(listed) > 100
    assert max(len(json.dumps(model, separators=(",", ":"), ensure_ascii=False).encode()) for model in listed) <= 1000


@pytest.mark.parametrize(
    ("name", "friendly"),
    [
        ("dall-e-3", "DALL·E 3"),
        ("gpt-image-1-mini", "GPT Image 1 Mini"),
        ("gpt-image-2.5-sunburst", "GPT Image 2.5 Sunburst"),
        ("stablediffusion", "Stable Diffusion"),
        (FLUX, "FLUX Fast Schnell v2"),
        ("prodia/inference.flux-2.klein.4b.img2img.v1", "FLUX 2 Klein 4B"),
        ("prodia/inference.recraft.v4.pro.txt2img.v1", "Recraft v4 Pro"),
        (CHECKPOINT, "Dreamshaper 8"),
        ("prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]", "SD XL Base 1.0"),
        ("imagelabs/sdxl-turbo", "SDXL Turbo"),
    ],
)
async def test_names_that_people_can_read(service: Service, name: str, friendly: str) -> None:
    assert (await one(service, name))["name"] == friendly


async def test_settings_and_sizes_are_those_that_the_model_takes(service: Service) -> None:
    flux = await one(service, FLUX)
    assert flux["settings"]["steps"] == [1, 4, 4]
    assert "cinematic" in flux["settings"]["style_preset"]
    assert "negative_prompt" not in flux["settings"]
    assert flux["parameters"]["size"]["default"] == "1024x1024"
    assert {"auto", "1792x1024", "512x512"} <= set(flux["parameters"]["size"]["enum"])
    assert (flux["price"], flux["seconds"]) == (0.0025, 0.3)
    checkpoint = await one(service, CHECKPOINT)
    numbers, words = {"steps", "cfg", "seed", "strength"}, {"sampler", "style_preset", "negative_prompt"}
    assert set(checkpoint["settings"]) == numbers | words
    assert checkpoint["settings"]["cfg"] == [1, 20, 7]
    assert checkpoint["price"] == 0  # of a provider that sends no bill
    assert "price" not in await one(service, "prodia/inference.seedream-4.txt2img.v1")  # not known; there are no nulls
    assert checkpoint["operations"] == ["edit", "generate", "inpaint"]
    assert "edit" not in checkpoint  # as for a picture from words alone


@pytest.mark.parametrize("name", [FLUX, "imagelabs/sdxl-turbo", CHECKPOINT, "dall-e-2"])
async def test_each_size_told_is_made_exactly(service: Service, name: str) -> None:
    sizes = (await one(service, name))["parameters"]["size"]["enum"]
    for size in sizes[:4]:
        answer = await service.generate("a heron [seconds:0]", model=name, size=size)
        assert answer.status == 200
        assert "size=" not in answer.headers.get("x-images-mapped", "")


async def test_another_route_for_edits_is_told_apart(service: Service) -> None:
    name = await one(service, "dall-e-3")
    assert name["operations"] == ["edit", "generate", "inpaint"]
    assert name["providers"] == ["prodia", "imagelabs", "prodia-v1"]
    assert name["edit"]["max_images"] == 8
    assert "steps" not in name["edit"].get("settings", {})
    assert "settings" not in name["inpaint"]
    assert name["inpaint"]["providers"] == ["prodia", "prodia-v1"]
    only = await one(service, "prodia/inference.flux-2.pro.img2img.v1")
    assert only["operations"] == ["edit"]
    assert (only["price"], only["max_images"]) == (0.03, 8)


async def test_the_operators_price_counts_more_than_the_published_one() -> None:
    prices = {"flux-schnell": 0.0011}
    async with running(providers={"prices": prices}) as service:
        assert (await one(service, FLUX))["price"] == 0.0011


async def test_the_list_tells_which_providers_are_used_and_why_others_are_not() -> None:
    async with running(environment={"PRODIA_TOKEN": ""}, providers={}) as service:
        told = (await service.get("/v1/models")).json
    by_name = {provider.pop("name"): provider for provider in told["providers"]}
    assert by_name["imagelabs"] == {"used": True}
    assert by_name["prodia"] == {
        "used": False,
        "why_not": "PRODIA_TOKEN is not set",
        "how_to_use": "set PRODIA_TOKEN in the environment",
    }
    assert "demo" not in told
