"""What the tests of clients' requests share: pictures to send, forms as clients build them, streams read strictly."""

import base64
import io
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from PIL import Image

from tests.service import Answer, Service

Field = tuple[str, str | bytes]
GENERATIONS, EDITS, CHAT = "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions"


def picture(width: int = 512, height: int = 512, colour: str = "teal", kind: str = "PNG") -> bytes:
    """Return a plain picture."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, format=kind)
    return out.getvalue()


def decoded(text: str) -> Image.Image:
    """Return the picture in a base64 text as clients that are strict decode it."""
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    image.load()
    return image


def data_url(data: bytes, kind: str = "png") -> str:
    """Return ``data`` as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def form(fields: Iterable[Field], content_type: str = "image/png") -> aiohttp.FormData:
    """Return a multipart form in which bytes are files."""
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields:
        if isinstance(value, bytes):
            data.add_field(name, value, filename="picture.png", content_type=content_type)
        else:
            data.add_field(name, value)
    return data


async def post_form(service: Service, fields: Iterable[Field], path: str = EDITS, **options: Any) -> Answer:
    """Post a multipart form."""
    async with service.http.post(service.url + path, data=form(fields, **options)) as response:
        return await Answer.read(response)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; ``name`` is empty for events that have none."""

    name: str
    data: str

    @property
    def json(self) -> Any:
        """The data, decoded."""
        return json.loads(self.data)


def read_events(body: bytes) -> tuple[list[Event], list[str]]:
    """Return a stream's events and its comments. Fails unless every block has the exact form the SDKs need."""
    text = body.decode()
    assert text.endswith("\n\n"), "the last event lacks its blank line"
    assert "\r" not in text
    events, comments = [], []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = block.split("\n")
        if all(line.startswith(":") for line in lines):
            comments += lines
            continue
        names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert len(names) + len(data) == len(lines)
        assert len(data) == 1
        assert len(names) <= 1
        events.append(Event(names[0] if names else "", data[0]))
    return events, comments


@asynccontextmanager
async def streamed(service: Service, path: str, values: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """Post JSON and hand over the response with its body unread."""
    async with service.http.post(service.url + path, json=values) as response:
        yield response


async def submits(service: Service) -> int:
    """Return how many submits reached the simulator in all."""
    async with service.http.get(f"{service.upstream}/_counts") as response:
        counts: dict[str, int] = await response.json()
        return counts["submits"]
