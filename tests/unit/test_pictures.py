"""Pictures are told by their bytes, measured without decoding, and converted within limits."""

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from proxy.pictures.codec import (
    HEAD_BYTES,
    MAX_PIXELS,
    Converter,
    Facts,
    Format,
    NotAPicture,
    decode_and_encode,
    inspect,
    inspect_file,
)

_SIZES = [(1, 1), (17, 33), (640, 480), (1024, 1024)]
_FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")


def _encoded(picture_format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    gradient = Image.linear_gradient("L").resize(size)
    picture = gradient.convert(mode)
    if mode == "RGBA":
        picture.putalpha(gradient)
    out = io.BytesIO()
    picture.save(out, format=picture_format, **options)
    return out.getvalue()


def _exif(comment: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x9286] = comment
    return exif.tobytes()


_VARIETIES: dict[str, tuple[Format, dict[str, Any]]] = {
    "png": ("png", {}),
    "png, grey": ("png", {"mode": "L"}),
    "png, palette": ("png", {"mode": "P"}),
    "png, transparent": ("png", {"mode": "RGBA"}),
    "png, 16 bit": ("png", {"mode": "I;16"}),
    "jpeg, baseline": ("jpeg", {}),
    "jpeg, progressive": ("jpeg", {"progressive": True}),
    "jpeg, grey": ("jpeg", {"mode": "L"}),
    "jpeg, four colours": ("jpeg", {"mode": "CMYK"}),
    "jpeg, with EXIF": ("jpeg", {"exif": _exif(b"x" * 3000)}),
    "jpeg, with profile": ("jpeg", {"icc_profile": b"p" * 5000}),
    "jpeg, restart markers": ("jpeg", {"restart_marker_blocks": 1}),
    "jpeg, comment": ("jpeg", {"comment": b"c" * 1000}),
    "webp, VP8": ("webp", {}),
    "webp, VP8L": ("webp", {"lossless": True}),
    "webp, VP8L transparent": ("webp", {"mode": "RGBA", "lossless": True}),
    "webp, VP8X": ("webp", {"exif": _exif(b"x" * 100)}),
    "webp, VP8X transparent": ("webp", {"mode": "RGBA", "quality": 50}),
}


@pytest.mark.parametrize("variety", _VARIETIES)
@pytest.mark.parametrize("size", _SIZES)
def test_type_and_size_are_read_from_the_header(variety: str, size: tuple[int, int]) -> None:
    picture_format, options = _VARIETIES[variety]
    assert inspect(_encoded(picture_format, size, **options)) == Facts(picture_format, *size)


@pytest.mark.parametrize(
    ("variety", "kind"),
    [("webp, VP8", b"VP8 "), ("webp, VP8L", b"VP8L"), ("webp, VP8X", b"VP8X"), ("webp, VP8X transparent", b"VP8X")],
)
def test_the_three_kinds_of_webp_are_covered(variety: str, kind: bytes) -> None:
    picture_format, options = _VARIETIES[variety]
    assert _encoded(picture_format, **options)[12:16] == kind


@pytest.mark.parametrize("variety", _VARIETIES)
def test_a_header_that_is_cut_off_is_no_picture(variety: str) -> None:
    picture_format, options = _VARIETIES[variety]
    data = _encoded(picture_format, **options)
    for length in (0, 1, 3, 8, 12, 15, 18):
        with pytest.raises(NotAPicture):
            inspect(data[:length])


@pytest.mark.parametrize("variety", ["webp, VP8", "webp, VP8L", "webp, VP8X", "webp, VP8X transparent"])
def test_a_canvas_that_is_cut_off_is_not_guessed(variety: str) -> None:
    picture_format, options = _VARIETIES[variety]
    data = _encoded(picture_format, (1000, 700), **options)
    whole = Facts("webp", 1000, 700)
    for length in range(16, 40):
        try:
            assert inspect(data[:length]) == whole
        except NotAPicture:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"GIF89a\x01\x00\x01\x00",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x04IDAT" + b"\x00" * 20,
        b"\xff\xd8\xff" + b"\xff" * 500,
        b"\xff\xd8\xff\xe0\x00\x02\x00\x00" + b"\x00" * 50,
        b"\xff\xd8\xff\xe0\x00\x00" * 20,
        b"RIFF\x00\x00\x00\x00WAVEfmt " + b"\x00" * 20,
        b"RIFF\x00\x00\x00\x00WEBPJUNK" + b"\x00" * 20,
    ],
)
def test_other_bytes_are_no_picture(data: bytes) -> None:
    with pytest.raises(NotAPicture):
        inspect(data)


class _Counted(bytes):
    """Counts how often a part of it is looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("part", [b"\xff\xe0\x00\x02", b"\xff"], ids=["empty segments", "fill bytes"])
def test_a_jpeg_in_countless_parts_is_not_followed(part: bytes) -> None:
    head = _Counted(b"\xff\xd8" + part * (4_194_304 // len(part)))
    with pytest.raises(NotAPicture):
        inspect(head)
    assert head.looks < 20_000


def _png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00"


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (MAX_PIXELS + 1, 1), (65_535, 65_535), (2**31, 2**31)])
def test_impossible_and_huge_sizes_are_refused_before_any_decoding(width: int, height: int) -> None:
    with pytest.raises(NotAPicture):
        inspect(_png_header(width, height))
    with pytest.raises(NotAPicture):
        decode_and_encode(_png_header(width, height), "jpeg", None)


def test_the_largest_size_is_taken() -> None:
    assert inspect(_png_header(MAX_PIXELS, 1)) == Facts("png", MAX_PIXELS, 1)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF____WEBP"]))
def test_any_bytes_are_a_picture_or_refused(data: bytes, start: bytes) -> None:
    try:
        facts = inspect(start + data)
    except NotAPicture:
        return
    assert 0 < facts.width * facts.height <= MAX_PIXELS


_INTACT = {picture_format: _encoded(picture_format) for picture_format in _FORMATS}


@given(
    st.sampled_from(_FORMATS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
)
def test_damaged_pictures_are_converted_or_refused(
    picture_format: Format, damage: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(_INTACT[picture_format])
    for place, value in damage:
        data[place % len(data)] = value
    try:
        converted = decode_and_encode(bytes(data[: max(1, length)]), "png", None)
    except NotAPicture:
        return
    assert inspect(converted).format == "png"


@pytest.mark.parametrize("wanted", _FORMATS)
@pytest.mark.parametrize("variety", _VARIETIES)
def test_every_kind_is_converted_into_every_type(variety: str, wanted: Format) -> None:
    picture_format, options = _VARIETIES[variety]
    converted = decode_and_encode(_encoded(picture_format, (20, 10), **options), wanted, None)
    assert inspect(converted) == Facts(wanted, 20, 10)
    with Image.open(io.BytesIO(converted)) as picture:
        picture.load()


@pytest.mark.parametrize(("wanted", "mode"), [("png", "RGBA"), ("webp", "RGBA"), ("jpeg", "RGB")])
def test_transparency_is_kept_where_the_type_has_it(wanted: Format, mode: str) -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(clear, format="PNG")
    with Image.open(io.BytesIO(decode_and_encode(clear.getvalue(), wanted, None))) as picture:
        assert picture.mode == mode
        assert mode == "RGB" or picture.getpixel((0, 0))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("wanted", ["jpeg", "webp"])
def test_compression_makes_files_smaller(wanted: Format) -> None:
    noisy = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(noisy, format="PNG")
    small, large = (decode_and_encode(noisy.getvalue(), wanted, quality) for quality in (5, 95))
    assert len(small) < len(large)


def test_a_long_header_is_read_to_its_end(tmp_path: Path) -> None:
    data = _encoded("jpeg", icc_profile=b"p" * (3 * HEAD_BYTES))
    path = tmp_path / "long.jpg"
    path.write_bytes(data)
    with pytest.raises(NotAPicture):
        inspect(data[:HEAD_BYTES])
    assert inspect_file(path) == Facts("jpeg", 40, 30)
    assert inspect(decode_and_encode(data, "png", None)) == Facts("png", 40, 30)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"<html>" + b" " * (2 * HEAD_BYTES))
    with pytest.raises(NotAPicture):
        inspect_file(path)


@pytest.mark.anyio
async def test_the_converter_works_away_from_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "one.part"
    path.write_bytes(_INTACT["png"])
    converter = Converter()
    with path.open("rb") as file:
        assert inspect(await converter.convert(file, "webp", 40)) == Facts("webp", 40, 30)
    path.write_bytes(_INTACT["png"][:60])
    with path.open("rb") as file, pytest.raises(NotAPicture):
        await converter.convert(file, "webp", 40)
    converter.close()
