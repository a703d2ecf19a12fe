"""Money: reserved, settled, released or unknown, at most once each, and never more than the limits allow."""

import asyncio
from datetime import UTC, datetime
from random import Random

import pytest

from proxy.state.money import Balance, Limit
from proxy.state.operations import State
from proxy.state.outcomes import Change, OverLimit, Started
from proxy.state.periods import day_of
from proxy.state.records import Account, JobId, Route
from tests.state.parts import ANN, BOB, DEARER, ME, PRICE, ROUTE, Life, Wall, dollars, pictures, total, wanted

pytestmark = pytest.mark.anyio

USER = Account("k1", "ann", "family", "u1")


async def standing(state: State, account: Account = ANN) -> dict[tuple[str, str, str], Balance]:
    return {(one.limit.scope, one.limit.unit, one.limit.period): one.balance for one in await state.standing(account)}


async def test_a_limit_is_held_to_the_picture(state: State) -> None:
    await state.set_limits([dollars("all", 3 * PRICE)])
    first = await state.start(wanted(n=2))
    assert isinstance(first, Started)
    assert first.remaining == PRICE
    refused = await state.start(wanted(n=2))
    assert refused == OverLimit("all", "dollars", "month", 3 * PRICE, 2 * PRICE, 20_423)
    assert isinstance(await state.start(wanted()), Started)
    assert isinstance(await state.start(wanted()), OverLimit)
    assert isinstance(await state.start(wanted(reserve=0)), Started)


@pytest.mark.parametrize("limit", [dollars("owner:family", 2 * PRICE), pictures("owner:family", 2, "day")])
async def test_an_owners_keys_share_its_limit(state: State, limit: Limit) -> None:
    await state.set_limits([limit])
    assert isinstance(await state.start(wanted(ANN)), Started)
    assert isinstance(await state.start(wanted(BOB)), Started)
    assert isinstance(await state.start(wanted(ANN)), OverLimit)
    assert isinstance(await state.start(wanted(Account("k3", "eve"))), Started)


async def test_each_end_user_of_a_key_has_a_limit_of_its_own(state: State) -> None:
    await state.set_limits([pictures("users:k1", 1, "total"), pictures("all", 3, "total")])
    assert isinstance(await state.start(wanted(USER)), Started)
    assert await state.start(wanted(USER)) == OverLimit("user:k1:u1", "pictures", "total", 1, 1, None)
    assert isinstance(await state.start(wanted(Account("k1", "ann", "", "u2"))), Started)
    assert isinstance(await state.start(wanted(Account("k2", "bob", "", "u1"))), Started)
    refused = await state.start(wanted(Account("k1", "ann", "", "u3")))
    assert isinstance(refused, OverLimit)
    assert refused.scope == "all"


async def test_what_lies_where(state: State) -> None:
    await state.set_limits([dollars("all", 100 * PRICE), pictures("all", 100)])
    for goal in ("intended", "submitting", "accepted", "done", "lost", "unknown", "released"):
        await Life(state).to(goal)
    expected = Balance(3 * PRICE, 2 * PRICE, PRICE, 3, 2, 1)
    assert await total(state) == expected
    assert await standing(state) == {("all", "dollars", "month"): expected, ("all", "pictures", "month"): expected}


async def test_a_told_cost_is_what_is_spent_and_remembered(state: State) -> None:
    await state.set_limits([dollars("all", 2 * PRICE)])
    life = await Life(state).to("accepted")
    change = await life.finish(cost=5 * PRICE, price_source="provider", price_name="prodia/flux/1024/4")
    assert change.remaining == 0
    assert await total(state) == Balance(spent=5 * PRICE, spent_pictures=1)
    assert await state.prices() == {"prodia/flux/1024/4": 5 * PRICE}
    assert (await state.ledger(limit=1))[0].price_source == "provider"
    assert isinstance(await state.start(wanted()), OverLimit)  # it is passed by a job already bought, once
    await state.set_limits([])
    cheaper = await Life(state).to("accepted")
    await cheaper.finish(cost=1, price_source="provider", price_name="prodia/flux/1024/4")
    assert await state.prices() == {"prodia/flux/1024/4": 1}


async def test_a_dearer_route_reserves_the_difference_first(state: State) -> None:
    await state.set_limits([dollars("all", 4 * PRICE)])
    life = await Life(state).to("intended")
    other = await Life(state).to("intended")
    refused = await state.submit(life.job, 0, ME, DEARER)
    assert isinstance(refused, OverLimit)
    assert (await life.row()).state == "intended"
    await state.end(other.job, 0, "release")
    assert (await life.submit(DEARER)).applied
    assert await total(state) == Balance(reserved=4 * PRICE, reserved_pictures=1)
    await state.end(life.job, 0, "next_route")
    assert (await life.submit(ROUTE)).applied
    await life.finish()
    assert await total(state) == Balance(spent=PRICE, spent_pictures=1)


async def test_without_a_price_what_was_reserved_is_spent(state: State) -> None:
    life = Life(state)
    await life.start(reserve=3 * PRICE, route=Route("prodia", "new"))
    await life.submit(Route("prodia", "new"))
    await life.finish()
    assert await total(state) == Balance(spent=3 * PRICE, spent_pictures=1)


@pytest.mark.parametrize(
    ("outcome", "balance"), [("paid", Balance(spent=PRICE, spent_pictures=1)), ("free", Balance())]
)
async def test_a_person_settles_what_is_unknown_once(state: State, outcome: str, balance: Balance) -> None:
    await state.set_limits([dollars("all", PRICE)])
    life = await Life(state).to("unknown")
    assert isinstance(await state.start(wanted()), OverLimit)  # it counts until somebody knows
    assert await state.resolve(life.job, outcome, "admin")  # type: ignore[arg-type]
    for repeated in ("paid", "free"):
        assert not await state.resolve(life.job, repeated, "admin")
    assert not (await life.finish()).applied
    assert await total(state) == balance
    assert await state.unknown_jobs() == ()
    entry = (await state.ledger(limit=1))[0]
    assert (entry.kind, entry.who) == ("correct", "admin")


async def test_a_reservation_settles_in_the_period_in_which_it_was_made(state: State, wall: Wall) -> None:
    await state.set_limits([dollars("all", PRICE, "day"), dollars("all", 2 * PRICE, "month")])
    wall.now = datetime(2025, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    life = await Life(state).to("accepted")
    assert isinstance(await state.start(wanted()), OverLimit)
    wall.now += 2
    assert isinstance(await state.start(wanted()), Started)
    await life.finish()
    everything = await state.everything()
    rows = {(row.period, row.start): (row.reserved, row.spent) for row in everything.spend}
    assert rows == {
        ("day", 20_422): (0, PRICE),
        ("month", 20_393): (0, PRICE),
        ("day", 20_423): (PRICE, 0),
        ("month", 20_423): (PRICE, 0),
    }


async def test_a_new_limit_counts_what_was_there_before(state: State) -> None:
    for goal in ("accepted", "done", "unknown"):
        await Life(state).to(goal)
    await state.set_limits([dollars("all", 4 * PRICE), pictures("owner:family", 4, "total")])
    assert set((await standing(state)).values()) == {Balance(PRICE, PRICE, PRICE, 1, 1, 1)}
    assert isinstance(await state.start(wanted()), Started)
    assert isinstance(await state.start(wanted()), OverLimit)
    await state.set_limits([])
    life = await Life(state).to("done")
    await state.set_limits([dollars("all", 6 * PRICE)])
    assert set((await standing(state)).values()) == {Balance(2 * PRICE, 2 * PRICE, PRICE, 2, 2, 1)}
    assert isinstance(await state.start(wanted()), Started)
    assert (await life.row()).state == "done"


async def test_a_temporary_raise_ends_by_itself(state: State, wall: Wall) -> None:
    await state.set_limits([Limit("all", "pictures", "total", 1, 1, wall.ms + 1000)])
    assert isinstance(await state.start(wanted()), Started)
    assert isinstance(await state.start(wanted()), Started)
    assert isinstance(await state.start(wanted()), OverLimit)
    wall.now += 1
    refused = await state.start(wanted())
    assert isinstance(refused, OverLimit)
    assert (refused.limit, refused.used) == (1, 2)


async def test_entries_say_what_happened(state: State) -> None:
    life = await Life(state).to("unknown")
    await life.accept()
    await life.finish(cost=7, price_source="provider")
    entries = await state.ledger(job=life.job)
    assert [entry.kind for entry in entries] == ["settle", "correct", "unknown", "reserve"]
    assert [(entry.reserved, entry.spent, entry.unknown) for entry in entries] == [
        (-PRICE, 7, 0),
        (PRICE, 0, -PRICE),
        (-PRICE, 0, PRICE),
        (PRICE, 0, 0),
    ]
    assert {(entry.key_name, entry.owner, entry.provider, entry.model) for entry in entries} == {
        ("ann", "family", "prodia", "flux")
    }
    assert [entry.id for entry in await state.ledger(before=entries[1].id, limit=1)] == [entries[2].id]
    assert await state.ledger(key="k2") == ()


async def test_usage(state: State, wall: Wall) -> None:
    await (await Life(state).to("accepted")).finish(cost=10, price_source="provider")
    wall.now += 86_400
    await (await Life(state).to("accepted", account=BOB)).finish(cost=3, price_source="provider")
    today = day_of(wall.ms)
    by = {name: [(row.name, row.balance.spent) for row in await state.usage(name, 0)] for name in ("key", "day")}
    assert by == {"key": [("ann", 10), ("bob", 3)], "day": [(str(today - 1), 10), (str(today), 3)]}
    assert [row.balance.spent for row in await state.usage("provider", today)] == [3]
    assert [row.name for row in await state.usage("model", 0, "k1")] == ["flux"]
    split = [(row.name, row.split, row.balance.spent) for row in await state.usage("day", 0, split="key")]
    assert split == [(str(today - 1), "ann", 10), (str(today), "bob", 3)]


# --- in parallel ------------------------------------------------------------------------------------------------------


async def test_a_thousand_at_once_on_a_budget_for_a_hundred(state: State) -> None:
    """Three limits at once, and reservations that are given back: a hundred pictures are bought, never more."""
    random = Random(11)  # noqa: S311
    await state.set_limits([dollars("all", 100 * PRICE, "day"), pictures("owner:family", 100), pictures("all", 100)])

    async def call(number: int) -> bool:
        while isinstance(started := await state.start(wanted((ANN, BOB)[number % 2], submit=1)), Started):
            job = JobId(started.generation.row.id, 0)
            if random.random() < 0.3:
                await state.end(job, 0, "not_started")
                continue  # a retry
            if random.random() < 0.1:
                await state.end(job, 0, "doubt")
                return True
            accepted = await state.accept(job, 0, ME, "{}")
            assert isinstance(accepted, Change)
            return (await state.finish(job, 0, "p")).applied
        return False

    assert sum(await asyncio.gather(*(call(number) for number in range(1000)))) == 100
    used = await total(state)
    assert (used.reserved, used.spent + used.unknown, used.spent_pictures + used.unknown_pictures) == (
        0,
        100 * PRICE,
        100,
    )
