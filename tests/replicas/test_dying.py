"""A replica dies or freezes with a job that somebody waits for at another one."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.server.process import serving
from proxy.simulator import create_simulator
from proxy.state.checker import problems
from proxy.state.postgres.engine import open_postgres
from tests.durability.process import Process
from tests.object_store import BUCKET, ObjectStore
from tests.replicas.parts import LABS, SCHNELL
from tests.service import Answer
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.realtime, pytest.mark.kill]

ASKED: Final[dict[str, Any]] = {"model": LABS, "size": "256x256", "response_format": "b64_json"}
KEY: Final = {"Idempotency-Key": "k"}
RETRY: Final = {"x-stainless-retry-count": "1"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Other processes are waited for."""
    return backend(skip=False)


@pytest.fixture
async def pair(tmp_path: Path, database_url: str, storage: ObjectStore) -> AsyncIterator[list[Process]]:
    """Two replicas that run."""
    async with serving(create_simulator(speed=20.0)) as port:
        processes = []
        for number in range(2):
            folder = tmp_path / f"replica-{number}"
            folder.mkdir()
            images = {"store": f"s3://{BUCKET}/{tmp_path.name}", "directory": str(folder / "pictures")}
            environment = {**storage.environment, "IMAGES_PROXY_DATABASE_URL": database_url}
            process = Process(folder, f"http://127.0.0.1:{port}", tables={"images": images}, environment=environment)
            await process.start()
            processes.append(process)
        yield processes
        for process in processes:
            await process.kill()
    state = await open_postgres(database_url, adopt=False)
    assert problems(await state.everything()) == []
    await state.close()


def ask(process: Process, prompt: str, headers: dict[str, str], **values: Any) -> "asyncio.Task[Answer | None]":
    return asyncio.create_task(process.generate(prompt, headers, **{**ASKED, **values}))


def send(process: Process, what: signal.Signals) -> None:
    assert process._process is not None
    process._process.send_signal(what)


@pytest.mark.parametrize("headers", [KEY, RETRY], ids=["key", "counter"])
@pytest.mark.parametrize("what", ["killed", "frozen"])
async def test_what_was_accepted_goes_on_at_another_replica(
    pair: list[Process], headers: dict[str, str], what: str
) -> None:
    one, two = pair
    prompt = "a fox [seconds:5] [tag:t]"
    first = ask(one, prompt, KEY if headers is KEY else {})
    await one.reached("t", "polls")
    send(one, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
    answer = await ask(two, prompt, headers)
    assert answer is not None
    assert answer.status == 200, answer.json
    if what == "frozen":
        send(one, signal.SIGCONT)
        late = await first
        assert late is not None
        assert late.json["data"][0]["b64_json"] == answer.json["data"][0]["b64_json"]
        await asyncio.sleep(6)  # it has told that it lives, under a new name
        again = await ask(one, "another fox [tag:u]", {})
        assert again is not None
        assert again.status == 200
    assert (await two.counts("t"))["submits"] == 1


async def test_what_was_being_sent_is_not_sent_again_and_whoever_waits_is_told(pair: list[Process]) -> None:
    one, two = pair
    prompt = "a fox [fault:hang] [tag:t]"
    first = ask(one, prompt, {}, model=SCHNELL)
    await one.reached("t", "submits")
    send(one, signal.SIGKILL)
    assert await first is None
    answer = await ask(two, prompt, RETRY, model=SCHNELL)
    assert answer is not None
    assert (answer.status, answer.code, answer.headers["x-should-retry"]) == (502, "submit_outcome_unknown", "false")
    assert (await two.counts("t"))["submits"] == 1


async def test_a_stream_goes_on_when_its_job_has_another_replica(pair: list[Process]) -> None:
    one, two = pair
    prompt = "a fox [seconds:5] [tag:t]"
    first = ask(one, prompt, KEY)
    await one.reached("t", "polls")
    second = ask(two, prompt, KEY, stream=True)
    await asyncio.sleep(0.5)
    send(one, signal.SIGKILL)
    await first
    answer = await second
    assert answer is not None
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["image_generation.completed"]
    assert (await two.counts("t"))["submits"] == 1


async def test_what_has_not_been_sent_is_released_by_whoever_lives(pair: list[Process], database_url: str) -> None:
    """A frozen replica's jobs wait in its queue; it wakes, and sends none of them."""
    one, two = pair
    one.changes = two.changes = {"max_jobs": 2}
    for process in pair:
        await process.kill()
        await process.start()
    await asyncio.sleep(6)  # each knows of the other: a slot for each
    prompts = [f"a fox {number} [seconds:{seconds}] [tag:t]" for number, seconds in enumerate((26, 0, 0))]
    first = [ask(one, prompts[0], {})]
    await one.reached("t", "polls")
    first += [ask(one, prompt, {}) for prompt in prompts[1:]]
    await asyncio.sleep(0.5)
    send(one, signal.SIGSTOP)
    await asyncio.sleep(22)
    send(one, signal.SIGCONT)
    answers = await asyncio.gather(*(ask(two, prompt, RETRY) for prompt in prompts))
    assert [answer and answer.status for answer in answers] == [200] * 3
    state = await open_postgres(database_url, adopt=False)
    jobs = (await state.everything()).jobs
    await state.close()
    for each in first:
        each.cancel()
    assert (await two.counts("t"))["submits"] == 3
    assert sorted(job.state for job in jobs) == ["done", "done", "done", "released", "released"]
