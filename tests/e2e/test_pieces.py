"""Pictures in answers: whichever surface carries them, the file's own bytes, never more than a piece at a time."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.api import renderings
from proxy.app import create_app
from proxy.config import compose
from proxy.demo import KEYS
from proxy.pictures import store
from proxy.server.process import serving
from proxy.simulator import create_simulator
from proxy.state.settings import IN_MEMORY
from tests.e2e.parts import CHAT, GENERATIONS, read_events
from tests.service import simulated_providers

pytestmark = pytest.mark.anyio

MODEL = "prodia/inference.flux-fast.schnell.txt2img.v2"
CHECKED = {"model": MODEL, "size": "1024x1024", "seed": 7}
PIECE = 6_144
PROMPT = 'a "fox"\u2028 in snow \\u0000 ä'


@dataclass(slots=True)
class Recording:
    """An application whose answers are looked at on their way out: the sizes of their pieces."""

    app: ASGIApp
    sizes: list[int] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.body":
                self.sizes.append(len(message.get("body", b"")))
            await send(message)

        await self.app(scope, receive, recorded)


@dataclass(frozen=True, slots=True)
class Place:
    """A running service, its folder of pictures, and what it sent last."""

    url: str
    recording: Recording
    http: aiohttp.ClientSession
    files: Any

    async def post(self, path: str, values: dict[str, Any]) -> bytes:
        """Post JSON; returns the answer's body."""
        self.recording.sizes.clear()
        async with self.http.post(self.url + path, json=values) as response:
            assert response.status == 200
            return await response.read()

    def stored(self) -> set[str]:
        """Return every stored picture as base64."""
        return {base64.b64encode(path.read_bytes()).decode() for path in self.files.iterdir() if path.suffix == ".png"}


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("pictures")
    async with serving(create_simulator(speed=400)) as upstream:
        providers = simulated_providers(f"http://127.0.0.1:{upstream}")
        tables = {"providers": providers, "images": {"directory": str(folder)}, "state": {"path": IN_MEMORY}}
        recording = Recording(create_app(compose(tables, KEYS)))
        async with serving(recording) as port, aiohttp.ClientSession() as http:
            yield Place(f"http://127.0.0.1:{port}", recording, http, folder)


def said(**values: Any) -> dict[str, Any]:
    return {**CHECKED, "messages": [{"role": "user", "content": PROMPT}], "modalities": ["image"], **values}


def data(url: str) -> str:
    return url.removeprefix("data:image/png;base64,")


async def images(place: Place) -> list[str]:
    answer = await place.post(GENERATIONS, {**CHECKED, "prompt": PROMPT, "n": 2, "response_format": "b64_json"})
    return [item["b64_json"] for item in json.loads(answer)["data"]]


async def image_stream(place: Place) -> list[str]:
    events, _ = read_events(await place.post(GENERATIONS, {**CHECKED, "prompt": PROMPT, "stream": True}))
    assert list(events[-1].json) == [
        "type",
        "created_at",
        "background",
        "quality",
        "size",
        "output_format",
        "usage",
        "b64_json",
    ]
    return [events[-1].json["b64_json"]]


async def chat(place: Place) -> list[str]:
    message = json.loads(await place.post(CHAT, said()))["choices"][0]["message"]
    assert (message["role"], message["content"]) == ("assistant", "")
    return [data(image["image_url"]["url"]) for image in message["images"]]


async def chat_stream(place: Place) -> list[str]:
    events, _ = read_events(await place.post(CHAT, said(stream=True)))
    assert [event.data for event in events].count("[DONE]") == 1
    return [data(image["image_url"]["url"]) for image in events[1].json["choices"][0]["delta"]["images"]]


async def responses(place: Place) -> list[str]:
    answer = json.loads(await place.post("/v1/responses", {**CHECKED, "input": PROMPT}))
    return [answer["output"][0]["result"]]


async def responses_stream(place: Place) -> list[str]:
    events, _ = read_events(await place.post("/v1/responses", {**CHECKED, "input": PROMPT, "stream": True}))
    done = next(event.json for event in events if event.name == "response.output_item.done")
    return [done["item"]["result"], events[-1].json["response"]["output"][0]["result"]]


async def sdapi(place: Place) -> list[str]:
    values = {"prompt": PROMPT, "batch_size": 2, "width": 1024, "height": 1024, "model": MODEL, "cfg_scale": None}
    answer = json.loads(await place.post("/sdapi/v1/txt2img", values))
    assert answer["parameters"] == {"prompt": PROMPT, "width": 1024, "height": 1024, "cfg_scale": None}
    info = json.loads(answer["info"])
    seed = info["seed"]
    told = {"seed": seed, "all_seeds": [seed, seed + 1]}
    assert info == {"sd_model_name": MODEL, "width": 1024, "height": 1024, **told}
    pictures: list[str] = answer["images"]
    return pictures


@pytest.mark.parametrize(
    ("surface", "number"),
    [(images, 2), (image_stream, 1), (chat, 1), (chat_stream, 1), (responses, 1), (responses_stream, 2), (sdapi, 2)],
)
async def test_every_surface_carries_the_files_own_bytes_in_pieces(
    place: Place, surface: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderings, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(store, "PIECE_BYTES", PIECE)
    sent = await surface(place)
    assert set(sent) <= place.stored()
    assert len(sent) == number
    assert len(place.recording.sizes) > 5
    assert max(place.recording.sizes) <= 3 * PIECE
