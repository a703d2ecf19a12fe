"""Every event in every state of a job: where it leads, and where the money then lies."""

from typing import Any, Final

import pytest

from proxy.state.money import Balance
from proxy.state.operations import State
from proxy.state.outcomes import Change
from proxy.state.periods import period_end, period_start
from proxy.state.records import Account
from proxy.state.transitions import Event, JobState, verdict
from tests.state.parts import ME, PRICE, ROUTE, Life, total

pytestmark = pytest.mark.anyio

STATES: Final = ("intended", "submitting", "accepted", "done", "lost", "unknown", "released", "failed", "paid", "free")
"""The last two: unknown, and settled by a person."""
RESERVED, SPENT, UNKNOWN, NOTHING = (
    Balance(reserved=PRICE, reserved_pictures=1),
    Balance(spent=PRICE, spent_pictures=1),
    Balance(unknown=PRICE, unknown_pictures=1),
    Balance(),
)
MONEY: Final = {
    "intended": RESERVED,
    "submitting": RESERVED,
    "accepted": RESERVED,
    "done": SPENT,
    "lost": SPENT,
    "unknown": UNKNOWN,
    "released": NOTHING,
    "failed": NOTHING,
    "paid": SPENT,
    "free": NOTHING,
}
# from, event: to; "!" where the epoch doesn't matter. What isn't here must change nothing.
LEADS: Final = {
    "intended": {"submit": "submitting", "release": "released", "recover": "released!"},
    "submitting": {
        "accept": "accepted",
        "finish": "done",
        "not_started": "released",
        "next_route": "intended",
        "failed": "failed",
        "lose": "lost",
        "doubt": "unknown",
        "recover": "unknown!",
    },
    "accepted": {"finish": "done!", "failed": "failed!", "lose": "lost!", "recover": "accepted!"},
    "unknown": {
        "accept": "accepted!",
        "finish": "done!",
        "not_started": "released!",
        "failed": "failed!",
        "lose": "lost!",
        "paid": "paid!",
        "free": "free!",
    },
}
EVENTS: Final = (
    "submit",
    "accept",
    "finish",
    "not_started",
    "next_route",
    "failed",
    "lose",
    "doubt",
    "release",
    "recover",
    "paid",
    "free",
)


async def reach(state: State, name: str, account: Account) -> Life:
    goal: Any = "unknown" if name in ("paid", "free") else name
    life = await Life(state).to(goal, account=account)
    if name in ("paid", "free"):
        assert await state.resolve(life.job, name, "me")  # type: ignore[arg-type]
    return life


async def happen(state: State, life: Life, event: Any, epoch: int) -> bool:
    """Let an event befall the job; returns whether the engine says so."""
    if event == "submit":
        change = await state.submit(life.job, epoch, ME, ROUTE)
        assert isinstance(change, Change)
        return change.applied
    if event == "accept":
        return (await state.accept(life.job, epoch, ME, '{"id": "another"}')).applied
    if event == "finish":
        return (await state.finish(life.job, epoch, "another.png")).applied
    if event == "recover":
        recovered = await state.recover(ME, [])
        return bool(recovered.jobs or recovered.released or recovered.unknown)
    if event in ("paid", "free"):
        return await state.resolve(life.job, event, "me")
    return (await state.end(life.job, epoch, event)).applied


@pytest.mark.parametrize("name", STATES)
async def test_every_event_in_every_state(state: State, name: str) -> None:
    for event in EVENTS:
        for epoch in (0, 7):
            await one_event(state, name, event, epoch, Account(f"{event} {epoch}"))


async def one_event(state: State, name: str, event: Event, epoch: int, account: Account) -> None:
    life = await reach(state, name, account)
    goal = LEADS.get(name, {}).get(event, "")
    leads = bool(goal) and (goal.endswith("!") or epoch == 0)
    own = name == "submitting" and event == "submit" and epoch == 0  # the same write, once more
    before = await life.row()
    assert await happen(state, life, event, epoch) == (leads or own), event
    after = await life.row()
    now = after.resolved or after.state
    assert now == (goal.rstrip("!") if leads else name), event
    assert await total(state, account) == MONEY[now], event
    if not leads:
        assert after == before, event
    moves = leads and (event == "recover" or (name, event) == ("unknown", "accept"))
    assert after.epoch == before.epoch + moves, event
    await state.recover(ME, [])  # nothing open is left for the next event
    await state.end(life.job, after.epoch, "lose")


@pytest.mark.parametrize(
    ("states", "end"),
    [
        (["done"], "ok"),
        (["done", "intended"], None),
        (["unknown", "accepted"], None),
        (["released", "unknown", "lost", "done"], "unknown"),
        (["released", "lost", "done"], "lost"),
        (["done", "released"], "again"),
        (["done", "released", "failed"], "lost"),
        (["lost"], "lost"),
    ],
)
def test_the_end_of_several_jobs(states: list[JobState], end: str | None) -> None:
    assert verdict(states) == end


def test_periods() -> None:
    friday = 20_413  # 2025-11-21
    assert [period_start(period, friday) for period in ("day", "week", "month", "total")] == [20_413, 20_409, 20_393, 0]
    assert [period_end(period, friday) for period in ("day", "week", "month", "total")] == [
        20_414,
        20_416,
        20_423,
        None,
    ]
    assert period_end("month", 20_423 + 30) == 20_423 + 31  # December
    new_year = 20_454
    assert period_start("month", new_year) == new_year
    assert period_start("week", new_year) == new_year - 3  # a Thursday
