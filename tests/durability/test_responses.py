"""Background responses outlive their process, and what is written of them holds no prompt."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.durability.process import Process
from tests.service import Answer
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.kill, pytest.mark.realtime]

PATH = "/v1/responses"
LABS = "imagelabs/sdxl-turbo"


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Other processes are waited for."""
    return backend(skip=False)


@pytest.fixture(scope="module")
async def upstream(anyio_backend: object) -> AsyncIterator[str]:  # noqa: ARG001 (it chooses the loop)
    async with serving(create_simulator(speed=20.0)) as port:
        yield f"http://127.0.0.1:{port}"


async def call(process: Process, path: str, values: Any = None) -> Answer:
    """Post ``values``, or get without any."""
    async with (
        aiohttp.ClientSession() as http,
        http.request("GET" if values is None else "POST", process.url + path, json=values) as response,
    ):
        return await Answer.read(response)


async def ended(process: Process, response_id: str) -> Answer:
    """Ask for a response until it has ended."""
    async with asyncio.timeout(20):
        while True:
            answer = await call(process, f"{PATH}/{response_id}")
            assert answer.status == 200, answer.json
            if answer.json["status"] not in ("queued", "in_progress"):
                return answer
            await asyncio.sleep(0.05)


def asking(words: str, **values: Any) -> dict[str, Any]:
    """Return a request for a picture, in the background."""
    tool = {"type": "image_generation", "model": LABS}
    return {"model": "gpt-5", "input": words, "tools": [tool], "background": True, **values}


async def test_a_background_response_is_followed_by_the_next_process(tmp_path: Path, upstream: str) -> None:
    process = Process(tmp_path, upstream)
    await process.start()
    values = asking("a secretive fox [seconds:1.5] [tag:background]", metadata={"a": "b"})
    first = await call(process, PATH, values)
    while not (await process.counts("background"))["polls"]:  # noqa: ASYNC110 (the simulator tells nobody)
        await asyncio.sleep(0.02)
    await process.kill()
    await process.start()
    try:
        last = await ended(process, first.json["id"])
        assert last.json["status"] == "completed"
        for name in ("model", "metadata", "tools", "background", "created_at"):
            assert last.json[name] == first.json[name], name
        assert last.json["output"][0]["result"]
        assert (await process.counts("background"))["started"] == 1
        # A follow-up finds the picture, too, and a cancelled one is gone for good.
        again = await call(process, PATH, asking("make it red", previous_response_id=first.json["id"]))
        assert (await ended(process, again.json["id"])).json["output"][0]["action"] == "edit"
        slow = (await call(process, PATH, asking("a slow fox [seconds:9]"))).json["id"]
        assert (await call(process, f"{PATH}/{slow}/cancel", {})).json["status"] == "cancelled"
    finally:
        await process.kill()
    assert all(b"secretive" not in file.read_bytes() for file in (tmp_path / "state").glob("state.sqlite3*"))
    await process.start()
    try:
        assert (await call(process, f"{PATH}/{slow}")).status == 404
    finally:
        await process.kill()
