"""Whether a picture is whole: checked by its own structure while it arrives, at about the cost of a checksum.

A body without a declared length ends when its connection ends (RFC 9112, 6.3), so only the picture itself can show
that something is missing. A PNG is followed chunk by chunk to IEND, a JPEG marker by marker to EOI; of a WebP, the
bytes that its RIFF header declares are counted.
"""

import re
import struct
import zlib
from collections.abc import Callable, Generator

_HEAD_BYTES = 12
_PIECE_BYTES = 1_048_576
_FILL = b"\xff"
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_ALONE = (0x01, *range(0xD0, 0xD8))
"""JPEG markers without a segment after them (ITU T.81, B.1.1.3)."""
_IN_SCAN = frozenset((0x00, *range(0xD0, 0xD8)))
"""What follows 0xFF within a scan without ending it: a stuffed zero or a restart marker (ITU T.81, B.1.1.5)."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_FREE_STEPS, _BYTES_A_STEP = 4096, 16
"""A picture of more than so many parts, with so few bytes each, counts as damaged: no encoder writes one, and following
it would cost far more than a checksum."""

_Walk = Generator[None, memoryview, bool]


class _Damaged(Exception):
    pass


class Completeness:
    """Follows one picture from its first byte on."""

    def __init__(self) -> None:
        self._head = b""
        self._walk: _Walk | None = None
        self._whole: bool | None = None

    @property
    def cut(self) -> bool:
        """Whether the bytes so far are a PNG, JPEG or WebP that is cut off or damaged. False for any other bytes."""
        return self._walk is not None and not self._whole

    def add(self, data: bytes | memoryview) -> None:
        """Check the next bytes."""
        # Whatever follows the end is no damage: some encoders and cameras append data of their own.
        if self._whole is not None:
            return
        if self._walk is None:
            if self._head or len(data) < _HEAD_BYTES:  # the network may cut the first bytes into any number of pieces
                self._head += data
                data = self._head
            kind = _kind_of(bytes(data[:_HEAD_BYTES]))
            if len(data) < _HEAD_BYTES or kind is None:
                self._whole = None if len(data) < _HEAD_BYTES else True
                return
            self._walk = _walk(kind)
            next(self._walk)  # a generator takes no value before its first yield
            self._head = b""
        try:
            self._walk.send(memoryview(data))
        except StopIteration as end:
            self._whole = end.value


def is_cut(data: bytes | memoryview) -> bool:
    """Return whether ``data`` is a PNG, JPEG or WebP that is cut off or damaged."""
    completeness = Completeness()
    for start in range(0, len(data), _PIECE_BYTES):  # a search holds the GIL until it has run through its piece
        completeness.add(data[start : start + _PIECE_BYTES])
    return completeness.cut


class _Reader:
    """Reads bytes as they arrive: its generators yield when they need more."""

    def __init__(self) -> None:
        self._left = memoryview(b"")
        self._steps = 0
        self._passed = 0

    def take(self, count: int) -> Generator[None, memoryview, bytes]:
        """Return the next ``count`` bytes. Raises _Damaged for a picture in too many parts."""
        self._steps += 1
        if self._steps > _FREE_STEPS and self._passed < self._steps * _BYTES_A_STEP:
            raise _Damaged
        taken = b""
        while len(taken) < count:
            taken += yield from self._some(count - len(taken))
        return taken

    def checksum(self, count: int, start: int) -> Generator[None, memoryview, int]:
        """Return the CRC-32 of the next ``count`` bytes, continued from ``start``."""
        while count:
            part = yield from self._some(count)
            start = zlib.crc32(part, start)
            count -= len(part)
        return start

    def skip(self, count: int) -> Generator[None, memoryview, None]:
        """Skip the next ``count`` bytes."""
        while count:
            count -= len((yield from self._some(count)))

    def scan(self) -> Generator[None, memoryview, int]:
        """Skip a JPEG's entropy-coded data and return the marker that ends it."""
        while True:
            if not self._left:
                self._left = yield
            if found := _MARKER.search(self._left):
                self._pass(found.end() - 1)
                return (yield from self.take(1))[0]
            # A marker may be split between two pieces, where the search finds neither half.
            ends_in_fill = self._left[-1] == _FILL[0]
            self._pass(len(self._left))
            if ends_in_fill and (marker := (yield from self.after_fill())) not in _IN_SCAN:
                return marker

    def after_fill(self) -> Generator[None, memoryview, int]:
        """Return the next byte that is no fill byte (ITU T.81, B.1.1.2)."""
        byte = _FILL
        while byte == _FILL:
            byte = yield from self.take(1)
        return byte[0]

    def _some(self, count: int) -> Generator[None, memoryview, memoryview]:
        while not self._left:
            self._left = yield
        part = self._left[:count]
        self._pass(len(part))
        return part

    def _pass(self, count: int) -> None:
        self._left = self._left[count:]
        self._passed += count


def _kind_of(head: bytes) -> Callable[[_Reader], _Walk] | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg
    return _webp if head.startswith(b"RIFF") and head[8:12] == b"WEBP" else None


def _walk(kind: Callable[[_Reader], _Walk]) -> _Walk:
    try:
        return (yield from kind(_Reader()))
    except _Damaged:
        return False


def _png(reader: _Reader) -> _Walk:
    """Walk the chunks: length, type, data, CRC of type and data (https://www.w3.org/TR/png-3/#5Chunk-layout)."""
    yield from reader.skip(8)
    has_data = False
    while True:
        length, name = struct.unpack(">I4s", (yield from reader.take(8)))
        checksum = yield from reader.checksum(length, zlib.crc32(name))
        if (yield from reader.take(4)) != checksum.to_bytes(4, "big"):
            return False
        has_data = has_data or name == b"IDAT"
        if name == b"IEND":
            return has_data  # an end without any image data is no picture


def _jpeg(reader: _Reader) -> _Walk:
    """Walk the segments and the scans between them (ITU T.81, B.1 and B.2)."""
    yield from reader.skip(2)
    marker, scanned = 0, False
    while True:
        if not marker:
            if (yield from reader.take(1)) != _FILL:
                return False
            marker = yield from reader.after_fill()
        if marker == _END_OF_IMAGE:
            return scanned  # an end before any scan leaves nothing but headers
        starts_scan, marker_alone, marker = marker == _START_OF_SCAN, marker in _ALONE, 0
        if marker_alone:
            continue
        (length,) = struct.unpack(">H", (yield from reader.take(2)))
        if length < 2:  # the length counts its own two bytes
            return False
        yield from reader.skip(length - 2)
        if starts_scan:
            scanned = True
            marker = yield from reader.scan()


def _webp(reader: _Reader) -> _Walk:
    """Count the bytes that the RIFF header promises (RFC 9649, 2.4)."""
    # The size counts what comes after itself, and odd chunks have been padded in it.
    (size,) = struct.unpack("<4xI", (yield from reader.take(8)))
    yield from reader.skip(size)
    return True
