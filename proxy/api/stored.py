"""GET and HEAD /images/{name}: stored pictures, public to whoever knows their unguessable name."""

import mimetypes

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from proxy.engine import Engine
from proxy.errors import NotFound


async def get_image(request: Request) -> Response:
    """Send a stored picture."""
    engine: Engine = request.app.state.desk.engine
    name = request.path_params["name"]
    path = engine.store.find(name)
    if path is None:
        raise NotFound("There is no such picture, or no longer.")
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
