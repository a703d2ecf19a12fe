"""Automatic1111's API as its clients use it: menus, the model of each caller, pictures from pictures, interrupts."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from PIL import Image, ImageDraw

from tests.e2e.parts import data_url, decoded, picture
from tests.faults.wire import LABS, eventually
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

TXT2IMG, IMG2IMG, OPTIONS = "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/options"
PROGRESS, INTERRUPT = "/sdapi/v1/progress", "/sdapi/v1/interrupt"
V1 = "prodia-v1/dreamshaper_8.safetensors [9d40847d]"
IDLE = {"progress": 0.0, "eta_relative": 0.0, "current_image": None, "textinfo": None}


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


def basic(credentials: str) -> dict[str, str]:
    """Return the header that A1111's clients send for ``--api-auth``."""
    return {"authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def plain(data: bytes) -> str:
    return base64.b64encode(data).decode()


def hole(mode: str, side: str = "left") -> bytes:
    """Return a mask that marks one half: white on black, or opaque on transparent."""
    clear, marked = ((0, 0, 0, 0), (0, 0, 0, 255)) if mode == "RGBA" else ("black", "white")
    mask = Image.new(mode, (512, 512), clear)
    ImageDraw.Draw(mask).rectangle((0, 0, 255, 511) if side == "left" else (256, 0, 511, 511), fill=marked)
    out = io.BytesIO()
    mask.save(out, format="PNG")
    return out.getvalue()


@asynccontextmanager
async def calling_from(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client at another address of this machine."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0))) as http:
        yield http


async def checkpoint(service: Service, headers: dict[str, str] | None = None) -> str:
    """Return the model that a caller's options name."""
    name: str = (await service.get(OPTIONS, headers)).json["sd_model_checkpoint"]
    return name


async def progress(service: Service, headers: dict[str, str] | None = None) -> Any:
    return (await service.get(PROGRESS, headers)).json


async def told_when(service: Service, condition: Callable[[Any], bool]) -> Any:
    """Ask for the progress until it fulfils a condition, and return it."""
    async with asyncio.timeout(10):
        while not condition(told := await progress(service)):  # noqa: ASYNC110 (as its clients do: it is asked for)
            await asyncio.sleep(0.1)
    return told


# --- menus and options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("sd-models", {"title", "model_name", "hash", "sha256", "filename", "config"}),
        ("samplers", {"name", "aliases", "options"}),
        ("schedulers", {"name", "label", "aliases", "default_rho", "need_inner_model"}),
        ("upscalers", {"name", "model_name", "model_path", "model_url", "scale"}),
    ],
)
async def test_every_menu_has_entries_of_a1111s_form(service: Service, resource: str, fields: set[str]) -> None:
    entries = (await service.get(f"/sdapi/v1/{resource}")).json
    assert entries
    assert all(set(entry) == fields for entry in entries)


@pytest.mark.parametrize("resource", ["sd-vae", "latent-upscale-modes"])
async def test_what_there_is_none_of_is_an_empty_list(service: Service, resource: str) -> None:
    assert (await service.get(f"/sdapi/v1/{resource}")).json == []


async def test_the_chosen_model_makes_the_pictures_of_calls_that_name_none() -> None:
    async with running(speed=400) as service:
        assert await checkpoint(service) == "dall-e-3"
        # Open WebUI sends all options back with another model.
        options = {**(await service.get(OPTIONS)).json, "sd_model_checkpoint": LABS, "CLIP_stop_at_last_layers": 2}
        answer = await service.post(OPTIONS, options)
        assert (answer.status, answer.json) == (200, None)
        assert await checkpoint(service) == LABS
        made = await service.post(TXT2IMG, {"prompt": "a hill"})
        assert made.headers["x-images-provider"] == "imagelabs"
        assert json.loads(made.json["info"])["sd_model_name"] == LABS
        named = await service.post(TXT2IMG, {"prompt": "a hill", "override_settings": {"sd_model_checkpoint": V1}})
        assert named.headers["x-images-provider"] == "prodia-v1"
        edited = await service.post(IMG2IMG, {"prompt": "a hill", "init_images": [plain(picture())]})
        assert edited.headers["x-images-provider"] == "imagelabs"
        # Only here: other surfaces have a way of their own to name a model.
        assert (await service.generate("a hill")).headers["x-images-provider"] == "prodia"
        await service.post(OPTIONS, {"sd_vae": "x"})
        assert await checkpoint(service) == LABS
        await service.post(OPTIONS, {"sd_model_checkpoint": ""})
        assert await checkpoint(service) == "dall-e-3"


@pytest.mark.parametrize(
    ("value", "status", "code"), [("nonesuch", 404, "model_not_found"), (7, 400, "invalid_type"), ([], 400, None)]
)
async def test_a_model_that_does_not_exist_is_not_chosen(
    service: Service, value: Any, status: int, code: str | None
) -> None:
    refused = await service.post(OPTIONS, {"sd_model_checkpoint": value})
    assert refused.status == status
    assert code is None or refused.code == code
    assert await checkpoint(service) == "dall-e-3"


async def test_each_key_has_a_choice_of_its_own_and_comes_as_a1111s_clients_send_it() -> None:
    async with running(speed=400, environment={"IMAGES_PROXY_KEYS": "first-key,second-key"}) as service:
        assert (await service.get(OPTIONS)).status == 401
        assert (await service.get(OPTIONS, basic("anna:wrong"))).code == "invalid_api_key"
        assert (await service.post(OPTIONS, {"sd_model_checkpoint": LABS}, basic("anna:first-key"))).status == 200
        assert await checkpoint(service, basic("first-key")) == LABS
        assert await checkpoint(service, {"authorization": "Bearer first-key"}) == LABS
        assert await checkpoint(service, basic("anna:second-key")) == "dall-e-3"
        made = await service.post(TXT2IMG, {"prompt": "a hill"}, basic("anyone:second-key"))
        assert made.headers["x-images-provider"] == "prodia"
        # Elsewhere a password is no key: a browser would add it to calls that its user knows nothing of.
        assert (await service.get("/v1/models", basic("anna:first-key"))).status == 401
        foreign = {**basic("anna:first-key"), "origin": "https://evil.example"}
        assert (await service.post(TXT2IMG, {"prompt": "a hill"}, foreign)).code == "origin_not_allowed"


async def test_without_keys_each_address_has_a_choice_of_its_own() -> None:
    async with running(speed=400) as service, calling_from("127.0.0.2") as other:
        await service.post(OPTIONS, {"sd_model_checkpoint": LABS})
        async with other.get(service.url + OPTIONS) as answer:
            assert (await answer.json())["sd_model_checkpoint"] == "dall-e-3"
        assert await checkpoint(service) == LABS


# --- what is asked for ----------------------------------------------------------------------------------------

# As SillyTavern's SD Web UI source sends it, its own server's address and password included.
SILLY_TAVERN: dict[str, Any] = {
    "url": "http://127.0.0.1:8080",
    "auth": "anna:secret",
    "prompt": "best quality, tavern",
    "negative_prompt": "blurry",
    "sampler_name": "DPM++ 2M Karras",
    "scheduler": "automatic",
    "steps": 20,
    "cfg_scale": 7,
    "width": 512,
    "height": 768,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
    "alwayson_scripts": {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}},
}


@pytest.mark.parametrize("strict", [False, True])
async def test_a1111s_own_parameters_are_reported_and_never_refused(*, strict: bool) -> None:
    async with running(speed=400, server={"strict_params": strict}) as service:
        made = await service.post(TXT2IMG, SILLY_TAVERN)
        assert made.status == 200, made.body
        assert decoded(made.json["images"][0]).size == (512, 768)
        dropped = made.headers["x-images-dropped"].split(", ")
        assert {"scheduler", "denoising_strength", "override_settings.CLIP_stop_at_last_layers"} <= set(dropped)
        # What is off or empty asks for nothing.
        assert not {"restore_faces", "enable_hr", "hr_additional_modules", "override_settings"} & set(dropped)
        assert b"secret" not in made.body
        stranger = await service.post(TXT2IMG, {**SILLY_TAVERN, "wings": 2})
        if strict:
            assert (stranger.status, stranger.json["error"]["param"]) == (400, "wings")
        else:
            assert "wings" in stranger.headers["x-images-dropped"]


# --- pictures from pictures -----------------------------------------------------------------------------------


async def edit(service: Service, given: Any, model: str = V1, **values: Any) -> Answer:
    return await service.post(IMG2IMG, {"prompt": "a red hat", "model": model, "init_images": given, **values})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_init_images_are_base64_with_or_without_a_head(service: Service, kind: str) -> None:
    data = picture(640, 512, kind=kind)
    for given in (plain(data), data_url(data)):
        made = await edit(service, [given], width=512, height=512)
        assert decoded(made.json["images"][0]).size == (512, 512)
        assert made.json["parameters"] == {"prompt": "a red hat", "width": 512, "height": 512}
        assert json.loads(made.json["info"])["seed"] == int(made.headers["x-images-seed"])


async def test_an_editing_route_of_the_default_model_is_found(service: Service) -> None:
    made = await service.post(IMG2IMG, {"prompt": "a hat", "init_images": [plain(picture())], "batch_size": 2})
    assert ".img2img." in made.headers["x-images-model"]
    assert len(made.json["images"]) == 2


@pytest.mark.parametrize(
    ("model", "strength", "dropped"), [(V1, 0.2, False), ("prodia/inference.flux-2.pro.img2img.v1", 0.2, True)]
)
async def test_denoising_strength_is_honoured_or_reported(
    service: Service, model: str, strength: float, *, dropped: bool
) -> None:
    made = await edit(service, [plain(picture())], model, denoising_strength=strength)
    assert ("strength" in made.headers.get("x-images-dropped", "").split(", ")) is dropped
    assert made.json["parameters"]["denoising_strength"] == strength


def red_of(answer: Answer, x: int) -> int:
    """Return how red the picture is near its upper edge, where the simulator writes nothing."""
    value = decoded(answer.json["images"][0]).convert("RGB").getpixel((x, 40))
    assert isinstance(value, tuple)
    return int(value[0])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
async def test_a_mask_marks_what_changes_by_white_or_by_what_is_not_transparent(service: Service, mode: str) -> None:
    given = [plain(picture(colour="#ff0000"))]
    made = await edit(service, given, mask=plain(hole(mode)), width=512, height=512)
    assert made.headers["x-images-model"].startswith("dreamshaper")
    assert red_of(made, 400) == 255
    assert red_of(made, 100) < 255
    # The same bytes meant the other way round are another request, even while the first is still remembered.
    turned = await edit(service, given, mask=plain(hole(mode)), width=512, height=512, inpainting_mask_invert=1)
    assert red_of(turned, 100) == 255
    assert red_of(turned, 400) < 255


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({}, "init_images"),
        ({"init_images": []}, "init_images"),
        ({"init_images": [None]}, "init_images"),
        ({"init_images": plain(picture())}, "init_images"),
        ({"init_images": [7]}, "init_images"),
        ({"init_images": ["@@@@"]}, "init_images"),
        ({"init_images": ["https://example.org/cat.png"]}, "init_images"),
        ({"init_images": [plain(picture())[:400]]}, "init_images"),
        ({"init_images": [plain(picture(64, 64))] * 17}, "init_images"),
        ({"init_images": [plain(picture())], "mask": plain(picture(64, 64))}, "mask"),
        ({"init_images": [plain(picture())], "mask": "iVBORw0KGgo"}, "mask"),
        ({"init_images": [plain(picture())], "mask": 7}, "mask"),
        ({"init_images": [plain(picture())], "n_iter": 0}, "n_iter"),
    ],
)
async def test_a_wrong_picture_is_refused_before_anything_is_sent(
    service: Service, values: dict[str, Any], param: str
) -> None:
    refused = await service.post(IMG2IMG, {"prompt": "a red hat", **values})
    assert (refused.status, refused.json["error"]["param"]) == (400, param)


async def test_pictures_have_the_limit_of_uploads_and_text_that_of_json() -> None:
    async with running(speed=400, server={"max_body": 4_096, "max_upload": 100_000}) as service:
        large = picture(64, 64) + bytes(90_000)
        assert (await edit(service, [plain(large)])).status == 200
        refused = await edit(service, [plain(large + bytes(20_000))])
        assert (refused.status, refused.code) == (413, "request_too_large")
        assert (await edit(service, [plain(picture(64, 64))], styles=["x" * 5_000])).status == 413


async def test_a_call_that_was_cut_and_repeated_buys_one_picture() -> None:
    async with running(speed=20) as service:
        values = {"prompt": "a red hat [seconds:1.5] [tag:cut]", "model": LABS, "init_images": [plain(picture())]}
        cut = asyncio.ensure_future(service.post(IMG2IMG, values))
        await told_when(service, lambda told: told["progress"] > 0)
        cut.cancel()
        await eventually(lambda: not any(generation.waiters for generation in service.engine.generations))
        again = await service.post(IMG2IMG, values)
        assert (again.headers["x-images-reattached"], len(again.json["images"])) == ("true", 1)
        assert (await service.counts("cut"))["submits"] == 1


# --- progress and interrupt -----------------------------------------------------------------------------------


async def test_progress_is_the_callers_own_job_and_interrupt_gives_it_up() -> None:
    async with running(speed=20) as service, calling_from("127.0.0.2") as other:
        idle = await progress(service)
        assert {name: idle[name] for name in IDLE} == IDLE
        assert (idle["state"]["job_count"], idle["state"]["job_no"]) == (0, 0)
        prompt = {"prompt": "a slow hill [seconds:5] [tag:slow]", "model": LABS}
        held = asyncio.ensure_future(service.post(TXT2IMG, prompt))
        told = await told_when(service, lambda told: told["progress"] > 0)
        assert 0 < told["progress"] < 1
        assert told["eta_relative"] >= 0
        assert (told["state"]["job_count"], told["state"]["job_no"]) == (1, 0)
        assert told["state"]["job"].startswith("imggen_")
        async with other.get(service.url + PROGRESS) as answer:
            assert (await answer.json())["state"]["job_count"] == 0
        async with other.post(service.url + INTERRUPT) as answer:
            assert answer.status == 200
        assert (await progress(service))["state"]["job_count"] == 1
        images = asyncio.ensure_future(service.generate("another hill [seconds:1.5]", model=LABS))
        stopped = await service.post(INTERRUPT, {})
        assert (stopped.status, stopped.json) == (200, {})
        assert (await held).code == "job_lost"
        assert (await progress(service))["state"]["job_count"] == 0
        # What was asked for by OpenAI's API goes on, and the interrupted picture was bought once.
        assert (await images).status == 200
        assert (await service.counts("slow"))["submits"] == 1


async def test_several_pictures_are_counted_together() -> None:
    async with running(speed=20) as service:
        prompt = {"prompt": "hills [seconds:3]", "model": LABS, "batch_size": 2, "n_iter": 2}
        held = asyncio.ensure_future(service.post(TXT2IMG, prompt))
        await told_when(service, lambda told: told["state"]["job_count"] == 4)
        answer = await held
        assert len(answer.json["images"]) == 4
        assert len(json.loads(answer.json["info"])["all_seeds"]) == 4
        assert (await progress(service))["state"]["job_count"] == 0
        assert not service.engine.generations.running
