"""GET and HEAD /images/{name}: stored pictures, public to whoever knows their unguessable name."""

import mimetypes
import re

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from proxy.engine import Engine
from proxy.errors import NotFound

_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})\Z")


async def get_image(request: Request) -> Response:
    """Send a stored picture."""
    engine: Engine = request.app.state.waiting.engine
    name = request.path_params["name"]
    path = engine.store.find(name)
    if path is None:
        raise NotFound("There is no such picture, or no longer.")
    _drop_bad_range(request, path.stat().st_size)
    return FileResponse(
        path,
        media_type=mimetypes.types_map.get(path.suffix, "image/webp"),
        headers={
            "cache-control": f"public, max-age={int(engine.settings.images.keep)}, immutable",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "cross-origin",
            "content-security-policy": "default-src 'none'; sandbox",
            "content-disposition": f'inline; filename="{name}"',
        },
    )


def _drop_bad_range(request: Request, size: int) -> None:
    """Ignore a Range that is not one satisfiable span, as RFC 9110 (14.2) allows, so that the whole picture goes."""
    match = _RANGE.match(request.headers.get("range", ""))
    if match and int(match[1]) < size and (not match[2] or int(match[2]) >= int(match[1])):
        return
    request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
