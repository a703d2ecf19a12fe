"""What an answer tells of how its pictures were made: which routes were passed over, and the seed that was used."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from tests.e2e.parts import CHAT, GENERATIONS, picture, post_form, read_events, streamed
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

SCHNELL = "prodia/inference.flux-fast.schnell.txt2img.v2"
LABS = "imagelabs/sdxl-turbo"
V1 = "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"
_numbers = count()


def busy(pictures: int = 1, more: str = "") -> str:
    """Return a prompt that finds the first provider busy for so many pictures, and nobody else."""
    return f"a barn {next(_numbers)} [fault:busy:{pictures}:30] {more}"


TOLD = "prodia: provider_busy"


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    models = {
        "long-way": {"routes": [V1, SCHNELL, LABS]},
        "dead-end": {"routes": [SCHNELL, V1]},
        "unseeded": {"routes": ["prodia/inference.seedream-4.txt2img.v1"]},
    }
    async with running(speed=400, models=models) as service:
        yield service


async def made(service: Service, prompt: str, **values: Any) -> Answer:
    answer = await service.generate(prompt, **{"model": "dall-e-3", "response_format": "b64_json", **values})
    assert answer.status == 200, answer.body[:300]
    return answer


# --- fallbacks ------------------------------------------------------------------------------------------------


async def test_a_fallback_is_told(service: Service) -> None:
    answer = await made(service, busy())
    assert answer.headers["x-images-provider"] == "imagelabs"
    assert answer.headers["x-images-fallback"] == TOLD
    assert answer.headers["x-images-attempts"] == "2"


async def test_without_a_fallback_nothing_is_told(service: Service) -> None:
    assert "x-images-fallback" not in (await made(service, "a barn")).headers


async def test_several_fallbacks_are_told_in_their_order(service: Service) -> None:
    answer = await made(service, f"a barn {next(_numbers)} [fault:402:1] [fault:busy:2:30]", model="long-way")
    assert answer.headers["x-images-fallback"] == "prodia-v1: provider_auth; prodia: provider_busy"


async def test_one_fallback_of_several_pictures_is_told_once(service: Service) -> None:
    every = await made(service, busy(3), n=3)
    assert every.headers["x-images-fallback"] == TOLD
    one = await made(service, busy(), n=3)
    assert one.headers["x-images-fallback"] == TOLD
    assert one.headers["x-images-attempts"] == "4"


async def test_a_route_that_makes_it_after_all_is_no_fallback(service: Service) -> None:
    answer = await made(service, "a barn [fault:busy:1:0.1]", model=SCHNELL)
    assert answer.headers["x-images-attempts"] == "2"
    assert "x-images-fallback" not in answer.headers


async def test_a_failure_names_the_other_routes_only(service: Service) -> None:
    alone = await service.generate("a barn [fault:no-capacity]", model=SCHNELL)
    assert (alone.code, "x-images-fallback" in alone.headers) == ("provider_busy", False)
    both = await service.generate(f"a barn {next(_numbers)} [fault:402:1] [fault:no-capacity]", model="dead-end")
    assert (both.code, both.headers["x-images-fallback"]) == ("provider_busy", "prodia: provider_auth")


async def test_every_surface_tells_a_fallback(service: Service) -> None:
    def said() -> dict[str, Any]:
        return {"model": "dall-e-3", "messages": [{"role": "user", "content": busy()}]}

    answers = [
        await service.post(CHAT, said()),
        await service.post("/sdapi/v1/txt2img", {"prompt": busy()}),
        await service.post("/openai/deployments/dall-e-3/images/generations", {"prompt": busy()}),
        await post_form(service, [("prompt", busy()), ("model", "gpt-image-1"), ("image", picture())]),
    ]
    assert [answer.headers.get("x-images-fallback") for answer in answers] == [TOLD] * 4
    for path, values in ((GENERATIONS, {"model": "gpt-image-1", "prompt": busy()}), (CHAT, said())):
        async with streamed(service, path, {**values, "stream": True}) as response:
            assert response.headers["x-images-fallback"] == TOLD
            read_events(await response.read())


async def test_a_job_that_was_handed_over_tells_its_fallback_and_its_seed(service: Service) -> None:
    checked = {"prompt": busy(more="[seconds:0.2]"), "model": "dall-e-3", "seed": 7}
    answer = await service.post(GENERATIONS, checked, {"Prefer": "respond-async"})
    assert answer.status == 202
    path = answer.json["url"]
    seen = set()
    while answer.status == 202:
        seen.add((answer.headers.get("x-images-fallback"), answer.headers.get("x-images-seed")))
        await asyncio.sleep(0.02)
        answer = await service.get(path)
    assert (TOLD, "7") in seen
    assert (answer.status, answer.headers["x-images-fallback"], answer.headers["x-images-seed"]) == (200, TOLD, "7")


# --- seeds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [SCHNELL, LABS, V1, "prodia-legacy/absolutereality_v181.safetensors [3d9d4d2b]"])
async def test_the_seed_told_makes_the_same_picture(service: Service, model: str) -> None:
    first = await made(service, "a barn", model=model)
    again = await made(service, "a barn", model=model, seed=first.headers["x-images-seed"])
    assert again.headers["x-images-seed"] == first.headers["x-images-seed"]
    assert "x-images-reattached" not in again.headers
    assert again.json["data"] == first.json["data"]


async def test_the_seed_is_the_first_pictures_after_wrapping(service: Service) -> None:
    answer = await made(service, "a barn", model=LABS, seed=2**32 + 5, n=2)
    assert answer.headers["x-images-seed"] == "5"
    assert answer.headers["x-images-mapped"] == f"seed={2**32 + 5}->5"


async def test_a_model_without_seeds_tells_none(service: Service) -> None:
    assert "x-images-seed" not in (await made(service, "a barn", model="unseeded")).headers


async def test_pages_may_read_every_header(service: Service) -> None:
    checked = {"prompt": busy(), "model": "dall-e-3", "style": "natural", "seed": 2**33, "size": "1792x1024"}
    answer = await service.post(GENERATIONS, checked, {"Origin": "http://localhost:3000"})
    told = {name.lower() for name in answer.headers if name.lower().startswith("x-")}
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"x-images-fallback", "x-images-seed", "x-images-mapped", "x-images-dropped"} <= told <= exposed
