"""Generations: who repeats whom. The state machine plays callers that leave, lose answers and repeat, in any order."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from starlette.types import Message

from proxy.accounts import accounts
from proxy.accounts.keys import Key
from proxy.accounts.prices import Price
from proxy.accounts.spending import Spending
from proxy.clock import Clock, Deadline
from proxy.config import compose
from proxy.engine import Engine
from proxy.errors import (
    Failure,
    GenerationFailed,
    IdempotencyKeyReused,
    InternalError,
    JobLost,
    Overloaded,
    ProviderBadResult,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
    SubmitOutcomeUnknown,
)
from proxy.generations.journal import Journal
from proxy.generations.record import Generation, Joined
from proxy.generations.recorded import RecordedSteps
from proxy.generations.results import Picture
from proxy.generations.runner import Generations
from proxy.jobs.runtime import Place
from proxy.jobs.steps import FinishedJob, Progress, Steps
from proxy.metrics import Metrics
from proxy.providers.boundary import Finished
from proxy.requests.resolve import ResolvedRequest
from proxy.requests.summary import RequestSummary
from proxy.state.records import JobRow, Route
from proxy.state.sqlite.engine import open_sqlite

T = TypeVar("T")
RESULT_S = 120.0
_ENGINE = Engine(compose({}, {}))
_UPSTREAM = _ENGINE.runtimes["imagelabs"].upstream


def checked(prompt: str = "a fox", owner: str = "", **values: Any) -> ResolvedRequest:
    """Return the order for a request body; equal for equal bodies."""
    return _ENGINE.resolve(
        {"prompt": prompt, "model": "imagelabs/sdxl-turbo", **values}, caller=accounts.Caller(Key(owner))
    )


@dataclass
class Time:
    """A clock that stands still until told."""

    now: float = 1000.0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=lambda: self.now, sleep=asyncio.sleep, random=Random(7))  # noqa: S311


@dataclass
class Job:
    """A call of ``make``: begun at once, over when told."""

    seed: int
    progress: Progress
    end: asyncio.Future[None]
    brought: bool = False
    picture: Picture | None = None
    price: Price = field(default_factory=lambda: Price(5, "config"))

    def finish(self, failure: Exception | None = None) -> None:
        if self.end.done():
            return
        if failure is None:
            self.end.set_result(None)
        else:
            self.end.set_exception(failure)


async def told(steps: Steps, failure: Failure) -> None:
    """Report a failure as a job does."""
    code = failure.code or failure.type
    if isinstance(failure, SubmitOutcomeUnknown):
        await steps.unknown(code)
    elif isinstance(failure, GenerationFailed):
        await steps.failed(code)
    elif failure.should_retry or not steps.submitted or isinstance(failure, ProviderRejected):
        if steps.submitted:
            await steps.not_started(code, sent=True)
        await steps.released(code)
    else:
        await steps.lost(code)


@dataclass
class Studio:
    """Stands for jobs and results."""

    submitting: bool = True
    jobs: list[Job] = field(default_factory=list)
    finished: list[Job] = field(default_factory=list)
    undeliverable: Failure | None = None
    spacious: bool = False
    taken: list[Place] = field(default_factory=list)

    async def places(self, _resolved: ResolvedRequest, count: int, /) -> list[Place]:
        runtime = _ENGINE.runtimes["imagelabs"]
        self.taken += [Place(runtime) for _ in range(count if self.spacious else 0)]
        for _ in self.taken[-count:] if self.spacious else ():
            await runtime.slots.acquire()
        return self.taken[-count:] if self.spacious else []

    def routes(self, resolved: ResolvedRequest, /) -> dict[tuple[str, str], Route]:
        route = resolved.candidates[0].route
        return {(route.provider, route.model.name): Route(route.provider, route.model.name)}

    async def make(
        self, resolved: ResolvedRequest, seed: int, steps: Steps, _hold: Deadline, _place: Place | None, /
    ) -> FinishedJob:
        assert isinstance(steps, RecordedSteps)
        job = Job(seed, steps.progress_of, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        route = resolved.candidates[0].route
        if self.submitting:
            await steps.submitting(route.provider, route.model.name)
        try:
            await job.end
        except Failure as failure:
            await told(steps, failure)
            raise
        steps.progress("done", 1.0)
        origin = resolved.candidates[0].origin().seeded(seed)
        self.finished.append(job)
        return FinishedJob(Finished(f"https://provider/{len(self.finished)}.png"), origin, _hold, _UPSTREAM)

    async def follow(self, row: JobRow, _request: RequestSummary, _steps: Steps, /) -> FinishedJob:
        raise AssertionError(row)

    async def deliverable(
        self, _request: RequestSummary, finished: FinishedJob, _late: Callable[[], None], /
    ) -> Picture:
        if self.undeliverable is not None:
            raise self.undeliverable
        address = str(finished.finished.image)
        job = self.finished[int(address.rpartition("/")[2].partition(".")[0]) - 1]
        job.brought, job.picture = True, Picture(finished.origin, 8, 8, "png", address)
        return job.picture

    @property
    def submits(self) -> int:
        return sum(job.progress.submits for job in self.jobs)


def generations_of(studio: Studio, clock: Clock, result_s: float = RESULT_S, **values: Any) -> Generations:
    """Return generations with a state in memory."""
    figures = Metrics()
    journal = Journal(clock, figures.state, Spending(figures.money))
    journal.open(open_sqlite(None, wall=clock.wall))
    return Generations(studio, journal, clock, hold_s=60.0, result_s=result_s, kinds={}, **values)


@dataclass
class Runs:
    """Generations with everything around them played."""

    time: Time = field(default_factory=Time)
    studio: Studio = field(default_factory=Studio)
    result_s: float = RESULT_S
    generations: Generations = field(init=False)

    def __post_init__(self) -> None:
        self.generations = generations_of(self.studio, self.time.clock(), self.result_s)

    async def open(self) -> None:
        if not self.generations._journal.holder:
            await self.generations.open()

    async def settle(self) -> None:
        """Let everything run that can."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def join(self, resolved: ResolvedRequest, *, key: str | None = None, attempt: int = 0) -> Joined:
        await self.open()
        joined = self.generations.join(resolved, key=key, attempt=attempt)
        await self.settle()
        return joined

    async def end(self, generation: Generation, failure: Failure | None = None) -> None:
        for job in self.studio.jobs:
            if any(job.progress is progress for progress in generation.progress):
                job.finish(failure)
        await self.settle()

    def assert_nothing_is_kept(self) -> None:
        generations, registry = self.generations, self.generations._registry
        kept = (registry._by_id, registry._by_key, registry._equals, registry._places, registry._ended)
        assert not any((*kept, registry._open_of, registry._given_of, generations._tasks.uncollected))
        assert generations.running == 0


@pytest.fixture
def runs() -> Runs:
    return Runs()


# --- any order of events --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Caller:
    """One intent: its request, and what became of the last call. ``lost_at``: its answer was written, not received."""

    body: str
    key: str | None
    joined: Joined = field(repr=False)
    attempt: int = 0
    waiting: bool = True
    lost_at: float | None = None

    @property
    def generation(self) -> Generation:
        return self.joined.generation


class Traffic(RuleBasedStateMachine):
    """Intents are counted as calls are made for the first time; repeats must not raise the number of submits."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.runs = Runs(result_s=1e6)
        self.callers: list[Caller] = []
        self.intents = 0
        self.keys: dict[str, str] = {}

    async def leave(self, joined: Joined, *, delivered: bool) -> None:
        self.runs.generations.leave(joined, delivered=delivered)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.waiting]

    def may_repeat(self) -> list[Caller]:
        """Who was cut off or lost an answer, and repeats while the service still remembers."""
        now = self.runs.time.now
        return [
            caller
            for caller in self.callers
            if not caller.waiting and (caller.lost_at is None or now < caller.lost_at + 10)
        ]

    @rule(body=st.sampled_from("ab"))
    def ask(self, body: str) -> None:
        self.intents += 1
        joined = self.run(self.runs.join(checked(body)))
        assert joined.how in (None, "orphan")
        self.callers.append(Caller(body, None, joined))

    @rule(key=st.sampled_from("xyz"), body=st.sampled_from("ab"))
    def ask_with_key(self, key: str, body: str) -> None:
        known = key in self.keys and any(generation.key == key for generation in self.runs.generations)
        if known and self.keys[key] != body:
            with pytest.raises(IdempotencyKeyReused):
                self.runs.generations.join(checked(body), key=key)
            return
        self.intents += not known
        self.keys[key] = body
        joined = self.run(self.runs.join(checked(body), key=key))
        assert joined.how == ("key" if known else None)
        self.callers.append(Caller(body, key, joined))

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting()))
        caller.waiting = False
        self.run(self.leave(caller.joined, delivered=False))

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data(), well=st.booleans())
    def finish(self, data: st.DataObject, well: bool) -> None:
        generation = data.draw(st.sampled_from(self.waiting())).generation
        self.run(self.runs.end(generation, None if well else GenerationFailed("no")))

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting()))
        if caller.generation.done:
            self.run(self.leave(caller.joined, delivered=True))
            self.callers.remove(caller)

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data())
    def lose_the_answer(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting()))
        if caller.generation.done:
            self.run(self.leave(caller.joined, delivered=True))
            caller.waiting, caller.lost_at = False, self.runs.time.now

    @precondition(lambda self: bool(self.may_repeat()))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.may_repeat()))
        caller.attempt += 1
        joined = self.run(self.runs.join(checked(caller.body), key=caller.key, attempt=caller.attempt))
        # Which of two equal answers was lost cannot be told: a picture that nobody has goes before a written one,
        # whose caller, should it have been the other, comes after its ten seconds.
        self.intents += caller.lost_at is not None and joined.generation is not caller.generation
        caller.joined, caller.waiting, caller.lost_at = joined, True, None

    @rule(seconds=st.sampled_from([1.0, 9.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.runs.time.now += seconds
        # Whom the service may have forgotten gives up: a later repeat would be an intent of its own.
        alive = self.may_repeat()
        self.callers = [caller for caller in self.callers if caller.waiting or caller in alive]

    @invariant()
    def no_intent_is_paid_twice(self) -> None:
        assert self.runs.studio.submits <= self.intents

    @invariant()
    def nobody_shares_a_generation_unless_by_key_or_beside_a_lower_counter(self) -> None:
        held = [caller.generation for caller in self.waiting() if caller.key is None]
        shared = {id(generation) for generation in held if held.count(generation) > 1}
        assert all(generation.attempt for generation in held if id(generation) in shared)

    def teardown(self) -> None:
        try:
            self.run(self.end())
        finally:
            self.loop.close()

    async def end(self) -> None:
        for generation in self.runs.generations:
            await self.runs.end(generation)
        self.runs.time.now += self.runs.result_s
        self.runs.generations.sweep()
        self.runs.assert_nothing_is_kept()


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


# --- by one rule each -----------------------------------------------------------------------------------------

pytestmark = pytest.mark.anyio


async def test_four_equal_calls_cut_and_repeated_are_four_generations(runs: Runs) -> None:
    first = [await runs.join(checked()) for _ in range(4)]
    assert len({joined.generation.id for joined in first}) == 4
    for joined in first:
        runs.generations.leave(joined, delivered=False)
    second = [await runs.join(checked(), attempt=1) for _ in range(4)]
    assert [joined.generation for joined in second] == [joined.generation for joined in first]
    assert {joined.how for joined in second} == {"retry"}
    assert runs.studio.submits == 4
    fifth = await runs.join(checked(), attempt=1)
    assert fifth.how is None


async def test_a_retry_leaves_the_lower_counter_to_whom_it_belongs(runs: Runs) -> None:
    early, late = await runs.join(checked()), await runs.join(checked())
    runs.generations.leave(late, delivered=False)
    again = await runs.join(checked(), attempt=1)
    assert again.generation is late.generation
    for joined in (again, early):
        runs.generations.leave(joined, delivered=False)
    assert (await runs.join(checked(), attempt=2)).generation is late.generation
    assert (await runs.join(checked(), attempt=1)).generation is early.generation
    assert runs.studio.submits == 2


async def test_orphans_go_first_in_first_out_and_once_each(runs: Runs) -> None:
    first = [await runs.join(checked()) for _ in range(2)]
    for joined in first:
        runs.generations.leave(joined, delivered=False)
    claims = [await runs.join(checked()) for _ in range(3)]
    assert [claim.how for claim in claims] == ["orphan", "orphan", None]
    assert [claim.generation for claim in claims[:2]] == [joined.generation for joined in first]
    assert (await runs.join(checked("another"))).how is None
    assert (await runs.join(checked(owner="another"))).how is None


async def test_a_generation_that_is_waited_for_is_no_orphan(runs: Runs) -> None:
    first = await runs.join(checked())
    assert (await runs.join(checked())).generation is not first.generation


async def test_a_counted_retry_joins_beside_a_waiter_when_nothing_else_is_there(runs: Runs) -> None:
    """Its predecessor's leaving may not have been noticed: the counter proves that it is no new request."""
    first = [await runs.join(checked()) for _ in range(4)]
    again = [await runs.join(checked(), attempt=1) for _ in range(4)]
    assert [joined.generation for joined in again] == [joined.generation for joined in first]
    assert runs.studio.submits == 4
    assert (await runs.join(checked(), attempt=1)).how is None, "four calls have been repeated once"
    for joined in first:
        runs.generations.leave(joined, delivered=True)
    assert all(joined.generation.delivered_at is None for joined in first), "the dead connection was told, not they"
    runs.generations.leave(again[0], delivered=True)
    runs.generations.lose(first[0])
    assert again[0].generation.delivered_at is not None


async def test_a_counted_retry_prefers_what_nobody_waits_for(runs: Runs) -> None:
    waited, free = await runs.join(checked()), await runs.join(checked())
    runs.generations.leave(free, delivered=False)
    assert (await runs.join(checked(), attempt=1)).generation is free.generation
    assert (await runs.join(checked(), attempt=1)).generation is waited.generation


Row = tuple[Literal["open", "ok", "unknown", "lost", "again"], Literal["waited", "undelivered", "delivered"]]
ROWS: dict[Row, tuple[str | None, str | None, str | None]] = {
    # the first request's generation: what a repeat by key, by counter and a bare one are given
    ("open", "undelivered"): ("key", "retry", "orphan"),
    ("open", "waited"): ("key", "retry", None),
    ("ok", "undelivered"): ("key", "retry", "orphan"),
    ("ok", "delivered"): ("key", "retry", None),
    ("unknown", "undelivered"): ("key", "retry", "orphan"),
    ("unknown", "delivered"): ("key", "retry", None),
    ("lost", "undelivered"): ("key", "retry", "orphan"),
    ("lost", "delivered"): ("key", "retry", None),
    ("again", "undelivered"): (None, None, None),
    ("again", "delivered"): (None, None, None),
}
FAILURES = {
    "unknown": SubmitOutcomeUnknown("no answer"),
    "lost": JobLost("forgotten"),
    "again": ProviderUnavailable("away"),
}


@pytest.mark.parametrize("sign", ["key", "counter", "bare"])
@pytest.mark.parametrize("row", ROWS)
async def test_who_repeats_whom(runs: Runs, row: Row, sign: str) -> None:
    end, delivery = row
    key, attempt = ("k" if sign == "key" else None), (1 if sign == "counter" else 0)
    runs.studio.submitting = end != "again"
    first = await runs.join(checked(), key=key)
    if end != "open":
        await runs.end(first.generation, FAILURES.get(end))
        assert first.generation.end == end
    if delivery != "waited":
        runs.generations.leave(first, delivered=delivery == "delivered")
    repeat = await runs.join(checked(), key=key, attempt=attempt)
    expected = ROWS[row][["key", "counter", "bare"].index(sign)]
    assert repeat.how == expected
    assert (repeat.generation is first.generation) is (expected is not None)
    if expected is not None and end != "open":
        assert repeat.generation.failure is first.generation.failure, "the same end is heard"
        runs.generations.leave(repeat, delivered=True)
        assert (await runs.join(checked())).how is None, "once it was heard a bare call is a new intent"


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([Overloaded("full"), SubmitOutcomeUnknown("?")], 1),
        ([SubmitOutcomeUnknown("?"), Overloaded("full")], 0),
        ([JobLost("gone"), SubmitOutcomeUnknown("?")], 1),
        ([Overloaded("full"), JobLost("gone")], 1),
        ([ProviderUnavailable("away"), ProviderRejected("no such size")], 1),
    ],
)
async def test_the_worst_of_several_failures_is_the_generations(runs: Runs, failures: list[Failure], told: int) -> None:
    first = await runs.join(checked(n=2))
    for job, failure in zip(list(runs.studio.jobs), failures, strict=True):
        job.finish(failure)
    await runs.settle()
    ended = first.generation.failure
    assert ended is not None
    assert (type(ended), ended.body()) == (type(failures[told]), failures[told].body())
    assert (ended.__traceback__, ended.__context__) == (None, None)
    runs.generations.leave(first, delivered=False)
    repeat = await runs.join(checked(n=2), attempt=1)
    assert (repeat.generation is first.generation) is (first.generation.end in ("unknown", "lost"))


async def test_an_unwanted_job_is_told_from_one_that_somebody_may_come_back_for(runs: Runs) -> None:
    left, handed, kept = [await runs.join(checked(name)) for name in ("left", "handed", "kept")]
    wanted = [joined.generation.progress[0].wanted for joined in (left, handed, kept)]
    runs.generations.leave(left, delivered=False)
    runs.generations.leave(handed, delivered=False)
    runs.generations.hand_over(handed.generation)
    runs.time.now += 9.9
    assert [ask() for ask in wanted] == [True, True, True]
    runs.time.now += 0.1
    assert [ask() for ask in wanted] == [False, True, True]
    await runs.join(checked("left"))
    assert wanted[0]()


async def test_what_was_handed_over_is_uncollected_from_its_end_until_it_was_read(runs: Runs) -> None:
    generations = runs.generations
    handed = [await runs.join(checked(name)) for name in "abc"]
    for joined in handed:
        generations.leave(joined, delivered=False)
        generations.hand_over(joined.generation)
    assert generations.uncollected == 0
    for joined in handed:
        await runs.end(joined.generation)
    assert generations.uncollected == 3
    generations.deliver(handed[0].generation)
    assert generations.uncollected == 2
    generations.lose(handed[0])
    assert generations.uncollected == 3
    generations.deliver(handed[0].generation)
    await generations.abandon(handed[1].generation)
    assert generations.uncollected == 1
    runs.time.now += RESULT_S
    generations.sweep()
    assert generations.uncollected == 0


def work_of(call: Callable[[], object]) -> int:
    """Return how many functions ``call`` enters, C's included."""
    entered = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal entered
        entered += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


@pytest.mark.parametrize("waiters", ["nobody", "delivered"])
async def test_a_request_costs_the_same_however_many_have_ended(runs: Runs, waiters: str) -> None:
    owner = {"owner": "me"}
    work: list[int] = []
    for _ in range(2):
        for _ in range(300):
            joined = await runs.join(checked(**owner))
            await runs.end(joined.generation)
            runs.generations.leave(joined, delivered=True)
        fresh = await runs.join(checked("another", **owner))
        await runs.end(fresh.generation)
        runs.generations.leave(fresh, delivered=waiters == "delivered")
        generations, resolved = runs.generations, checked(**owner)
        calls: list[Callable[[], object]] = [
            lambda: generations.expects("me", key=None, attempt=1),  # noqa: B023 (called in this turn)
            lambda: generations.running_of("me"),  # noqa: B023
            lambda: generations.knows(resolved, key=None, attempt=1),  # noqa: B023
            lambda: generations.knows(resolved, key=None, attempt=0),  # noqa: B023
            lambda: generations.sweep(),  # noqa: B023, PLW0108
        ]
        work.append(sum(work_of(call) for call in calls))
    assert work[1] <= work[0] * 1.2


def lines_of(call: Callable[[], object]) -> int:
    """Return how many lines ``call`` runs: a loop that calls nothing counts too."""
    lines = 0

    def count(_frame: object, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


async def test_a_sweep_costs_the_same_however_much_is_salvaged(runs: Runs) -> None:
    work: list[int] = []
    for size in range(2):
        for number in range(100):
            joined = await runs.join(checked(f"{size} {number}", n=2))
            runs.studio.jobs[-2].finish()
            runs.studio.jobs[-1].finish(GenerationFailed("no"))
            await runs.settle()
            runs.generations.leave(joined, delivered=True)
        work.append(lines_of(runs.generations.sweep))
    assert work[1] == work[0] > 0
    runs.time.now += RESULT_S
    runs.generations.sweep()
    runs.assert_nothing_is_kept()


async def test_a_ended_orphan_is_handed_out_at_once_until_its_time_is_over(runs: Runs) -> None:
    first = await runs.join(checked())
    runs.generations.leave(first, delivered=False)
    await runs.end(first.generation)
    runs.time.now += RESULT_S - 0.1
    second = await runs.join(checked())
    assert second.generation.result() == first.generation.pictures
    runs.generations.leave(second, delivered=False)
    runs.time.now += 0.1
    assert (await runs.join(checked())).how is None


@pytest.mark.parametrize(("attempt", "after_s", "claims"), [(1, 9.9, True), (1, 10.0, False), (0, 0.0, False)])
async def test_a_delivered_generation_can_be_reclaimed_by_a_counted_retry_for_ten_seconds(
    runs: Runs, attempt: int, after_s: float, claims: bool
) -> None:
    first = await runs.join(checked())
    await runs.end(first.generation)
    runs.generations.leave(first, delivered=True)
    runs.time.now += after_s
    assert ((await runs.join(checked(), attempt=attempt)).generation is first.generation) is claims


async def test_an_orphan_is_taken_over_whatever_the_counter_says(runs: Runs) -> None:
    first = await runs.join(checked(), attempt=2)
    runs.generations.leave(first, delivered=False)
    second = await runs.join(checked(), attempt=1)
    assert second.generation is first.generation
    runs.generations.leave(second, delivered=True)
    assert (await runs.join(checked(), attempt=1)).how is None


async def test_a_lost_answer_can_be_asked_for_again(runs: Runs) -> None:
    first = await runs.join(checked())
    await runs.end(first.generation)
    runs.generations.leave(first, delivered=True)
    runs.generations.lose(first)
    assert (await runs.join(checked())).generation is first.generation


async def test_a_job_that_was_handed_over_belongs_to_nobody_else(runs: Runs) -> None:
    first = await runs.join(checked())
    runs.generations.leave(first, delivered=True)
    assert (await runs.join(checked())).how is None
    assert (await runs.join(checked(), attempt=1)).generation is first.generation


async def test_an_idempotency_key_attaches_and_replays_the_same_body_only(runs: Runs) -> None:
    first = await runs.join(checked(), key="k")
    second = await runs.join(checked(), key="k")
    assert (second.how, second.generation) == ("key", first.generation)
    with pytest.raises(IdempotencyKeyReused) as refusal:
        runs.generations.join(checked("other"), key="k")
    assert (refusal.value.status, refusal.value.code) == (422, "idempotency_key_reused")
    assert (await runs.join(checked(owner="other"), key="k")).how is None
    await runs.end(first.generation)
    for joined in (first, second):
        runs.generations.leave(joined, delivered=True)
    runs.time.now += 60
    assert (await runs.join(checked(), key="k")).generation.result() == first.generation.pictures
    assert (await runs.join(checked(), attempt=1)).how is None
    assert (await runs.join(checked())).how is None


async def test_a_key_replays_a_failure_that_may_have_cost_something_and_forgets_any_other(runs: Runs) -> None:
    first = await runs.join(checked(), key="k")
    await runs.end(first.generation, GenerationFailed("no"))
    assert (await runs.join(checked(), key="k")).generation is first.generation
    runs.studio.submitting = False
    second = await runs.join(checked(), key="l")
    await runs.end(second.generation, ProviderUnavailable("no"))
    assert (await runs.join(checked(), key="l")).generation is not second.generation


async def test_a_failure_that_may_have_cost_something_is_told_again_to_whom_it_did_not_reach(runs: Runs) -> None:
    first = await runs.join(checked())
    runs.generations.leave(first, delivered=False)
    await runs.end(first.generation, GenerationFailed("no"))
    second = await runs.join(checked(), attempt=1)
    with pytest.raises(GenerationFailed):
        second.generation.result()
    runs.generations.leave(second, delivered=True)
    assert (await runs.join(checked())).how is None, "a new call is a new intent"
    third = await runs.join(checked(), attempt=2)
    assert third.generation is first.generation
    runs.generations.leave(third, delivered=True)
    runs.time.now += 10
    assert (await runs.join(checked(), attempt=3)).generation is not first.generation


async def test_a_failure_before_any_submit_is_never_handed_out(runs: Runs) -> None:
    runs.studio.submitting = False
    first = await runs.join(checked())
    runs.generations.leave(first, delivered=False)
    await runs.end(first.generation, ProviderUnavailable("no"))
    assert (await runs.join(checked(), attempt=1)).how is None
    assert (await runs.join(checked())).how is None


async def test_pictures_of_a_failed_generation_are_kept_for_the_repeat(runs: Runs) -> None:
    first = await runs.join(checked(n=3), attempt=0)
    jobs = list(runs.studio.jobs)
    jobs[1].finish(GenerationFailed("no"))
    await runs.settle()
    assert not first.generation.done, "what was bought is brought home first"
    jobs[0].finish()
    jobs[2].finish()
    await runs.settle()
    assert isinstance(first.generation.failure, GenerationFailed)
    runs.generations.leave(first, delivered=True)
    second = await runs.join(checked(n=3))
    third = await runs.join(checked(n=3))
    await runs.end(second.generation)
    await runs.end(third.generation)
    assert (first.generation.submits, second.generation.submits, third.generation.submits) == (3, 1, 3)
    assert second.generation.pictures[0] == jobs[0].picture
    assert second.generation.pictures[2] == jobs[2].picture
    seeds = [picture.origin.seed for picture in second.generation.pictures]
    assert seeds == [first.generation.seed, first.generation.seed + 1, first.generation.seed + 2]


async def test_places_that_inherited_pictures_do_not_need_are_free_at_once(runs: Runs) -> None:
    first = await runs.join(checked(n=3))
    runs.studio.jobs[0].finish()
    runs.studio.jobs[1].finish()
    runs.studio.jobs[2].finish(GenerationFailed("no"))
    await runs.settle()
    runs.generations.leave(first, delivered=True)
    runs.studio.spacious = True
    second = await runs.join(checked(n=3))
    assert [place.free for place in runs.studio.taken] == [True, False, False]
    await runs.end(second.generation)
    assert not any(place.free for place in runs.studio.taken)


async def test_salvage_survive_a_second_failure_and_go_with_time(runs: Runs) -> None:
    first = await runs.join(checked(n=2))
    runs.studio.jobs[0].finish()
    runs.studio.jobs[1].finish(GenerationFailed("no"))
    await runs.settle()
    runs.generations.leave(first, delivered=True)
    second = await runs.join(checked(n=2))
    runs.studio.jobs[2].finish(GenerationFailed("no"))
    await runs.settle()
    runs.generations.leave(second, delivered=True)
    third = await runs.join(checked(n=2))
    assert third.generation.submits == 1
    runs.studio.jobs[3].finish(GenerationFailed("no"))
    await runs.settle()
    runs.generations.leave(third, delivered=True)
    runs.time.now += RESULT_S
    await runs.generations._journal.state.sweep(result_ms=int(RESULT_S * 1000))
    fourth = await runs.join(checked(n=2))
    assert fourth.generation.submits == 2


async def test_after_a_failure_nothing_more_is_bought(runs: Runs) -> None:
    runs.studio.submitting = False
    joined = await runs.join(checked(n=3))
    runs.studio.jobs[0].finish(Overloaded("full"))
    await runs.settle()
    assert isinstance(joined.generation.failure, Overloaded)
    assert all(job.end.cancelled() for job in runs.studio.jobs[1:])


async def test_may_start_is_asked_for_new_generations_only(runs: Runs) -> None:
    def refuse() -> None:
        raise RateLimited("enough")

    first = await runs.join(checked(), key="k")
    other = await runs.join(checked())
    runs.generations.leave(other, delivered=False)
    assert runs.generations.join(checked(), key="k", may_start=refuse).generation is first.generation
    assert runs.generations.join(checked(), attempt=1, may_start=refuse).generation is other.generation
    with pytest.raises(RateLimited):
        runs.generations.join(checked("new"), attempt=1, may_start=refuse)
    runs.generations.draining = True
    assert runs.generations.join(checked(), key="k").generation is first.generation
    with pytest.raises(Overloaded):
        runs.generations.join(checked("new"))


async def test_it_knows_whose_repeat_it_may_expect(runs: Runs) -> None:
    expects = runs.generations.expects
    kept = await runs.join(checked(owner="me"), key="k")
    assert expects("me", key="k", attempt=0)
    assert not expects("me", key="l", attempt=0)
    assert not expects("you", key="k", attempt=0)
    assert not expects("me", key=None, attempt=1)
    runs.generations.leave(kept, delivered=False)
    assert not expects("me", key=None, attempt=1)
    gone = await runs.join(checked(owner="me"))
    runs.generations.leave(gone, delivered=False)
    assert expects("me", key=None, attempt=0)
    assert expects("me", key=None, attempt=1)
    assert not expects("you", key=None, attempt=1)
    await runs.end(gone.generation)
    runs.generations.leave((await runs.join(checked(owner="me"))), delivered=True)
    assert not expects("me", key=None, attempt=0)
    assert expects("me", key=None, attempt=1)


# --- waiting --------------------------------------------------------------------------------------------------


class Line:
    """A caller's connection, as ``receive`` shows it."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.spurious = 2

    async def receive(self) -> Message:
        if self.spurious:
            self.spurious -= 1
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}


def waits(runs: Runs, generation: Generation, line: Line, seconds: float = 60.0) -> asyncio.Task[str]:
    until = Deadline.after(runs.time.clock(), seconds)
    return asyncio.get_running_loop().create_task(generation.wait(line.receive, until))


async def test_a_follower_is_served_after_the_leader_left(runs: Runs) -> None:
    leader, follower = Line(), Line()
    joined = await runs.join(checked(), key="k")
    generation = joined.generation
    await runs.join(checked(), key="k")
    waiting = [waits(runs, generation, leader), waits(runs, generation, follower)]
    await runs.settle()
    leader.gone.set()
    assert await waiting[0] == "left"
    runs.generations.leave(joined, delivered=False)
    assert not generation.done
    await runs.end(generation)
    assert await waiting[1] == "done"
    assert runs.studio.submits == 1
    assert generation.waiters == 1


async def test_waiting_ends_late_or_when_all_are_sent_away(runs: Runs) -> None:
    generation = (await runs.join(checked())).generation
    assert await waits(runs, generation, Line(), 0.0) == "late"
    waiting = waits(runs, generation, Line())
    await runs.settle()
    generation.release("late")
    assert await waiting == "late"
    await runs.end(generation)
    assert await waits(runs, generation, Line()) == "done"
    assert not generation._waiting


async def test_a_cancelled_handler_leaves_the_generation_in_the_air(runs: Runs) -> None:
    generation = (await runs.join(checked())).generation
    waiting = waits(runs, generation, Line())
    await runs.settle()
    waiting.cancel()
    await runs.settle()
    assert waiting.cancelled()
    assert not generation._waiting
    assert not generation.done


async def test_watchers_hear_of_changes_until_they_stop(runs: Runs) -> None:
    generation = (await runs.join(checked())).generation
    heard: list[int] = []
    stop = generation.watch(lambda: heard.append(1))
    runs.studio.jobs[0].progress.progress("generating", 0.5)
    runs.studio.jobs[0].progress.progress("generating", 0.5)
    assert len(heard) == 1
    stop()
    await runs.end(generation)
    assert len(heard) == 1


# --- the end --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["at once", "under way"])
def under_way(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "under way")


async def test_an_abandoned_generation_is_forgotten_and_not_to_be_bought_again(runs: Runs, under_way: bool) -> None:
    await runs.open()
    generation = runs.generations.join(checked(), key="k").generation
    if under_way:
        await runs.settle()
    waiting = waits(runs, generation, Line())
    await runs.generations.abandon(generation)
    new = runs.generations.join(checked(), key="k")
    assert new.how is None
    assert await waiting == "done"
    assert isinstance(generation.failure, JobLost)
    assert not generation.failure.should_retry
    assert all(progress.state == "failed" for progress in generation.progress)
    assert await runs.generations.find(generation.id, "") is None
    assert (await runs.join(checked(), key="k")).generation is new.generation
    await runs.generations.abandon(new.generation)
    await runs.settle()
    runs.assert_nothing_is_kept()


async def test_a_landed_generation_can_be_abandoned(runs: Runs) -> None:
    generation = (await runs.join(checked())).generation
    await runs.end(generation)
    await runs.generations.abandon(generation)
    assert generation.failure is None
    assert (await runs.join(checked())).how is None


async def test_the_finished_pictures_of_an_abandoned_generation_are_let_go(runs: Runs) -> None:
    gone: list[Picture] = []
    generations = generations_of(runs.studio, runs.time.clock(), release=gone.append)
    await generations.open()
    generation = generations.join(checked(n=2)).generation
    await runs.settle()
    first, _ = runs.studio.jobs
    first.finish()
    await runs.settle()
    await generations.abandon(generation)
    await runs.settle()
    assert gone == [first.picture]
    await generations.close()


async def test_a_job_is_found_by_its_caller_only(runs: Runs) -> None:
    generation = (await runs.join(checked(owner="me"))).generation
    assert await runs.generations.find(generation.id, "me") is generation
    assert await runs.generations.find(generation.id, "you") is None
    assert await runs.generations.find("imggen_0", "me") is None
    await runs.end(generation)
    runs.time.now += RESULT_S
    assert await runs.generations.find(generation.id, "me") is None


async def test_closing_ends_every_job_and_waits_for_it(runs: Runs, under_way: bool) -> None:
    await runs.open()
    several = runs.generations.join(checked(n=2)).generation
    one = runs.generations.join(checked()).generation
    gone = runs.generations.join(checked("gone")).generation
    if under_way:
        await runs.settle()
    await runs.generations.abandon(gone)
    await runs.generations.close()
    assert runs.generations.running == 0
    assert all(job.end.cancelled() for job in runs.studio.jobs)
    for generation in (several, one):
        with pytest.raises(Overloaded):
            generation.result()


async def test_an_unforeseen_error_lands_the_generation_with_its_cause(runs: Runs) -> None:
    generation = (await runs.join(checked())).generation
    runs.studio.jobs[0].finish(ZeroDivisionError("a prompt"))
    await runs.settle()
    with pytest.raises(InternalError) as internal:
        generation.result()
    assert isinstance(internal.value.__cause__, ZeroDivisionError)
    assert "a prompt" not in internal.value.message


async def test_a_job_is_done_when_its_picture_is_stored_and_lost_when_it_cannot_be(runs: Runs) -> None:
    stored = (await runs.join(checked("a"))).generation
    state = runs.generations._journal.state
    assert [job.state for job in (await state.everything()).jobs] == ["submitting"]
    await runs.end(stored)
    assert [job.state for job in (await state.everything()).jobs] == ["done"]

    runs.studio.undeliverable = ProviderBadResult("The finished picture is no picture.")
    spoilt = (await runs.join(checked("b"))).generation
    await runs.end(spoilt)
    assert isinstance(spoilt.failure, ProviderBadResult)
    ended = {job.generation: (job.state, job.failure) for job in (await state.everything()).jobs}
    assert ended == {stored.id: ("done", ""), spoilt.id: ("lost", "provider_bad_result")}
