"""JSON with pictures: the base64 of its data URLs goes into a file while it arrives; only the rest is parsed.

Parsing a body of a picture's size as a whole would stop every other request, even in a thread of its own, because
the parser holds the GIL. The text that is left has a reference, ``data:image/png;base64,#…-0``, for each picture.
"""

import asyncio
import base64
import binascii
import re
import secrets
import tempfile
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from starlette.requests import Request

from proxy.api.body import arriving, decode
from proxy.api.spool import Spool, view
from proxy.errors import InvalidJson, InvalidRequest, RequestTooLarge

# All repetitions are possessive ("*+"), so that no body can make the expressions backtrack for minutes:
# https://docs.python.org/3/library/re.html#regular-expression-syntax
_STRING = rb'[^"\\]*+(?:\\(?:[^u]|u[0-9a-fA-F]{4})[^"\\]*+)*+'
_REST_OF_STRING = re.compile(_STRING, re.DOTALL)
_BARE = re.compile(rb"iVBORw0KGgo|\\?/9j\\?/|UklGR")
"""How the base64 of a PNG, JPEG or WebP begins, for surfaces that take it without the head of a data URL."""


def _plain(picture: bytes) -> re.Pattern[bytes]:
    """Return what matches whole strings that don't begin as a picture does, and what is between them."""
    return re.compile(rb'(?:[^"]*+"(?!' + picture + rb")" + _STRING + rb'")*+', re.DOTALL)


_PLAIN = _plain(rb"data:")
_PLAIN_WITH_BARE = _plain(rb"data:|" + _BARE.pattern)
_HEAD = re.compile(rb"data:(?:[\w.+-]|\\?/)*+;base64,")
_BEGINNINGS = (b"data:",)
_BEGINNINGS_WITH_BARE = (*_BEGINNINGS, b"iVBORw0KGgo", b"/9j/", rb"/9j\/", rb"\/9j/", rb"\/9j\/", b"UklGR")
_NO_HEAD = b"data:;base64,"
"""Stands before the reference to a picture that came without a head, so that it reads as any other."""
_LONGEST_HEAD = 128
"""Bytes up to the comma; whatever goes on for longer is no picture's media type."""
_LONGEST_ESCAPE = 6
"""A JSON escape such as ``\\u002b``."""
_QUOTE, _BACKSLASH = b'"'[0], b"\\"[0]
_ESCAPED = re.compile(rb"\\u00([0-7][0-9a-fA-F])")
_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,", re.ASCII)
_REFERENCE = re.compile(_DATA_URL.pattern + r"#[0-9a-f]{16}-\d{1,9}\Z", re.ASCII)


@dataclass(slots=True)
class _Piece:
    """Where a picture's bytes are in the file, as far as they have arrived."""

    start: int
    size: int = 0
    carried: bytes = b""
    padded: bool = False
    broken: bool = False


@dataclass(slots=True)
class Pictures:
    """The pictures of one body, decoded one after the other into an unnamed temporary file.

    A picture's reference holds a secret of this body's, so a caller can't forge references to name one picture many
    times.
    """

    max_picture: int
    secret: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    _pieces: list[_Piece] = field(default_factory=list)
    spool: Spool = field(default_factory=Spool)
    _file: BinaryIO | None = None
    _size: int = 0
    _view: memoryview | bytes = b""

    def begin(self) -> str:
        """Begin the next picture; returns its reference."""
        self._pieces.append(_Piece(self._size))
        return f"#{self.secret}-{len(self._pieces) - 1}"

    def add(self, encoded: bytes) -> None:
        """Add base64, as it stands in JSON, to the picture begun last."""
        piece = self._pieces[-1]
        encoded = piece.carried + _unescaped(encoded)
        # Four characters make three bytes; what is left over waits for the next piece.
        whole = len(encoded) // 4 * 4
        piece.carried = encoded[whole:]
        if piece.broken or not whole:
            return
        try:
            data = binascii.a2b_base64(encoded[:whole], strict_mode=True)
        except ValueError:
            piece.broken = True
            return
        # Padding may only be at the very end (RFC 4648, 3.3): the decoder checks that within one piece only.
        piece.broken, piece.padded = piece.padded, encoded[whole - 1 : whole] == b"="
        piece.size += len(data)
        # A larger one is counted on, not written, and refused once its parameter's name is known.
        if piece.size <= self.max_picture:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            # Unnamed, it leaves nothing behind, even after a crash.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.spool.add(self._file, data)
        self._size += len(data)

    @property
    def any(self) -> bool:
        """Whether there is anything to seal."""
        return self._file is not None

    def seal(self) -> None:
        """End the writing; the pictures are read through a view that outlives the file. Blocks."""
        if self._file is not None:
            self.spool.flush()
            self._view = view(self._file, self._size)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def data(self, reference: str, param: str) -> bytes | memoryview:
        """Return a picture's bytes. Raises InvalidRequest, RequestTooLarge."""
        secret, _, number = reference.removeprefix("#").partition("-")
        if secret != self.secret:
            raise _not_base64(param)
        piece = self._pieces[int(number)]
        if piece.broken or piece.carried:
            raise _not_base64(param)
        if piece.size > self.max_picture:
            raise _too_large(param, self.max_picture)
        return self._view[piece.start : piece.start + piece.size]


def _unescaped(encoded: bytes) -> bytes:
    """Return the base64 of a JSON string without escapes."""
    # PHP writes "/" as "\/", .NET "+" as "\u002b".
    if _BACKSLASH not in encoded:
        return encoded
    encoded = encoded.replace(rb"\/", b"/")
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), encoded) if _BACKSLASH in encoded else encoded


class Cutter:
    """Takes JSON in pieces and cuts the pictures out: ``text`` is what is left. Each byte is read about once.

    ``bare``: strings that begin as a picture's base64 does are pictures as well.
    Raises InvalidJson, and RequestTooLarge when more than ``max_text`` bytes are left.
    """

    def __init__(self, max_text: int, max_picture: int, *, bare: bool = False) -> None:
        self.text = bytearray()
        self.pictures = Pictures(max_picture)
        self._bare = bare
        self._plain = _PLAIN_WITH_BARE if bare else _PLAIN
        self._beginnings = _BEGINNINGS_WITH_BARE if bare else _BEGINNINGS
        self._max_text = max_text
        self._tail = b""
        self._step = self._between

    def feed(self, piece: bytes) -> None:
        """Take the next piece; what cannot be decided yet waits for more."""
        data, at, step = self._tail + piece, 0, None
        # Until neither the place nor the state has changed: then a step needs more bytes than there are.
        while at < len(data) and (at, self._step) != step:
            step = at, self._step
            at = self._step(data, at)
        self._tail = data[at:]

    def finish(self) -> None:
        """End the text. What still waits is cut off, and the parser will refuse it."""
        self._keep(self._tail)

    def _keep(self, data: bytes) -> None:
        self.text += data
        if len(self.text) > self._max_text:
            raise RequestTooLarge(
                f"The request's text is over its limit of {self._max_text} bytes; only pictures in data URLs may be.",
                headers={"connection": "close"},
            )

    def _between(self, data: bytes, at: int) -> int:
        plain = self._plain.match(data, at)
        quote = data.find(b'"', plain.end() if plain else at)
        end = quote + 1 or len(data)
        self._keep(data[at:end])
        if quote >= 0:
            self._step = self._begun
        return end

    def _begun(self, data: bytes, at: int) -> int:
        start = data[at : at + _LONGEST_HEAD]
        if head := _HEAD.match(start):
            self._keep(head[0].replace(rb"\/", b"/") + self.pictures.begin().encode())
            self._step = self._picture
            return at + head.end()
        if self._bare and _BARE.match(start):
            self._keep(_NO_HEAD + self.pictures.begin().encode())
            self._step = self._picture
            return at
        undecided = len(start) < _LONGEST_HEAD and _QUOTE not in start
        if not (undecided and any(start.startswith(each[: len(start)]) for each in self._beginnings)):
            self._step = self._string
        return at

    def _string(self, data: bytes, at: int) -> int:
        end = self._end_of_string(data, at)
        self._keep(data[at:end])
        return end

    def _picture(self, data: bytes, at: int) -> int:
        end = self._end_of_string(data, at)
        encoded = data[at:end]
        if self._step == self._between:
            self._keep(b'"')
            encoded = encoded[:-1]
        self.pictures.add(encoded)
        return end

    def _end_of_string(self, data: bytes, at: int) -> int:
        """Return the place behind the string's closing quote, or as far as the string has arrived."""
        rest = _REST_OF_STRING.match(data, at)
        end = rest.end() if rest else at
        if data[end : end + 1] == b'"':
            self._step = self._between
            return end + 1
        # The expression stops before an escape that has not arrived whole; with so many bytes it is no escape.
        if len(data) - end >= _LONGEST_ESCAPE:
            raise InvalidJson("The request's body is not valid JSON.")
        return end


@dataclass(frozen=True, slots=True)
class Pictured:
    """A JSON object, and the pictures of its data URLs."""

    values: dict[str, Any]
    pictures: Pictures

    def data(self, url: str, param: str) -> bytes | memoryview:
        """Return the bytes of a data URL of ``values``; other addresses are not fetched.

        Raises InvalidRequest, RequestTooLarge.
        """
        match = _DATA_URL.match(url)
        if match is None:
            message = f"'{param}' must hold base64 data URLs: addresses and file ids are not fetched here."
            raise InvalidRequest(message, param=param)
        if is_reference(url):
            return self.pictures.data(url[match.end() :], param)
        try:  # its beginning was written with escapes, so it was kept as text, which is short
            data = base64.b64decode(url[match.end() :], validate=True)
        except ValueError:
            raise _not_base64(param) from None
        if len(data) > self.pictures.max_picture:
            raise _too_large(param, self.pictures.max_picture)
        return data


def is_reference(text: str) -> bool:
    """Whether a text stands for a picture that was cut out."""
    return _REFERENCE.match(text) is not None


async def read_pictured(request: Request, max_text: int, max_picture: int, *, bare: bool = False) -> Pictured:
    """Read a JSON object of ``max_text`` bytes and its pictures, which together may be as large as one picture may.

    ``bare``: a picture's base64 may come without the head of a data URL.
    Raises InvalidJson, InvalidRequest, RequestTooLarge, CallerLeft.
    """
    cutter = Cutter(max_text, max_picture, bare=bare)
    try:
        # A data URL holds four characters for three bytes.
        async for piece in arriving(request, max_text + max_picture * 4 // 3):
            cutter.feed(piece)
            await cutter.pictures.spool.relieve()
        cutter.finish()
        if cutter.pictures.any:
            await asyncio.to_thread(cutter.pictures.seal)
    finally:
        cutter.pictures.close()
    values = await decode(bytes(cutter.text))
    # Anywhere else a reference would be taken for the caller's own words, in a prompt for instance.
    for name, value in values.items():
        if isinstance(value, str) and name not in ("image", "image[]", "mask") and is_reference(value):
            raise InvalidRequest(f"'{name[:64]}' must not be a data URL.", param=name[:64])
    return Pictured(values, cutter.pictures)


def _not_base64(param: str) -> InvalidRequest:
    return InvalidRequest(f"A data URL in '{param}' is not base64.", param=param)


def _too_large(param: str, max_picture: int) -> RequestTooLarge:
    return RequestTooLarge(f"A picture in '{param}' is over its limit of {max_picture} bytes.", param=param)
