"""The process is killed at every point of a job's life, for every dialect, and started again."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.durability.points import POINTS
from tests.durability.process import Process
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.kill, pytest.mark.realtime]

MODELS: Final = {
    "v2 sync": "prodia/inference.flux-fast.schnell.txt2img.v2",
    "v2 async": "prodia/inference.flux-fast.schnell.txt2img.v2",
    "v1": "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]",
    "legacy": "prodia-legacy/dreamshaper_8.safetensors [9d40847d]",
    "imagelabs": "imagelabs/sdxl-turbo",
}
POLLED: Final = frozenset(MODELS) - {"v2 sync"}
_ONLY_POLLED: Final = frozenset({"answered", "accepted", "polled"})
_SECONDS: Final = 0.6
_numbers = count()


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Other processes are waited for."""
    return backend(skip=False)


@pytest.fixture(scope="module")
async def upstream(anyio_backend: object) -> AsyncIterator[str]:  # noqa: ARG001 (it chooses the loop)
    async with serving(create_simulator(speed=20.0)) as port:
        yield f"http://127.0.0.1:{port}"


def service(folder: Path, upstream: str, kind: str, **changes: Any) -> Process:
    mode = {"mode": kind.removeprefix("v2 ")} if kind.startswith("v2") else {}
    return Process(folder, upstream, {**mode, **changes})


# What the same Idempotency-Key hears after the next start, and how often the provider was asked to make the picture.
NOTHING: Final = (200, 1)
"""Nothing had been written, so the repeat is a first call."""
UNKNOWN_UNSENT: Final = (502, 0)
UNKNOWN_SENT: Final = (502, 1)
KEPT: Final = (200, 1)


def expected(kind: str, point: str) -> tuple[int, int]:
    if point == "start asked":
        return NOTHING
    if point in ("start written", "submit written"):
        return UNKNOWN_UNSENT  # whether it was sent can't be told from whether its answer was lost
    if point in ("finished", "answering", "delivered"):
        return KEPT
    return UNKNOWN_SENT if point == "answered" or kind not in POLLED else KEPT


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("point", POINTS)
async def test_killed(tmp_path: Path, upstream: str, kind: str, point: str) -> None:
    if point in _ONLY_POLLED and kind not in POLLED:
        pytest.skip("its submit and its result are one call")
    tag = f"k{next(_numbers)}"
    process = service(tmp_path, upstream, kind)
    asked: dict[str, Any] = {"model": MODELS[kind], "response_format": "b64_json", "size": "256x256"}
    prompt = f"a fox [seconds:{_SECONDS}] [tag:{tag}]"
    await process.start(point)
    assert await process.generate(prompt, {"Idempotency-Key": tag}, **asked) is None
    assert await process.ended() == -9, process.errors
    await process.start()
    try:
        answer = await process.generate(prompt, {"Idempotency-Key": tag}, **asked)
        assert answer is not None
        counts = await process.counts(tag)
        assert (answer.status, counts["submits"]) == expected(kind, point), (answer.json, process.errors)
        if answer.status == 502:
            assert answer.code == "submit_outcome_unknown"
            assert answer.headers["x-should-retry"] == "false"
            again = await process.generate(prompt, {"Idempotency-Key": tag}, **asked)
            assert again is not None
            assert (again.status, (await process.counts(tag))["submits"]) == (502, counts["submits"])
            fresh = await process.generate(prompt, **asked)
            assert fresh is not None
            assert fresh.status == 200, "told once, a fresh call is a new intent"
            assert [job.state for job in (await process.everything()).jobs].count("unknown") == 1
        elif point != "start asked":
            assert answer.headers["x-images-reattached"] == "true"
    finally:
        await process.kill()
    found = await process.everything()
    assert not [job for job in found.jobs if job.state in ("intended", "submitting", "accepted")]
    assert not list((tmp_path / "state" / "pictures").glob("*.draft*")), "nothing half written stays"


@pytest.mark.parametrize("kind", MODELS)
async def test_killed_while_the_submit_is_on_its_way(tmp_path: Path, upstream: str, kind: str) -> None:
    tag = f"k{next(_numbers)}"
    process = service(tmp_path, upstream, kind)
    asked: dict[str, Any] = {"model": MODELS[kind], "size": "256x256"}
    prompt = f"a fox [fault:hang] [tag:{tag}]"
    await process.start()
    lost = asyncio.create_task(process.generate(prompt, {"Idempotency-Key": tag}, **asked))
    await process.reached(tag, "submits")
    await process.kill()
    assert await lost is None
    await process.start()
    try:
        answer = await process.generate(prompt, {"Idempotency-Key": tag}, **asked)
        assert answer is not None
        assert (answer.status, answer.code) == (502, "submit_outcome_unknown")
        assert (await process.counts(tag))["submits"] == 1
    finally:
        await process.kill()


@pytest.mark.parametrize("sign", ["key", "counter", "bare"])
async def test_killed_with_four_pictures_in_all_states(tmp_path: Path, upstream: str, sign: str) -> None:
    """Two places for four jobs: two are done or being made, and two have not been sent."""
    tag = f"k{next(_numbers)}"
    process = service(tmp_path, upstream, "imagelabs", max_jobs=2)
    prompt = f"a fox [seconds:1.5] [tag:{tag}]"
    asked: dict[str, Any] = {"model": MODELS["imagelabs"], "n": 4, "seed": 7}
    headers = {"Idempotency-Key": tag} if sign == "key" else {}
    await process.start()
    lost = asyncio.create_task(process.generate(prompt, headers, **asked))
    await process.reached(tag, "polls", 4)  # both were accepted, and that was written
    await process.kill()
    await lost
    await process.start()
    try:
        if sign == "counter":
            headers = {"x-stainless-retry-count": "1"}
        answer = await process.generate(prompt, headers, **asked)
        assert answer is not None
        if answer.status == 503:  # the two that were not sent are released; what was bought is kept for the repeat
            assert answer.headers["x-should-retry"] == "true"
            answer = await process.generate(prompt, {**headers, "x-stainless-retry-count": "2"}, **asked)
            assert answer is not None
        assert answer.status == 200, answer.json
        assert (await process.counts(tag))["submits"] == 4
        assert len(answer.json["data"]) == 4
    finally:
        await process.kill()
    assert len({job.seed for job in (await process.everything()).jobs}) == 4


async def test_what_was_accepted_is_followed_where_it_was_though_the_configuration_has_changed(
    tmp_path: Path, upstream: str
) -> None:
    tag = f"k{next(_numbers)}"
    process = service(tmp_path, upstream, "imagelabs")
    prompt = f"a fox [seconds:1.5] [tag:{tag}]"
    await process.start()
    lost = asyncio.create_task(
        process.generate(prompt, {"Idempotency-Key": tag}, model=MODELS["imagelabs"], response_format="b64_json")
    )
    await process.reached(tag, "polls")
    await process.kill()
    await lost
    real = process.upstream
    process.upstream = "http://127.0.0.1:9"
    await process.start()
    try:
        values = {"model": MODELS["imagelabs"], "response_format": "b64_json"}
        answer = await process.generate(prompt, {"Idempotency-Key": tag}, **values)
        process.upstream = real
        assert answer is not None
        assert (answer.status, (await process.counts(tag))["submits"]) == (200, 1), answer.json
    finally:
        await process.kill()
