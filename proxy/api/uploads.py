"""Pictures that callers send: multipart or data URLs, read within limits, recognised by their bytes.

Clients name the parts ``image``, ``image[]`` or ``image[0]``, label them ``application/octet-stream`` and send them
chunked, so this relies neither on names, types nor lengths.
"""

import asyncio
import hashlib
import io
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from starlette.requests import Request

from proxy.api.body import arriving
from proxy.api.pictured import Pictured, read_pictured
from proxy.api.spool import Spool, view
from proxy.errors import InvalidRequest, RequestTooLarge
from proxy.multipart import FORM, BrokenMultipart, MultipartReader
from proxy.pictures.codec import Converter, NotAPicture, inspect, luminance
from proxy.pictures.completeness import is_cut
from proxy.providers.boundary import InputPicture

MAX_PICTURES = 16
"""As many as OpenAI takes: https://platform.openai.com/docs/api-reference/images/createEdit"""
_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 131_072
"""The longest prompt (32,000 characters) with four bytes in UTF-8 to each character."""
_LONG_HEAD_BYTES = 1_048_576
"""In a camera's JPEG some hundred kilobytes of thumbnails and colour profiles may precede the size."""
_IMAGE_FIELD = re.compile(r"image(?:\[\d*\])?\Z")


@dataclass(frozen=True, slots=True)
class Upload:
    """A request with pictures: text fields, pictures in order, mask; ``param`` is the parameter that held them."""

    fields: dict[str, Any]
    images: tuple[InputPicture, ...]
    mask: InputPicture | None = None
    param: str = "image"


async def read_upload(request: Request, max_picture: int, max_json: int) -> Upload:
    """Read a multipart or JSON request with pictures of at most ``max_picture`` bytes each.

    Raises InvalidRequest, RequestTooLarge, CallerLeft.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == FORM:
        return await _read_multipart(request, content_type, max_picture)
    body = await read_pictured(request, max_json, max_picture)
    return await asyncio.to_thread(_from_json, body)


@dataclass(slots=True)
class _Part:
    name: str
    is_file: bool
    file: BinaryIO
    size: int = 0


@dataclass(slots=True)
class _Form:
    """Gathers the parts that the parser reports; files go to unnamed temporary files."""

    max_picture: int
    parts: list[_Part] = field(default_factory=list)
    spool: Spool = field(default_factory=Spool)
    _files: int = 0

    def begin(self, disposition: Mapping[bytes, bytes]) -> None:
        """Begin a part. Raises InvalidRequest when there are too many."""
        name = disposition.get(b"name", b"").decode("utf-8", "replace")
        is_file = b"filename" in disposition or bool(_IMAGE_FIELD.match(name)) or name == "mask"
        self._files += is_file
        if self._files > MAX_PICTURES + 1 or len(self.parts) >= _MAX_FIELDS:
            raise InvalidRequest(f"Too many parts: at most {MAX_PICTURES} pictures.", param="image")
        # An unnamed file leaves nothing behind, even after a crash. Text is short and gets no descriptor of its own.
        self.parts.append(_Part(name, is_file, tempfile.TemporaryFile() if is_file else io.BytesIO()))  # noqa: SIM115

    def data(self, data: memoryview) -> None:
        """Add to the part that was begun last. Raises RequestTooLarge."""
        part = self.parts[-1]
        part.size += len(data)
        limit = self.max_picture if part.is_file else _MAX_FIELD_BYTES
        if part.size > limit:
            message = f"The part '{part.name[:64]}' is over its limit of {limit} bytes."
            raise RequestTooLarge(message, param=part.name[:64], headers={"connection": "close"})
        self.spool.add(part.file, data)


async def _read_multipart(request: Request, content_type: str, max_picture: int) -> Upload:
    form = _Form(max_picture)
    try:
        await _receive(request, content_type, form)
        # Digests of many megabytes would hold up the event loop.
        return await asyncio.to_thread(_read_parts, form)
    finally:
        for part in form.parts:
            part.file.close()


async def _receive(request: Request, content_type: str, form: _Form) -> None:
    limit = (MAX_PICTURES + 1) * form.max_picture + _MAX_FIELDS * _MAX_FIELD_BYTES
    try:
        reader = MultipartReader(content_type, begin=form.begin, data=form.data)
        async for piece in arriving(request, limit):
            reader.feed(piece)
            await form.spool.relieve()
        reader.finish()
    except BrokenMultipart:
        message = "The multipart body is broken, ends too early, or names no boundary."
        raise InvalidRequest(message, code="invalid_multipart") from None


def _read_parts(form: _Form) -> Upload:
    form.spool.flush()
    fields: dict[str, Any] = {}
    images, mask = [], None
    for part in form.parts:
        if not part.is_file:
            part.file.seek(0)
            fields[part.name] = _text(part.name, part.file.read())
        elif part.name == "mask":
            mask = picture_of(view(part.file, part.size), "mask")
        elif _IMAGE_FIELD.match(part.name):
            images.append(picture_of(view(part.file, part.size), "image"))
        else:
            raise InvalidRequest(f"No file is expected in '{part.name[:64]}'; send 'image'.", param=part.name[:64])
    return complete(fields, images, mask)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        message = f"The field '{name[:64]}' is not UTF-8."
        raise InvalidRequest(message, param=name[:64], code="invalid_type") from None


def picture_of(data: bytes | memoryview, param: str) -> InputPicture:
    """Return ``data`` as a verified picture; blocks for its digest. Raises InvalidRequest."""
    # Checked here although a provider would check it too: a damaged picture can cost a whole job there.
    try:
        facts = inspect(bytes(data[:_LONG_HEAD_BYTES]))
        if is_cut(data):
            raise NotAPicture("the picture is cut off or damaged")
    except NotAPicture as problem:
        message = f"The file in '{param}' cannot be used: {problem}."
        raise InvalidRequest(message, param=param, code="invalid_image_file") from None
    return InputPicture(data, facts.format, facts.width, facts.height, hashlib.blake2b(data).digest())


async def readable_mask(
    converter: Converter, given: InputPicture, read: Callable[[bytes | memoryview], bytes] = luminance
) -> InputPicture:
    """Return the mask as the providers read it, decoded away from the event loop. Raises InvalidRequest."""
    try:
        data = await converter.run(lambda: read(given.data))
    except NotAPicture as problem:
        message = f"The file in 'mask' cannot be used: {problem}."
        raise InvalidRequest(message, param="mask", code="invalid_image_file") from None
    return InputPicture(data, "png", given.width, given.height, given.digest)


def complete(
    fields: dict[str, Any], images: list[InputPicture], mask: InputPicture | None, param: str = "image"
) -> Upload:
    """Return the upload; ``param`` is where its pictures stood.

    Raises InvalidRequest if it has no or too many pictures, or a mask that doesn't fit.
    """
    if not images:
        message = f"Missing required parameter: '{param}'."
        raise InvalidRequest(message, param=param, code="missing_required_parameter")
    if len(images) > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures.", param=param)
    check_mask(mask, images[0])
    return Upload(fields, tuple(images), mask, param)


def check_mask(mask: InputPicture | None, image: InputPicture) -> None:
    """Raise InvalidRequest unless the mask fits the picture."""
    if mask and (mask.width, mask.height) != (image.width, image.height):
        raise InvalidRequest("The mask must have the size of the first picture.", param="mask")


def _from_json(body: Pictured) -> Upload:
    values = body.values
    for name in ("image", "image[]"):
        if name in values and "images" not in values:
            message = f"In JSON the pictures go in 'images', a list of {{\"image_url\": …}}; '{name}' is for multipart."
            raise InvalidRequest(message, param=name, code="unknown_parameter")
    fields = {name: value for name, value in values.items() if name not in ("images", "mask")}
    given = values.get("images")
    if not isinstance(given, list) or not given:
        raise InvalidRequest("Missing required parameter: 'images'.", param="images", code="missing_required_parameter")
    if len(given) > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures.", param="images")
    images = [_referenced(body, item, "images") for item in given]
    mask = values.get("mask")
    seen = _referenced(body, mask, "mask") if mask else None
    return complete(fields, images, seen, "images")


def _referenced(body: Pictured, item: Any, param: str) -> InputPicture:
    url = item.get("image_url") if isinstance(item, dict) else item
    if not isinstance(url, str):
        message = f'Each entry of \'{param}\' must be {{"image_url": "data:image/png;base64,…"}}.'
        raise InvalidRequest(message, param=param, code="invalid_type")
    return picture_of(body.data(url, param), param)
