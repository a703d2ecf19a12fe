"""Answers as ASGI applications: plain ones, and those that break off, trickle, never end or never come."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.simulator.words import Words

_TRANSPORT = "images_proxy.transport"
CHALLENGE = """<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head>
<body><div id="cf-please-wait"><h1>Checking your browser before accessing the site.</h1></div></body></html>"""
"""The page of a front end such as Cloudflare that makes a browser prove itself."""
_DRIPS = 20
_DRIP_S = 20.0
_ENDLESS_BLOCK = 64 * 1024
_FLUSH_S = 0.01

Sleep = Callable[[float], Awaitable[None]]


def json_reply(value: Any, words: Words | None = None, status: int = 200) -> ASGIApp:
    """Return a JSON answer; with ``wrong-type`` in the words mislabelled, with ``huge:json`` without end."""
    if words and (huge := words.fault("huge")) and "json" in huge.arguments:
        return endless(json.dumps(value).encode()[:-1] + b', "padding": "', b"x", "application/json")
    if words and words.has("wrong-type"):
        return Response(json.dumps(value), status, media_type="text/html")
    return JSONResponse(value, status)


async def drop(scope: Scope, receive: Receive, _send: Send) -> None:
    """Close the client's connection at once, with a TCP reset.

    ASGI has no message for that, so the server must offer its transport. Raises RuntimeError if it doesn't.
    """
    transport = scope.get("extensions", {}).get(_TRANSPORT, {}).get("transport")
    if transport is None:
        raise RuntimeError("The simulator can only reset connections when proxy.server.process serves it.")
    # uvloop's socket has no setsockopt; a duplicate is the same socket. A linger time of zero sends a reset: socket(7).
    if not transport.is_closing():  # its client may have been killed
        with socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    await hang(scope, receive, _send)


async def hang(_scope: Scope, receive: Receive, _send: Send) -> None:
    """Never answer, until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def cut(body: bytes, media_type: str) -> ASGIApp:
    """Return an answer that sends half of the body and resets the connection."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await _begin(send, media_type, len(body))
        await _send_piece(send, body[: len(body) // 2])
        # An aborted transport drops what it has not written yet, so it gets the time to write.
        await asyncio.sleep(_FLUSH_S)
        await drop(scope, receive, send)

    return answer


def endless(beginning: bytes, filling: bytes, media_type: str) -> ASGIApp:
    """Return an answer that sends the beginning, then the filling for as long as the client reads."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(hang(scope, receive, send))
        try:
            await _begin(send, media_type)
            await _send_piece(send, beginning)
            while not gone.done():
                await _send_piece(send, filling * _ENDLESS_BLOCK)
                await asyncio.sleep(0)
        finally:
            gone.cancel()

    return answer


def drip(body: bytes, media_type: str, seconds: float, sleep: Sleep) -> ASGIApp:
    """Return an answer that sends the body in small pieces over so many seconds."""

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await _begin(send, media_type, len(body))
        piece = len(body) // _DRIPS + 1
        for start in range(0, len(body), piece):
            await sleep(seconds / _DRIPS)
            await _send_piece(send, body[start : start + piece])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


def deliver(body: bytes, media_type: str, words: Words, sleep: Sleep) -> ASGIApp:
    """Return a picture's bytes as the words demand: whole, slowly (``slow-body``) or endlessly (``huge``)."""
    if slow := words.fault("slow-body"):
        return drip(body, media_type, slow.number(0, _DRIP_S), sleep)
    if (huge := words.fault("huge")) and "json" not in huge.arguments:
        return endless(body, b"\x00", media_type)
    return Response(body, media_type=media_type)


async def _begin(send: Send, media_type: str, length: int | None = None) -> None:
    headers = [(b"content-type", media_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_piece(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})
