"""Given up at the worst moments: nothing was sent, and the state comes to say so."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from proxy.errors import SpendLimitReached, StateUnavailable
from proxy.generations.recorded import RecordedSteps
from proxy.state import operations
from proxy.state.checker import problems
from proxy.state.money import Limit
from proxy.state.outcomes import Start, Started
from proxy.state.records import Route
from proxy.state.sqlite.engine import SqliteState
from tests.state.parts import wanted
from tests.test_generations import Runs, checked

pytestmark = pytest.mark.anyio
FIRST, DEARER = Route("imagelabs", "a", price=5), Route("prodia", "b", price=500)


@pytest.fixture
async def runs() -> AsyncIterator[Runs]:
    runs = Runs()
    await runs.open()
    yield runs
    await runs.settle()
    assert problems(await state_of(runs).everything()) == []


def state_of(runs: Runs) -> SqliteState:
    return cast("SqliteState", runs.generations._journal.state)


async def states(runs: Runs) -> list[str]:
    return [job.state for job in (await state_of(runs).everything()).jobs]


@pytest.mark.parametrize("operation", ["start", "submit"])
async def test_while_it_was_being_written(runs: Runs, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    real, written = getattr(state_of(runs), operation), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        outcome = await real(*arguments)
        await written.wait()
        return outcome

    monkeypatch.setattr(state_of(runs), operation, slow)
    generation = (await runs.join(checked(), key="k")).generation
    assert await states(runs) == ["submitting" if operation == "submit" else "intended"]
    await runs.generations.abandon(generation)
    written.set()
    await runs.settle()
    assert await states(runs) == ["released"]


async def test_in_the_very_moment_in_which_it_was_written(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.studio.spacious = True
    real, answer = state_of(runs).start, asyncio.get_running_loop().create_future()
    monkeypatch.setattr(state_of(runs), "start", lambda start: (real(start), answer)[1])
    generation = (await runs.join(checked(), key="k")).generation
    [row] = (await state_of(runs).everything()).generations
    found = await state_of(runs).generation(row.id)
    assert found is not None
    answer.set_result(Started(found))
    assert generation.task is not None
    generation.task.cancel()
    await runs.settle()
    assert await states(runs) == ["released"]


async def test_what_is_being_taken_back_is_not_taken_for_forgotten(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was slow: jobs that nobody follows are looked for before the process hears what it has written."""
    runs.studio.spacious = True
    real, told = state_of(runs).start, asyncio.Event()

    async def slow(start: Start) -> Any:
        outcome = await real(start)
        await told.wait()
        return outcome

    monkeypatch.setattr(state_of(runs), "start", slow)
    generation = (await runs.join(checked(n=2))).generation
    await runs.generations.abandon(generation)
    await runs.settle()
    assert runs.generations.running == 0
    await runs.generations.recover()
    assert await states(runs) == ["submitting", "submitting"]
    told.set()
    await runs.settle()
    assert await states(runs) == ["released", "released"]


async def test_a_start_that_was_written_though_the_state_said_no_is_found(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repeat by key waits for the end of what nobody follows, and that must not count as following it."""
    real = state_of(runs).start

    async def unacknowledged(start: Start) -> Any:
        await real(start)
        raise operations.StateUnavailable("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(state_of(runs), "start", unacknowledged)
        refused = (await runs.join(checked(), key="k")).generation
    assert isinstance(refused.failure, StateUnavailable)
    repeat = (await runs.join(checked(), key="k")).generation
    assert not repeat.done
    await runs.generations.recover()
    assert await states(runs) == ["released"]
    while not repeat.done:  # noqa: ASYNC110 (its end is looked for from time to time)
        await asyncio.sleep(0.1)
    assert repeat.end == "again"


async def test_when_there_is_no_money_for_the_next_route(runs: Runs) -> None:
    """It was written that it would be sent to the first one, which then turned out not to be asked."""
    journal = runs.generations._journal
    generation = (await runs.join(checked())).generation
    account = generation.account
    await state_of(runs).set_limits([Limit("all", "dollars", "total", 100)])
    started = await journal.start(wanted(account, "b", holder=journal.holder, route=FIRST, reserve=5, submit=1))
    assert isinstance(started, Started)
    [row] = started.generation.jobs
    assert row.state == "submitting"
    routes = {(route.provider, route.model): route for route in (FIRST, DEARER)}
    steps = RecordedSteps(journal, generation, row, routes, {})
    with pytest.raises(SpendLimitReached):
        await steps.submitting("prodia", "b")
    await steps.released("project_spend_limit_exceeded")
    found = await state_of(runs).generation(row.generation)
    assert found is not None
    assert (found.jobs[0].state, found.row.ended_as) == ("released", "again")
