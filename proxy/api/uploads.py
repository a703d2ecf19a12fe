"""Pictures that callers send: multipart or data URLs, read within limits, recognised by their bytes.

Clients name the parts ``image``, ``image[]`` or ``image[0]``, label them ``application/octet-stream`` and send them
chunked, so this relies neither on names, types nor lengths.
"""

import asyncio
import hashlib
import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from proxy.api.body import arriving
from proxy.api.pictured import Pictured, read_pictured
from proxy.api.spool import Spool, view
from proxy.errors import InvalidRequest, RequestTooLarge
from proxy.pictures.codec import NotAPicture, inspect
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
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type == b"multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest("The multipart body names no boundary.", code="invalid_multipart")
        return await _read_multipart(request, boundary, max_picture)
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
    ended: bool = False
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _field: bytes = b""
    _value: bytes = b""
    _files: int = 0

    def callbacks(self) -> Any:
        handlers: dict[str, Callable[..., None]] = {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._begin,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        return handlers

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        # Some clients leave the file name out, and a part without one is text by the book (RFC 7578, 4.2).
        is_file = b"filename" in options or bool(_IMAGE_FIELD.match(name)) or name == "mask"
        self._files += is_file
        if self._files > MAX_PICTURES + 1 or len(self.parts) >= _MAX_FIELDS:
            raise InvalidRequest(f"Too many parts: at most {MAX_PICTURES} pictures.", param="image")
        # An unnamed file leaves nothing behind, even after a crash. Text is short and gets no descriptor of its own.
        self.parts.append(_Part(name, is_file, tempfile.TemporaryFile() if is_file else io.BytesIO()))  # noqa: SIM115

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.size += end - start
        limit = self.max_picture if part.is_file else _MAX_FIELD_BYTES
        if part.size > limit:
            message = f"The part '{part.name[:64]}' is over its limit of {limit} bytes."
            raise RequestTooLarge(message, param=part.name[:64], headers={"connection": "close"})
        self.spool.add(part.file, data[start:end])

    def _end(self) -> None:
        self.ended = True


async def _read_multipart(request: Request, boundary: bytes, max_picture: int) -> Upload:
    form = _Form(max_picture)
    try:
        await _receive(request, boundary, form)
        if not form.ended:
            raise InvalidRequest("The multipart body ends too early.", code="invalid_multipart")
        # In a thread: digests of many megabytes would hold up the event loop.
        return await asyncio.to_thread(_read_parts, form)
    finally:
        for part in form.parts:
            part.file.close()


async def _receive(request: Request, boundary: bytes, form: _Form) -> None:
    limit = (MAX_PICTURES + 1) * form.max_picture + _MAX_FIELDS * _MAX_FIELD_BYTES
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for piece in arriving(request, limit):
            if not form.ended:  # what follows the last boundary is to be ignored (RFC 2046, 5.1.1)
                parser.write(piece)
                await form.spool.relieve()
        parser.finalize()
    except FormParserError:
        raise InvalidRequest("The multipart body is broken.", code="invalid_multipart") from None


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
    return _complete(fields, images, mask)


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


def _complete(fields: dict[str, Any], images: list[InputPicture], mask: InputPicture | None) -> Upload:
    if not images:
        message = "Missing required parameter: 'image'."
        raise InvalidRequest(message, param="image", code="missing_required_parameter")
    if len(images) > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures.", param="image")
    if mask and (mask.width, mask.height) != (images[0].width, images[0].height):
        raise InvalidRequest("The mask must have the size of the first picture.", param="mask")
    return Upload(fields, tuple(images), mask)


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
    return replace(_complete(fields, images, seen), param="images")


def _referenced(body: Pictured, item: Any, param: str) -> InputPicture:
    url = item.get("image_url") if isinstance(item, dict) else item
    if not isinstance(url, str):
        message = f'Each entry of \'{param}\' must be {{"image_url": "data:image/png;base64,…"}}.'
        raise InvalidRequest(message, param=param, code="invalid_type")
    return picture_of(body.data(url, param), param)
