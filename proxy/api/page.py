"""The page for people at ``/``, and the files it needs."""

import mimetypes

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from proxy.errors import NotFound

_FILES = StaticFiles(packages=[("proxy", "page")])
# The page holds the key that its user typed, so no foreign script, frame or form may get near it. Pictures may come
# from anywhere: a route without a copy of our own gives the provider's address.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src * data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
mimetypes.add_type("text/javascript", ".js")  # RFC 9239; Python 3.11 still says application/javascript


async def index(request: Request) -> Response:
    """Return the page."""
    return await _file(request, "index.html")


async def icon(request: Request) -> Response:
    """Return the page's icon."""
    return await _file(request, "icon.svg")


async def asset(request: Request) -> Response:
    """Return one of the page's files."""
    return await _file(request, request.path_params["name"])


async def _file(request: Request, name: str) -> Response:
    try:
        response = await _FILES.get_response(name, request.scope)
    except HTTPException:
        raise NotFound("There is no such file.") from None
    response.headers.update(_HEADERS)
    return response
