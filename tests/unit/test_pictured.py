"""JSON with pictures: however it is cut and spelt, the same values and bytes as parsed whole, in bounded pieces."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from proxy.api import pictured
from proxy.api.body import PIECE_BYTES, decode_json
from proxy.api.pictured import Cutter, Pictured, is_reference, read_pictured
from proxy.errors import InvalidJson, InvalidRequest, RequestTooLarge

_MUCH = 10**9
_HEAD = "data:image/png;base64,"


def cut(
    body: bytes, sizes: Sequence[int] = (), max_text: int = _MUCH, max_picture: int = _MUCH, *, bare: bool = False
) -> Cutter:
    """Feed a body in pieces of these sizes, the rest at once."""
    cutter, at = Cutter(max_text, max_picture, bare=bare), 0
    for size in (*sizes, len(body)):
        cutter.feed(body[at : at + size])
        at += size
    cutter.finish()
    cutter.pictures.seal()
    cutter.pictures.close()
    return cutter


def read_back(value: Any, body: Pictured) -> Any:
    """Return a value with every data URL as its bytes, None where it is not base64."""
    if isinstance(value, dict):
        return {key: read_back(each, body) for key, each in value.items()}
    if isinstance(value, list):
        return [read_back(each, body) for each in value]
    if not isinstance(value, str) or not is_reference(value):
        return value
    try:
        return bytes(body.data(value, "x"))
    except InvalidRequest:
        return None


def parsed_whole(value: Any) -> Any:
    """Return the same of a value that was parsed whole."""
    if isinstance(value, dict):
        return {key: parsed_whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [parsed_whole(each) for each in value]
    head, comma, data = value.partition(";base64,") if isinstance(value, str) else ("", "", "")
    if (
        not comma
        or not head.startswith("data:")
        or not all((c.isascii() and c.isalnum()) or c in "_.+/-" for c in head[5:])
    ):
        return value
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        return None


def pictures_in(body: bytes, sizes: Sequence[int] = (), *, bare: bool = False) -> Any:
    cutter = cut(body, sizes, bare=bare)
    body_left = Pictured(decode_json(bytes(cutter.text)), cutter.pictures)
    return read_back(body_left.values, body_left)


_URLS = st.binary(max_size=40).map(lambda data: _HEAD + base64.b64encode(data).decode())
_ODD = st.sampled_from(
    ["data:", "data:;base64,", "data:x;base64,=", "data:a/b;base64,YQ==YQ==", "data:image/png,x", 'data:"', "data:\\",
     "data:image/png;base64,YW\n", "data:image/png;base64,Y", 'data:image/png;base64,"', "da",
     "xdata:image/png;base64,",
     "data:image/png;base64,\\\\", "data:image/png;base64,ä", "data:é/png;base64,YWJj"]
)  # fmt: skip
_TEXTS = st.text(alphabet='ab"\\/:{}[], \u2028ä😀\n', max_size=12)
_VALUES = st.recursive(
    _URLS | _ODD | _TEXTS | st.integers(-9, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_TEXTS, _VALUES, max_size=4), st.lists(st.integers(1, 40), max_size=40), st.integers(0, 3))
def test_every_way_to_cut_and_spell_gives_what_parsing_whole_gives(
    values: dict[str, Any], sizes: list[int], spelling: int
) -> None:
    text = json.dumps(values, ensure_ascii=spelling % 2 == 0)
    if spelling >= 2:
        text = text.replace("/", "\\/").replace("+", "\\u002B").replace("=", "\\u003d")
    assert pictures_in(text.encode(), sizes) == parsed_whole(values)


@given(
    st.binary(max_size=80) | st.text('"\\u0dat:;bse64,{}[]', max_size=80).map(str.encode), st.lists(st.integers(1, 9))
)
def test_any_bytes_are_read_or_refused(body: bytes, sizes: list[int]) -> None:
    try:
        pictures_in(body, sizes)
    except InvalidJson:
        return
    json.loads(body)


def test_every_split_of_one_body() -> None:
    body = rb'{"a\"": ["data:image\/png;base64,YW\u002BjZ\/==", "data:image/png;base64,", "\\"], "b": "data:x"}'
    whole = pictures_in(body)
    assert whole == {'a"': [base64.b64decode("YW+jZ/=="), b"", "\\"], "b": "data:x"}
    assert all(pictures_in(body, [size]) == whole for size in range(1, len(body)))
    assert pictures_in(body, [1] * len(body)) == whole


@pytest.mark.parametrize("slash", ["/", "\\/", "\\u002F"])
@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n\x00", b"\xff\xd8\xff\xe0", b"RIFF\x01\x02\x03\x04WEBP"])
def test_every_split_of_a_body_with_bare_pictures(head: bytes, slash: str) -> None:
    picture = head + bytes(range(200, 256))
    values = {"init_images": [base64.b64encode(picture).decode()] * 2, "mask": "iVBORw0KGg", "b": ["/9", "Ukl", "\\"]}
    spelt = json.dumps(values)
    body = (spelt if head.startswith(b"\xff") and slash == "\\u002F" else spelt.replace("/", slash)).encode()
    whole = pictures_in(body, bare=True)
    assert whole == {**values, "init_images": [picture] * 2}
    assert all(pictures_in(body, [size], bare=True) == whole for size in range(1, len(body)))
    assert pictures_in(body, [1] * len(body), bare=True) == whole
    assert pictures_in(body) == values


def test_a_bare_picture_has_the_limit_of_pictures() -> None:
    body = json.dumps({"mask": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(3000)).decode()}).encode()
    assert len(cut(body, max_text=100, bare=True).text) <= 100
    with pytest.raises(RequestTooLarge):
        cut(body, max_text=100)


@pytest.mark.parametrize(
    "body", [b'{"a": "\\u12', b'{"a": "\\uZZZZ"}', b'{"a": "data:x;base64,\\u00', b'{"a": "data:x;base64,YQ']
)
def test_a_string_that_does_not_end_is_no_json(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        pictures_in(body)


def test_text_and_pictures_have_limits_of_their_own() -> None:
    url = _HEAD + base64.b64encode(bytes(3000)).decode()
    body = json.dumps({"prompt": "x" * 50, "images": [url, url]}).encode()
    assert len(cut(body, max_text=200).text) <= 200
    with pytest.raises(RequestTooLarge) as refusal:
        cut(body, max_text=100)
    assert (refusal.value.status, refusal.value.code) == (413, "request_too_large")
    small = cut(body, max_picture=2999)
    with pytest.raises(RequestTooLarge):
        small.pictures.data(f"#{small.pictures.secret}-0", "images")


@pytest.mark.parametrize(
    "body", [b'{"prompt": "%s"}' % (b"x" * 300), b"[" * 300, b'"' * 300, b'{"data:%s": 1}' % (b"x" * 300)]
)
def test_text_over_its_limit_is_refused(body: bytes) -> None:
    with pytest.raises(RequestTooLarge):
        cut(body, max_text=200)


class Counting:
    """A pattern that counts the bytes it has gone over."""

    def __init__(self, pattern: Any) -> None:
        self.pattern, self.count = pattern, 0

    def match(self, data: bytes, at: int = 0) -> Any:
        found = self.pattern.match(data, at)
        self.count += 1 + (found.end() - at if found else 0)
        return found


_FORMS = {
    "one picture": lambda size: b'{"a": "data:;base64,' + b"A" * size + b'"}',
    "escapes": lambda size: b'{"a": "data:;base64,' + b"A\\/" * (size // 3) + b'"}',
    "letters as escapes": lambda size: b'{"a": "data:;base64,' + b"\\u0041" * (size // 6) + b'"}',
    "many pictures": lambda size: b"[" + b'"data:;base64,",' * (size // 16),
    "almost pictures": lambda size: b"[" + b'"data:","data:image/png;base64",' * (size // 32),
    "quotes": lambda size: b'"' * size,
    "backslashes": lambda size: b'"' + b"\\" * size,
    "brackets": lambda size: b"[" * size,
    "a string without an end": lambda size: b'["' + b"x" * size,
    "many bare pictures": lambda size: b"[" + b'"iVBORw0KGgo=",' * (size // 15),
    "almost bare pictures": lambda size: b"[" + b'"/9j","UklG","iVBORw0KGg",' * (size // 26),
}


@pytest.mark.parametrize("form", _FORMS)
def test_twice_the_body_is_twice_the_work(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = "bare" in form
    names = ("_PLAIN_WITH_BARE" if bare else "_PLAIN", "_REST_OF_STRING", "_HEAD")
    counters = {name: Counting(getattr(pictured, name)) for name in names}
    for name, counter in counters.items():
        monkeypatch.setattr(pictured, name, counter)
    work = []
    for size in (300_000, 600_000):
        body, before = _FORMS[form](size), sum(counter.count for counter in counters.values())
        cut(body, [PIECE_BYTES] * (size // PIECE_BYTES), bare=bare)
        work.append(sum(counter.count for counter in counters.values()) - before)
    assert work[1] <= 2.5 * work[0]
    assert work[1] <= 3 * 600_000


def request_of(body: bytes, chunk: int) -> Request:
    chunks = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    waiting = iter(enumerate(chunks, 1))

    async def receive() -> Message:
        number, piece = next(waiting)
        return {"type": "http.request", "body": piece, "more_body": number < len(chunks)}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


@pytest.mark.anyio
async def test_no_piece_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 8_000
    body = json.dumps({"prompt": "x", "images": [{"image_url": _HEAD + base64.b64encode(data).decode()}]}).encode()
    sizes: list[int] = []

    def measured(cutter: Cutter, piece: bytes, feed: Any = Cutter.feed) -> None:
        sizes.append(len(piece))
        feed(cutter, piece)

    monkeypatch.setattr(Cutter, "feed", measured)
    parsed: list[int] = []

    def parse(text: bytes, whole: Any = decode_json) -> Any:
        parsed.append(len(text))
        return whole(text)

    monkeypatch.setattr("proxy.api.body.decode_json", parse)
    read = await read_pictured(request_of(body, 700_000), 1000, 3_000_000)
    assert bytes(read.data(read.values["images"][0]["image_url"], "images")) == data
    assert sum(sizes) == len(body)
    assert max(sizes) <= PIECE_BYTES
    assert parsed == [len(body) - 4 * -(-len(data) // 3) + len("#0123456789abcdef-0")]


@pytest.mark.anyio
async def test_a_picture_where_a_text_belongs_is_refused() -> None:
    body = json.dumps({"prompt": _HEAD + "YWJj", "images": [_HEAD + "YWJj"]}).encode()
    with pytest.raises(InvalidRequest) as refusal:
        await read_pictured(request_of(body, 99), 1000, 1000)
    assert refusal.value.param == "prompt"


@pytest.mark.parametrize("reference", ["#0", "#0123456789abcdef-0", "#", "#-0"])
def test_a_reference_cannot_be_forged(reference: str) -> None:
    forged = f'"\\u0064ata:image/png;base64,{reference}"'
    cutter = cut(f'{{"a": "{_HEAD}YWJj", "b": {forged}, "c": "{_HEAD}{reference}"}}'.encode())
    body = Pictured(decode_json(bytes(cutter.text)), cutter.pictures)
    assert body.data(body.values["a"], "x") == b"abc"
    for name in "bc":
        with pytest.raises(InvalidRequest):
            body.data(body.values[name], "x")


@pytest.mark.anyio
async def test_the_picture_limit_bounds_the_whole_body() -> None:
    body = json.dumps({"images": [_HEAD + base64.b64encode(bytes(900)).decode()] * 3}).encode()
    with pytest.raises(RequestTooLarge):
        await read_pictured(request_of(body, 500), 1000, 1000)
