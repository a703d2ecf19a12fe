"""Reads a picture's type and size from its first bytes, never from its name or declared type; converts pictures."""

import asyncio
import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

Format = Literal["png", "jpeg", "webp"]

EXTENSIONS: dict[str, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
MAX_PIXELS = 50_000_000
"""The most pixels of any picture. A few bytes can claim billions, and decoding would allocate them."""
HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
"""How the bytes of a picture begin."""
LONGEST_HEAD = max(map(len, HEADS))
HEAD_BYTES = 65_536
_LONGEST_HEAD_BYTES = 4_194_304
"""Thumbnails and colour profiles may come before a JPEG's size."""
_MOST_JPEG_PARTS = 4096
"""Segments and fill bytes before a JPEG's size. Encoders write dozens; a crafted file could hold up the event loop."""
_WAITING_CONVERSIONS = 64
_OPAQUE = 255
_FRUGAL_PIXELS, _FRUGAL_METHOD = 4_194_304, 2
"""From method 3 on libwebp keeps all tokens in memory: at 16 noisy megapixels some 430 MB at the peak, not 230."""


class NotAPicture(ValueError):
    """The bytes are no PNG, JPEG or WebP, or a picture that is larger than any accepted."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a picture's header says: its type and its size in pixels."""

    format: Format
    width: int
    height: int


def inspect(head: bytes) -> Facts:
    """Read type and size from a picture's first bytes. Raises NotAPicture, also when there are too few of them."""
    try:
        facts = _inspect(head)
    except (struct.error, IndexError):
        raise NotAPicture("the picture's header is cut off") from None
    if not 0 < facts.width * facts.height <= MAX_PIXELS:
        raise NotAPicture("the picture has too many pixels")
    return facts


def inspect_file(path: Path) -> Facts:
    """Read type and size from the first bytes of a file. Raises NotAPicture, OSError."""
    with path.open("rb") as file:
        return inspect_open(file)


def inspect_open(file: BinaryIO) -> Facts:
    """Read type and size from the first bytes of an open file, and go back to its start. Raises NotAPicture."""
    try:
        head = file.read(HEAD_BYTES)
        try:
            return inspect(head)
        except NotAPicture:  # maybe only because the size comes later
            return inspect(head + file.read(_LONGEST_HEAD_BYTES))
    finally:
        file.seek(0)


def _inspect(head: bytes) -> Facts:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return Facts("png", *struct.unpack(">II", head[16:24]))
    if head.startswith(b"\xff\xd8\xff"):
        return Facts("jpeg", *_jpeg_size(head))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Facts("webp", *_webp_size(head))
    raise NotAPicture("the bytes are neither PNG, JPEG nor WebP")


def _jpeg_size(head: bytes) -> tuple[int, int]:
    """Walk the segments to the frame header (ITU T.81, B.2.2)."""
    offset = 2
    for _ in range(_MOST_JPEG_PARTS):
        if head[offset] != 0xFF:
            raise NotAPicture("the JPEG's segments are broken")
        marker = head[offset + 1]
        if marker == 0xFF:
            offset += 1
        # All the SOF markers; C4, C8 and CC among them are no frames but DHT, JPG and DAC (ITU T.81, table B.1).
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[offset + 5 : offset + 9])
            return width, height
        else:
            offset += 2 + int(struct.unpack(">H", head[offset + 2 : offset + 4])[0])
    raise NotAPicture("the JPEG has too many parts before its size")


def _webp_size(head: bytes) -> tuple[int, int]:
    """Read the canvas of the three kinds of WebP (RFC 9649, 2.5–2.7)."""
    kind = head[12:16]
    if kind == b"VP8X":
        low_x, high_x, low_y, high_y = struct.unpack("<HBHB", head[24:30])
        return 1 + low_x + (high_x << 16), 1 + low_y + (high_y << 16)
    if kind == b"VP8L":
        bits = struct.unpack("<I", head[21:25])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise NotAPicture("the WebP's first chunk is unknown")


def decode_and_encode(source: bytes | BinaryIO, wanted: Format, quality: int | None) -> bytes:
    """Return the picture as ``wanted``; ``quality`` is 0–100 for jpeg and webp. Raises NotAPicture. Blocks."""
    from PIL import Image  # noqa: PLC0415 (a service that never converts never pays for loading it)

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    facts = inspect_open(file)
    try:
        # ``formats``: else Pillow offers foreign bytes to each of its many decoders.
        with Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as picture:
            picture.load()
            transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
            mode = "RGB" if wanted == "jpeg" or not transparent else "RGBA"
            out = io.BytesIO()
            options = {} if wanted == "png" or quality is None else {"quality": quality}
            if wanted == "webp" and facts.width * facts.height > _FRUGAL_PIXELS:
                options["method"] = _FRUGAL_METHOD
            # ``convert`` copies even where the mode stays the same, at four bytes a pixel.
            (picture if picture.mode == mode else picture.convert(mode)).save(out, format=wanted.upper(), **options)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # Pillow's for a damaged file
        raise NotAPicture("the picture cannot be decoded") from None
    return out.getvalue()


def luminance(data: bytes | memoryview, *, opaque: bool = False, inverted: bool = False) -> bytes:
    """Return a mask as a black and white PNG: white where the picture may change. Raises NotAPicture. Blocks.

    OpenAI's masks mark the part to change by transparency, the providers' by white: so what is transparent turns
    white, and a mask without transparency is taken as black and white already.
    https://platform.openai.com/docs/api-reference/images/createEdit

    ``opaque``: it marks that part by what is *not* transparent, as Automatic1111's masks do. ``inverted``: it marks the
    part to keep.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 (a service that sees no mask never pays for loading it)

    source: Any = io.BytesIO(data)
    try:
        with Image.open(source, formats=["PNG", "WEBP", "JPEG"]) as mask:
            mask.load()
            transparent = mask.mode in ("RGBA", "LA", "PA") or "transparency" in mask.info
            alpha = None
            if transparent:  # each copy takes four bytes a pixel
                alpha = (mask if mask.mode in ("RGBA", "LA") else mask.convert("RGBA")).getchannel("A")
            # A browser's canvas exports an alpha channel even if nothing is transparent: then the colours count.
            by_alpha = alpha is not None and any(alpha.histogram()[:_OPAQUE])
            white = alpha if alpha is not None and by_alpha else mask.convert("L")
            if inverted is not (by_alpha and not opaque):
                white = ImageOps.invert(white)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise NotAPicture("the mask cannot be decoded") from None
    out = io.BytesIO()
    white.save(out, format="PNG")
    return out.getvalue()


class Converter:
    """Decodes and encodes in a thread, one picture at a time; a bounded number of others wait."""

    def __init__(self) -> None:
        # One thread, since a decoded picture takes hundreds of megabytes (docs/performance.md).
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
        self._waiting = asyncio.Semaphore(_WAITING_CONVERSIONS)

    def close(self) -> None:
        """Stop the thread. Conversions that have not begun are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def convert(self, file: BinaryIO, wanted: Format, quality: int | None) -> bytes:
        """Return an open file's picture as ``wanted``. Raises NotAPicture."""
        return await self.run(lambda: decode_and_encode(file, wanted, quality))

    async def run(self, work: Callable[[], bytes]) -> bytes:
        """Call ``work`` in the thread; return what it returns, raise what it raises."""
        async with self._waiting:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
