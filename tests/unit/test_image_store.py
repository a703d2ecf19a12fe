"""Stored pictures: unguessable names, complete or absent, within a time and a quota."""

import os
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

import proxy.pictures.drafts
import proxy.pictures.store
from proxy.clock import Clock
from proxy.pictures.codec import Facts
from proxy.pictures.directory import PictureDirectory
from proxy.pictures.store import PIECE_BYTES, Opened, StoredPicture

pytestmark = pytest.mark.anyio

_PNG = Facts("png", 1, 1)


class _Time:
    """The wall clock, in seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0


@pytest.fixture
def time() -> _Time:
    return _Time()


async def _store(directory: Path, time: _Time, max_bytes: int = 1000, keep_s: float = 60) -> PictureDirectory:
    store = PictureDirectory(directory, keep_s=keep_s, max_bytes=max_bytes, clock=Clock(wall=lambda: time.now))
    await store.prepare()
    return store


async def _written(store: PictureDirectory, data: bytes, facts: Facts) -> StoredPicture:
    """Store a picture that nobody waits for any more."""
    stored = await store.publish(store.drafts.write(data), facts)
    store.release(stored.name)
    return stored


async def _read(opened: Opened) -> bytes:
    data = b"".join([piece async for piece in opened.pieces])
    assert len(data) == opened.size_bytes
    return data


def _files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_what_is_waited_for_outlasts_time_and_quota(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time, max_bytes=100)
    waited = await store.publish(store.drafts.write(b"x" * 90), _PNG)
    time.now += 100
    other = await _written(store, b"x" * 90, _PNG)
    assert await store.find(waited.name) is None
    assert await _read(await store.open(waited.name)) == b"x" * 90
    store.release(waited.name)
    await store.sweep()
    assert ((tmp_path / waited.name).exists(), (tmp_path / other.name).exists()) == (False, True)


async def test_kept_for_good_means_until_the_quota(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time, max_bytes=100, keep_s=0)
    old, new = [await _written(store, b"x" * 40, _PNG) for _ in range(2)]
    time.now += 10**9
    await store.sweep()
    assert await store.find(old.name) is not None
    again = await _store(tmp_path, time, max_bytes=100, keep_s=0)
    assert await again.find(old.name) is not None
    await _written(again, b"x" * 40, _PNG)
    assert [await again.find(each.name) is None for each in (old, new)] == [True, False]


async def test_no_draft_is_opened_on_a_full_disk(tmp_path: Path, time: _Time, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await _store(tmp_path, time)
    monkeypatch.setattr(proxy.pictures.drafts, "_LEAST_FREE_BYTES", 2**80)
    with pytest.raises(OSError, match="No space left"):
        store.drafts.draft()
    assert _files_in(tmp_path) == []


async def test_a_picture_is_found_as_it_was_written(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path / "made" / "on demand", time)
    stored = await _written(store, b"picture", Facts("jpeg", 3, 2))
    assert stored.name.endswith(".jpg")
    assert (stored.size_bytes, stored.facts.width) == (7, 3)
    found = await store.find(stored.name)
    assert found is not None
    assert found.size_bytes == 7
    assert await _read(await store.open(stored.name)) == b"picture"
    assert store.directory.stat().st_mode & 0o777 == 0o700


async def test_names_cannot_be_guessed(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    names = {(await _written(store, b"x", _PNG)).name for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) == 36 and int(name[:32], 16) >= 0 for name in names)
    assert len({name[:4] for name in names}) > 40


async def test_a_half_written_picture_is_never_served(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    draft = store.drafts.draft()
    draft.file.write(b"half")
    for name in (draft.path.name, f"{draft.path.stem}.png"):
        assert await store.find(name) is None
    assert store.used_bytes == 0
    draft.file.close()
    stored = await store.publish(draft.path, _PNG)
    assert not draft.path.exists()
    assert await _read(await store.open(stored.name)) == b"half"


async def test_a_discarded_draft_is_gone(tmp_path: Path, time: _Time) -> None:
    draft = (await _store(tmp_path, time)).drafts.draft()
    draft.file.write(b"half")
    draft.discard()
    draft.discard()
    assert _files_in(tmp_path) == []


async def test_pictures_go_after_their_time(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    stored = await _written(store, b"x" * 10, _PNG)
    time.now += 59.9
    await store.sweep()
    assert await store.find(stored.name)
    time.now += 0.1
    assert await store.find(stored.name) is None
    await store.sweep()
    assert not (tmp_path / stored.name).exists()
    assert store.used_bytes == 0


async def test_the_oldest_go_first_at_the_quota(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time, max_bytes=100)
    stored = []
    for _ in range(5):
        stored.append(await _written(store, b"x" * 30, _PNG))
        time.now += 1
    assert [bool(await store.find(picture.name)) for picture in stored] == [False, False, True, True, True]
    assert [(tmp_path / picture.name).exists() for picture in stored] == [False, False, True, True, True]
    assert store.used_bytes == 90


async def test_the_newest_stays_even_over_the_quota(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time, max_bytes=100)
    small, large = await _written(store, b"x", _PNG), await _written(store, b"x" * 500, _PNG)
    assert await store.find(small.name) is None
    assert await store.find(large.name)
    assert store.used_bytes == 500


async def test_a_restart_takes_stock(tmp_path: Path, time: _Time) -> None:
    first = await _store(tmp_path, time)
    old, new = await _written(first, b"x" * 10, _PNG), await _written(first, b"x" * 20, _PNG)
    os.utime(tmp_path / old.name, (time.now - 70, time.now - 70))
    os.utime(tmp_path / new.name, (time.now - 50, time.now - 50))
    foreign = tmp_path / "notes.txt"
    foreign.write_text("mine")
    again = await _store(tmp_path, time)
    assert await again.find(old.name) is None
    assert not (tmp_path / old.name).exists()
    assert await again.find(new.name)
    assert again.used_bytes == 20
    assert foreign.exists()
    time.now += 10
    assert await again.find(new.name) is None


async def test_a_restart_with_a_smaller_quota_removes_the_oldest(tmp_path: Path, time: _Time) -> None:
    first = await _store(tmp_path, time)
    pictures = [await _written(first, b"x" * 30, _PNG) for _ in range(3)]
    for age, picture in zip((30, 20, 10), pictures, strict=True):
        os.utime(tmp_path / picture.name, (time.now - age, time.now - age))
    again = await _store(tmp_path, time, max_bytes=60)
    assert [bool(await again.find(picture.name)) for picture in pictures] == [False, True, True]


async def test_a_restart_removes_abandoned_drafts_and_no_living_ones(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    abandoned, living = store.drafts.write(b"old"), store.drafts.write(b"new")
    os.utime(abandoned, (time.now - 4000, time.now - 4000))
    os.utime(living, (time.now, time.now))
    await _store(tmp_path, time)
    assert not abandoned.exists()
    assert living.exists()


async def test_a_symbolic_link_is_not_followed(tmp_path: Path, time: _Time) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "pictures"
    folder.mkdir()
    name = f"{'a' * 32}.png"
    (folder / name).symlink_to(secret)
    os.utime(secret, (time.now, time.now))
    assert await (await _store(folder, time)).find(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret.png", "/etc/passwd", "%2e%2e/secret", "A" * 32 + ".png", "a" * 32, "a" * 32 + ".png\n"],
)
async def test_other_names_lead_nowhere(tmp_path: Path, time: _Time, name: str) -> None:
    (tmp_path / "secret.png").write_text("secret")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / ("A" * 32 + ".png")).write_text("not ours")
    assert await (await _store(folder, time)).find(name) is None


async def test_a_picture_that_somebody_removed_is_not_found(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    stored = await _written(store, b"x", _PNG)
    (tmp_path / stored.name).unlink()
    assert await store.find(stored.name) is None
    time.now += 100
    await store.sweep()
    assert store.used_bytes == 0


# --- reading -----------------------------------------------------------------------------------------------------

_SPANS = [
    *((0, 1), (5, 6), (0, PIECE_BYTES), (1, PIECE_BYTES + 1), (PIECE_BYTES - 1, 2 * PIECE_BYTES + 1)),
    *((2 * PIECE_BYTES, 3 * PIECE_BYTES - 7), None),
]


@pytest.fixture(params=["in memory", "on a slow disk", "where nothing tells"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the kernel says of the bytes that are read."""
    if request.param == "where nothing tells":
        monkeypatch.setattr(proxy.pictures.store, "_IF_IN_MEMORY", 0)
    if request.param == "on a slow disk":
        monkeypatch.setattr(os, "preadv", _not_in_memory)
    return str(request.param)


def _not_in_memory(*_: object) -> int:
    raise BlockingIOError


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("span", _SPANS)
async def test_any_span_is_read_in_bounded_pieces(tmp_path: Path, time: _Time, span: tuple[int, int] | None) -> None:
    store = await _store(tmp_path, time, max_bytes=10**6)
    data = (bytes(range(251)) * (3 * PIECE_BYTES // 251 + 1))[: 3 * PIECE_BYTES - 7]
    stored = await _written(store, data, _PNG)
    opened = await store.open(stored.name, span)
    pieces = [piece async for piece in opened.pieces]
    assert b"".join(pieces) == data[slice(*span) if span else slice(None)]
    assert opened.size_bytes == sum(map(len, pieces))
    assert max(map(len, pieces)) <= PIECE_BYTES


async def test_what_the_disk_must_be_asked_for_is_read_beside_the_loop(
    tmp_path: Path, time: _Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _store(tmp_path, time)
    stored = await _written(store, b"picture", _PNG)
    readers = []
    pread = os.pread

    def noted(*arguments: int) -> bytes:
        readers.append(threading.current_thread())
        return pread(*arguments)

    monkeypatch.setattr(os, "preadv", _not_in_memory)
    monkeypatch.setattr(os, "pread", noted)
    assert await _read(await store.open(stored.name)) == b"picture"
    assert readers
    assert threading.main_thread() not in readers


async def test_an_opened_picture_holds_no_file_before_and_after_it_is_read(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time, max_bytes=10**6)
    stored = await _written(store, b"x" * 3 * PIECE_BYTES, _PNG)
    opened = await store.open(stored.name)
    assert _open_files(tmp_path) == 0
    async with aclosing(opened.pieces) as pieces:
        await anext(pieces)
        assert _open_files(tmp_path) == 1
    assert _open_files(tmp_path) == 0


def _open_files(folder: Path) -> int:
    return sum(str(folder) in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())


async def test_a_picture_that_is_gone_cannot_be_opened(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    stored = await _written(store, b"x", _PNG)
    opened = await store.open(stored.name)
    (tmp_path / stored.name).unlink()
    for name in (stored.name, "a" * 32 + ".png", "../" + stored.name):
        with pytest.raises(FileNotFoundError):
            await store.open(name)
    with pytest.raises(FileNotFoundError):
        await _read(opened)


async def test_a_link_in_a_pictures_place_is_not_read(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path, time)
    stored = await _written(store, b"x", _PNG)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / stored.name).unlink()
    (tmp_path / stored.name).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        await _read(await store.open(stored.name))


# --- whether a picture can be stored -----------------------------------------------------------------------------


async def test_a_folder_that_was_removed_is_made_anew(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path / "pictures", time)
    for check in (store.drafts.check, store.drafts.check_room, lambda: store.drafts.draft().discard()):
        store.directory.rmdir()
        check()
        assert store.directory.stat().st_mode & 0o777 == 0o700
        assert list(store.directory.iterdir()) == []


async def test_a_file_in_the_folders_place_is_told(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path / "pictures", time)
    store.directory.rmdir()
    store.directory.touch()
    for check in (store.drafts.check, store.drafts.check_room, store.drafts.draft):
        with pytest.raises(NotADirectoryError):
            check()


async def test_what_a_draft_took_can_be_read_back_and_its_place_is_watched(tmp_path: Path, time: _Time) -> None:
    store = await _store(tmp_path / "pictures", time)
    draft = store.drafts.draft()
    draft.write(b"picture, and more")
    assert (draft.read_back(7), draft.in_place) == (b"picture", True)
    with pytest.raises(OSError, match="Input/output error"):
        draft.read_back(100)
    store.directory.rename(tmp_path / "elsewhere")
    assert not draft.in_place
    await store.prepare()
    (store.directory / draft.path.name).touch()
    assert not draft.in_place
    draft.discard()


async def test_drafts_of_a_process_that_was_killed_are_removed_where_no_other_one_serves(tmp_path: Path) -> None:
    left = tmp_path / f"{'a' * 32}.part"
    for alone in (False, True):
        left.write_bytes(b"half a picture")
        await PictureDirectory(tmp_path, keep_s=60, max_bytes=10**9, clock=Clock()).prepare(alone=alone)
        assert left.exists() is not alone, "another process may be writing it"
