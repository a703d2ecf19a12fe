"""Keys, their limits and what is kept of their history; and what goes with time."""

import pytest

from proxy.state.checker import problems
from proxy.state.money import Balance, KeyRow
from proxy.state.operations import NameTaken, State
from proxy.state.outcomes import OverLimit, Started
from proxy.state.periods import day_of
from proxy.state.records import Account
from tests.state.parts import ANN, NOON, PRICE, Life, Wall, dollars, fingerprint, pictures, total, wanted

pytestmark = pytest.mark.anyio

DAY_S = 86_400


def key(name: str = "ann", key_id: str = "k1") -> KeyRow:
    return KeyRow(key_id, name, f"digest {key_id}".encode(), "abcd", "family", int(NOON))


async def test_a_key_and_its_limits(state: State) -> None:
    assert not (await state.keys()).ever
    limits = (dollars("key:k1", PRICE), pictures("users:k1", 3, "day"))
    await state.create_key(key(), limits, "me")
    kept = await state.keys()
    assert (kept.keys, set(kept.limits), kept.ever) == ((key(),), set(limits), True)
    assert isinstance(await state.start(wanted()), Started)
    assert isinstance(await state.start(wanted()), OverLimit)
    disabled = key()._replace(disabled=1)
    assert await state.change_key(disabled, [dollars("key:k1", 2 * PRICE)], "you", '{"budget": "2/month"}')
    assert isinstance(await state.start(wanted()), Started)
    changed = await state.keys()
    assert changed.keys == (disabled,)
    assert changed.revision > kept.revision
    changes = await state.key_changes("k1")
    assert [(change.who, change.change) for change in changes] == [
        ("me", '{"created": true}'),
        ("you", '{"budget": "2/month"}'),
    ]


async def test_limits_of_keys_and_of_the_service_dont_touch_each_other(state: State) -> None:
    await state.create_key(key(), [dollars("key:k1", PRICE)], "me")
    await state.set_limits([dollars("all", 9)])
    await state.set_limits([dollars("owner:family", 9)])
    assert [one.limit.scope for one in await state.standing(ANN)] == ["key:k1", "owner:family"]
    assert (await state.keys()).limits == (dollars("key:k1", PRICE),)
    assert await state.change_key(key()._replace(note="n"), None, "me", "{}")
    assert (await state.keys()).limits == (dollars("key:k1", PRICE),)


async def test_names_are_taken_until_a_key_is_deleted(state: State) -> None:
    await state.create_key(key(), [], "me")
    with pytest.raises(NameTaken, match="ann"):
        await state.create_key(key(key_id="k2"), [dollars("key:k2", 1)], "me")
    assert (await state.keys()).limits == ()
    await state.create_key(key("bob", "k2"), [], "me")
    with pytest.raises(NameTaken):
        await state.change_key(key("ann", "k2"), [dollars("key:k2", 1)], "me", "{}")
    assert len((await state.keys()).keys) == 2
    assert await state.change_key(key()._replace(deleted=1), [], "me", '{"deleted": true}')
    await state.create_key(key(key_id="k3"), [], "me")
    assert [one.id for one in (await state.keys()).keys] == ["k3", "k2"]
    assert not await state.change_key(key("x", "k9"), None, "me", "{}")


async def test_deleting_the_last_key_is_remembered(state: State) -> None:
    await state.create_key(key(), [], "me")
    await state.change_key(key()._replace(deleted=1), [], "me", "{}")
    kept = await state.keys()
    assert (kept.keys, kept.ever) == ((), True)


async def test_the_fingerprints_key_is_made_once(state: State) -> None:
    first = await state.fingerprint_key()
    assert len(first) == 32
    assert await state.fingerprint_key() == first


async def test_an_end_user_can_be_forgotten(state: State) -> None:
    await state.set_limits([pictures("users:k1", 9)])
    user = Account("k1", "ann", "", "digest-of-user")
    done = await Life(state).to("done", account=user)
    await Life(state).to("accepted", account=user)
    assert await state.forget_user("digest-of-user") == 3
    assert {entry.end_user for entry in await state.ledger()} == {""}
    assert (await total(state)).spent_pictures == 1
    assert await state.ledger(job=done.job)
    assert isinstance(await state.start(wanted(user, n=9)), Started)


# --- what goes --------------------------------------------------------------------------------------------------------


async def test_what_ended_goes_after_its_time_and_the_ledger_stays(state: State, wall: Wall) -> None:
    ended = [(await Life(state).to(goal)).job for goal in ("done", "lost", "released")]
    wall.now += 60
    kept = [(await Life(state).to(goal)).job for goal in ("done", "accepted", "unknown")]
    wall.now += 60
    swept = await state.sweep(result_ms=90_000)
    assert (swept.generations, swept.more) == (3, False)
    everything = await state.everything()
    assert {job.id for job in everything.jobs} == set(kept)
    assert {(entry.generation, entry.number) for entry in everything.ledger} == set(ended) | set(kept)


async def test_what_nobody_knows_stays_but_no_repeat_finds_it(state: State, wall: Wall) -> None:
    life = await Life(state).to("unknown", idempotency_key="once")
    other = await Life(state).to("unknown")
    wall.now += 1000
    assert (await state.sweep(result_ms=1000)).generations == 0
    assert (await state.sweep(result_ms=1000)).generations == 0
    assert await state.by_idempotency_key("k1", "once") is None
    assert await state.repeatable("k1", fingerprint("k1 a fox"), 0) == ()
    assert len(await state.unknown_jobs()) == 2
    assert (await life.accept()).applied
    assert await state.resolve(other.job, "free", "me")
    assert (await state.sweep(result_ms=1000)).generations == 1
    life.epoch = 1
    assert (await life.finish()).applied
    wall.now += 2
    assert (await state.sweep(result_ms=1000)).generations == 1
    assert (await state.everything()).jobs == ()


async def test_sweeping_goes_in_pieces(state: State, wall: Wall) -> None:
    for _ in range(5):
        await Life(state).to("done")
    wall.now += 1000
    sizes = [await state.sweep(result_ms=1000, limit=2) for _ in range(3)]
    assert [(swept.generations, swept.more) for swept in sizes] == [(2, True), (2, True), (1, False)]


async def test_old_entries_become_a_sum_and_no_balance_changes(state: State, wall: Wall) -> None:
    await state.set_limits([dollars("all", 100 * PRICE, "total"), dollars("key:k1", 100 * PRICE, "month")])
    for goal in ("done", "done", "released", "lost"):
        await Life(state).to(goal)
    open_still = await Life(state).to("accepted")
    before = await total(state)
    wall.now += 40 * DAY_S
    await Life(state).to("done")
    assert (await state.sweep(result_ms=1000)).entries == 0
    swept = await state.sweep(result_ms=1000, keep_ledger_days=30)
    assert swept.entries == 8
    everything = await state.everything()
    assert [entry.kind for entry in everything.ledger] == ["reserve", "reserve", "settle", "sum"]
    added = await total(state)
    assert (added.spent, added.spent_pictures) == (before.spent + PRICE, before.spent_pictures + 1)
    assert problems(everything) == []
    assert (await open_still.finish()).applied
    await state.set_limits([])
    await state.set_limits([dollars("all", 100 * PRICE, "total")])
    assert (await state.standing(ANN))[0].balance == Balance(spent=5 * PRICE, spent_pictures=5)
    assert day_of(wall.ms) == day_of(int(NOON * 1000)) + 40


async def test_what_is_settled_late_is_summed_up_too(state: State, wall: Wall) -> None:
    await Life(state).to("done")
    life = await Life(state).to("unknown")
    wall.now += 40 * DAY_S
    assert (await state.sweep(result_ms=1000, keep_ledger_days=30)).entries == 2
    assert (await state.sweep(result_ms=1000, keep_ledger_days=30)).entries == 0
    assert await state.resolve(life.job, "paid", "me")
    assert (await state.sweep(result_ms=1000, keep_ledger_days=30)).entries == 3
    assert {entry.kind for entry in await state.ledger()} == {"sum"}
    assert (await total(state)) == Balance(spent=2 * PRICE, spent_pictures=2)


async def test_the_checker_sees_what_is_wrong(state: State) -> None:
    await state.set_limits([dollars("all", 100 * PRICE)])
    life = await Life(state).to("accepted")
    await Life(state).to("done")
    right = await state.everything()
    job, done = sorted(right.jobs, key=lambda one: one.state)
    generation, other = sorted(right.generations, key=lambda one: one.id != job.generation)
    right = right._replace(jobs=(job, done), generations=(generation, other))
    broken = [
        right._replace(ledger=right.ledger[1:]),
        right._replace(ledger=(*right.ledger, right.ledger[-1])),
        right._replace(spend=(right.spend[0]._replace(spent=0),)),
        right._replace(spend=(right.spend[0]._replace(reserved=-1),)),
        right._replace(jobs=right.jobs[1:]),
        right._replace(jobs=(job._replace(state="done", ended=1), done)),
        right._replace(jobs=(job._replace(handle=None), done)),
        right._replace(jobs=(job._replace(submits=0), done)),
        right._replace(generations=(generation._replace(ended_as="ok"), other)),
        right._replace(generations=right.generations[1:]),
        right._replace(jobs=(job, done._replace(inherited=generation.id))),
    ]
    assert [number for number, rows in enumerate(broken) if not problems(rows)] == []
    assert job.id == life.job
