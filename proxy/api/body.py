"""Request bodies: read within limits, and parsed as strict JSON whatever the content type says."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from proxy.errors import InvalidJson, RequestTooLarge
from proxy.requests.image_request import json_object

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_DEPTH = 64
_MAX_VALUES = 100_000
"""Commas and brackets in a body, including those in prompts: a parsed value can take a hundred times its bytes."""
_MAX_MEMBERS = 1_000
"""Members of the object itself; clients send some dozens."""
_LARGE_BYTES = 262_144
"""Parsing less than this takes a millisecond or two, which isn't worth a thread."""
PIECE_BYTES = 32_768
"""Bytes of a large body that are handled before other requests get a turn."""


class CallerLeft(Exception):
    """The caller went away before its answer, so none is written."""


async def read(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; the connection limits how long it may take. Raises RequestTooLarge, CallerLeft."""
    _check_declared(request, max_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
    except ClientDisconnect:
        raise CallerLeft from None
    return bytes(body)


def _check_declared(request: Request, max_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)


async def arriving(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body in pieces of at most ``PIECE_BYTES``; other requests get a turn between two pieces.

    Raises RequestTooLarge, CallerLeft.
    """
    _check_declared(request, max_bytes)
    left = max_bytes
    try:
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                raise _too_large(max_bytes)
            for start in range(0, len(chunk), PIECE_BYTES):
                if start:
                    await asyncio.sleep(0)
                yield chunk[start : start + PIECE_BYTES]
    except ClientDisconnect:
        raise CallerLeft from None


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """Return the body as a JSON object. Raises InvalidJson and what ``read`` raises."""
    return await decode(await read(request, max_bytes))


async def decode(body: bytes) -> dict[str, Any]:
    """Decode strict JSON, a large body away from the event loop. Raises InvalidJson."""
    return decode_json(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(decode_json, body)


def decode_json(body: bytes) -> dict[str, Any]:
    """Decode strict JSON (RFC 8259): no NaN, no byte order mark, no lone surrogates, bounded depth.

    Raises InvalidJson.
    """
    # Counted in the raw bytes, since after parsing the memory is already taken.
    brackets = body.count(b"[") + body.count(b"{")
    if body.count(b",") + brackets > _MAX_VALUES:
        raise InvalidJson("The request's body holds too many values.")
    try:
        text = body.decode("utf-8")
        decoded = _DECODER.decode(text)
        if _SURROGATE.search(text):  # Python's parser accepts half a pair, which nothing can encode later
            json.dumps(decoded, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise InvalidJson("The request's body is not valid JSON.") from None
    if brackets > _MAX_DEPTH and _is_too_deep(decoded):
        raise InvalidJson(f"The request's body is nested deeper than {_MAX_DEPTH} levels.")
    values = json_object(decoded)
    if len(values) > _MAX_MEMBERS:
        raise InvalidJson("The request's body holds too many values.")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _too_large(max_bytes: int) -> RequestTooLarge:
    # "close", because the rest of the body is left unread and would be taken for the next request.
    return RequestTooLarge(
        f"The request's body is over its limit of {max_bytes} bytes.", headers={"connection": "close"}
    )
