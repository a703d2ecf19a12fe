"""What every store of pictures promises, in a folder and in a real S3 server."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.clock import Clock
from proxy.pictures.choice import store_for
from proxy.pictures.codec import Facts
from proxy.pictures.store import PIECE_BYTES, ImageSettings, Opened, PictureStore, StoredPicture, cache_control
from tests.object_store import BUCKET, ObjectStore, object_store

pytestmark = pytest.mark.anyio
_PNG = Facts("png", 1, 1)
_KEEP_S = 60


@dataclass(slots=True)
class _House:
    """A kind of store, to be opened again and again as processes come and go; ``now`` is the time for all of them."""

    kind: str
    folder: Path
    now: float = field(default_factory=time.time)
    opened: list[PictureStore] = field(default_factory=list)

    async def open(self, folder: Path | None = None, keep: float = _KEEP_S) -> PictureStore:
        settings = ImageSettings(store=f"s3://{BUCKET}/{self.folder.name}/in" if self.kind == "s3" else "", keep=keep)
        store = store_for(settings, folder or self.folder, Clock(wall=lambda: self.now))
        await store.prepare()
        self.opened.append(store)
        return store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture(params=["folder", "s3"])
async def house(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[_House]:
    if request.param == "s3":
        for name, value in request.getfixturevalue("server").environment.items():
            monkeypatch.setenv(name, value)
    house = _House(request.param, tmp_path)
    yield house
    for store in house.opened:
        await store.close()


async def _read(opened: Opened) -> bytes:
    async with aclosing(opened.pieces) as pieces:
        data = b"".join([piece async for piece in pieces])
    assert len(data) == opened.size_bytes
    return data


async def _delivered(store: PictureStore, data: bytes, facts: Facts = _PNG) -> StoredPicture:
    stored = await store.publish(store.drafts.write(data), facts)
    store.release(stored.name)
    return stored


async def test_a_picture_is_found_as_it_was_written(house: _House) -> None:
    store = await house.open()
    stored = await _delivered(store, b"picture", Facts("jpeg", 3, 2))
    assert (stored.name.rpartition(".")[2], stored.size_bytes, stored.facts.width) == ("jpg", 7, 3)
    found = await store.find(stored.name)
    assert found is not None
    assert found.size_bytes == 7
    assert abs(found.stored_at - time.time()) < 5
    assert await _read(await store.open(stored.name)) == b"picture"
    assert await _read(await store.open(stored.name, (0, 7))) == b"picture"


async def test_a_picture_in_memory_is_stored_likewise(house: _House) -> None:
    store = await house.open()
    stored = await store.publish_bytes(b"picture", _PNG)
    store.release(stored.name)
    assert await _read(await store.open(stored.name)) == b"picture"
    assert not list(house.folder.glob("*.part"))


async def test_no_two_names_are_alike_where_it_counts(house: _House) -> None:
    store = await house.open()
    names = {(await _delivered(store, b"x")).name for _ in range(20)}
    secret = {name.partition(".")[0][-32:] for name in names}
    assert all(int(each, 16) >= 0 for each in secret)
    assert len({each[:4] for each in secret}) > 15


@pytest.mark.parametrize("span", [None, (0, 1), (5, 6), (PIECE_BYTES - 1, 2 * PIECE_BYTES + 1), (250_000, 260_000)])
@pytest.mark.parametrize("delivered", [False, True])
async def test_any_span_is_read_in_equal_pieces(house: _House, span: tuple[int, int] | None, delivered: bool) -> None:
    store = await house.open()
    data = (bytes(range(251)) * 1036)[:260_000]
    stored = await store.publish(store.drafts.write(data), _PNG)
    if delivered:
        store.release(stored.name)
    opened = await store.open(stored.name, span)
    pieces = [piece async for piece in opened.pieces]
    assert b"".join(pieces) == data[slice(*span) if span else slice(None)]
    assert opened.size_bytes == sum(map(len, pieces))
    assert all(len(piece) == PIECE_BYTES for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= PIECE_BYTES


async def test_who_stops_reading_half_way_leaves_nothing_open(house: _House) -> None:
    store = await house.open()
    stored = await _delivered(store, b"x" * 3 * PIECE_BYTES)
    async with aclosing((await store.open(stored.name)).pieces) as pieces:
        assert len(await anext(pieces)) == PIECE_BYTES
    assert await _read(await store.open(stored.name)) == b"x" * 3 * PIECE_BYTES


async def test_it_goes_after_its_time(house: _House) -> None:
    store = await house.open()
    stored = await _delivered(store, b"x")
    house.now += _KEEP_S - 2
    assert await store.find(stored.name)
    house.now += 3
    assert await store.find(stored.name) is None


async def test_with_keep_0_no_age_ends_it(house: _House) -> None:
    store = await house.open(keep=0)
    stored = await _delivered(store, b"x")
    house.now += 10**8
    await store.sweep()
    assert await store.find(stored.name)
    assert cache_control(0) == "public, max-age=31536000, immutable"


async def test_what_is_waited_for_outlasts_its_time(house: _House) -> None:
    store = await house.open()
    stored = await store.publish(store.drafts.write(b"picture"), _PNG)
    house.now += 2 * _KEEP_S
    await store.sweep()
    assert await store.find(stored.name) is None
    assert await _read(await store.open(stored.name)) == b"picture"


async def test_the_next_process_finds_it(house: _House) -> None:
    stored = await _delivered(await house.open(), b"picture")
    again = await house.open()
    assert await again.find(stored.name)
    assert await _read(await again.open(stored.name)) == b"picture"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret.png", "/etc/passwd", "%2e%2e/x", "A" * 40 + ".png", "a" * 40, "a" * 40 + ".png\n"],
)
async def test_other_names_lead_nowhere(house: _House, name: str) -> None:
    store = await house.open()
    assert await store.find(name) is None
    with pytest.raises(FileNotFoundError):
        await store.open(name)


async def test_a_picture_that_never_was_cannot_be_opened(house: _House) -> None:
    store = await house.open()
    name = f"{int(house.now):08x}{'0' * 32}.png"
    assert await store.find(name) is None
    with pytest.raises(FileNotFoundError):
        await store.open(name)


async def test_a_store_that_works_says_so(house: _House) -> None:
    store = await house.open()
    store.check(by_writing=False)
    store.check(by_writing=True)
    assert await store.probe() == ""


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    store = store_for(ImageSettings(), tmp_path / "pictures", Clock())
    await store.prepare()
    (tmp_path / "pictures").rmdir()
    (tmp_path / "pictures").touch()
    assert "Not a directory" in await store.probe()
    with pytest.raises(OSError, match="Not a directory"):
        store.check(by_writing=True)
