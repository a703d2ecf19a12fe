"""An unfinished picture at an address of ours: the provider's own may be one that only this machine can open."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from proxy.pictures.drafts import SUFFIX
from tests.service import Service, running

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
LABS = "imagelabs/sdxl-turbo"
KEYS = {"IMAGES_PROXY_KEYS": "first-key,other-key"}
KEY = {"authorization": "Bearer first-key"}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running(environment=KEYS) as started:
        yield started


async def shown(service: Service, location: str) -> str:
    """The address of the preview, once there is one."""
    for _ in range(200):
        state: dict[str, Any] = (await service.get(location, KEY)).json
        if "preview" in state:
            return str(state["preview"])
        await asyncio.sleep(0.02)
    pytest.fail("no preview")


async def test_a_preview_is_at_our_address_and_for_its_caller_only(service: Service) -> None:
    prefer = {**KEY, "prefer": "respond-async"}
    handed = await service.post(GENERATIONS, {"prompt": "a pond [seconds:60] [queued:0]", "model": LABS}, prefer)
    address = await shown(service, handed.headers["location"])
    assert address.startswith(f"{service.url}{handed.headers['location']}/preview?at=")
    answer = await service.get(address, KEY)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.body)).size[0] <= 256
    assert answer.headers["cache-control"] == "private, no-store"
    assert (await service.get(address)).status == 401
    assert (await service.get(address, {"authorization": "Bearer other-key"})).status == 404
    assert not list(service.engine.directory.glob(f"**/*{SUFFIX}"))


async def test_without_a_preview_there_is_a_404(service: Service) -> None:
    prefer = {**KEY, "prefer": "respond-async"}
    handed = await service.post(GENERATIONS, {"prompt": "a pond [seconds:60]"}, prefer)
    assert (await service.get(f"{handed.headers['location']}/preview", KEY)).status == 404
    assert (await service.get(f"{GENERATIONS}/imggen_0/preview", KEY)).status == 404


async def test_a_preview_that_cannot_be_fetched_is_a_404(service: Service) -> None:
    prefer = {**KEY, "prefer": "respond-async"}
    handed = await service.post(GENERATIONS, {"prompt": "a pond [seconds:60] [queued:0]", "model": LABS}, prefer)
    address = await shown(service, handed.headers["location"])
    (progress,) = next(iter(service.engine.generations)).progress
    progress.preview = "http://127.0.0.1:1/gone.png"
    assert (await service.get(address, KEY)).status == 404
    progress.provider = "no longer configured"
    assert (await service.get(address, KEY)).status == 404
