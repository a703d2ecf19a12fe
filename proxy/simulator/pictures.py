"""Drawings turned into files, and the files that are none: padded, lying about their pixels, not a picture at all."""

import asyncio
import io
import struct
import zlib
from functools import lru_cache
from random import Random

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from proxy.simulator.jobs import Job
from proxy.simulator.scene import Drawing, blur, draw

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""What can be asked for, and its media type."""

NOT_A_PICTURE = b"<!doctype html><title>Sign in</title><p>This is not a picture.</p>"

_MOST_BYTES = 256 * 1024 * 1024
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_LYING_SIDE = 30_000


async def picture_of(job: Job, image_format: str) -> tuple[bytes, str]:
    """Return the job's result and its media type; drawn in a thread, since drawing would hold up the event loop."""
    if job.words.has("notpicture"):
        return NOT_A_PICTURE, MEDIA_TYPES[image_format]
    if job.words.has("pixels"):
        return lying_png(), MEDIA_TYPES["png"]
    if job.words.bytes is not None:
        data = await asyncio.to_thread(padded_png, job.drawing.width, job.drawing.height, job.words.bytes)
        return data, MEDIA_TYPES["png"]
    return await asyncio.to_thread(encode, job.drawing, image_format), MEDIA_TYPES[image_format]


async def preview_of(job: Job, progress: float) -> bytes:
    """Return a PNG of the unfinished picture."""
    return await asyncio.to_thread(_preview, job.drawing, round(progress, 1))


@lru_cache(maxsize=32)
def encode(drawing: Drawing, image_format: str) -> bytes:
    """Return the drawing as a file of the format ``png``, ``jpeg`` or ``webp``."""
    file = io.BytesIO()
    picture = draw(drawing)
    if image_format == "jpeg":
        picture.save(file, "JPEG", quality=88)
    elif image_format == "webp":
        picture.save(file, "WEBP", quality=82, method=0)
    else:
        chunks = PngInfo()
        if drawing.parameters:
            chunks.add_itxt("parameters", drawing.parameters)
        picture.save(file, "PNG", compress_level=1, pnginfo=chunks)
    return file.getvalue()


@lru_cache(maxsize=4)
def padded_png(width: int, height: int, size: int) -> bytes:
    """Return a valid PNG of the given pixels and of about ``size`` bytes, most of them incompressible padding."""
    file = io.BytesIO()
    Image.new("1", (width, height), 1).save(file, "PNG")
    plain = file.getvalue()
    missing = min(size, _MOST_BYTES) - len(plain) - 12
    if missing <= 0:
        return plain
    # Incompressible is all that is asked of the padding.
    padding = Random(size).randbytes(missing)  # noqa: S311
    return plain.removesuffix(_END) + _chunk(b"paDd", padding) + _END


def lying_png() -> bytes:
    """Return a small PNG whose header promises 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", _LYING_SIDE, _LYING_SIDE, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(4096))) + _END


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=32)
def _preview(drawing: Drawing, progress: float) -> bytes:
    file = io.BytesIO()
    blur(draw(drawing), progress).save(file, "PNG", compress_level=1)
    return file.getvalue()
