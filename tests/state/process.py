"""A process that works on a state and is killed: ``python -m tests.state.process FILE what``.

Each line on its standard output is an operation that has returned: ``step generation``.
"""

import asyncio
import resource
import sys
import time
from pathlib import Path

from proxy.state.checker import problems
from proxy.state.money import Limit
from proxy.state.operations import State, StateUnavailable
from proxy.state.outcomes import Started
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

    await asyncio.gather(*(caller(number) for number in range(8)))


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


if __name__ == "__main__":
    name = f"{sys.argv[2]}-{time.time_ns()}"

    async def main() -> None:
        """Serve from the file."""
        state = open_sqlite(Path(sys.argv[1]), exclusive=True)
        await state.register(name)
        await {"points": points, "load": load, "full": full}[sys.argv[2]](state, name)

    asyncio.run(main())
