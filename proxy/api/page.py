"""The pages for people: the playground at ``/``, what was used at ``/usage``; and the files they need."""

import mimetypes
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from proxy.errors import NotFound

_FILES = StaticFiles(packages=[("proxy", "page")])
# The pages hold the key that their user typed, so no foreign script, frame or form may get near it.
_HEADERS = {
    # Pictures may come from anywhere: a route without a copy of our own gives the provider's address.
    "content-security-policy": (
        "default-src 'self'; img-src * data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_USAGE_HEADERS = {
    **_HEADERS,
    # Nothing from elsewhere, and no text taken for HTML even by mistake, since names of keys come from their owners:
    # https://www.w3.org/TR/trusted-types/
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
}
mimetypes.add_type("text/javascript", ".js")  # RFC 9239; Python 3.11 still says application/javascript


async def index(request: Request) -> Response:
    """Return the playground."""
    return await _file(request, "index.html")


async def usage(request: Request) -> Response:
    """Return the page that shows what was used. It holds no figure itself and needs no key."""
    return await _file(request, "usage.html", _USAGE_HEADERS)


async def icon(request: Request) -> Response:
    """Return the pages' icon."""
    return await _file(request, "icon.svg")


async def asset(request: Request) -> Response:
    """Return one of the pages' files."""
    return await _file(request, request.path_params["name"])


async def _file(request: Request, name: str, headers: Mapping[str, str] = _HEADERS) -> Response:
    try:
        response = await _FILES.get_response(name, request.scope)
    except HTTPException:
        raise NotFound("There is no such file.") from None
    response.headers.update(headers)
    return response
