"""Pictures as files, some of them false on purpose; and their public host: ``/pictures/{job}.png``, without a key."""

import asyncio
import io
import struct
import zlib
from collections.abc import Collection
from functools import lru_cache
from random import Random

from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.replies import deliver
from proxy.simulator.scene import Drawing, draw
from proxy.simulator.simulation import Job, Simulation

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""The formats that can be requested, and their media types."""

_TINY = b"\x89PNG\r\n\x1a\nexpired"
_NOT_A_PICTURE = b"<!doctype html><title>Sign in</title><p>This is not a picture.</p>"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SAVING = {"png": {"compress_level": 1}, "jpeg": {"quality": 88}, "webp": {"quality": 82, "method": 0}}
_PREVIEW = "-preview"


async def picture_of(job: Job, image_format: str) -> tuple[bytes, str]:
    """Return the job's picture and its media type; drawn in a thread, since drawing would hold up the event loop."""
    if job.words.has("expired"):
        return _TINY, MEDIA_TYPES["png"]
    if job.words.has("not-a-picture"):
        return _NOT_A_PICTURE, MEDIA_TYPES[image_format]
    if job.words.has("pixels"):
        return lying_png(), MEDIA_TYPES["png"]
    if job.words.bytes is not None:
        data = await asyncio.to_thread(padded_png, job.drawing.width, job.drawing.height, job.words.bytes)
        return data, MEDIA_TYPES["png"]
    return await asyncio.to_thread(encode, job.drawing, image_format), MEDIA_TYPES[image_format]


async def deliver_picture(simulation: Simulation, job: Job, image_format: str) -> ASGIApp:
    """Answer with the finished job's picture, or with the fault that its words choose."""
    expired = job.words.fault("expired")
    if expired and not expired.text:
        return PlainTextResponse("", 404)
    data, media_type = await picture_of(job, image_format)
    return deliver(data, media_type, job.words, simulation.clock.sleep)


@lru_cache(maxsize=32)
def encode(drawing: Drawing, image_format: str) -> bytes:
    """Return the drawing as a file of the format ``png``, ``jpeg`` or ``webp``."""
    chunks = PngInfo()
    if drawing.parameters:
        chunks.add_itxt("parameters", drawing.parameters)
    return _saved(draw(drawing), image_format, chunks)


@lru_cache(maxsize=4)
def padded_png(width: int, height: int, size: int) -> bytes:
    """Return a valid PNG of the given pixels and of about ``size`` bytes, most of them incompressible padding."""
    plain = _saved(Image.new("1", (width, height), 1), "png")
    missing = min(size, 256 * 1024 * 1024) - len(plain) - 12
    if missing <= 0:
        return plain
    padding = Random(size).randbytes(missing)  # noqa: S311 (incompressible, not secret)
    return plain.removesuffix(_END) + _chunk(b"paDd", padding) + _END


def lying_png() -> bytes:
    """Return a small PNG whose header promises 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(4096))) + _END


def host(simulation: Simulation, dialects: Collection[str]) -> Route:
    """Return the route to finished pictures of these dialects' jobs, and to unfinished ones: ``{job}-preview.png``."""

    async def answer(request: Request) -> ASGIApp:
        name: str = request.path_params["name"]
        job = simulation.find(name.removesuffix(_PREVIEW), *dialects)
        if job is None:
            return PlainTextResponse("Not Found", 404)
        if request.method == "GET":
            simulation.count("fetches", job.words.tag)
        if name.endswith(_PREVIEW):
            progress = round(job.progress(simulation.clock.monotonic()), 1)
            data = await asyncio.to_thread(_preview, job.drawing, progress)
            return deliver(data, MEDIA_TYPES["png"], job.words, simulation.clock.sleep)
        finished = simulation.state(job) == "finished"
        return await deliver_picture(simulation, job, "png") if finished else PlainTextResponse("Not Found", 404)

    return Route("/pictures/{name}.png", answer, methods=["GET", "HEAD"])


@lru_cache(maxsize=32)
def _preview(drawing: Drawing, progress: float) -> bytes:
    """Return a small, unfinished look at the picture; it sharpens as ``progress`` goes from 0 to 1."""
    small = draw(drawing)
    small.thumbnail((256, 256))
    return _saved(small.filter(ImageFilter.GaussianBlur(12 * (1 - progress))), "png")


def _saved(picture: Image.Image, image_format: str, chunks: PngInfo | None = None) -> bytes:
    file = io.BytesIO()
    picture.save(file, image_format.upper(), pnginfo=chunks, **_SAVING[image_format])
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
