"""Generations: how they start and end, who finds them again, what a later one inherits."""

import pytest

from proxy.state.operations import State
from proxy.state.outcomes import Exists, NotLiving, OverLimit, OverPace, Pace, Started
from proxy.state.records import Account, JobId
from tests.state.parts import ANN, BOB, DEARER, ME, PRICE, ROUTE, Life, Wall, dollars, fingerprint, total, wanted

pytestmark = pytest.mark.anyio


async def started(state: State, account: Account = ANN, what: str = "a fox", **values: object) -> Started:
    outcome = await state.start(wanted(account, what, **values))
    assert isinstance(outcome, Started), outcome
    return outcome


async def finish(state: State, generation: str, number: int) -> None:
    job = JobId(generation, number)
    await state.submit(job, 0, ME, ROUTE)
    await state.accept(job, 0, ME, "{}")
    assert (await state.finish(job, 0, f"{generation}.{number}.png")).applied


async def test_a_start_writes_all_and_a_repeat_of_it_nothing(state: State) -> None:
    start = wanted(n=3, submit=2, seed=40, attempt=1, request='{"size": "1x1"}')
    first = await state.start(start)
    assert isinstance(first, Started)
    assert [job.state for job in first.generation.jobs] == ["submitting", "submitting", "intended"]
    assert [job.seed for job in first.generation.jobs] == [40, 41, 42]
    assert [job.submits for job in first.generation.jobs] == [1, 1, 0]
    assert await state.generation(start.id) == first.generation
    assert first.generation.waited_for
    assert await state.start(start) == Started(first.generation)
    assert (await total(state)).reserved_pictures == 3


async def test_a_repeated_start_is_told_of_what_it_wrote_whatever_would_refuse_it_now(state: State) -> None:
    await state.set_limits([dollars("all", PRICE)])
    start = wanted(idempotency_key="same", pace=(Pace("key:k1", 1, 1),))
    assert isinstance(await state.start(start), Started)
    assert isinstance(await state.start(start), Started)
    assert (await total(state)).reserved_pictures == 1


async def test_the_route_is_kept_as_submitted(state: State) -> None:
    life = await Life(state).to("intended")
    await life.submit(DEARER)
    row = await life.row()
    assert row.route == DEARER
    assert row.reserved == DEARER.price
    assert (await life.accept('{"id": 7}')).applied
    assert (await life.row()).handle == '{"id": 7}'


async def test_the_next_route_is_another_submit_of_the_same_job(state: State) -> None:
    life = await Life(state).to("submitting")
    assert (await state.end(life.job, 0, "next_route", "provider_busy")).applied
    assert (await life.submit(DEARER)).applied
    row = await life.row()
    assert (row.submits, row.provider, row.state) == (2, "other", "submitting")
    change = await life.finish()
    assert (await life.row()).cost == DEARER.price
    assert change.end == "ok"


async def test_a_generation_ends_with_its_last_job(state: State) -> None:
    generation = (await started(state, n=3, submit=3)).generation.row.id
    jobs = [JobId(generation, number) for number in range(3)]
    assert (await state.finish(jobs[0], 0, "a")).end is None
    assert (await state.end(jobs[1], 0, "not_started", "provider_busy")).end is None
    assert (await state.end(jobs[2], 0, "doubt", "submit_outcome_unknown")).end == "unknown"
    found = await state.generation(generation)
    assert found is not None
    assert [job.failure for job in found.jobs] == ["", "provider_busy", "submit_outcome_unknown"]
    assert (found.row.ended_as, found.row.ended) == ("unknown", found.row.created)


async def test_late_evidence_doesnt_change_the_end(state: State) -> None:
    life = await Life(state).to("unknown")
    late = await life.accept()
    assert (late.applied, late.end, late.epoch) == (True, "unknown", 1)
    found = await state.generation(life.job.generation)
    assert found is not None
    assert found.row.ended is None
    assert (await state.recover(ME, [])).jobs == (life.job,)
    done = await life.finish()
    assert done.end == "unknown"
    found = await state.generation(life.job.generation)
    assert found is not None
    assert (found.row.ended_as, found.jobs[0].state, found.row.ended is None) == ("unknown", "done", False)


async def test_steps_of_a_job_that_isnt_there(state: State) -> None:
    job = JobId("imggen_none", 0)
    for change in (
        await state.submit(job, 0, ME, ROUTE),
        await state.accept(job, 0, ME, "{}"),
        await state.finish(job, 0, "p"),
        await state.end(job, 0, "lose"),
    ):
        assert change[:2] == (False, "gone")
    assert not await state.resolve(job, "paid", "me")
    assert await state.generation("imggen_none") is None


async def test_own_writes_are_recognised(state: State) -> None:
    life = await Life(state).to("accepted")
    assert (await life.accept()).applied
    await life.finish()
    assert (await life.finish()).applied
    assert not (await life.finish("another.png")).applied
    assert (await total(state)).spent_pictures == 1


# --- who finds what ---------------------------------------------------------------------------------------------------


async def test_an_idempotency_key_is_one_keys_own(state: State) -> None:
    first = await started(state, idempotency_key="once")
    assert await state.start(wanted(idempotency_key="once")) == Exists(first.generation)
    await started(state, BOB, idempotency_key="once")
    assert await state.by_idempotency_key("k1", "once") == first.generation
    assert await state.by_idempotency_key("k1", "twice") is None


async def test_a_key_is_taken_from_a_generation_that_bought_nothing(state: State) -> None:
    first = (await started(state, idempotency_key="once", n=2)).generation.row.id
    await finish(state, first, 0)
    assert (await state.end(JobId(first, 1), 0, "release")).end == "again"
    anew = await started(state, idempotency_key="once", n=2)
    assert [job.inherited for job in anew.generation.jobs] == [first, None]
    found = await state.by_idempotency_key("k1", "once")
    assert found is not None
    assert found.row.id == anew.generation.row.id


@pytest.mark.parametrize("end", ["doubt", "lose"])
async def test_a_key_stays_with_what_may_be_bought(state: State, end: str) -> None:
    first = (await started(state, idempotency_key="once", submit=1)).generation.row.id
    await state.end(JobId(first, 0), 0, end)  # type: ignore[arg-type]
    again = await state.start(wanted(idempotency_key="once"))
    assert isinstance(again, Exists)
    assert again.generation.row.id == first


async def test_what_an_equal_request_may_take_over(state: State, wall: Wall) -> None:
    equal = fingerprint("k1 a fox")
    ids = [(await started(state, n=1, submit=1)).generation.row.id for _ in range(4)]
    await started(state, idempotency_key="keyed")
    await started(state, what="a hen")
    await started(state, BOB)
    await state.end(JobId(ids[0], 0), 0, "not_started")  # ended as "again"
    await state.finish(JobId(ids[1], 0), 0, "p")
    assert await state.deliver(ids[1], 0)
    wall.now += 60
    await state.finish(JobId(ids[2], 0), 0, "p")
    assert await state.deliver(ids[2], 0)
    assert [found.row.id for found in await state.repeatable("k1", equal)] == [ids[3]]
    recent = await state.repeatable("k1", equal, wall.ms - 10_000)
    assert {found.row.id for found in recent} == {ids[2], ids[3]}
    every = await state.repeatable("k1", equal, 0)
    assert {found.row.id for found in every} == set(ids[1:])


async def test_taking_over_is_won_once_and_undoes_the_delivery(state: State) -> None:
    generation = (await started(state, submit=1)).generation.row.id
    await state.finish(JobId(generation, 0), 0, "p")
    assert await state.deliver(generation, 0)
    assert await state.claim(generation, 0, 2, ME) == 1
    assert await state.claim(generation, 0, 2, ME) is None
    found = await state.generation(generation)
    assert found is not None
    assert (found.row.claim, found.row.attempt, found.row.delivered, found.waited_for) == (1, 2, None, True)


async def test_who_has_lost_the_claim_writes_nothing(state: State) -> None:
    generation = (await started(state)).generation.row.id
    await state.claim(generation, 0, 1, ME)
    assert not await state.deliver(generation, 0)
    assert not await state.leave(generation, 0)
    assert await state.leave(generation, 1)
    found = await state.generation(generation)
    assert found is not None
    assert (found.row.delivered, found.waited_for) == (None, False)


async def test_nobody_waits_at_a_dead_holder(state: State) -> None:
    generation = (await started(state)).generation.row.id
    await state.retire(ME)
    found = await state.generation(generation)
    assert found is not None
    assert not found.waited_for
    await state.register(ME)


async def test_a_hidden_generation_is_found_by_nobody_and_its_jobs_go_on(state: State) -> None:
    start = wanted(idempotency_key="once", submit=1)
    await state.start(start)
    assert await state.hide(start.id)
    assert await state.generation(start.id) is None
    assert await state.by_idempotency_key("k1", "once") is None
    assert await state.repeatable("k1", start.fingerprint, 0) == ()
    assert (await state.recover(ME, [JobId(start.id, 0)])).jobs == ()
    assert (await state.accept(JobId(start.id, 0), 0, ME, "{}")).applied
    assert (await state.recover(ME, [])).jobs == (JobId(start.id, 0),)


# --- pictures of failed generations -----------------------------------------------------------------------------------


async def test_only_the_missing_pictures_are_made_again(state: State) -> None:
    first = (await started(state, n=3, seed=7)).generation.row.id
    await finish(state, first, 0)
    await finish(state, first, 2)
    await state.end(JobId(first, 1), 0, "release")
    anew = await started(state, n=3, seed=99, submit=3)
    jobs = anew.generation.jobs
    assert [job.state for job in jobs] == ["done", "submitting", "done"]
    assert [job.picture for job in jobs] == [f"{first}.0.png", None, f"{first}.2.png"]
    assert [job.seed for job in jobs] == [7, 8, 9]
    assert (await total(state)).reserved_pictures == 1
    assert [job.state for job in (await started(state, n=3)).generation.jobs] == ["intended"] * 3  # they are taken


async def test_nothing_is_reserved_when_all_is_there(state: State) -> None:
    first = (await started(state, n=1, submit=1)).generation.row.id
    await state.end(JobId(first, 0), 0, "doubt")
    await state.finish(JobId(first, 0), 0, "late.png")
    await state.set_limits([dollars("all", 1)])
    anew = await started(state, pace=(Pace("key:k1", 1),))
    assert anew.generation.row.ended_as == "ok"
    assert anew.generation.jobs[0].picture == "late.png"
    assert (await total(state)).spent_pictures == 1
    assert isinstance(await state.start(wanted()), OverLimit)


async def test_nobody_inherits_anothers_pictures(state: State) -> None:
    first = (await started(state, n=2, fingerprint=b"same")).generation.row.id
    await finish(state, first, 0)
    await state.end(JobId(first, 1), 0, "release")
    other = await started(state, BOB, n=2, fingerprint=b"same")
    assert [job.inherited for job in other.generation.jobs] == [None, None]


# --- pace -------------------------------------------------------------------------------------------------------------


async def test_requests_per_minute(state: State, wall: Wall) -> None:
    pace = (Pace("key:k1", per_minute=2),)
    await started(state, n=4, pace=pace)
    await started(state, pace=pace)
    assert await state.start(wanted(pace=pace)) == OverPace("key:k1", 2, 60_000)
    wall.now += 59.5
    assert await state.start(wanted(pace=pace)) == OverPace("key:k1", 2, 500)
    wall.now += 0.5
    await started(state, pace=pace)


async def test_open_generations_at_once(state: State) -> None:
    pace = (Pace("key:k1", at_once=2), Pace("user:k1:u", at_once=1))
    user = Account("k1", "ann", "family", "u")
    first = (await started(state, user, pace=pace)).generation.row.id
    assert await state.start(wanted(user, pace=pace)) == OverPace("user:k1:u", 1, None)
    await started(state, ANN, pace=pace[:1])
    assert await state.start(wanted(ANN, pace=pace[:1])) == OverPace("key:k1", 2, None)
    await started(state, BOB, pace=(Pace("key:k2", at_once=1),))
    await state.end(JobId(first, 0), 0, "release")
    await started(state, user, pace=pace)


# --- holders ----------------------------------------------------------------------------------------------------------


async def test_a_holder_that_was_given_up_starts_nothing(state: State) -> None:
    life = await Life(state).to("intended")
    await state.retire(ME)
    assert await state.start(wanted()) == NotLiving(ME)
    assert await state.submit(life.job, 0, ME, ROUTE) == NotLiving(ME)
    assert not await state.beat(ME)
    await state.register(ME)
    assert await state.beat(ME)


async def test_recovery_does_what_each_state_asks_for(state: State) -> None:
    jobs = {name: (await Life(state).to(name)).job for name in ("intended", "submitting", "accepted", "done")}
    mine = (await Life(state).to("submitting")).job
    recovered = await state.recover(ME, [mine])
    assert recovered.jobs == (jobs["accepted"],)
    assert [found.row.id for found in recovered.follow] == [jobs["accepted"].generation]
    assert (recovered.follow[0].jobs[0].epoch, recovered.follow[0].jobs[0].holder) == (1, ME)
    assert recovered.released == 1
    assert [job.id for job in recovered.unknown] == [jobs["submitting"]]
    assert not recovered.more
    assert [job.id for job in await state.unknown_jobs()] == [jobs["submitting"]]
    again = await state.recover(ME, [mine, jobs["accepted"]])
    assert (again.jobs, again.released, again.unknown) == ((), 0, ())
    for name, end in (("intended", "again"), ("submitting", "unknown"), ("accepted", None), ("done", "ok")):
        found = await state.generation(jobs[name].generation)
        assert found is not None
        assert found.row.ended_as == end


async def test_recovery_in_pieces(state: State) -> None:
    for _ in range(5):
        await Life(state).to("accepted")
    first = await state.recover(ME, [], 3)
    assert (len(first.jobs), first.more) == (3, True)
    second = await state.recover(ME, first.jobs, 3)
    assert (len(second.jobs), second.more) == (2, False)


async def test_the_jobs_of_a_generation_are_recovered_together(state: State) -> None:
    """Who follows some of them only would take these for all."""
    for _ in range(3):
        started = await state.start(wanted(n=4, submit=4))
        assert isinstance(started, Started)
        for number in range(4):
            await state.accept(JobId(started.generation.row.id, number), 0, ME, f"h{number}")
    recovered = await state.recover(ME, [], 6)
    adopted = list(recovered.jobs)
    assert recovered.more
    while recovered.more:
        assert all(not {job.id for job in found.jobs}.difference(adopted) for found in recovered.follow)
        recovered = await state.recover(ME, adopted, 6)
        adopted += recovered.jobs
    assert len(adopted) == len(set(adopted)) == 12


async def test_evidence_of_a_frozen_holder_counts_its_decisions_dont(state: State) -> None:
    life = await Life(state).to("submitting")
    await state.retire(ME)
    await state.register("holder-2")
    assert len((await state.recover("holder-2", [])).unknown) == 1
    assert not (await state.end(life.job, 0, "doubt")).applied
    assert not (await life.submit()).applied
    late = await life.accept()
    assert (late.applied, late.epoch) == (True, 2)
    await state.register(ME)
