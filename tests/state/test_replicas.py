"""Several processes on one database: killed, frozen, in a rush; and the database itself gone for a while."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.state.checker import problems
from proxy.state.operations import State
from proxy.state.outcomes import OverLimit, Started
from proxy.state.periods import PERIODS
from proxy.state.postgres.client import connect
from proxy.state.postgres.engine import PostgresState, open_postgres
from proxy.state.records import JobId, generation_id
from tests.state import database
from tests.state.parts import PRICE, Wall, dollars, pictures, total, wanted
from tests.state.test_crash import process

pytestmark = [pytest.mark.anyio, pytest.mark.kill]
LEASE_MS = 700


@pytest.fixture
async def url(database_url: str) -> str:
    """The URL of a database without rows."""
    await (await database.emptied(database_url, Wall())).close()
    return database_url


@pytest.fixture
async def state(url: str) -> AsyncIterator[PostgresState]:
    """A replica that takes others for dead soon."""
    state = await open_postgres(url, lease_ms=LEASE_MS)
    yield state
    assert problems(await state.everything()) == []
    await state.close()


def lines(worker: "subprocess.Popen[str]", last: str) -> list[list[str]]:
    """Read what a process tells, up to a line that begins so."""
    assert worker.stdout is not None
    found: list[list[str]] = []
    while not found or found[-1][0] != last:
        line = worker.stdout.readline()
        assert line, found
        found.append(line.split())
    return found


def go_on(worker: "subprocess.Popen[str]") -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


async def adopted(state: State, holder: str, *, at_least: int) -> Any:
    """Recover until so many jobs were taken care of."""
    await state.register(holder)
    follow: list[JobId] = []
    unknown: list[JobId] = []
    released = 0
    for _ in range(200):
        await state.beat(holder)
        recovered = await state.recover(holder, follow)
        follow += recovered.jobs
        unknown += [job.id for job in recovered.unknown]
        released += recovered.released
        if len(follow) + len(unknown) + released >= at_least:
            return follow, unknown, released
        await asyncio.sleep(0.05)
    raise AssertionError((follow, unknown, released))


async def test_killed_after_each_write_and_adopted(url: str, state: PostgresState) -> None:
    with process(url, "points", str(LEASE_MS)) as worker:
        told = await asyncio.to_thread(lines, worker, "ready")
        last = {generation: step for step, generation in told[:-1]}
        by_step = {step: generation for generation, step in last.items()}
        worker.kill()
    follow, unknown, released = await adopted(state, "next", at_least=3)
    assert follow == [JobId(by_step["accept"], 0)]
    assert unknown == [JobId(by_step["submit"], 0)]
    assert released == 1
    ends = {}
    for step, generation in by_step.items():
        found = await state.by_idempotency_key("k1", f"key {step}")
        assert found is not None
        assert found.row.id == generation
        assert not found.waited_for
        ends[step] = (found.row.ended_as, found.row.delivered is not None)
    assert ends == {
        "start": ("again", False),
        "submit": ("unknown", False),
        "accept": (None, False),
        "finish": ("ok", False),
        "deliver": ("ok", True),
    }


async def test_killed_under_load_and_adopted_by_one_of_two(url: str, state: PostgresState) -> None:
    """Nothing that was acknowledged is lost; each open job is adopted once."""
    with process(url, "load", str(LEASE_MS)) as worker:
        assert worker.stdout is not None
        told = [await asyncio.to_thread(worker.stdout.readline) for _ in range(150)]
        worker.kill()
        told += worker.stdout.read().splitlines(keepends=True)
    other = await open_postgres(url, lease_ms=LEASE_MS)
    await asyncio.sleep(LEASE_MS / 1000)
    for name, one in (("one", state), ("two", other)):
        await one.register(name)
    recovered = await asyncio.gather(state.recover("one", []), other.recover("two", []))
    mine, theirs = (set(one.jobs) for one in recovered)
    assert not mine & theirs
    everything = await state.everything()
    open_still = {job.id: job for job in everything.jobs if job.state in ("intended", "submitting", "accepted")}
    assert open_still.keys() == mine | theirs
    assert {job.epoch for job in open_still.values()} <= {1}
    known = {row.id for row in everything.generations} | {str(job.id) for job in everything.jobs}
    steps = [line.split() for line in told if line.endswith("\n")]
    assert {name for step, name in steps if step in ("start", "accept")} <= known
    assert any(step == "finish" for step, _ in steps)
    await other.close()


async def test_a_frozen_replica_writes_nothing_over_its_adopter(url: str, state: PostgresState) -> None:
    with process(url, "sleeper", str(LEASE_MS)) as worker:
        first, second = (await asyncio.to_thread(lines, worker, "frozen"))[0][1].split(",")
        worker.send_signal(signal.SIGSTOP)
        follow, unknown, _ = await adopted(state, "next", at_least=2)
        assert (follow, unknown) == ([JobId(second, 0)], [JobId(first, 0)])
        worker.send_signal(signal.SIGCONT)
        go_on(worker)
        told = dict(await asyncio.to_thread(lines, worker, "anew"))
    assert told == {"start": "NotLiving", "beat": "False", "doubt": "False", "evidence": "True,2", "anew": "Started"}
    found = await state.generation(first)
    assert found is not None
    assert found.row.ended_as == "unknown"  # what was told stays told


async def test_a_thousand_starts_of_two_replicas_on_a_budget_for_a_hundred(url: str, state: PostgresState) -> None:
    await state.set_limits([dollars("all", 100 * PRICE, "day"), pictures("owner:family", 150)])
    with process(url, "rush") as one, process(url, "rush") as two:
        for worker in (one, two):
            go_on(worker)
        told = [int((await asyncio.to_thread(lines, worker, "granted"))[0][1]) for worker in (one, two)]
    assert sum(told) == 100
    assert (await total(state)).reserved_pictures == 100


async def making(state: PostgresState, holder: str, until: Callable[[], bool]) -> int:
    """Make pictures until told; returns how many."""
    made = 0
    while not until():
        start = wanted(id=generation_id(int(time.time() * 1000)), holder=holder, submit=1)
        assert isinstance(await state.start(start), Started | OverLimit)
        job = JobId(start.id, 0)
        assert (await state.accept(job, 0, holder, "{}")).applied
        assert (await state.finish(job, 0, "p")).applied
        assert await state.deliver(start.id, 0)
        made += 1
    return made


async def during(states: list[PostgresState], what: Callable[[], Awaitable[None]]) -> int:
    """Have pictures made on all, before, while and after something happens."""
    done = False
    for number, state in enumerate(states):
        await state.register(f"h{number}")
    makers = [
        asyncio.create_task(making(state, f"h{number}", lambda: done))
        for number, state in enumerate(states)
        for _ in range(4)
    ]
    await asyncio.sleep(0.1)
    await what()
    await asyncio.sleep(0.1)
    done = True
    return sum(await asyncio.gather(*makers))


async def test_limits_that_change_while_two_replicas_write(url: str) -> None:
    """A balance that is made from the ledger misses nothing of what is being written."""
    states = [await open_postgres(url) for _ in range(2)]

    async def change() -> None:
        for number in range(40):
            period = PERIODS[number % len(PERIODS)]
            await states[number % 2].set_limits(
                [dollars("all", 10**15, period), pictures("owner:family", 10**9, period)]
            )
            await asyncio.sleep(0.01)
            assert problems(await states[0].everything()) == []
        await states[0].set_limits([dollars("all", 10**15, "day"), pictures("owner:family", 10**9)])

    made = await during(states, change)
    everything = await states[0].everything()
    assert problems(everything) == []
    assert {row.spent_pictures for row in everything.spend} == {made}
    for state in states:
        await state.close()


async def test_connections_that_are_cut_cost_nothing(url: str) -> None:
    states = [await open_postgres(url) for _ in range(2)]

    async def cut() -> None:
        connection = await connect(url)
        for _ in range(4):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.05)
        await connection.close()

    assert await during(states, cut) > 0
    assert problems(await states[0].everything()) == []
    for state in states:
        await state.close()


async def test_a_database_that_is_started_anew_in_the_middle() -> None:
    """Operations wait and go on; nothing that was acknowledged is lost, nothing is written twice."""
    server = database.start(Path(tempfile.mkdtemp(prefix="images-proxy-restart-")) / "postgres")
    url = await database.create(server, "state")
    states = [await open_postgres(url, patience_s=30) for _ in range(2)]
    await states[0].set_limits([dollars("all", 10**15), pictures("key:k1", 10**9)])

    async def restart() -> None:
        for how in ("fast", "immediate"):
            await asyncio.to_thread(database.restart, server, how)
            await asyncio.sleep(0.2)

    made = await during(states, restart)
    everything = await states[0].everything()
    assert problems(everything) == []
    assert {row.spent_pictures for row in everything.spend} == {made}
    for state in states:
        await state.close()
    server.cleanup()
