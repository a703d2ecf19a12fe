"""Failures as Starlette's responses, its own 404 and 405 included."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proxy.errors import Failure, InvalidRequest, MethodNotAllowed, NotFound, write

_MAX_PATH = 200


def respond(failure: Failure) -> Response:
    """Return the response for ``failure``."""
    headers, body = write(failure)
    return Response(body, failure.status, headers)


async def on_failure(request: Request, failure: Exception) -> Response:
    """Starlette's handler for Failure; ``async`` because Starlette runs plain functions in a thread."""
    assert isinstance(failure, Failure)  # noqa: S101 (registered for this class only)
    request.state.context.failed(failure)
    return respond(failure)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for its own 404 and 405."""
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this class only)
    path = "".join(letter if letter.isprintable() else "?" for letter in request.url.path[:_MAX_PATH])
    failure: Failure
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"Not allowed to {request.method} on {path}. Use {allowed}."
        failure = MethodNotAllowed(message, headers={"allow": allowed})
    elif error.status_code == 404:
        failure = NotFound(f"Invalid URL ({request.method} {path}).")
    else:
        failure = InvalidRequest("The request cannot be understood.")
    return await on_failure(request, failure)
