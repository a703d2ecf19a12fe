"""Answers as ASGI applications: plain ones, and those that break off, drip, never end or never come."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.simulator.words import Words

_CHALLENGE = """<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head>
<body><div id="cf-please-wait"><h1>Checking your browser before accessing the site.</h1></div></body></html>"""

_GATEWAY_TITLES = {
    502: "502 Bad Gateway",
    504: "504 Gateway Time-out",
    520: "520: Web server is returning an unknown error",
    524: "524: A timeout occurred",
}

_DRIPS = 20
_DRIP_S = 20.0
_ENDLESS_BLOCK = 64 * 1024
_FLUSH_S = 0.01


def challenge(status: int = 403) -> Response:
    """Return the front door's page that asks a browser to prove itself."""
    return Response(_CHALLENGE, status, media_type="text/html")


def gateway_page(status: int) -> Response:
    """Return the HTML page of a failing gateway."""
    title = _GATEWAY_TITLES.get(status, str(status))
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
    return Response(page, status, media_type="text/html")


def text(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a plain-text answer."""
    return PlainTextResponse(body, status, headers)


def json_reply(value: Any, words: Words | None = None, status: int = 200) -> ASGIApp:
    """Return a JSON answer; with ``[fault:F29:type]`` mislabelled, with ``[fault:huge:json]`` without end."""
    if words and (huge := words.fault("huge")) and "json" in huge.arguments:
        return Endless(json.dumps(value).encode()[:-1] + b', "padding": "', b"x", "application/json")
    if words and (fault := words.fault("F29")) and "type" in fault.arguments:
        return Response(json.dumps(value), status, media_type="text/html")
    return JSONResponse(value, status)


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def reset(receive: Receive) -> None:
    """Close the client's connection at once, with a TCP reset.

    ASGI has no message for that, so this reaches for the server's transport: uvicorn's ``receive`` is a method of
    the object that holds it, or of one that holds that object as its ``cycle``. Raises RuntimeError elsewhere.
    """
    owner = getattr(receive, "__self__", None)
    transport = getattr(owner, "transport", None) or getattr(getattr(owner, "cycle", None), "transport", None)
    if transport is None:
        raise RuntimeError("The simulator can only reset connections when it is served by uvicorn.")
    # uvloop offers no setsockopt; a duplicate of the descriptor is the same socket.
    with socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno())) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await disconnected(receive)


class Drop:
    """Resets the connection instead of answering."""

    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        """Answer nothing."""
        await reset(receive)


class Hang:
    """Never answers, until the client gives up."""

    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        """Wait for the client to go."""
        await disconnected(receive)


@dataclass(frozen=True, slots=True)
class Cut:
    """Sends half of the body and resets the connection."""

    body: bytes = field(repr=False)
    media_type: str

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the half."""
        await _begin(send, self.media_type, len(self.body))
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        # The transport drops what it has not yet written when it is aborted.
        await asyncio.sleep(_FLUSH_S)
        await reset(receive)


@dataclass(frozen=True, slots=True)
class Endless:
    """Sends a beginning, then the filling for as long as the client takes it."""

    beginning: bytes = field(repr=False)
    filling: bytes = field(repr=False)
    media_type: str

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client has gone."""
        gone = asyncio.ensure_future(disconnected(receive))
        block = self.filling * (_ENDLESS_BLOCK // len(self.filling))
        try:
            await _begin(send, self.media_type, None)
            await send({"type": "http.response.body", "body": self.beginning, "more_body": True})
            while not gone.done():
                await send({"type": "http.response.body", "body": block, "more_body": True})
                await asyncio.sleep(0)
        finally:
            gone.cancel()


@dataclass(frozen=True, slots=True)
class Drip:
    """Sends the body in small pieces over ``seconds``."""

    body: bytes = field(repr=False)
    media_type: str
    seconds: float
    sleep: Callable[[float], Awaitable[None]]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send piece by piece."""
        await _begin(send, self.media_type, len(self.body))
        piece = len(self.body) // _DRIPS + 1
        for start in range(0, len(self.body), piece):
            await self.sleep(self.seconds / _DRIPS)
            part = self.body[start : start + piece]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def deliver(
    body: bytes,
    media_type: str,
    words: Words,
    sleep: Callable[[float], Awaitable[None]],
    headers: Mapping[str, str] | None = None,
) -> ASGIApp:
    """Return a picture's bytes as the words want them: whole, dripping (``slow-body``) or endless (``huge``)."""
    if slow := words.fault("slow-body"):
        return Drip(body, media_type, slow.number(0, _DRIP_S), sleep)
    if (huge := words.fault("huge")) and "json" not in huge.arguments:
        return Endless(body, b"\x00", media_type)
    return Response(body, media_type=media_type, headers=headers)


async def _begin(send: Send, media_type: str, length: int | None) -> None:
    headers = [(b"content-type", media_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
