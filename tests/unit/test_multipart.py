"""Multipart bodies in pieces of any length: every part's bytes come out as they went in, or the body is refused."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.multipart import BrokenMultipart, MultipartReader

_TYPE = "multipart/form-data; boundary=seam"
_NEARLY = [b"\r\n--seam", b"--seam", b"\r\n--sea", b"\r\n--", b"\r", b"\n", b"-", b"x", b"\x00", b"\r\n--seamx"]


class _Read:
    """What came out of a body."""

    def __init__(self, body: bytes, pieces: Sequence[int] = (), content_type: str = _TYPE) -> None:
        self.parts: list[tuple[bytes, bytes]] = []
        self.ended = 0
        reader = MultipartReader(content_type, begin=self._begin, data=self._data, end=self._end)
        start = 0
        for size in pieces:
            reader.feed(body[start : start + size])
            start += size
        reader.feed(body[start:])
        reader.finish()
        assert self.ended == len(self.parts)

    def _begin(self, options: Mapping[bytes, bytes]) -> None:
        assert self.ended == len(self.parts), "the part before has ended"
        self.parts.append((options.get(b"name", b""), b""))

    def _data(self, data: memoryview) -> None:
        assert data
        name, before = self.parts[-1]
        self.parts[-1] = name, before + data

    def _end(self) -> None:
        self.ended += 1


def _body(*parts: tuple[bytes, bytes]) -> bytes:
    body = b""
    for name, data in parts:
        body += b'--seam\r\nContent-Disposition: form-data; name="%b"\r\nX: y\r\n\r\n%b\r\n' % (name, data)
    return body + b"--seam--\r\n"


# A delimiter itself can't be data: RFC 2046, 5.1.1.
_data = st.lists(st.sampled_from(_NEARLY) | st.binary(max_size=5), max_size=8).map(
    lambda some: b"".join(some).replace(b"\r\n--seam", b"\r\n--seamy").removeprefix(b"--seam")
)


@given(
    data=st.lists(_data, min_size=1, max_size=3),
    pieces=st.lists(st.integers(1, 40), max_size=60),
    before=st.sampled_from([b"", b"\r\n", b"a preamble\r\n"]),
    after=st.sampled_from([b"", b"an epilogue", b"\r\n--seam\r\n\r\n"]),
)
@settings(max_examples=150, deadline=None)
def test_what_went_in_comes_out_however_it_is_cut(
    data: list[bytes], pieces: list[int], before: bytes, after: bytes
) -> None:
    parts = [(b"%d" % number, each) for number, each in enumerate(data)]
    assert _Read(before + _body(*parts) + after, pieces).parts == parts


@given(cut=st.integers(0, 200), pieces=st.lists(st.integers(1, 9), max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_body_that_is_cut_anywhere_is_broken(cut: int, pieces: list[int]) -> None:
    whole = _body((b"a", b"one\r\n--sea"), (b"b", b"two"))
    end = len(whole) - len(b"\r\n")  # complete without its last line end
    with pytest.raises(BrokenMultipart):
        _Read(whole[: min(cut, end - 1)], pieces)


def test_a_part_may_be_empty_and_a_form_without_parts() -> None:
    assert _Read(_body((b"a", b""))).parts == [(b"a", b"")]
    assert _Read(b"--seam--").parts == []


def test_blanks_may_follow_a_boundary_and_headers_come_in_any_case() -> None:
    body = b"--seam \t\r\ncontent-DISPOSITION:form-data;name=a\r\n\r\nx\r\n--seam-- \r\n"
    assert _Read(body, [1] * len(body)).parts == [(b"a", b"x")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        b"--seam\r\n",
        b"--seam \rX: y\r\n\r\n\r\n--seam--",
        b"--seam  x\r\nX: y\r\n\r\n\r\n--seam--",
        b"--seam\r\nno header\r\n\r\n\r\n--seam--",
        b"--seam\r\n: y\r\n\r\n\r\n--seam--",
        b"--seam\r\nX : y\r\n\r\n\r\n--seam--",
        b"--seam\r\n" + b"X: y\r\n" * 17 + b"\r\n\r\n--seam--",
        b"--seam\r\nX: " + b"y" * 9000 + b"\r\n\r\n\r\n--seam--",
        b"--seam\r\nX: " + b"y" * 9000,
    ],
)
def test_what_is_no_form_is_broken(body: bytes) -> None:
    for pieces in ((), [1] * min(len(body), 300)):
        with pytest.raises(BrokenMultipart):
            _Read(body, pieces)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 257}", ""],
)
def test_a_form_needs_a_boundary(content_type: str) -> None:
    with pytest.raises(BrokenMultipart, match="boundary"):
        _Read(_body((b"a", b"x")), content_type=content_type)
