"""The process killed with its pictures in a real S3 server: what was bought is answered by the next one."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.pictures.codec import inspect
from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.object_store import BUCKET, ObjectStore, object_store

from .process import Process

pytestmark = [pytest.mark.anyio, pytest.mark.kill]
_ASKED: dict[str, Any] = {"model": "imagelabs/sdxl-turbo", "size": "256x256", "response_format": "b64_json"}
_KEY = {"Idempotency-Key": "k"}
_PROMPT = "a fox [seconds:0] [tag:t]"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ObjectStore]:
    (tmp_path / "objects").mkdir()
    with object_store(tmp_path / "objects") as running:
        yield running


@pytest.fixture
async def process(tmp_path: Path, server: ObjectStore) -> AsyncIterator[Process]:
    async with serving(create_simulator(speed=20)) as port:
        process = Process(tmp_path, f"http://127.0.0.1:{port}", environment=server.environment)
        _move(process, tmp_path / "here")
        yield process
        await process.kill()


def _move(process: Process, folder: Path) -> None:
    """Let the next process run on another machine, as far as its folder for pictures goes."""
    process.tables = {"images": {"store": f"s3://{BUCKET}/p", "directory": str(folder)}}


async def _put(server: ObjectStore) -> str:
    """Wait until a picture is there, and return its name."""
    while True:
        # Test objects come and go as well.
        names = [key.removeprefix("p/") for key in server.objects() if key.endswith(".png")]
        if names:
            return names[0]
        await asyncio.sleep(0.02)


async def test_a_picture_in_the_store_is_replayed_on_another_machine(
    process: Process, server: ObjectStore, tmp_path: Path
) -> None:
    await process.start()
    first = await process.generate(_PROMPT, _KEY, **_ASKED)
    assert first is not None
    assert first.status == 200
    await process.kill()
    _move(process, tmp_path / "there")
    await process.start()
    again = await process.generate(_PROMPT, _KEY, **_ASKED)
    assert again is not None
    assert again.json["data"][0]["b64_json"] == first.json["data"][0]["b64_json"]
    assert (await process.counts("t"))["submits"] == 1
    assert await _put(server)


async def test_a_picture_that_waits_for_the_store_survives_the_process(
    process: Process, server: ObjectStore, tmp_path: Path
) -> None:
    await process.start()
    server.kill()
    first = await process.generate(_PROMPT, _KEY, **_ASKED)
    assert first is not None
    assert first.status == 200
    await process.kill()
    server.start()
    await process.start()
    async with asyncio.timeout(20):
        name = await _put(server)
    await process.kill()
    _move(process, tmp_path / "there")
    await process.start()
    async with aiohttp.ClientSession() as http, http.get(f"{process.url}/images/{name}") as picture:
        data = await picture.read()
    inspect(data)
    assert base64.b64encode(data).decode() == first.json["data"][0]["b64_json"]
    assert (await process.counts("t"))["submits"] == 1
