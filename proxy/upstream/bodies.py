"""What a call sends, in pieces: no picture is copied whole into a body, or encoded or encrypted in one go."""

import asyncio
import binascii
import math
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic_core import to_json

from proxy.providers.boundary import Base64, Call

PIECE_BYTES = 98_304
"""Bytes of a picture that are sent before other tasks have their turn.

A multiple of 3, so that no piece's base64 but the last one's is padded and the pieces can be joined (RFC 4648, 4).
"""

_Part = bytes | memoryview | Base64


@dataclass(frozen=True, slots=True)
class Body:
    """A call's body: its media type, its length in bytes, and what it is made of."""

    content_type: str
    parts: Sequence[_Part] = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that describe it."""
        return {"content-type": self.content_type, "content-length": str(sum(map(_length, self.parts)))}

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """Yield the body in pieces; other tasks have their turn in between."""
        for part in self.parts:
            for piece in _pieces(part):
                yield piece
                await asyncio.sleep(0)


def body_of(call: Call) -> Body | None:
    """Return the body of a call that sends pictures; None for any other."""
    if call.files:
        return _form(call)
    if call.json is None or not any(isinstance(value, Base64) for value in call.json.values()):
        return None
    # The JSON is written with a mark in place of each picture and split there; no prompt can guess a random mark.
    mark = secrets.token_hex(16)
    pictures = [value for value in call.json.values() if isinstance(value, Base64)]
    marked = {name: value.before + mark if isinstance(value, Base64) else value for name, value in call.json.items()}
    texts = to_json(marked).split(mark.encode())
    parts: list[_Part] = [texts[0]]
    for picture, text in zip(pictures, texts[1:], strict=True):
        parts += [picture, text]
    return Body("application/json", parts)


def _form(call: Call) -> Body:
    boundary = secrets.token_hex(16)  # must not occur in any part (RFC 2046, 5.1.1)
    parts: list[_Part] = []
    for file in call.files:
        disposition = f'content-disposition: form-data; name="{file.part}"; filename="{file.name}"'
        head = f"--{boundary}\r\ncontent-type: {file.content_type}\r\n{disposition}\r\n\r\n"
        parts += [head.encode(), file.data, b"\r\n"]
    return Body(f"multipart/form-data; boundary={boundary}", [*parts, f"--{boundary}--\r\n".encode()])


def _length(part: _Part) -> int:
    return 4 * math.ceil(len(part.data) / 3) if isinstance(part, Base64) else len(part)


def _pieces(part: _Part) -> Iterator[bytes | memoryview]:
    data = memoryview(part.data if isinstance(part, Base64) else part)
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        yield binascii.b2a_base64(piece, newline=False) if isinstance(part, Base64) else piece
