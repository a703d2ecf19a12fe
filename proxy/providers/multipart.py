"""A provider's multipart answer, read while it arrives: the picture is written on, and of the rest little is kept."""

from collections.abc import Callable
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from proxy.pictures.codec import HEADS, LONGEST_HEAD
from proxy.providers.boundary import UnreadableReply

_MAX_PART_BYTES, _MAX_PARTS = 65_536, 64


class Parts:
    """Takes the body in pieces. ``kept``: name and first bytes of each part; ``found``: a picture was written.

    The picture is the first part named ``picture_part`` whose bytes begin like a picture. Raises UnreadableReply
    when the body is not the multipart that ``content_type`` claims, and whatever ``write`` raises.
    """

    def __init__(self, content_type: str, picture_part: str, write: Callable[[bytes], None]) -> None:
        self.kept: list[tuple[str, bytes]] = []
        self.found = False
        self._picture_part, self._write = picture_part, write
        self._ended = self._writing = False
        self._field = self._value = self._head = b""
        self._name = ""
        try:
            boundary = parse_options_header(content_type)[1].get(b"boundary")
            if not boundary:
                raise UnreadableReply
            self._parser = MultipartParser(boundary, self._callbacks())
        except (ValueError, FormParserError):  # characters that no header may hold
            raise UnreadableReply from None

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise UnreadableReply from None

    def finish(self) -> None:
        """End the body. Raises UnreadableReply, also when it was cut off."""
        try:
            self._parser.finalize()
        except FormParserError:
            raise UnreadableReply from None
        if not self._ended:  # the parser's own finalize() accepts a body without its last boundary
            raise UnreadableReply

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.kept) >= _MAX_PARTS:
            raise UnreadableReply
        self._name, self._field, self._value, self._head = "", b"", b"", b""
        self._writing = False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name", b"").decode("latin-1")
        self._field, self._value = b"", b""

    def _data(self, data: bytes) -> None:
        if self._writing:
            self._write(data)
            return
        # A part's first bytes can come in pieces too short to show what it is.
        undecided = not self.found and self._name == self._picture_part and len(self._head) < LONGEST_HEAD
        if undecided and (self._head + data[:LONGEST_HEAD]).startswith(HEADS):
            self.found = self._writing = True
            self._write(self._head + data)
            self._head = b""
        else:
            self._head += data[: _MAX_PART_BYTES - len(self._head)]

    def _end_part(self) -> None:
        self.kept.append((self._name, self._head))

    def _end(self) -> None:
        self._ended = True
