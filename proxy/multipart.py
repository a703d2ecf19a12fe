"""Multipart bodies (RFC 7578), read while they arrive: each part's disposition first, then its data in pieces.

Ready-made forms keep whole parts in memory or in files of their own choice, and say nothing of a body that was cut off;
python-multipart's parser takes three times as long for the little that surrounds a picture.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from python_multipart.multipart import parse_options_header

FORM = "multipart/form-data"
_LONGEST_HEAD, _MOST_HEADERS = 8_192, 16
"""Of one part."""
_LONGEST_BOUNDARY = 256
"""RFC 2046 (5.1.1) allows 70."""


class BrokenMultipart(ValueError):
    """The body is not the multipart that its content type claims, or was cut off."""


class MultipartReader:
    """Takes a body in pieces and hands on its parts.

    ``begin`` gets the options of a part's Content-Disposition (``name``, ``filename`` …), ``data`` its bytes, piece by
    piece, as views of what was fed; ``end`` is called behind them. What they raise is raised here. Raises
    BrokenMultipart.
    """

    def __init__(
        self,
        content_type: str,
        *,
        begin: Callable[[Mapping[bytes, bytes]], None],
        data: Callable[[memoryview], None],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._begin, self._data, self._end = begin, data, end
        try:
            boundary = parse_options_header(content_type)[1].get(b"boundary")
        except ValueError as error:  # characters that no header may hold
            raise BrokenMultipart(str(error)) from None
        if not boundary or len(boundary) > _LONGEST_BOUNDARY:
            raise BrokenMultipart("no boundary")
        self._delimiter = b"\r\n--" + boundary
        # What can't be understood yet. A delimiter may begin the body, and then no line end stands before it.
        self._rest = b"\r\n"
        self._in_head = self._in_part = self._ended = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece; what follows the last part is ignored. Raises BrokenMultipart."""
        data, self._rest = self._rest + piece if self._rest else piece, b""
        at: int | None = 0
        while at is not None and not self._ended:
            at = self._read_head(data, at) if self._in_head else self._read_data(data, at)

    def finish(self) -> None:
        """End the body. Raises BrokenMultipart when it was cut off."""
        if not self._ended:
            raise BrokenMultipart("cut off")

    def _read_data(self, data: bytes, start: int) -> int | None:
        """Hand on a part's data. Returns where its delimiter ends; None: not before the next piece."""
        look_from = start
        while (found := data.find(self._delimiter, look_from)) >= 0:
            after = found + len(self._delimiter)
            follows = data[after : after + 2]
            if len(follows) < 2:
                break
            # Anything else behind it makes it data: RFC 2046, 5.1.1, has only these end a part.
            if follows in (b"--", b"\r\n") or follows[:1] in (b" ", b"\t"):
                self._hand_on(data, start, found)
                if self._in_part:
                    self._end()
                self._in_part, self._in_head, self._ended = False, True, follows == b"--"
                return after
            look_from = found + 1
        if found < 0:
            found = self._half_delimiter(data, look_from)
        self._hand_on(data, start, found)
        self._rest = data[found:]
        return None

    def _half_delimiter(self, data: bytes, start: int) -> int:
        """Return where a delimiter begins that the next piece may complete, the end of ``data`` if none does."""
        least = max(start, len(data) - len(self._delimiter) + 1)
        found = data.find(b"\r", least)
        while found >= 0 and not self._delimiter.startswith(data[found:]):
            found = data.find(b"\r", found + 1)
        return len(data) if found < 0 else found

    def _hand_on(self, data: bytes, start: int, end: int) -> None:
        if self._in_part and start < end:
            self._data(memoryview(data)[start:end])

    def _read_head(self, data: bytes, start: int) -> int | None:
        """Read what stands between a delimiter and its part's data, and return where these begin."""
        end = data.find(b"\r\n\r\n", start)
        if (len(data) if end < 0 else end) - start > _LONGEST_HEAD:
            raise BrokenMultipart("too many headers")
        if end < 0:
            self._rest = data[start:]
            return None
        padding, *lines = data[start:end].split(b"\r\n")
        if padding.strip(b" \t"):
            raise BrokenMultipart("something follows a boundary")
        if len(lines) > _MOST_HEADERS:
            raise BrokenMultipart("too many headers")
        disposition = b""
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise BrokenMultipart("a header without a name")
            if name.lower() == b"content-disposition":
                disposition = value.strip()
        self._in_head, self._in_part = False, True
        self._begin(_options_of(disposition))
        return end + 4


@lru_cache(maxsize=64)
def _options_of(disposition: bytes) -> Mapping[bytes, bytes]:
    """Return the options of a Content-Disposition; a provider's are the same in all its answers."""
    return MappingProxyType(parse_options_header(disposition)[1])
