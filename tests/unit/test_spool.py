"""Uploads on their way to disk: in order, in batches, away from the event loop, and readable behind a closed file."""

import asyncio
import base64
import tempfile
import threading
import tracemalloc
from typing import Any, BinaryIO, cast

import pytest
from python_multipart.multipart import MultipartParser
from starlette.requests import Request
from starlette.types import Message

from proxy.api import uploads
from proxy.api.body import PIECE_BYTES
from proxy.api.pictured import read_pictured
from proxy.api.spool import Spool, view
from proxy.api.uploads import read_upload
from tests.e2e.parts import picture

pytestmark = pytest.mark.anyio

MEGABYTE = 1_048_576
LARGE = 24 * MEGABYTE


class Watched:
    """A file that notes who writes to it, and how much at most before others have their turn."""

    def __init__(self) -> None:
        self.data = b""
        self.threads: set[int] = set()

    def write(self, data: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.data += data


async def test_what_is_added_is_written_in_order_and_elsewhere() -> None:
    one, other, spool = Watched(), Watched(), Spool()
    for number in range(300):
        spool.add(cast("BinaryIO", other if number % 3 else one), bytes([number % 256]) * 10_000)
        await spool.relieve()
        written = len(one.data) + len(other.data)
        assert (number + 1) * 10_000 - written < MEGABYTE
    assert threading.get_ident() not in one.threads | other.threads
    spool.flush()
    assert one.data == b"".join(bytes([number % 256]) * 10_000 for number in range(0, 300, 3))
    spool.flush()
    assert len(one.data) + len(other.data) == 3_000_000


def test_a_view_outlives_its_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"abc" * 1000)
        seen, nothing = view(file, 3000), view(file, 0)
    assert bytes(seen) == b"abc" * 1000
    assert nothing == b""


def request_of(pieces: Any, content_type: str) -> Request:
    async def receive() -> Message:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def chunks(head: bytes, filler: bytes, tail: bytes) -> Any:
    yield head
    for _ in range(LARGE // len(filler)):
        yield filler
    yield tail


def as_json() -> Request:
    filler = base64.b64encode(bytes(range(192)) * 1_024)
    head = base64.b64encode(picture(64, 64)).rstrip(b"=")
    head = head[: len(head) // 4 * 4]
    body = chunks(b'{"images": ["data:image/png;base64,' + head, filler, b'"]}')
    return request_of(body, "application/json")


def as_form() -> Request:
    head = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture(64, 64)
    return request_of(chunks(head, bytes(range(256)) * 1_024, b"\r\n--x--\r\n"), "multipart/form-data; boundary=x")


@pytest.mark.parametrize("made", [as_json, as_form])
async def test_memory_and_pieces_stay_small_however_large_the_picture(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []

    class Measured(MultipartParser):
        def write(self, data: bytes) -> int:
            pieces.append(len(data))
            return super().write(data)

    monkeypatch.setattr(uploads, "MultipartParser", Measured)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    request = made()
    tracemalloc.start()
    try:
        upload = await read_upload(request, 2 * LARGE, MEGABYTE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        counting.cancel()
    assert len(upload.images[0].data) > 0.7 * LARGE
    assert peak < 6 * MEGABYTE
    assert turns >= LARGE // PIECE_BYTES
    assert max(pieces, default=0) <= PIECE_BYTES


async def test_a_body_without_pictures_opens_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    read = await read_pictured(request_of(iter([b'{"prompt": "a fox"}']), "application/json"), 1000, 1000)
    assert read.values == {"prompt": "a fox"}
