"""Multipart bodies (RFC 7578), read while they arrive: each part's disposition first, then its data in pieces.

The parser of python-multipart does the reading; its ready-made forms keep whole parts in memory or in files of their
own choice, and say nothing of a body that was cut off.
"""

from collections.abc import Callable, Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

FORM = "multipart/form-data"


class BrokenMultipart(ValueError):
    """The body is not the multipart that its content type claims, or was cut off."""


class MultipartReader:
    """Takes a body in pieces and hands on its parts.

    ``begin`` gets the options of a part's Content-Disposition (``name``, ``filename`` …), ``data`` its bytes, piece by
    piece; ``end`` is called behind them. What they raise is raised here. Raises BrokenMultipart.
    """

    def __init__(
        self,
        content_type: str,
        *,
        begin: Callable[[Mapping[bytes, bytes]], None],
        data: Callable[[bytes], None],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._begin, self._data, self._end = begin, data, end
        self._name = self._value = self._disposition = b""
        self._ended = False
        try:
            boundary = parse_options_header(content_type)[1].get(b"boundary")
            if not boundary:
                raise BrokenMultipart("no boundary")
            self._parser = MultipartParser(boundary, self._callbacks())
        except (ValueError, FormParserError) as error:  # characters that no header may hold
            raise BrokenMultipart(str(error)) from None

    def feed(self, piece: bytes) -> None:
        """Take the next piece; what follows the last part is ignored. Raises BrokenMultipart."""
        if self._ended:
            return
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BrokenMultipart(str(error)) from None

    def finish(self) -> None:
        """End the body. Raises BrokenMultipart when it was cut off."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise BrokenMultipart(str(error)) from None
        if not self._ended:
            raise BrokenMultipart("cut off")

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._forget_headers,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_headers_finished": lambda: self._begin(parse_options_header(self._disposition)[1]),
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._end_body,
        }

    def _forget_headers(self) -> None:
        self._name = self._value = self._disposition = b""

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _end_body(self) -> None:
        self._ended = True
