"""A picture folder that cannot be written: nothing is bought that cannot be stored, nothing bought is bought again."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ProviderFailure
from proxy.pictures.codec import inspect
from proxy.providers.boundary import SUBMIT, Reply
from tests.e2e.parts import data_url, picture
from tests.service import Answer, Service, running

from .wire import LABS, LEGACY, SCHNELL, V1, assert_failed, eventually

pytestmark = pytest.mark.anyio
RETRY = {"x-stainless-retry-count": "1"}
B64: dict[str, Any] = {"response_format": "b64_json"}
URL: dict[str, Any] = {"response_format": "url"}


@pytest.fixture(autouse=True)
def _quick_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.generations.results._FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr("proxy.generations.results._LONGEST_PAUSE_S", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


@asynccontextmanager
async def fragile(folder: Path, **tables: Any) -> AsyncIterator[Service]:
    """Run a service with the folder for its pictures."""
    images = {"directory": str(folder), **tables.pop("images", {})}
    async with running(images=images, **tables) as service:
        yield service


def block(service: Service) -> None:
    """Put a file where the folder was."""
    folder = service.engine.directory
    shutil.rmtree(folder)
    folder.touch()


def mend(service: Service) -> None:
    """Take the file away; the folder is for the service to make."""
    service.engine.directory.unlink()


async def bought(service: Service, tag: str, count: int = 1) -> None:
    """Wait until the simulator has seen so many submits."""
    async with asyncio.timeout(5):
        while (await service.counts(tag))["submits"] < count:  # noqa: ASYNC110 (the simulator tells nobody)
            await asyncio.sleep(0.005)


async def blocked_once_bought(service: Service, call: Awaitable[Answer], tag: str = "t", count: int = 1) -> Answer:
    """Make the call, and block the folder when its jobs have been bought."""
    task = asyncio.ensure_future(call)
    await bought(service, tag, count)
    block(service)
    return await task


def assert_pending(answer: Answer) -> None:
    assert_failed(answer, 504, "timeout_error", "generation_pending", retry=True)


@pytest.mark.parametrize(
    ("model", "mode", "values"),
    [
        (SCHNELL, "sync", URL),
        (SCHNELL, "async", URL),
        *((model, "sync", B64) for model in (SCHNELL, V1, LEGACY, LABS)),
        (V1, "sync", {**URL, "output_format": "jpeg"}),
        (LABS, "sync", {**URL, "output_compression": 40}),
        (LABS, "sync", {"stream": True}),
        (LABS, "sync", {**B64, "n": 3}),
    ],
)
async def test_what_needs_a_file_is_refused_before_it_is_bought(
    folder: Path, model: str, mode: str, values: dict[str, Any]
) -> None:
    async with fragile(folder, providers={"mode": mode}) as service:
        block(service)
        for attempt in range(4):
            headers = {"x-stainless-retry-count": str(attempt), **({"idempotency-key": "k"} if attempt > 2 else {})}
            answer = await service.generate("a [seconds:0] [tag:t]", headers, model=model, **values)
            assert_failed(answer, 503, "server_error", "state_unavailable", retry=True)
        assert (await service.counts("t"))["submits"] == 0
        mend(service)
        assert (await service.generate("a [seconds:0] [tag:t]", model=model, **values)).status == 200
        assert (await service.counts("t"))["submits"] == values.get("n", 1)
        for runtime in service.engine.runtimes.values():
            assert (runtime.slots._value, runtime.submit_breaker.state) == (runtime.max_jobs, "closed")


@pytest.mark.parametrize("model", [V1, LEGACY, LABS])
async def test_what_needs_no_file_is_made_all_the_same(folder: Path, model: str) -> None:
    async with fragile(folder) as service:
        block(service)
        answer = await service.generate("a [seconds:0]", model=model, **URL)
        assert (answer.status, answer.json["data"][0]["url"].startswith(service.upstream)) == (200, True)


async def test_with_copies_of_everything_everything_needs_a_file(folder: Path) -> None:
    async with fragile(folder, images={"copies": "always"}) as service:
        block(service)
        answer = await service.generate("a [seconds:0] [tag:t]", model=LABS, **URL)
        assert_failed(answer, 503, "server_error", "state_unavailable", retry=True)
        assert (await service.counts("t"))["submits"] == 0


async def test_a_route_that_needs_no_file_stands_in_for_one_that_does(folder: Path) -> None:
    models = {"mine": {"routes": [SCHNELL, LABS]}}
    async with fragile(folder, models=models) as service:
        block(service)
        answer = await service.generate("a [seconds:0]", model="mine", **URL)
        assert (answer.status, answer.headers["x-images-provider"]) == (200, "imagelabs")


@pytest.mark.parametrize("model", [SCHNELL, LABS])
async def test_a_removed_folder_is_made_anew(folder: Path, model: str) -> None:
    async with fragile(folder) as service:
        shutil.rmtree(service.engine.directory)
        answer = await service.generate("a [seconds:0]", model=model, **B64)
        assert answer.status == 200
        assert service.engine.directory.stat().st_mode & 0o777 == 0o700


async def test_it_is_looked_at_again_after_the_queue(folder: Path) -> None:
    async with fragile(folder, providers={"max_jobs": 1}) as service:
        first = asyncio.ensure_future(service.generate("a [seconds:0.2] [tag:t]", model=LABS, **URL))
        await bought(service, "t")
        second = asyncio.ensure_future(service.generate("b [seconds:0.2] [tag:t]", model=LABS, **B64))
        await asyncio.sleep(0.05)
        block(service)
        assert (await first).status == 200
        assert_failed(await second, 503, "server_error", "state_unavailable", retry=True)
        assert (await service.counts("t"))["submits"] == 1


@pytest.mark.parametrize(
    ("model", "mode", "values", "key"),
    [
        (SCHNELL, "sync", B64, {}),
        (SCHNELL, "sync", URL, {"idempotency-key": "k"}),
        (SCHNELL, "async", B64, {}),
        (SCHNELL, "async", URL, {"idempotency-key": "k"}),
        (V1, "sync", B64, {}),
        (LEGACY, "sync", B64, {}),
        (LABS, "sync", B64, {"idempotency-key": "k"}),
        (LABS, "sync", {**URL, "output_format": "webp", "output_compression": 50}, {}),
        (LABS, "sync", {**B64, "n": 3}, {}),
        (LABS, "sync", {"stream": True}, {}),
    ],
)
async def test_what_was_bought_is_not_bought_again(
    folder: Path, model: str, mode: str, values: dict[str, Any], key: dict[str, str]
) -> None:
    count = values.get("n", 1)
    async with fragile(folder, providers={"mode": mode}) as service:

        def call(headers: dict[str, str]) -> Awaitable[Answer]:
            return service.generate("a [seconds:0.2] [tag:t]", {**headers, **key}, model=model, **values)

        assert_pending(await blocked_once_bought(service, call({}), count=count))
        assert_pending(await call(RETRY))
        assert_pending(await call({"x-stainless-retry-count": "2"}))
        assert (await service.generate("another", model=model, **values)).status == 503
        mend(service)
        answer = await call({"x-stainless-retry-count": "3"})
        assert answer.status == 200
        assert answer.headers["x-images-reattached"] == "true"
        assert (await service.counts("t"))["submits"] == count
        if "b64_json" in values.values():
            for datum in answer.json["data"]:
                inspect(base64.b64decode(datum["b64_json"]))


@pytest.mark.parametrize("surface", ["chat", "sdapi", "edit"])
async def test_other_surfaces_hear_the_same(folder: Path, surface: str) -> None:
    prompt = "a [seconds:0.2] [tag:t]"
    surfaces: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": prompt}], "modalities": ["image", "text"]},
        ),
        "sdapi": ("/sdapi/v1/txt2img", {"prompt": prompt}),
        "edit": ("/v1/images/edits", {"prompt": prompt, "images": [{"image_url": data_url(picture())}], **B64}),
    }
    path, body = surfaces[surface]
    async with fragile(folder) as service:
        block(service)
        refused = await service.post(path, {"model": LABS, **body})
        assert_failed(refused, 503, "server_error", "state_unavailable", retry=True)
        mend(service)
        assert_pending(await blocked_once_bought(service, service.post(path, {"model": LABS, **body})))
        mend(service)
        assert (await service.post(path, {"model": LABS, **body}, RETRY)).status == 200
        assert (await service.counts("t"))["submits"] == 1


async def test_a_handed_over_generation_waits_for_its_store(folder: Path) -> None:
    async with fragile(folder) as service:
        prefer = {"prefer": "respond-async"}
        call = service.generate("a [seconds:0.2] [tag:t]", prefer, model=LABS, **B64)
        handed_over = await blocked_once_bought(service, call)
        assert handed_over.status == 202
        await asyncio.sleep(0.5)
        assert (await service.get(handed_over.headers["location"])).status == 202
        mend(service)
        async with asyncio.timeout(5):
            while (await service.get(handed_over.headers["location"])).status == 202:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await service.get(handed_over.headers["location"])).status == 200
        assert (await service.counts("t"))["submits"] == 1


async def test_the_providers_slot_is_free_meanwhile(folder: Path) -> None:
    async with fragile(folder, providers={"max_jobs": 1, "mode": "async"}) as service:
        for model in (SCHNELL, LABS):
            prompt = f"a [seconds:0.2] [tag:{model[:4]}]"
            assert_pending(
                await blocked_once_bought(service, service.generate(prompt, None, model=model, **B64), tag=model[:4])
            )
            assert not service.engine.runtimes[model.partition("/")[0]].slots.locked()
            mend(service)


@pytest.mark.parametrize(("model", "mode"), [(SCHNELL, "sync"), (SCHNELL, "async"), (LABS, "sync")])
async def test_after_its_lifetime_it_is_given_up_and_not_to_be_repeated(folder: Path, model: str, mode: str) -> None:
    async with fragile(folder, timeouts={"lifetime": 0.8}, providers={"mode": mode}) as service:
        prompt = "a [seconds:0.2] [tag:t]"
        assert_pending(await blocked_once_bought(service, service.generate(prompt, None, model=model, **B64)))
        await eventually(lambda: service.engine.generations.running == 0)
        for attempt in range(1, 3):
            headers = {"x-stainless-retry-count": str(attempt)}
            answer = await service.generate(prompt, headers, model=model, **B64)
            assert_failed(answer, 504, "timeout_error", "generation_timeout")
        assert (await service.counts("t"))["submits"] == 1


async def test_a_picture_that_came_with_a_failure_and_cannot_be_removed_hides_no_failure(folder: Path) -> None:
    async with fragile(folder) as service:
        picture = folder / "x.part"
        block(service)
        body = b'{"error": "refused", "state": {"current": "failed"}}'
        reply = Reply(200, {"content-type": "application/json"}, body, picture=picture)
        with pytest.raises(ProviderFailure):
            service.engine.runtimes["imagelabs"].read(SUBMIT, reply)
