"""Stops and starts: nothing is lost, nothing is bought twice, and one process at a time serves from a state."""

import asyncio
import contextlib
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.durability.process import ROOT, Process
from tests.durability.test_kill import MODELS
from tests.service import Answer, running
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.realtime]
LABS: Final = MODELS["imagelabs"]
_numbers = count()


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Other processes are waited for."""
    return backend(skip=False)


@pytest.fixture(scope="module")
async def upstream(anyio_backend: object) -> AsyncIterator[str]:  # noqa: ARG001 (it chooses the loop)
    async with serving(create_simulator(speed=20.0)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def tag() -> str:
    return f"r{next(_numbers)}"


async def get(process: Process, path: str, method: str = "GET") -> Answer:
    async with aiohttp.ClientSession() as http, http.request(method, process.url + path) as response:
        return await Answer.read(response)


@pytest.mark.kill
async def test_an_address_given_before_a_stop_leads_to_the_picture_after_it(
    tmp_path: Path, upstream: str, tag: str
) -> None:
    process = Process(tmp_path, upstream, {"mode": "async"}, {"timeouts": {"drain": 20}})
    await process.start()
    ids = []
    for seconds in (0.0, 1.5):  # one is done, and not asked for; one is being made when the process stops
        prompt = f"a fox [seconds:{seconds}] [tag:{tag}]"
        told = await process.generate(prompt, {"Prefer": "respond-async"}, model=LABS, response_format="b64_json")
        assert told is not None
        assert told.status == 202
        ids.append(told.json["id"])
    given_up = await process.generate(f"a hen [seconds:1] [tag:{tag}]", {"Prefer": "respond-async"}, model=LABS)
    assert given_up is not None
    await process.reached(tag, "submits", 3)
    assert (await get(process, f"/v1/images/generations/{given_up.json['id']}", "DELETE")).status == 204
    assert await process.stop() == 0
    assert (await process.everything()).generations, "it did not wait for anybody to come"
    await process.start()
    try:
        for each in ids:
            answer = await get(process, f"/v1/images/generations/{each}")
            while answer.status == 202:
                await asyncio.sleep(0.05)
                answer = await get(process, f"/v1/images/generations/{each}")
            assert answer.status == 200, answer.json
            assert answer.json["data"][0]["b64_json"]
        assert (await get(process, f"/v1/images/generations/{given_up.json['id']}")).status == 404
        assert (await process.counts(tag))["submits"] == 3
    finally:
        await process.kill()
    states = sorted(job.state for job in (await process.everything()).jobs)
    assert states == ["done", "done", "lost"], "what was given up is paid for all the same"


@pytest.mark.kill
async def test_a_stop_waits_for_what_cannot_be_handed_over(tmp_path: Path, upstream: str, tag: str) -> None:
    process = Process(tmp_path, upstream, {"mode": "sync"})
    await process.start()
    prompt, model = f"a fox [seconds:1.5] [tag:{tag}]", MODELS["v2 sync"]
    told = await process.generate(prompt, {"Prefer": "respond-async"}, model=model)
    assert told is not None
    await process.reached(tag, "submits")
    assert await process.stop() == 0
    await process.start()
    try:
        answer = await get(process, f"/v1/images/generations/{told.json['id']}")
        assert (answer.status, (await process.counts(tag))["submits"]) == (200, 1)
    finally:
        await process.kill()


@pytest.mark.kill
async def test_a_second_service_waits_for_the_first_one_to_end(tmp_path: Path, upstream: str) -> None:
    first = Process(tmp_path, upstream, {}, {"timeouts": {"drain": 0.1}})
    second = Process(tmp_path, upstream, {}, {"timeouts": {"drain": 0.1}})
    await first.start()
    await second.start(wait=False)
    await asyncio.sleep(1.5)
    assert await first.stop() == 0
    await second.ready()
    assert await second.stop() == 0


@pytest.mark.kill
async def test_a_second_service_on_the_same_state_is_refused(tmp_path: Path, upstream: str) -> None:
    first = Process(tmp_path, upstream, {}, {"timeouts": {"drain": 0.1}})
    second = Process(tmp_path, upstream, {}, {"timeouts": {"drain": 0.1}})
    await first.start()
    try:
        await second.start(wait=False)
        assert await second.ended() == 2
        assert "Another images-proxy serves from" in "".join(second.errors)
        assert "Traceback" not in "".join(second.errors)
        assert (await get(first, "/readyz")).status == 200
    finally:
        await first.kill()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: (file.parent.mkdir(), file.write_bytes(b"no database" * 500)), "is damaged"),
        (lambda file: file.parent.write_text("a file in the folder's place"), "can't be made or written"),
    ],
)
async def test_a_state_that_cannot_be_used_is_told_and_left_as_it_is(
    tmp_path: Path, upstream: str, spoil: Any, says: str
) -> None:
    process = Process(tmp_path, upstream)
    spoil(process.file)
    before = process.file.read_bytes() if process.file.is_file() else b""
    await process.start(wait=False)
    assert await process.ended() == 2
    said = "".join(process.errors)
    assert "state.path" in said
    assert says in said
    assert "Traceback" not in said
    assert (process.file.read_bytes() if process.file.is_file() else b"") == before


@pytest.mark.kill
async def test_many_open_jobs_are_carried_on_with_and_none_is_sent_again(
    tmp_path: Path, upstream: str, tag: str
) -> None:
    process = Process(tmp_path, upstream, {"max_jobs": 1000}, {"timeouts": {"drain": 0.1}})
    await process.start()
    calls = [
        asyncio.create_task(
            process.generate(f"fox {i} [seconds:2] [tag:{tag}]", {"Idempotency-Key": str(i)}, model=LABS)
        )
        for i in range(60)
    ]
    await process.reached(tag, "submits", 60)
    await asyncio.sleep(0.3)
    await process.kill()
    await asyncio.gather(*calls)
    await process.start()
    try:
        answers = await asyncio.gather(
            *(
                process.generate(f"fox {i} [seconds:2] [tag:{tag}]", {"Idempotency-Key": str(i)}, model=LABS)
                for i in range(60)
            )
        )
        statuses = [answer.status for answer in answers if answer is not None]
        assert set(statuses) <= {200, 502}
        assert statuses.count(200) > 50, statuses
        assert (await process.counts(tag))["submits"] == 60
    finally:
        await process.kill()


@pytest.mark.parametrize("spoilt", ["", "no JSON", "[]", '{"provider": "p"}'])
async def test_a_picture_that_cannot_be_read_in_the_state_keeps_no_service_from_starting(
    tmp_path: Path, spoilt: str
) -> None:
    file = tmp_path / "state.sqlite3"
    async with running(state={"path": str(file)}) as service:
        for key in ("spoilt", "whole"):
            assert (await service.generate("a fox", {"Idempotency-Key": key}, model=LABS)).status == 200
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        found = connection.execute("SELECT id FROM generations WHERE idempotency_key = 'spoilt'").fetchone()
        connection.execute("UPDATE jobs SET picture = ? WHERE generation = ?", (spoilt, *found))
    async with running(state={"path": str(file)}) as service:
        lost = await service.generate("a fox", {"Idempotency-Key": "spoilt"}, model=LABS)
        assert (lost.status, lost.code) == (502, "job_lost")
        assert (await service.generate("a fox", {"Idempotency-Key": "whole"}, model=LABS)).status == 200


async def test_an_address_leads_to_the_refusal_of_what_a_stop_has_left_unsent(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"state": {"path": str(tmp_path / "state.sqlite3")}, "providers": {"max_jobs": 1}}
    async with running(**tables) as service:
        told = [
            await service.generate(f"a fox [seconds:{seconds}]", {"Prefer": "respond-async"}, model=LABS)
            for seconds in (60, 1)
        ]
    async with running(**tables) as service:
        answer = await service.get(f"/v1/images/generations/{told[1].json['id']}")
        assert (answer.status, answer.code) == (503, "server_is_overloaded")
        assert answer.headers["x-should-retry"] == "true"


# --- under load -----------------------------------------------------------------------------------------------


class Callers:
    """Callers with the real SDK, who repeat as it does. Every prompt is an intent of its own."""

    def __init__(self, process: Process, tag: str, seed: int) -> None:
        self.process = process
        self.tag = tag
        self.random = random.Random(seed)  # noqa: S311 (a test's traffic)
        self.intents = 0
        self.got = 0
        self.refused: list[str] = []
        self.stopping = False

    async def run(self, number: int, faults: tuple[str, ...] = ()) -> None:
        """Ask for one picture after the other."""
        async with AsyncOpenAI(base_url=f"{self.process.url}/v1", api_key="x", max_retries=8) as client:
            while not self.stopping:
                await self._ask(client, number, faults)

    async def _ask(self, client: AsyncOpenAI, number: int, faults: tuple[str, ...]) -> None:
        self.intents += 1
        seconds = round(self.random.uniform(0.2, 4.0), 2)
        words = f" [fault:{self.random.choice(faults)}]" if faults and self.random.random() < 0.3 else ""
        prompt = f"caller {number} intent {self.intents} [seconds:{seconds}] [tag:{self.tag}]{words}"
        model = self.random.choice(list(MODELS.values()))
        try:
            answer = await client.images.generate(model=model, prompt=prompt, size="256x256")
        except APIStatusError as refusal:
            self.refused.append(f"{refusal.status_code} {refusal.message}")
        except APIConnectionError:
            self.refused.append("no connection")
        else:
            assert answer.data
            self.got += 1


@pytest.mark.soak
async def test_a_deploy_loses_nothing(tmp_path: Path, upstream: str, tag: str, full: bool) -> None:
    """Restarts under load: every caller gets its picture, and each is paid for once."""
    process = Process(tmp_path, upstream, {"mode": "auto"}, {"timeouts": {"drain": 6}})
    await process.start()
    callers = Callers(process, tag, 1)
    running = [asyncio.create_task(callers.run(number)) for number in range(8)]
    for _ in range(11 if full else 3):
        await asyncio.sleep(5 if full else 3)
        assert await process.stop() == 0
        await process.start()
    callers.stopping = True
    await asyncio.gather(*running)
    await process.stop()
    found = await process.everything()
    assert callers.refused == []
    assert callers.got == callers.intents > 20
    assert (await process.counts(tag))["started"] == callers.intents
    assert {job.state for job in found.jobs} <= {"done", "released"}


@pytest.mark.kill
async def test_killed_again_and_again(tmp_path: Path, upstream: str, tag: str, full: bool) -> None:
    """Kills at random moments under callers with retries and faults: nothing is bought twice, nothing is stuck."""
    tables = {"timeouts": {"lifetime": 8, "result": 20}, "images": {"keep": 25}}
    process = Process(tmp_path, upstream, {"mode": "auto"}, tables)
    await process.start()
    callers = Callers(process, tag, 2)
    faults = ("busy", "drop", "failed", "gone", "cut", "gateway", "504", "overloaded", "expired")
    running = [asyncio.create_task(callers.run(number, faults)) for number in range(20)]
    for _ in range(50 if full else 4):
        await asyncio.sleep(callers.random.uniform(0.3, 2.5))
        await process.kill()
        await process.start()
        assert len((await process.everything()).generations) > 0
    callers.stopping = True
    await asyncio.gather(*running)
    assert (await process.counts(tag))["started"] <= callers.intents
    assert callers.got > callers.intents / 3, callers.refused
    await asyncio.sleep(9)  # everything that is followed is past its lifetime
    found = await process.everything()
    assert not [job for job in found.jobs if job.state in ("intended", "submitting", "accepted")]
    await asyncio.sleep(30)  # and every picture past its time
    left = [path.name for path in (tmp_path / "state" / "pictures").iterdir() if path.suffix != ".json"]
    await process.kill()
    assert left == []


@pytest.mark.kill
async def test_the_state_is_written_beside_by_a_command(tmp_path: Path, upstream: str, tag: str) -> None:
    process = Process(tmp_path, upstream)
    await process.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.kill)
        await process.generate(f"a fox [tag:{tag}]", model=LABS)
        assert [job.state for job in (await process.everything()).jobs] == ["done"]
        assert oct(process.file.stat().st_mode & 0o777) == "0o600"
        assert oct(process.file.parent.stat().st_mode & 0o777) == "0o700"


async def test_a_copy_of_a_running_service_is_a_state(tmp_path: Path, upstream: str, tag: str) -> None:
    process = Process(tmp_path, upstream)
    await process.start()
    copy = tmp_path / "copies" / "state.sqlite3"
    copy.parent.mkdir()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.kill)
        headers = {"Idempotency-Key": tag}
        first = await process.generate(f"a fox [tag:{tag}]", headers, model=LABS)
        command = [sys.executable, "-m", "proxy", "state", "backup", str(copy), "--config", str(process.configure())]
        done = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        said, _ = await done.communicate()
        assert (done.returncode, str(copy) in said.decode()) == (0, True)
        await process.kill()
        copy.replace(process.file)
        for name in ("-wal", "-shm"):
            process.file.with_name(process.file.name + name).unlink(missing_ok=True)
        await process.start()
        again = await process.generate(f"a fox [tag:{tag}]", headers, model=LABS)
        assert first is not None
        assert again is not None
        assert (again.status, again.json["data"]) == (200, first.json["data"])
        assert (await process.counts(tag))["submits"] == 1
