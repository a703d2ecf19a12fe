"""Pictures in a real S3 server: under the prefix, in the folder while the server takes none, swept by any replica."""

import asyncio
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from proxy.clock import Clock
from proxy.pictures import bucket, s3
from proxy.pictures.codec import Facts
from proxy.pictures.directory import PictureDirectory
from proxy.pictures.s3 import S3Pictures
from proxy.pictures.store import Opened, always
from tests.object_store import BUCKET, ObjectStore, object_store

pytestmark = pytest.mark.anyio
_PNG = Facts("png", 1, 1)
_KEEP_S = 60


@asynccontextmanager
async def _store(
    folder: Path, *, keep_s: float = _KEEP_S, may_sweep: Callable[[], Awaitable[bool]] = always, in_bucket: str = BUCKET
) -> AsyncIterator[S3Pictures]:
    """Open a store as one process does, wait until it has begun, and close it."""
    clock = Clock()
    local = PictureDirectory(folder, keep_s=keep_s, max_bytes=10**9, clock=clock, dated=True)
    store = S3Pictures(f"s3://{in_bucket}/deep/inside/", local, keep_s=keep_s, clock=clock, may_sweep=may_sweep)
    await store.prepare()
    await _settled(store)
    try:
        yield store
    finally:
        await store.close()


async def _settled(store: S3Pictures) -> None:
    """Wait until the store has nothing to do in the background."""
    assert store._work is not None
    await asyncio.wait({store._work})


async def _swept(store: S3Pictures) -> None:
    await store.sweep()
    await _settled(store)


async def _read(opened: Opened) -> bytes:
    return b"".join([piece async for piece in opened.pieces])


def _pictures(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".png"]


def _name(age_s: float, number: int = 0) -> str:
    return f"{int(time.time() - age_s):08x}{number:032x}.png"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    (tmp_path / "objects").mkdir()
    with object_store(tmp_path / "objects") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


async def test_an_object_is_under_the_prefix_and_says_what_it_is(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        stored = await store.publish(store.drafts.write(b"picture"), Facts("webp", 1, 1))
        assert server.objects() == {f"deep/inside/{stored.name}": b"picture"}
        found = await obstore.get_async(
            S3Store(BUCKET, client_options={"allow_http": True}), f"deep/inside/{stored.name}"
        )
        assert found.attributes["Content-Type"] == "image/webp"
        assert found.attributes["Cache-Control"] == "public, max-age=60, immutable"


async def test_the_folder_holds_it_only_while_it_is_delivered(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        assert (_pictures(folder), store.used_bytes) == ([stored.name], 7)
        server.kill()
        assert await _read(await store.open(stored.name)) == b"picture"
        opened = await store.open(stored.name)
        server.start()
        store.release(stored.name)
        assert (_pictures(folder), store.used_bytes) == ([], 0)
        # Opened while the file was there, read when it is not.
        assert await _read(opened) == b"picture"


async def test_every_replica_serves_the_same_version(server: ObjectStore, folder: Path, tmp_path: Path) -> None:
    async with _store(folder) as one, _store(tmp_path / "other") as other:
        stored = await one.publish(one.drafts.write(b"picture"), _PNG)
        here, there = await one.find(stored.name), await other.find(stored.name)
        one.release(stored.name)
        assert here == there == await one.find(stored.name)
        assert await _read(await other.open(stored.name, (2, 5))) == b"ctu"
    assert len(server.objects()) == 1


async def test_a_large_picture_goes_in_parts(
    server: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_SINGLE_PUT_BYTES", 5_242_880)  # the least that S3 takes as a part
    data = bytes(range(256)) * 22_000
    async with _store(folder) as store:
        stored = await store.publish(store.drafts.write(data), _PNG)
        assert server.objects()[f"deep/inside/{stored.name}"] == data
        store.release(stored.name)
        assert await _read(await store.open(stored.name, (5_242_000, 5_243_000))) == data[5_242_000:5_243_000]


def test_who_has_no_store_does_not_load_what_it_needs() -> None:
    loaded = "import sys, proxy.cli, proxy.app; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False, cwd=Path(__file__).parents[2]).returncode == 0


# --- when the server takes nothing -------------------------------------------------------------------------------


async def test_what_a_dead_server_does_not_take_is_kept_and_put_later(
    server: ObjectStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _store(folder) as store:
        server.kill()
        pictures = [await store.publish(store.drafts.write(b"%d" % number), _PNG) for number in range(20)]
        for picture in pictures[1:]:
            store.release(picture.name)
        assert await store.find(pictures[3].name)
        assert await _read(await store.open(pictures[3].name)) == b"3"
        with pytest.raises(OSError, match="cannot be reached"):
            await store.find(_name(1))
        await _swept(store)
        assert len(_pictures(folder)) == 20
        server.start()
        await _swept(store)
        assert len(server.objects()) == 20
        assert _pictures(folder) == [pictures[0].name]  # not delivered yet
        assert await store.find(_name(1)) is None
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(";")[0] for line in told] == [
        "putting a picture into images.store fails: it cannot be reached, or does not work",
        "images.store takes pictures again",
    ]


async def test_what_waited_at_the_end_of_a_process_is_put_by_the_next(server: ObjectStore, folder: Path) -> None:
    server.kill()
    async with _store(folder) as store:
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        store.release(stored.name)
    server.start()
    async with _store(folder) as store:
        assert list(server.objects()) == [f"deep/inside/{stored.name}"]
        assert _pictures(folder) == []


async def test_what_the_next_process_is_to_deliver_stays_in_the_folder_meanwhile(
    server: ObjectStore, folder: Path
) -> None:
    server.kill()
    async with _store(folder) as store:
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        store.release(stored.name)
    async with _store(folder) as store:
        store.pin(stored.name)
        store.pin(_name(1))  # another replica's
        server.start()
        await _swept(store)
        assert (len(server.objects()), _pictures(folder)) == (1, [stored.name])
        store.release(stored.name)
        store.release(_name(1))
        assert _pictures(folder) == []


async def test_the_end_of_a_process_puts_what_waits(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        server.kill()
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        store.release(stored.name)
        server.start()
        assert await store.probe() == ""
    assert list(server.objects()) == [f"deep/inside/{stored.name}"]


async def test_what_somebody_took_from_the_folder_is_waited_for_no_longer(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        server.kill()
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        (folder / stored.name).unlink()
        server.start()
        await _swept(store)
        assert (store._waiting, server.objects()) == ({}, {})


async def test_pictures_of_the_time_before_the_storage_are_served_from_the_folder(
    server: ObjectStore, folder: Path
) -> None:
    name = f"{'a' * 32}.png"
    _place(folder / name)
    async with _store(folder) as store:
        assert await store.find(name)
        assert await _read(await store.open(name)) == b"x"
        store.release(name)
        assert (_pictures(folder), server.objects()) == ([name], {})


async def test_a_server_that_does_not_answer_keeps_nobody_waiting_for_long(
    server: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_QUICK_S", 1)
    monkeypatch.setattr(s3, "_LATER_S", 0.2)
    async with _store(folder) as store:
        server.freeze()
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        store.release(stored.name)
        began = time.monotonic()
        again = await store.publish(store.drafts.write(b"picture"), _PNG)  # known by now
        assert time.monotonic() - began < 1
        store.release(again.name)
        await _swept(store)
        assert len(_pictures(folder)) == 2
        server.wake()
        monkeypatch.setattr(s3, "_LATER_S", 20)
        await _swept(store)
        assert len(server.objects()) == 2
        assert _pictures(folder) == []


async def test_a_picture_that_is_abandoned_while_it_is_put_leaves_nothing(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        server.freeze()
        task = asyncio.ensure_future(store.publish(store.drafts.write(b"picture"), _PNG))
        while not _pictures(folder):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert (task.cancelled(), _pictures(folder), store.used_bytes) == (True, [], 0)
        server.wake()


@pytest.mark.parametrize(
    ("variable", "value", "in_bucket", "told"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", BUCKET, "it refuses the credentials"),
        ("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN123456789", BUCKET, "it refuses the credentials"),
        ("AWS_ALLOW_HTTP", "false", BUCKET, "it cannot be reached"),
        ("AWS_REGION", "eu-west-1", "missing", "there is no such bucket"),
    ],
)
async def test_a_server_that_refuses_is_told_and_costs_no_picture(
    server: ObjectStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    in_bucket: str,
    told: str,
) -> None:
    monkeypatch.setenv(variable, value)
    async with _store(folder, in_bucket=in_bucket) as store:
        assert f"putting an object in images.store fails: {told}" in caplog.text
        assert told in await store.probe()
        stored = await store.publish(store.drafts.write(b"picture"), _PNG)
        assert await _read(await store.open(stored.name)) == b"picture"
    assert server.environment["AWS_SECRET_ACCESS_KEY"] not in caplog.text
    assert value == "false" or value not in caplog.text


def test_variables_that_make_no_sense_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "perhaps")
    local = PictureDirectory(folder, keep_s=1, max_bytes=1, clock=Clock(), dated=True)
    with pytest.raises(OSError, match=r"images\.store: the AWS_\* variables make no sense"):
        S3Pictures(f"s3://{BUCKET}", local, keep_s=1, clock=Clock())


# --- when the folder cannot be written ---------------------------------------------------------------------------


def _block(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


async def test_without_a_folder_the_server_alone_will_do(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        _block(folder)
        for by_writing in (False, True):
            store.check(by_writing=by_writing)
        assert store.draft() is None
        stored = await store.publish_bytes(b"picture", _PNG)
        assert server.objects() == {f"deep/inside/{stored.name}": b"picture"}
        assert await _read(await store.open(stored.name)) == b"picture"
        store.release(stored.name)
        assert await store.find(stored.name)


async def test_without_either_nothing_is_to_be_bought(server: ObjectStore, folder: Path) -> None:
    async with _store(folder) as store:
        _block(folder)
        server.kill()
        with pytest.raises(OSError, match="Not a directory"):
            await store.publish_bytes(b"picture", _PNG)
        for by_writing in (False, True):
            with pytest.raises(OSError, match="Not a directory"):
                store.check(by_writing=by_writing)
        with pytest.raises(OSError, match="Not a directory"):
            store.draft()
        await _swept(store)
        server.start()
        await _swept(store)
        store.check(by_writing=True)


# --- sweeping ----------------------------------------------------------------------------------------------------


def _put_there(server: ObjectStore, *names: str) -> None:
    """Put objects there as if other replicas had; the server looks at its folder only once."""
    server.kill()
    for name in names:
        _place(server.bucket / "deep/inside" / name)
    server.start()


def _place(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


async def test_what_is_past_its_time_is_swept_and_nothing_else(server: ObjectStore, folder: Path) -> None:
    old = [_name(1000 - number % 900, number) for number in range(1200)]
    other = ["notes.txt", "0000 not ours.png", "a/" + _name(1000), _name(30)]
    _put_there(server, *old, *other)
    async with _store(folder) as store:
        await _swept(store)
        assert sorted(server.objects()) == sorted(f"deep/inside/{name}" for name in other)


async def test_two_may_sweep_at_once(server: ObjectStore, folder: Path, tmp_path: Path) -> None:
    _put_there(server, *(_name(1000, number) for number in range(300)), _name(30))
    async with _store(folder) as one, _store(tmp_path / "other") as other:
        await asyncio.gather(
            one._bucket.sweep(int(time.time()) - _KEEP_S), other._bucket.sweep(int(time.time()) - _KEEP_S)
        )
        assert len(server.objects()) == 1


async def test_who_may_not_sweep_does_not(server: ObjectStore, folder: Path) -> None:
    asked = 0

    async def no() -> bool:
        nonlocal asked
        asked += 1
        return False

    _put_there(server, _name(1000))
    async with _store(folder, may_sweep=no) as store:
        await _swept(store)
        await _swept(store)
        assert (asked, len(server.objects())) == (2, 1)


async def test_with_keep_0_nothing_is_swept(server: ObjectStore, folder: Path) -> None:
    _put_there(server, _name(10**7))
    async with _store(folder, keep_s=0) as store:
        await _swept(store)
        assert len(server.objects()) == 1


async def test_a_sweep_that_fails_is_told_and_comes_again(
    server: ObjectStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _put_there(server, _name(1000))
    async with _store(folder) as store:
        server.kill()
        await _swept(store)
        assert "removing old pictures from images.store fails" in caplog.text
        server.start()
        store._swept_at -= _KEEP_S
        await _swept(store)
        assert server.objects() == {}


# --- servers of other kinds --------------------------------------------------------------------------------------


class _Grudging(http.server.BaseHTTPRequestHandler):
    """Takes objects, and says "forbidden" of those that aren't there, as S3 does to who may not list them all."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(200)

    def do_HEAD(self) -> None:
        self._answer(403)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.close_connection = True

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.send_header("etag", '"x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def grudging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Grudging) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield
        running.shutdown()


@pytest.mark.usefixtures("grudging")
async def test_forbidden_means_missing_where_putting_is_allowed(folder: Path) -> None:
    async with _store(folder) as store:
        assert await store.find(_name(1)) is None


@pytest.mark.usefixtures("grudging")
async def test_an_object_that_breaks_off_is_no_picture(folder: Path) -> None:
    async with _store(folder) as store:
        opened = await store.open(_name(1), (0, 1000))
        with pytest.raises(OSError, match="cannot be reached"):
            await _read(opened)
