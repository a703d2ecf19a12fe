"""Answers: base64 in pieces that join to the file's own, an exact length, one form of picture, complete usage."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from proxy.api.renderings import ImagesResponse, PicturesBody, base64_pieces, images_body, usage
from proxy.clock import Clock
from proxy.errors import ProviderBadResult
from proxy.generations.results import Picture
from proxy.pictures.codec import Facts
from proxy.pictures.directory import PictureDirectory
from proxy.pictures.store import PIECE_BYTES, PictureStore, open_file
from proxy.providers.boundary import InputPicture, Model
from proxy.providers.shapes import FreeShapes
from proxy.requests.image_request import parse
from proxy.requests.resolve import CheckedRequest, ResolvedRequest, resolve
from proxy.requests.routing import PublicModel, Route
from proxy.requests.summary import Origin

pytestmark = pytest.mark.anyio

_MODEL = Model("turbo", FreeShapes(low=64, high=1024), operations=frozenset({"generate", "edit"}))
_PUBLIC = PublicModel("dall-e-3", (Route("fast", _MODEL),), "url")
_AROUND_PIECES = [
    *(0, 1, 2, 3, 4, 5, 6),
    *(PIECE_BYTES + difference for difference in range(-4, 5)),
    *(2 * PIECE_BYTES + difference for difference in (-1, 0, 1)),
]


def _resolved(images: tuple[InputPicture, ...] = (), **values: Any) -> ResolvedRequest:
    request, _ = parse({"prompt": "a boat", **values})
    return resolve(
        CheckedRequest(request, operation="edit" if images else "generate", images=images), _PUBLIC, b"", strict=False
    )


async def _images_body(resolved: ResolvedRequest, *rest: Any) -> PicturesBody:
    return await images_body(resolved.summary(), *rest)


def _origin(resolved: ResolvedRequest) -> Origin:
    return resolved.candidates[0].origin().seeded(7)


@pytest.fixture
async def store(tmp_path: Path) -> PictureStore:
    store = PictureDirectory(tmp_path, keep_s=60, max_bytes=10**9, clock=Clock())
    await store.prepare()
    return store


async def _stored(resolved: ResolvedRequest, store: PictureStore, data: bytes) -> Picture:
    stored = await store.publish(store.drafts.write(data), Facts("png", 1000, 500))
    return Picture(_origin(resolved), 1000, 500, "png", stored=stored)


async def _body(body: PicturesBody) -> dict[str, Any]:
    text = b"".join([piece async for piece in body.pieces()])
    assert len(text) == body.length
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def _bytes(length: int) -> bytes:
    return bytes(number * 7 % 256 for number in range(251)) * (length // 251 + 1)


@pytest.mark.parametrize("length", _AROUND_PIECES)
async def test_the_pieces_join_to_the_files_own_base64(tmp_path: Path, length: int) -> None:
    path = tmp_path / "picture"
    data = _bytes(length)[:length]
    path.write_bytes(data)
    pieces = [piece async for piece in base64_pieces(open_file(path))]
    assert b"".join(pieces) == base64.b64encode(data)
    assert all(len(piece) <= PIECE_BYTES // 3 * 4 for piece in pieces)


@pytest.mark.parametrize("lengths", [[1], [5, 0, 3], [PIECE_BYTES + 1, 2], [7] * 10])
async def test_the_length_is_exact_and_every_picture_in_its_place(store: PictureStore, lengths: list[int]) -> None:
    resolved = _resolved(n=len(lengths), response_format="b64_json")
    contents = [_bytes(length)[:length] for length in lengths]
    pictures = [await _stored(resolved, store, data) for data in contents]
    answer = await _body(await images_body(resolved.summary(), pictures, 1_700_000_000, "http://box.lan", store))
    assert [list(item) for item in answer["data"]] == [["b64_json"]] * len(lengths)
    assert [base64.b64decode(item["b64_json"], validate=True) for item in answer["data"]] == contents


async def test_an_answer_says_what_openai_says_and_has_no_nulls(store: PictureStore) -> None:
    resolved = _resolved(response_format="b64_json", quality="hd")
    answer = await _body(
        await images_body(
            resolved.summary(), [await _stored(resolved, store, b"abc")], 1_700_000_000, "http://box.lan", store
        )
    )
    assert answer == {
        "created": 1_700_000_000,
        "data": [{"b64_json": "YWJj"}],
        "background": "opaque",
        "quality": "medium",
        "size": "1000x500",
        "output_format": "png",
        "usage": {
            "input_tokens": 2,
            "output_tokens": 500,
            "total_tokens": 502,
            "input_tokens_details": {"text_tokens": 2, "image_tokens": 0},
            "output_tokens_details": {"text_tokens": 0, "image_tokens": 500},
        },
    }


async def test_addresses_are_the_providers_or_ours(store: PictureStore) -> None:
    resolved = _resolved(n=2)
    theirs = Picture(_origin(resolved), 64, 64, None, url="https://images.example/x")
    ours = await _stored(resolved, store, b"abc")
    assert ours.stored is not None
    answer = await _body(await images_body(resolved.summary(), [theirs, ours], 1, "https://box.lan/base", store))
    assert answer["data"] == [
        {"url": "https://images.example/x"},
        {"url": f"https://box.lan/base/images/{ours.stored.name}"},
    ]
    assert "output_format" not in answer


async def test_an_address_cannot_break_into_the_base64(store: PictureStore) -> None:
    resolved = _resolved(n=2, response_format="b64_json")
    strange = Picture(_origin(resolved), 64, 64, "png", url='https://images.example/"\\u0041"')
    answer = await _body(await _images_body(resolved, [strange, await _stored(resolved, store, b"abc")], 1, "", store))
    assert answer["data"] == [{"url": 'https://images.example/"\\u0041"'}, {"b64_json": "YWJj"}]


@pytest.mark.parametrize("prompt", ["x", "a boat on a lake", "ä" * 999])
def test_usage_is_complete_and_adds_up(prompt: str) -> None:
    resolved = _resolved((InputPicture(b"", "png", 100, 101),), prompt=prompt)
    pictures = [Picture(_origin(resolved), 64, 65, "png", url="u")] * 3
    counts = usage(resolved.summary(), pictures)
    assert counts["total_tokens"] == counts["input_tokens"] + counts["output_tokens"]
    for side in ("input", "output"):
        details = counts[f"{side}_tokens_details"]
        assert counts[f"{side}_tokens"] == details["text_tokens"] + details["image_tokens"]
        assert all(type(count) is int and count >= 0 for count in details.values())
    assert counts["input_tokens_details"]["image_tokens"] == 11
    assert counts["output_tokens"] == 15


async def test_a_picture_that_is_gone_is_told_before_the_status_goes_out(tmp_path: Path, store: PictureStore) -> None:
    resolved = _resolved(response_format="b64_json")
    picture = await _stored(resolved, store, b"abc")
    assert picture.stored is not None
    (tmp_path / picture.stored.name).unlink()
    with pytest.raises(ProviderBadResult):
        await images_body(resolved.summary(), [picture], 1, "", store)


@pytest.mark.parametrize("length", [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 1])
async def test_the_response_is_sent_in_bounded_pieces_with_its_length(store: PictureStore, length: int) -> None:
    resolved = _resolved(response_format="b64_json")
    data = _bytes(length)[:length]
    body = await _images_body(resolved, [await _stored(resolved, store, data)], 1, "", store)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("the caller stays")

    await ImagesResponse(body, lambda: None)({"type": "http"}, receive, send)
    start, *pieces = sent
    headers = dict(start["headers"])
    whole = b"".join(piece["body"] for piece in pieces)
    assert start["status"] == 200
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(whole)
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert all(len(piece["body"]) <= 3 * PIECE_BYTES for piece in pieces)
    assert base64.b64decode(json.loads(whole)["data"][0]["b64_json"]) == data


async def test_an_answer_that_breaks_off_is_told_as_lost(store: PictureStore, tmp_path: Path) -> None:
    resolved = _resolved(response_format="b64_json", n=2)
    pictures = [await _stored(resolved, store, _bytes(PIECE_BYTES)) for _ in range(2)]
    lost: list[None] = []

    async def send(_: Message) -> None:
        last = pictures[1].stored
        assert last is not None
        (tmp_path / last.name).unlink(missing_ok=True)

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    answer = ImagesResponse(await _images_body(resolved, pictures, 1, "http://x", store), lambda: lost.append(None))
    with pytest.raises(ProviderBadResult):
        await answer({"type": "http"}, receive, send)
    assert lost == [None]
