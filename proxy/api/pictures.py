"""GET and HEAD /images/{name}: stored pictures, public to whoever knows their unguessable name."""

import asyncio
import hashlib
import mimetypes
import re
from contextlib import aclosing
from email.utils import formatdate
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.engine import Engine
from proxy.errors import NotFound, StateUnavailable
from proxy.pictures.store import Found, Opened, cache_control

_RETRY_S = 5.0
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})\Z")


async def get_image(request: Request) -> ASGIApp:
    """Send a stored picture, or the range of it that the request names. Raises NotFound, StateUnavailable."""
    engine: Engine = request.app.state.waiting.engine
    name = request.path_params["name"]
    try:
        found = await engine.store.find(name)
    except OSError:
        raise StateUnavailable("The store of pictures cannot be reached now.", retry_after=_RETRY_S) from None
    if found is None:
        raise _not_found()
    headers = {
        "cache-control": cache_control(engine.settings.images.keep),
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "cross-origin",  # or frontends that isolate themselves (COEP) can't show it
        "content-security-policy": "default-src 'none'; sandbox",  # nothing in a picture may run under our origin
        "content-disposition": f'inline; filename="{name}"',
        "accept-ranges": "bytes",
        "content-length": str(found.size_bytes),
        "last-modified": formatdate(found.stored_at, usegmt=True),
        "etag": _tag(found),
    }
    span = _span(request, found.size_bytes, (headers["last-modified"], headers["etag"]))
    if span is not None:
        headers["content-range"] = f"bytes {span[0]}-{span[1] - 1}/{found.size_bytes}"
        headers["content-length"] = str(span[1] - span[0])
    # The one that Python 3.11 does not know is WebP.
    media_type = mimetypes.types_map.get(PurePath(name).suffix, "image/webp")
    start = Response(None, 206 if span else 200, headers, media_type)
    if request.method == "HEAD" or not found.size_bytes:
        return start
    try:
        return _Sent(start, await engine.store.open(name, span or (0, found.size_bytes)))
    except OSError:  # removed a moment ago
        raise _not_found() from None


def _not_found() -> NotFound:
    return NotFound("There is no such picture, or no longer.")


def _tag(found: Found) -> str:
    """Return the entity tag, made of time and size as Starlette's FileResponse does."""
    told = f"{found.stored_at}-{found.size_bytes}".encode()
    return f'"{hashlib.md5(told, usedforsecurity=False).hexdigest()}"'


def _span(request: Request, size: int, versions: tuple[str, str]) -> tuple[int, int] | None:
    """Return the requested range: its first byte, and the one after its last; None for the whole picture.

    A Range that is not one satisfiable span is ignored, as RFC 9110 (14.2) allows, and so is one for another version
    of the picture (13.1.5).
    """
    match = _RANGE.match(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", versions[0]) not in versions:
        return None
    start, stop = int(match[1]), min(size, int(match[2] or size) + 1)
    return (start, stop) if start < stop else None


class _Sent:
    """The ASGI response that sends an opened picture."""

    def __init__(self, start: Response, opened: Opened) -> None:
        self._start, self._opened = start, opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Send the headers, then the pieces."""
        start = {"type": "http.response.start", "status": self._start.status_code, "headers": self._start.raw_headers}
        await send(start)
        left = self._opened.size_bytes
        async with aclosing(self._opened.pieces) as pieces:
            async for piece in pieces:
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                await asyncio.sleep(0)  # with a fast reader no write ever waits, and no other request gets a turn
