"""Answers in OpenAI's shape. Base64 is encoded in pieces while it is sent, so a picture is never held as text."""

import asyncio
import binascii
import math
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from proxy.accounts.prices import total
from proxy.errors import Failure, ProviderBadResult
from proxy.generations.record import until_left
from proxy.generations.results import Picture
from proxy.pictures.store import PIECE_BYTES, Opened, PictureStore
from proxy.requests.summary import RequestSummary, pixel_tokens

MARK = secrets.token_hex(16)
"""Stands for a picture's base64 in an answer. It is secret, so no caller can put it into a prompt."""


def image_address(origin: str, picture: Picture) -> str:
    """Return the absolute address of a picture: the provider's, or ours below ``origin``."""
    if picture.url is not None:
        return picture.url
    assert picture.stored is not None  # noqa: S101 (a picture has one or the other)
    return f"{origin}/images/{picture.stored.name}"


def usage(request: RequestSummary, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return token counts, all of OpenAI's fields, and ``cost`` in dollars where it is known.

    The counts are estimates: a token is four characters, or a thousand pixels.
    """
    text, inputs = request.text_tokens, request.image_tokens
    made = sum(pixel_tokens(picture.width, picture.height) for picture in pictures)
    return {
        "input_tokens": text + inputs,
        "output_tokens": made,
        "total_tokens": text + inputs + made,
        "input_tokens_details": {"text_tokens": text, "image_tokens": inputs},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
        **cost(pictures),
    }


def cost(pictures: Sequence[Picture]) -> dict[str, float]:
    """Return what ``pictures`` cost together in dollars as ``cost``; nothing if that isn't known."""
    amount = total([picture.price for picture in pictures]).amount
    return {} if amount is None else {"cost": amount / 10**9}


def facts(pictures: Sequence[Picture]) -> dict[str, str]:
    """Return what the answer says about its pictures: background, quality, size, and format where known."""
    first = pictures[0]
    said = {
        "background": "opaque",
        "quality": first.origin.quality,
        "size": f"{first.width}x{first.height}",
    }
    return {**said, "output_format": first.format} if first.format else said


async def images_body(
    request: RequestSummary, pictures: Sequence[Picture], created: int, origin: str, store: PictureStore
) -> "PicturesBody":
    """Return the body of an ImagesResponse with exactly one of ``url`` and ``b64_json`` for each picture.

    Raises ProviderBadResult when a picture is gone.
    """
    encoded: list[Picture] = []
    data: list[dict[str, str]] = []
    for picture in pictures:
        if request.form == "b64_json" and picture.stored is not None:
            encoded.append(picture)
            data.append({"b64_json": MARK})
        else:
            data.append({"url": image_address(origin, picture)})
    answer = {"created": created, "data": data, **facts(pictures), "usage": usage(request, pictures)}
    return PicturesBody(answer, await open_pictures(store, encoded))


async def open_pictures(store: PictureStore, pictures: Sequence[Picture]) -> list[Opened]:
    """Open pictures that were ordered as base64, so that each is stored. Raises ProviderBadResult when one is gone."""
    try:
        return [await store.open(picture.stored.name) for picture in pictures if picture.stored is not None]
    except OSError:
        raise _gone() from None


def _gone() -> ProviderBadResult:
    return ProviderBadResult("The picture was removed before it could be sent.")


class PicturesBody:
    """JSON text with pictures as base64 in place of each ``MARK``, in order; yielded in pieces.

    ``before`` and ``after`` frame it. ``length``: bytes in all. The pictures can be read once.
    """

    def __init__(self, answer: Any, pictures: Sequence[Opened], *, before: str = "", after: str = "") -> None:
        self._texts = (before.encode() + to_json(answer) + after.encode()).split(MARK.encode())
        self._pictures = pictures
        self.length = sum(map(len, self._texts)) + sum(4 * math.ceil(each.size_bytes / 3) for each in pictures)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body; short pieces are joined, since each one costs a system call."""
        waiting = self._texts[0]
        for picture, text in zip(self._pictures, self._texts[1:], strict=True):
            async with aclosing(base64_pieces(picture)) as pieces:
                async for piece in pieces:
                    waiting = waiting + piece if waiting else piece
                    if len(waiting) >= PIECE_BYTES:
                        yield waiting
                        waiting = b""
            waiting += text
        if waiting:
            yield waiting


async def base64_pieces(picture: Opened) -> AsyncGenerator[bytes, None]:
    """Yield a picture as base64, piece by piece. Raises ProviderBadResult when it is gone."""
    rest = b""
    try:
        async with aclosing(picture.pieces) as pieces:
            async for piece in pieces:
                data = rest + piece if rest else piece
                # Base64 turns three bytes into four characters: only whole triples may be encoded on their own.
                odd = len(data) % 3
                data, rest = (data[:-odd], data[-odd:]) if odd else (data, b"")
                yield binascii.b2a_base64(data, newline=False)
    except OSError:
        raise _gone() from None
    if rest:
        yield binascii.b2a_base64(rest, newline=False)


class ImagesResponse:
    """The ASGI response for finished pictures; ``lost`` is called when the caller leaves before its end."""

    def __init__(self, body: PicturesBody, lost: Callable[[], None]) -> None:
        self._body = body
        self._lost = lost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Send the response."""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(self._body.length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send_body(receive, send)

    async def send_body(self, receive: Receive, send: Send) -> None:
        """Send the body alone."""
        if self._body.length <= PIECE_BYTES:  # one write, too short for a caller's leaving to be noticed
            whole = b"".join([piece async for piece in self._body.pieces()])
            await send({"type": "http.response.body", "body": whole, "more_body": False})
            return
        left = self._body.length
        with departure(receive) as gone:
            try:
                async with aclosing(self._body.pieces()) as pieces:
                    async for piece in pieces:
                        left -= len(piece)
                        # Before the last piece: uvicorn drops what goes to a caller who left, and raises nothing.
                        if left <= 0 and gone():
                            self._lost()
                        await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                        # With a fast reader no write ever waits, and other requests would wait for the whole answer.
                        await asyncio.sleep(0)
            except BaseException:  # the answer breaks off: a file was removed, or the process stops
                self._lost()
                raise


@contextmanager
def departure(receive: Receive) -> Iterator[Callable[[], bool]]:
    """Watch the caller while an answer is sent; yields a function that says whether it has left."""
    watcher = asyncio.get_running_loop().create_task(until_left(receive))
    try:
        yield watcher.done
    finally:
        watcher.cancel()


class AnswerBroken(Exception):
    """An answer failed after its status was sent; raised up to the server, which cuts the connection."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class Blanks:
    """Sends blanks before a JSON body, which RFC 8259 (2) allows; ``begun`` after the first."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self) -> None:
        """Send a blank, and before the first one the response's start."""
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", b"application/json")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": b" ", "more_body": True})
