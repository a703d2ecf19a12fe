"""The page for people at ``/``, and the files it needs."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from proxy.errors import NotFound

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src * data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def index(request: Request) -> Response:  # noqa: ARG001 (Starlette's signature)
    """Return the page."""
    return _file("index.html")


async def icon(request: Request) -> Response:  # noqa: ARG001 (Starlette's signature)
    """Return the page's icon."""
    return _file("icon.svg")


async def asset(request: Request) -> Response:
    """Return one of the page's files."""
    return _file(request.path_params["name"])


def _file(name: str) -> Response:
    folder = files("proxy") / "page"
    known = {file.name: file for file in folder.iterdir() if file.is_file()}
    kind = _TYPES.get(name.rpartition(".")[2])
    if name not in known or kind is None:
        raise NotFound("There is no such file.")
    return Response(known[name].read_bytes(), media_type=kind, headers=_HEADERS)
