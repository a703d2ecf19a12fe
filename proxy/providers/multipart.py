"""A provider's multipart answer, read while it arrives: the picture is written on, and of the rest little is kept."""

from collections.abc import Callable, Mapping

from proxy.multipart import BrokenMultipart, MultipartReader
from proxy.pictures.codec import HEADS, LONGEST_HEAD
from proxy.providers.boundary import UnreadableReply

_MAX_PART_BYTES, _MAX_PARTS = 524_288, 64
"""A job's part repeats the prompt: 32,000 characters, up to twelve bytes each as JSON."""
_MAX_KEPT_BYTES = 1_048_576
"""Of all parts together."""


class Parts:
    """Takes the body in pieces. ``kept``: name and first bytes of each part; ``found``: a picture was written.

    The picture is the first part named ``picture_part`` whose bytes begin like a picture. Raises UnreadableReply
    when the body is not the multipart that ``content_type`` claims, and whatever ``write`` raises.
    """

    def __init__(self, content_type: str, picture_part: str, write: Callable[[bytes | memoryview], object]) -> None:
        self.kept: list[tuple[str, bytes]] = []
        self.found = False
        self._picture_part, self._write = picture_part, write
        self._writing = False
        self._head = b""
        self._name = ""
        self._room = _MAX_KEPT_BYTES
        try:
            self._reader = MultipartReader(content_type, begin=self._begin, data=self._data, end=self._end)
        except BrokenMultipart:
            raise UnreadableReply from None

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        try:
            self._reader.feed(data)
        except BrokenMultipart:
            raise UnreadableReply from None

    def finish(self) -> None:
        """End the body. Raises UnreadableReply, also when it was cut off."""
        try:
            self._reader.finish()
        except BrokenMultipart:
            raise UnreadableReply from None

    def _begin(self, disposition: Mapping[bytes, bytes]) -> None:
        if len(self.kept) >= _MAX_PARTS:
            raise UnreadableReply
        self._name, self._head, self._writing = disposition.get(b"name", b"").decode("latin-1"), b"", False

    def _data(self, data: memoryview) -> None:
        if self._writing:
            self._write(data)
            return
        # A part's first bytes can come in pieces too short to show what it is.
        undecided = not self.found and self._name == self._picture_part and len(self._head) < LONGEST_HEAD
        if undecided and (self._head + data[:LONGEST_HEAD]).startswith(HEADS):
            self.found = self._writing = True
            if self._head:
                self._write(self._head)
            self._write(data)
            self._head = b""
        else:
            self._head += data[: min(_MAX_PART_BYTES, self._room) - len(self._head)]

    def _end(self) -> None:
        self.kept.append((self._name, self._head))
        # Never less than a picture's head, or a picture behind all that could not be recognised any more.
        self._room = max(LONGEST_HEAD, self._room - len(self._head))
