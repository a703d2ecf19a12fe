"""The service on a real S3 server that dies, stalls or refuses: nothing paid is lost, nothing is bought in vain."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.pictures import bucket
from proxy.pictures.codec import inspect
from proxy.pictures.s3 import S3Pictures
from tests.object_store import BUCKET, ObjectStore, object_store
from tests.service import Service, running
from tests.time_skip import real_time

from .wire import LABS, SCHNELL, assert_failed

pytestmark = pytest.mark.anyio
RETRY = {"x-stainless-retry-count": "1"}
B64: dict[str, Any] = {"response_format": "b64_json"}
URL: dict[str, Any] = {"response_format": "url"}
_OWN = ("date", "x-request-id", "openai-processing-ms")
"""Headers that differ from answer to answer."""


@pytest.fixture(autouse=True)
def _quick_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.generations.results._FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr("proxy.generations.results._LONGEST_PAUSE_S", 0.1)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    (tmp_path / "objects").mkdir()
    with object_store(tmp_path / "objects") as running_server:
        for name, value in running_server.environment.items():
            monkeypatch.setenv(name, value)
        yield running_server


@asynccontextmanager
async def replicas(count: int = 1, **images: Any) -> AsyncIterator[list[Service]]:
    """Run services on the one store, each with a folder of its own."""
    async with _running(count, {"store": f"s3://{BUCKET}/p", **images}) as services:
        with real_time():  # the server is another process
            for service in services:
                await settled(service)
            yield services
            for service in services:
                if service.engine.directory.is_file():  # blocked
                    service.engine.directory.unlink()
                    service.engine.directory.mkdir()


@asynccontextmanager
async def _running(count: int, images: dict[str, Any]) -> AsyncIterator[list[Service]]:
    if not count:
        yield []
        return
    async with running(images=images) as service, _running(count - 1, images) as others:
        yield [service, *others]


async def settled(service: Service) -> None:
    """Wait until the store has nothing to do in the background."""
    store = service.engine.store
    assert isinstance(store, S3Pictures)
    assert store._work is not None
    await asyncio.wait({store._work})


async def swept(service: Service) -> None:
    await service.engine.store.sweep()
    await settled(service)


def block(service: Service) -> None:
    """Put a file where the folder was."""
    shutil.rmtree(service.engine.directory)
    service.engine.directory.touch()


async def test_every_replica_serves_a_picture_with_the_same_headers(server: ObjectStore) -> None:
    async with replicas(2) as (one, other):
        answer = await one.generate("a [seconds:0]", model=SCHNELL, **URL)
        url = answer.json["data"][0]["url"]
        path = url.removeprefix(one.url)
        assert url.startswith(one.url)
        assert list(server.objects()) == [f"p/{path.rpartition('/')[2]}"]
        here, there = await one.get(path), await other.get(path)
        assert here.status == there.status == 200
        assert here.body == there.body
        inspect(there.body)
        told = {name.lower(): value for name, value in here.headers.items() if name.lower() not in _OWN}
        assert told == {name.lower(): there.headers[name] for name in there.headers if name.lower() in told}
        assert told["cache-control"] == "public, max-age=3600, immutable"
        assert told["accept-ranges"] == "bytes"
        for service in (one, other):
            part = await service.get(path, {"range": "bytes=3-12", "if-range": told["etag"]})
            assert (part.status, part.body) == (206, here.body[3:13])
            assert part.headers["content-range"] == f"bytes 3-12/{len(here.body)}"
            async with service.http.head(service.url + path) as head:
                assert (head.status, head.headers["content-length"]) == (200, str(len(here.body)))
        server.kill()
        missing = await other.get(path.replace(path[-20:-4], "0" * 16))
        assert_failed(missing, 503, "server_error", "state_unavailable", retry=True)
        assert missing.headers["retry-after"] == "5"
        server.start()
        assert (await other.get(path.replace(path[-20:-4], "0" * 16))).status == 404


@pytest.mark.parametrize(
    ("model", "values"),
    [(SCHNELL, {"response_format": "url", "output_format": "webp"}), (LABS, {**B64, "n": 3})],
)
async def test_a_dead_server_costs_neither_a_picture_nor_an_answer(
    server: ObjectStore, model: str, values: dict[str, Any]
) -> None:
    async with replicas() as (service,):
        server.kill()
        answer = await service.generate("a [seconds:0] [tag:t]", model=model, **values)
        assert answer.status == 200
        for datum in answer.json["data"]:
            if "url" in datum:
                inspect((await service.get(datum["url"])).body)
            else:
                inspect(base64.b64decode(datum["b64_json"]))
        server.start()
        await swept(service)
        count = values.get("n", 1)
        assert len(server.objects()) == count
        assert (await service.counts("t"))["submits"] == count


async def test_a_server_that_dies_while_pictures_are_made_loses_none(server: ObjectStore) -> None:
    async with replicas(2) as services:
        calls = [
            asyncio.ensure_future(
                services[number % 2].generate(f"a {number} [seconds:0.4] [tag:t]", model=SCHNELL, **URL)
            )
            for number in range(12)
        ]
        await asyncio.sleep(0.05)
        server.kill()
        first = [await call for call in calls]
        server.start()
        assert [answer.status for answer in first] == [200] * 12
        for service in services:
            await swept(service)
        assert len(server.objects()) == 12
        for answer in first:
            path = "/images/" + answer.json["data"][0]["url"].rpartition("/")[2]
            bodies = {(await service.get(path)).body for service in services}
            assert len(bodies) == 1
            inspect(bodies.pop())
        assert (await services[0].counts("t"))["submits"] + (await services[1].counts("t"))["submits"] == 12


async def test_wrong_credentials_cost_neither_a_picture_nor_an_answer(
    server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    async with replicas() as (service,):
        answer = await service.generate("a [seconds:0]", model=SCHNELL, **URL)
        assert (await service.get(answer.json["data"][0]["url"])).status == 200
        assert server.objects() == {}


async def test_a_server_that_does_not_answer_delays_only_the_first(
    server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_QUICK_S", 1)
    async with replicas() as (service,):
        server.freeze()
        for _ in range(2):
            assert (await service.generate("a [seconds:0]", model=SCHNELL, **B64)).status == 200
        server.wake()
        await swept(service)
        assert len(server.objects()) == 2


async def test_without_a_folder_the_server_alone_will_do(server: ObjectStore) -> None:
    async with replicas() as (service,):
        block(service)
        for values in (B64, URL):
            answer = await service.generate("a [seconds:0]", model=SCHNELL, **values)
            assert answer.status == 200
        assert len(server.objects()) == 2


async def test_without_either_nothing_is_bought_and_what_was_bought_is_kept(server: ObjectStore) -> None:
    async with replicas() as (service,):
        call = asyncio.ensure_future(service.generate("a [seconds:0.4] [tag:t]", model=LABS, **B64))
        async with asyncio.timeout(5):
            while (await service.counts("t"))["submits"] < 1:  # noqa: ASYNC110 (the simulator tells nobody)
                await asyncio.sleep(0.005)
        server.kill()
        block(service)
        assert_failed(await call, 504, "timeout_error", "generation_pending", retry=True)
        refused = await service.generate("another [tag:other]", model=LABS, **B64)
        assert_failed(refused, 503, "server_error", "state_unavailable", retry=True)
        assert (await service.counts("other"))["submits"] == 0
        server.start()
        answer = await service.generate("a [seconds:0.4] [tag:t]", RETRY, model=LABS, **B64)
        assert answer.status == 200
        assert answer.headers["x-images-reattached"] == "true"
        inspect(base64.b64decode(answer.json["data"][0]["b64_json"]))
        assert (await service.counts("t"))["submits"] == 1
        await swept(service)
        assert (await service.generate("another [seconds:0]", model=LABS, **B64)).status == 200
