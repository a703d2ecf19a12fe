"""Bodies: strict JSON whatever the content type says, read within a limit of bytes."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from proxy.api.body import CallerLeft, decode_json, read, read_json
from proxy.errors import InvalidJson, RequestTooLarge

_NESTED = b'{"a":' * 64 + b"1" + b"}" * 64


@pytest.mark.parametrize(
    ("body", "decoded"),
    [
        (b"{}", {}),
        (b' {"prompt": "a"}\n', {"prompt": "a"}),
        ('{"prompt": "ä 😀"}'.encode(), {"prompt": "ä 😀"}),
        (b'{"prompt": "\\ud83d\\ude00"}', {"prompt": "😀"}),
        (b'{"prompt": "\\u00e4\\u0000"}', {"prompt": "ä\x00"}),
        (b'{"prompt": "a", "prompt": "b"}', {"prompt": "b"}),
        (b'{"n": 1.0}', {"n": 1.0}),
        (_NESTED, json.loads(_NESTED)),
    ],
)
def test_json_is_decoded(body: bytes, decoded: dict[str, Any]) -> None:
    assert decode_json(body) == decoded


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"prompt=a+boat",
        b"{",
        b'{"prompt": "a",}',
        b"{'prompt': 'a'}",
        b'{"prompt": NaN}',
        b'{"prompt": Infinity}',
        b'{"prompt": -Infinity}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        '{"prompt": "a"}'.encode("utf-16"),
        b'{"prompt": "\xff"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00"}',
        b'{"prompt": "\\uDFFF"}',
        b'{"\\udbff": 1}',
        b'{"prompt": "\\ude00\\ud83d"}',
        b'{"prompt": "line\nbreak"}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"seed": ' + b"9" * 5000 + b"}",
        b"[]",
        b'"x"',
        b"1",
        b"null",
        b"true",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJson) as refusal:
        decode_json(body)
    assert (refusal.value.status, refusal.value.type, refusal.value.code, refusal.value.param) == (
        400,
        "invalid_request_error",
        "invalid_json",
        None,
    )


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        decoded = decode_json(body)
    except InvalidJson:
        return
    assert isinstance(decoded, dict)


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**60), 2**60) | st.booleans() | st.none()))
def test_every_object_is_decoded_as_it_was_encoded(values: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        assert decode_json(json.dumps(values, ensure_ascii=ascii_only).encode()) == values


def _request(pieces: Sequence[bytes | None], headers: dict[str, str] | None = None) -> Request:
    """Return a request whose body comes in ``pieces``; None stands for a caller who leaves."""
    waiting = iter(pieces)
    last = len(pieces) - 1
    sent = -1

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        piece = next(waiting)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": sent < last}

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


@pytest.mark.anyio
async def test_a_body_is_read_from_its_pieces() -> None:
    assert await read(_request([b"ab", b"", b"c"]), 3) == b"abc"
    assert await read_json(_request([b'{"a"', b":1}"], {"content-type": "application/x-www-form-urlencoded"}), 99) == {
        "a": 1
    }


@pytest.mark.anyio
async def test_a_body_that_is_declared_too_large_is_refused_unread() -> None:
    with pytest.raises(RequestTooLarge) as refusal:
        await read(_request([], {"content-length": "4"}), 3)
    assert (refusal.value.status, refusal.value.code) == (413, "request_too_large")
    assert refusal.value.headers == {"connection": "close"}


@pytest.mark.anyio
async def test_a_body_that_grows_too_large_is_refused() -> None:
    with pytest.raises(RequestTooLarge):
        await read(_request([b"ab", b"cd", b"ef"]), 3)


@pytest.mark.anyio
async def test_a_caller_who_leaves_is_told_apart() -> None:
    with pytest.raises(CallerLeft):
        await read(_request([b"ab", None]), 9)
