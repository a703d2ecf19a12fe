"""Answers in OpenAI's shape. Base64 is encoded in pieces while it is sent, so a picture is never held as text."""

import asyncio
import binascii
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from proxy.errors import Failure, ProviderBadResult
from proxy.generations.record import until_left
from proxy.generations.results import Picture
from proxy.requests.resolve import ResolvedRequest

PIECE_BYTES = 98_304
"""Bytes of a picture that become one piece of base64: a multiple of 3, so that pieces join without padding."""
MARK = secrets.token_hex(16)
"""Stands for a picture's base64 in an answer; nobody outside can know it, so no text of a caller's holds it."""


def image_address(origin: str, picture: Picture) -> str:
    """Return the absolute address of a picture: the provider's, or ours below ``origin``."""
    if picture.url is not None:
        return picture.url
    assert picture.stored is not None  # noqa: S101 (a picture has one or the other)
    return f"{origin}/images/{picture.stored.name}"


def estimated_tokens(text: str) -> int:
    """Return how many tokens a text may be: four characters to each, at least one."""
    return max(1, math.ceil(len(text) / 4))


def usage(resolved: ResolvedRequest, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return complete integer token counts. They are estimates: four characters, or a kilopixel, to the token."""
    text = estimated_tokens(resolved.request.prompt)
    inputs = sum(math.ceil(image.width * image.height / 1000) for image in resolved.checked.images)
    made = sum(math.ceil(picture.width * picture.height / 1000) for picture in pictures)
    return {
        "input_tokens": text + inputs,
        "output_tokens": made,
        "total_tokens": text + inputs + made,
        "input_tokens_details": {"text_tokens": text, "image_tokens": inputs},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
    }


def facts(pictures: Sequence[Picture]) -> dict[str, str]:
    """Return what the answer says of its pictures: background, type (where known), quality, size."""
    first = pictures[0]
    said = {
        "background": "opaque",
        "quality": first.origin.quality,
        "size": f"{first.width}x{first.height}",
    }
    return {**said, "output_format": first.format} if first.format else said


def images_body(resolved: ResolvedRequest, pictures: Sequence[Picture], created: int, origin: str) -> "PicturesBody":
    """Return the body of an ImagesResponse with exactly one of ``url`` and ``b64_json`` for each picture."""
    files: list[Path] = []
    data: list[dict[str, str]] = []
    for picture in pictures:
        if resolved.form == "b64_json" and picture.stored is not None:
            files.append(picture.stored.path)
            data.append({"b64_json": MARK})
        else:
            data.append({"url": image_address(origin, picture)})
    answer = {"created": created, "data": data, **facts(pictures), "usage": usage(resolved, pictures)}
    return PicturesBody(answer, files)


class PicturesBody:
    """JSON text with the base64 of files in the places of ``MARK``, one after the other, in pieces.

    ``before`` and ``after`` frame it. ``length``: bytes in all. Raises ProviderBadResult when a file is gone.
    """

    def __init__(self, answer: Any, files: Sequence[Path], *, before: str = "", after: str = "") -> None:
        self._texts = (before.encode() + to_json(answer) + after.encode()).split(MARK.encode())
        self._files = files
        try:
            sizes = [file.stat().st_size for file in files]
        except OSError:
            raise ProviderBadResult("The picture was removed before it could be sent.") from None
        self.length = sum(map(len, self._texts)) + sum(4 * math.ceil(size / 3) for size in sizes)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body; what is short goes with its neighbour, for each piece costs a call to the kernel."""
        waiting = b""
        for part in self._parts():
            waiting = waiting + part if waiting else part
            if len(waiting) >= PIECE_BYTES:
                yield waiting
                waiting = b""
        if waiting:
            yield waiting

    def _parts(self) -> Iterator[bytes]:
        for text, file in zip(self._texts, self._files, strict=False):
            yield text
            yield from base64_pieces(file)
        yield self._texts[-1]


def files_of(pictures: Sequence[Picture]) -> list[Path]:
    """Return the files of pictures that were ordered as base64, so that each has one."""
    return [picture.stored.path for picture in pictures if picture.stored is not None]


def base64_pieces(path: Path) -> Iterator[bytes]:
    """Return a file as base64, piece by piece; it is opened at once. Raises ProviderBadResult when it is gone."""
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        raise ProviderBadResult("The picture was removed before it could be sent.") from None
    return _pieces_of(file)


def _pieces_of(file: FileIO) -> Iterator[bytes]:
    with file:
        while piece := _read_piece(file):
            yield binascii.b2a_base64(piece, newline=False)


def _read_piece(file: FileIO) -> bytes:
    piece = file.read(PIECE_BYTES)
    while piece and len(piece) % 3 and (more := file.read(PIECE_BYTES - len(piece))):
        piece += more
    return bytes(piece)


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
        if self._body.length <= PIECE_BYTES:  # it is gone before anybody could be seen to leave
            await send({"type": "http.response.body", "body": b"".join(self._body.pieces()), "more_body": False})
            return
        left = self._body.length
        with departure(receive) as gone:
            for piece in self._body.pieces():
                left -= len(piece)
                if left <= 0 and gone():
                    self._lost()
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                # A reader as quick as this never lets a write wait: without this others would wait for the whole.
                await asyncio.sleep(0)


@contextmanager
def departure(receive: Receive) -> Iterator[Callable[[], bool]]:
    """Watch the caller while an answer is sent; gives a function that says whether it has left."""
    watcher = asyncio.get_running_loop().create_task(until_left(receive))
    try:
        yield watcher.done
    finally:
        watcher.cancel()


class AnswerBroken(Exception):
    """An answer failed after its status had gone out; raised through the server, so that the connection is cut."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class Blanks:
    """Blanks before a JSON body (RFC 8259 allows them); ``begun`` with the first."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self) -> None:
        """Send a blank, the response's start before the first."""
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", b"application/json")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": b" ", "more_body": True})
