"""A process that works on a state and is killed: ``python -m tests.state.process FILE-OR-URL what [lease in ms]``.

Each line on its standard output is an operation that has returned: ``step generation``.
"""

import asyncio
import resource
import sys
import time
from pathlib import Path

from proxy.state.checker import problems
from proxy.state.money import Limit
from proxy.state.operations import LEASE_MS, State, StateUnavailable
from proxy.state.outcomes import Started
from proxy.state.postgres.engine import open_postgres
from proxy.state.records import JobId, generation_id
from proxy.state.sqlite.engine import open_sqlite
from tests.state.parts import ANN, PRICE, ROUTE, wanted

STEPS = ("start", "submit", "accept", "finish", "deliver")
POINTS = ("nothing", *STEPS)


def tell(step: str, generation: str) -> None:
    """Write a line at once: what is in a buffer when the process is killed is lost."""
    sys.stdout.write(f"{step} {generation}\n")
    sys.stdout.flush()


async def picture(state: State, holder: str, last: str) -> None:
    """Make one, and stop for good after the step ``last``."""
    start = wanted(ANN, id=generation_id(int(time.time() * 1000)), holder=holder, idempotency_key=f"key {last}")
    job = JobId(start.id, 0)
    steps = (
        ("start", lambda: state.start(start)),
        ("submit", lambda: state.submit(job, 0, holder, ROUTE)),
        ("accept", lambda: state.accept(job, 0, holder, '{"id": 1}')),
        ("finish", lambda: state.finish(job, 0, "p.png")),
        ("deliver", lambda: state.deliver(start.id, 0)),
    )
    if last == "nothing":
        return
    for name, operation in steps:
        await operation()
        tell(name, start.id)
        if name == last:
            return


async def points(state: State, holder: str) -> None:
    """Stop one generation after each step, and wait to be killed."""
    for last in POINTS:
        await picture(state, holder, last)
    tell("ready", "-")
    await asyncio.Event().wait()


async def load(state: State, holder: str) -> None:
    """Make pictures, eight at a time, until killed."""
    await state.set_limits(
        [Limit("all", "dollars", "day", 10**6 * PRICE), Limit("owner:family", "pictures", "total", 10**6)]
    )

    async def caller(number: int) -> None:
        while True:
            start = wanted(ANN, id=generation_id(int(time.time() * 1000)), holder=holder, n=1 + number % 2, submit=2)
            assert isinstance(await state.start(start), Started)
            tell("start", start.id)
            for job in (JobId(start.id, each) for each in range(start.n)):
                await state.accept(job, 0, holder, '{"id": 1}')
                tell("accept", str(job))
                await (state.finish(job, 0, "p") if number % 4 else state.end(job, 0, "lose"))
                tell("finish", str(job))
            await state.deliver(start.id, 0)

    async def beat() -> None:
        while True:
            await state.beat(holder)
            await asyncio.sleep(0.2)

    await asyncio.gather(beat(), *(caller(number) for number in range(8)))


async def full(state: State, holder: str) -> None:
    """Let the disk fill up in the middle, then make room."""
    await picture(state, holder, "accept")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    failed = 0
    while not failed:
        started = await asyncio.gather(
            *(state.start(wanted(ANN, holder=holder, request="x" * 4000, submit=1)) for _ in range(8)),
            return_exceptions=True,
        )
        failed = sum(isinstance(outcome, StateUnavailable) for outcome in started)
    tell("full", "-")
    found = await state.everything()  # what is there can be read
    assert problems(found) == []
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    await picture(state, holder, "finish")
    after = await state.everything()
    assert problems(after) == []
    assert len(after.generations) == len(found.generations) + 1  # what failed has left nothing
    await state.close()
    tell("works", "-")


async def rush(state: State, holder: str) -> None:
    """Ask for five hundred pictures at once; tells how many were granted."""
    sys.stdin.readline()
    starts = [wanted(ANN, id=generation_id(int(time.time() * 1000)), holder=holder, submit=1) for _ in range(500)]
    outcomes = await asyncio.gather(*(state.start(start) for start in starts))
    tell("granted", str(sum(isinstance(outcome, Started) for outcome in outcomes)))
    await state.close()


async def sleeper(state: State, holder: str) -> None:
    """Submit one and accept another; be frozen; then try to go on as if nothing had happened."""
    first, second = (wanted(ANN, id=generation_id(int(time.time() * 1000)), holder=holder, submit=1) for _ in range(2))
    for start in (first, second):
        assert isinstance(await state.start(start), Started)
    await state.accept(JobId(second.id, 0), 0, holder, '{"id": 2}')
    tell("frozen", f"{first.id},{second.id}")
    sys.stdin.readline()
    started = await state.start(wanted(ANN, id=generation_id(int(time.time() * 1000)), holder=holder))
    tell("start", type(started).__name__)
    tell("beat", str(await state.beat(holder)))
    tell("doubt", str((await state.end(JobId(first.id, 0), 0, "doubt")).applied))
    late = await state.accept(JobId(first.id, 0), 0, holder, '{"id": 1}')
    tell("evidence", f"{late.applied},{late.epoch}")
    await state.register(holder + "-anew")
    started = await state.start(wanted(ANN, id=generation_id(int(time.time() * 1000)), holder=holder + "-anew"))
    tell("anew", type(started).__name__)
    await state.close()


async def opened(where: str, lease_ms: int) -> State:
    """Serve from a file, or as a replica on a database."""
    if "://" in where:
        return await open_postgres(where, lease_ms=lease_ms)
    return open_sqlite(Path(where), exclusive=True)


if __name__ == "__main__":
    name = f"{sys.argv[2]}-{time.time_ns()}"

    async def main() -> None:
        """Work."""
        state = await opened(sys.argv[1], int(sys.argv[3]) if len(sys.argv) > 3 else LEASE_MS)
        await state.register(name)
        works = {"points": points, "load": load, "full": full, "rush": rush, "sleeper": sleeper}
        await works[sys.argv[2]](state, name)

    asyncio.run(main())
