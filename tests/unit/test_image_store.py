"""Stored pictures: unguessable names, complete or absent, within a time and a quota."""

import os
from pathlib import Path

import pytest

import proxy.pictures.store
from proxy.clock import Clock
from proxy.pictures.codec import Facts
from proxy.pictures.store import ImageStore, StoredPicture

_PNG = Facts("png", 1, 1)


class _Time:
    """The wall clock, in seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0


@pytest.fixture
def time() -> _Time:
    return _Time()


def _store(directory: Path, time: _Time, max_bytes: int = 1000, keep_s: float = 60) -> ImageStore:
    store = ImageStore(directory, keep_s=keep_s, max_bytes=max_bytes, clock=Clock(wall=lambda: time.now))
    store.open()
    return store


def _written(store: ImageStore, data: bytes, facts: Facts) -> StoredPicture:
    """Store a picture that nobody waits for any more."""
    stored = store.publish(store.write_draft(data), facts)
    store.release(stored.name)
    return stored


def test_what_is_waited_for_outlasts_time_and_quota(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time, max_bytes=100)
    waited = store.publish(store.write_draft(b"x" * 90), _PNG)
    time.now += 100
    other = _written(store, b"x" * 90, _PNG)
    assert (waited.path.exists(), store.find(waited.name)) == (True, None)
    store.release(waited.name)
    store.sweep()
    assert (waited.path.exists(), other.path.exists()) == (False, True)


def test_no_draft_is_opened_on_a_full_disk(tmp_path: Path, time: _Time, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(tmp_path, time)
    monkeypatch.setattr(proxy.pictures.store, "_LEAST_FREE_BYTES", 2**80)
    with pytest.raises(OSError, match="No space left"):
        store.draft()
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_found_as_it_was_written(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path / "made" / "on demand", time)
    stored = _written(store, b"picture", Facts("jpeg", 3, 2))
    assert stored.name.endswith(".jpg")
    assert (stored.size_bytes, stored.facts.width) == (7, 3)
    found = store.find(stored.name)
    assert found == stored.path
    assert found is not None
    assert found.read_bytes() == b"picture"
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_names_cannot_be_guessed(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time)
    names = {_written(store, b"x", _PNG).name for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) == 36 and int(name[:32], 16) >= 0 for name in names)
    assert len({name[:4] for name in names}) > 40


def test_a_half_written_picture_is_never_served(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time)
    draft = store.draft()
    draft.file.write(b"half")
    for name in (draft.path.name, f"{draft.path.stem}.png"):
        assert store.find(name) is None
    assert store.used_bytes == 0
    draft.file.close()
    stored = store.publish(draft.path, _PNG)
    assert not draft.path.exists()
    assert store.find(stored.name) == stored.path


def test_a_discarded_draft_is_gone(tmp_path: Path, time: _Time) -> None:
    draft = _store(tmp_path, time).draft()
    draft.file.write(b"half")
    draft.discard()
    draft.discard()
    assert list(tmp_path.iterdir()) == []


def test_pictures_go_after_their_time(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time)
    stored = _written(store, b"x" * 10, _PNG)
    time.now += 59.9
    store.sweep()
    assert store.find(stored.name)
    time.now += 0.1
    assert store.find(stored.name) is None
    store.sweep()
    assert not stored.path.exists()
    assert store.used_bytes == 0


def test_the_oldest_go_first_at_the_quota(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time, max_bytes=100)
    stored = []
    for _ in range(5):
        stored.append(_written(store, b"x" * 30, _PNG))
        time.now += 1
    assert [bool(store.find(picture.name)) for picture in stored] == [False, False, True, True, True]
    assert [picture.path.exists() for picture in stored] == [False, False, True, True, True]
    assert store.used_bytes == 90


def test_the_newest_stays_even_over_the_quota(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time, max_bytes=100)
    small, large = _written(store, b"x", _PNG), _written(store, b"x" * 500, _PNG)
    assert store.find(small.name) is None
    assert store.find(large.name)
    assert store.used_bytes == 500


def test_a_restart_takes_stock(tmp_path: Path, time: _Time) -> None:
    first = _store(tmp_path, time)
    old, new = _written(first, b"x" * 10, _PNG), _written(first, b"x" * 20, _PNG)
    os.utime(old.path, (time.now - 70, time.now - 70))
    os.utime(new.path, (time.now - 50, time.now - 50))
    foreign = tmp_path / "notes.txt"
    foreign.write_text("mine")
    again = _store(tmp_path, time)
    assert again.find(old.name) is None
    assert not old.path.exists()
    assert again.find(new.name) == new.path
    assert again.used_bytes == 20
    assert foreign.exists()
    time.now += 10
    assert again.find(new.name) is None


def test_a_restart_with_a_smaller_quota_removes_the_oldest(tmp_path: Path, time: _Time) -> None:
    first = _store(tmp_path, time)
    pictures = [_written(first, b"x" * 30, _PNG) for _ in range(3)]
    for age, picture in zip((30, 20, 10), pictures, strict=True):
        os.utime(picture.path, (time.now - age, time.now - age))
    again = _store(tmp_path, time, max_bytes=60)
    assert [bool(again.find(picture.name)) for picture in pictures] == [False, True, True]


def test_a_restart_removes_abandoned_drafts_and_no_living_ones(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time)
    abandoned, living = store.write_draft(b"old"), store.write_draft(b"new")
    os.utime(abandoned, (time.now - 4000, time.now - 4000))
    os.utime(living, (time.now, time.now))
    _store(tmp_path, time)
    assert not abandoned.exists()
    assert living.exists()


def test_a_symbolic_link_is_not_followed(tmp_path: Path, time: _Time) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "pictures"
    folder.mkdir()
    name = f"{'a' * 32}.png"
    (folder / name).symlink_to(secret)
    os.utime(secret, (time.now, time.now))
    assert _store(folder, time).find(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret.png", "/etc/passwd", "%2e%2e/secret", "A" * 32 + ".png", "a" * 32, "a" * 32 + ".png\n"],
)
def test_other_names_lead_nowhere(tmp_path: Path, time: _Time, name: str) -> None:
    (tmp_path / "secret.png").write_text("secret")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / ("A" * 32 + ".png")).write_text("not ours")
    assert _store(folder, time).find(name) is None


def test_a_picture_that_somebody_removed_is_not_found(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path, time)
    stored = _written(store, b"x", _PNG)
    stored.path.unlink()
    assert store.find(stored.name) is None
    time.now += 100
    store.sweep()
    assert store.used_bytes == 0


# --- whether a picture can be stored -----------------------------------------------------------------------------


def test_a_folder_that_was_removed_is_made_anew(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path / "pictures", time)
    for check in (store.check, store.check_room, lambda: store.draft().discard()):
        store.directory.rmdir()
        check()
        assert store.directory.stat().st_mode & 0o777 == 0o700
        assert list(store.directory.iterdir()) == []


def test_a_file_in_the_folders_place_is_told(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path / "pictures", time)
    store.directory.rmdir()
    store.directory.touch()
    for check in (store.check, store.check_room, store.draft):
        with pytest.raises(NotADirectoryError):
            check()


def test_what_a_draft_took_can_be_read_back_and_its_place_is_watched(tmp_path: Path, time: _Time) -> None:
    store = _store(tmp_path / "pictures", time)
    draft = store.draft()
    draft.write(b"picture, and more")
    assert (draft.read_back(7), draft.in_place) == (b"picture", True)
    with pytest.raises(OSError, match="Input/output error"):
        draft.read_back(100)
    store.directory.rename(tmp_path / "elsewhere")
    assert not draft.in_place
    store.open()
    (store.directory / draft.path.name).touch()
    assert not draft.in_place
    draft.discard()
