"""A picture that is cut off or damaged is told from a whole one, in whatever pieces it comes."""

import io
import struct
import zlib
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from proxy.pictures.completeness import Completeness, is_cut


def _encoded(picture_format: str, mode: str = "RGB", **options: object) -> bytes:
    noise = Image.frombytes("RGB", (61, 47), Random(3).randbytes(61 * 47 * 3)).convert(mode)  # noqa: S311
    out = io.BytesIO()
    noise.save(out, format=picture_format, **options)
    return out.getvalue()


_PICTURES = {
    "png": _encoded("png"),
    "png, palette": _encoded("png", "P"),
    "jpeg": _encoded("jpeg"),
    "jpeg, progressive": _encoded("jpeg", progressive=True, quality=95),
    "jpeg, restart markers": _encoded("jpeg", restart_marker_blocks=1),
    "jpeg, a thumbnail inside": _encoded("jpeg", comment=_encoded("jpeg")),
    "webp": _encoded("webp"),
    "webp, lossless": _encoded("webp", lossless=True),
    "webp, transparent": _encoded("webp", "RGBA"),
}
_ALL = pytest.mark.parametrize("data", _PICTURES.values(), ids=_PICTURES)


def _cut(pieces: list[bytes]) -> bool:
    completeness = Completeness()
    for piece in pieces:
        completeness.add(piece)
    return completeness.cut


@_ALL
def test_a_whole_picture_is_whole_and_what_follows_it_is_nothing(data: bytes) -> None:
    assert not is_cut(data)
    assert not is_cut(data + b"\0" * 100)
    assert not _cut([bytes([byte]) for byte in data])


@_ALL
@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_picture_without_its_last_bytes_is_cut(data: bytes, size: int) -> None:
    for end in range(12, len(data), size):
        assert _cut([data[:end]]), end


@given(st.sampled_from(list(_PICTURES.values())), st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_pieces_make_no_difference(data: bytes, places: list[int], whole: bool) -> None:
    data = data if whole else data[:-1]
    borders = sorted({0, len(data), *(place % len(data) for place in places)})
    assert _cut([data[start:end] for start, end in pairwise(borders)]) is not whole


@pytest.mark.parametrize("name", ["png", "png, palette"])
def test_a_png_with_one_changed_byte_is_damaged(name: str) -> None:
    data = bytearray(_PICTURES[name])
    for place in range(12, len(data)):
        data[place] ^= 1
        assert is_cut(bytes(data)), place
        data[place] ^= 1


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_garbage_behind_a_header_is_damaged(name: str) -> None:
    assert is_cut(_PICTURES[name][:64] + b"x" * (len(_PICTURES[name]) // 2))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    "data",
    [
        _PICTURES["png"][:33] + _chunk(b"IEND", b""),
        b"\xff\xd8\xff\xd9" + b"\0" * 20,
        b"\xff\xd8\xff\xe0\x00\x01" + b"\0" * 20,
        _PICTURES["png"][:33] + _chunk(b"teXt", b"") * 9000 + _PICTURES["png"][33:],
        b"\xff\xd8" + b"\xff" * 9000 + _PICTURES["jpeg"][2:],
    ],
    ids=["png without data", "jpeg without a scan", "segment without a length", "a flood of chunks", "a flood of fill"],
)
def test_what_no_encoder_writes_is_damaged(data: bytes) -> None:
    assert is_cut(data)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF____WEBP"]))
def test_any_bytes_are_borne(data: bytes, start: bytes) -> None:
    assert is_cut(start + data) in (False, True)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"<html>" + b" " * 100, b"GIF89a" + b"\0" * 100])
def test_what_is_no_picture_is_for_others_to_refuse(data: bytes) -> None:
    assert not is_cut(data)
