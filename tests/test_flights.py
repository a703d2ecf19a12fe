"""Flights: who repeats whom. The state machine plays callers that leave, lose answers and repeat, in any order."""

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
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
    SubmitOutcomeUnknown,
)
from proxy.generations.record import Flight
from proxy.generations.results import Picture
from proxy.generations.runner import Boarding, Flights
from proxy.jobs.run import Made
from proxy.jobs.runtime import Progress
from proxy.requests.resolve import Order

T = TypeVar("T")
RESULT_S = 120.0
_ENGINE = Engine(compose({}, {}))


def wish(prompt: str = "a fox", owner: str = "", **values: Any) -> Order:
    """Return the order for a request body; equal for equal bodies."""
    return _ENGINE.order({"prompt": prompt, "model": "imagelabs/sdxl-turbo", **values}, owner=owner)


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

    def finish(self, failure: Exception | None = None) -> None:
        if self.end.done():
            return
        if failure is None:
            self.end.set_result(None)
        else:
            self.end.set_exception(failure)


@dataclass
class Studio:
    """Stands for jobs and results."""

    submitting: bool = True
    jobs: list[Job] = field(default_factory=list)

    async def make(self, _order: Order, seed: int, progress: Progress, _hold: Deadline) -> Made:
        job = Job(seed, progress, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        if self.submitting:
            progress.submits, progress.submitted = 1, True
        await job.end
        progress.set("done", 1.0)
        return job  # type: ignore[return-value]

    async def deliverable(self, _order: Order, made: Made, _late: object) -> Picture:
        assert isinstance(made, Job)
        made.brought = True
        return made  # type: ignore[return-value]

    @property
    def submits(self) -> int:
        return sum(job.progress.submits for job in self.jobs)


@dataclass
class Airport:
    """Flights with everything around them played."""

    time: Time = field(default_factory=Time)
    studio: Studio = field(default_factory=Studio)
    result_s: float = RESULT_S
    flights: Flights = field(init=False)

    def __post_init__(self) -> None:
        clock = self.time.clock()
        self.flights = Flights(self.studio.make, self.studio.deliverable, clock, hold_s=60.0, result_s=self.result_s)

    async def settle(self) -> None:
        """Let everything run that can."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def board(self, order: Order, *, key: str | None = None, attempt: int = 0) -> Boarding:
        boarding = self.flights.board(order, key=key, attempt=attempt)
        await self.settle()
        return boarding

    async def land(self, flight: Flight, failure: Failure | None = None) -> None:
        for job in self.studio.jobs:
            if any(job.progress is progress for progress in flight.progress):
                job.finish(failure)
        await self.settle()

    def assert_nothing_is_kept(self) -> None:
        flights, registry = self.flights, self.flights._registry
        kept = (registry._by_id, registry._by_key, registry._equals, registry._places, registry._ended)
        assert not any((*kept, registry._open_of, registry._given_of, flights._leftovers, flights._uncollected))
        assert flights.in_air == 0


@pytest.fixture
def airport() -> Airport:
    return Airport()


# --- any order of events --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Caller:
    """One intent: its request, and what became of the last call. ``lost_at``: its answer was written, not received."""

    body: str
    key: str | None
    boarding: Boarding = field(repr=False)
    attempt: int = 0
    waiting: bool = True
    lost_at: float | None = None

    @property
    def flight(self) -> Flight:
        return self.boarding.flight


class Traffic(RuleBasedStateMachine):
    """Intents are counted as calls are made for the first time; repeats must not raise the number of submits."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.airport = Airport(result_s=1e6)
        self.callers: list[Caller] = []
        self.intents = 0
        self.keys: dict[str, str] = {}

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.waiting]

    def may_repeat(self) -> list[Caller]:
        """Who was cut off or lost an answer, and repeats while the service still remembers."""
        now = self.airport.time.now
        return [
            caller
            for caller in self.callers
            if not caller.waiting and (caller.lost_at is None or now < caller.lost_at + 10)
        ]

    @rule(body=st.sampled_from("ab"))
    def ask(self, body: str) -> None:
        self.intents += 1
        boarding = self.run(self.airport.board(wish(body)))
        assert boarding.how in (None, "orphan")
        self.callers.append(Caller(body, None, boarding))

    @rule(key=st.sampled_from("xyz"), body=st.sampled_from("ab"))
    def ask_with_key(self, key: str, body: str) -> None:
        known = key in self.keys and any(flight.key == key for flight in self.airport.flights)
        if known and self.keys[key] != body:
            with pytest.raises(IdempotencyKeyReused):
                self.airport.flights.board(wish(body), key=key)
            return
        self.intents += not known
        self.keys[key] = body
        boarding = self.run(self.airport.board(wish(body), key=key))
        assert boarding.how == ("key" if known else None)
        self.callers.append(Caller(body, key, boarding))

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting()))
        caller.waiting = False
        self.airport.flights.leave(caller.boarding, delivered=False)

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data(), well=st.booleans())
    def finish(self, data: st.DataObject, well: bool) -> None:
        flight = data.draw(st.sampled_from(self.waiting())).flight
        self.run(self.airport.land(flight, None if well else GenerationFailed("no")))

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting()))
        if caller.flight.done:
            self.airport.flights.leave(caller.boarding, delivered=True)
            self.callers.remove(caller)

    @precondition(lambda self: bool(self.waiting()))
    @rule(data=st.data())
    def lose_the_answer(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting()))
        if caller.flight.done:
            self.airport.flights.leave(caller.boarding, delivered=True)
            caller.waiting, caller.lost_at = False, self.airport.time.now

    @precondition(lambda self: bool(self.may_repeat()))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.may_repeat()))
        caller.attempt += 1
        boarding = self.run(self.airport.board(wish(caller.body), key=caller.key, attempt=caller.attempt))
        # Which of two equal answers was lost cannot be told: a picture that nobody has goes before a written one,
        # whose caller, should it have been the other, comes after its ten seconds.
        self.intents += caller.lost_at is not None and boarding.flight is not caller.flight
        caller.boarding, caller.waiting, caller.lost_at = boarding, True, None

    @rule(seconds=st.sampled_from([1.0, 9.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.airport.time.now += seconds
        # Whom the service may have forgotten gives up: a later repeat would be an intent of its own.
        alive = self.may_repeat()
        self.callers = [caller for caller in self.callers if caller.waiting or caller in alive]

    @invariant()
    def no_intent_is_paid_twice(self) -> None:
        assert self.airport.studio.submits <= self.intents

    @invariant()
    def nobody_shares_a_flight_unless_by_key_or_beside_a_lower_counter(self) -> None:
        held = [caller.flight for caller in self.waiting() if caller.key is None]
        shared = {id(flight) for flight in held if held.count(flight) > 1}
        assert all(flight.attempt for flight in held if id(flight) in shared)

    def teardown(self) -> None:
        try:
            self.run(self.end())
        finally:
            self.loop.close()

    async def end(self) -> None:
        for flight in self.airport.flights:
            await self.airport.land(flight)
        self.airport.time.now += self.airport.result_s
        self.airport.flights.sweep()
        self.airport.assert_nothing_is_kept()


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


# --- by one rule each -----------------------------------------------------------------------------------------

pytestmark = pytest.mark.anyio


async def test_four_equal_calls_cut_and_repeated_are_four_flights(airport: Airport) -> None:
    first = [await airport.board(wish()) for _ in range(4)]
    assert len({boarding.flight.id for boarding in first}) == 4
    for boarding in first:
        airport.flights.leave(boarding, delivered=False)
    second = [await airport.board(wish(), attempt=1) for _ in range(4)]
    assert [boarding.flight for boarding in second] == [boarding.flight for boarding in first]
    assert {boarding.how for boarding in second} == {"retry"}
    assert airport.studio.submits == 4
    fifth = await airport.board(wish(), attempt=1)
    assert fifth.how is None


async def test_a_retry_leaves_the_lower_counter_to_whom_it_belongs(airport: Airport) -> None:
    early, late = await airport.board(wish()), await airport.board(wish())
    airport.flights.leave(late, delivered=False)
    again = await airport.board(wish(), attempt=1)
    assert again.flight is late.flight
    for boarding in (again, early):
        airport.flights.leave(boarding, delivered=False)
    assert (await airport.board(wish(), attempt=2)).flight is late.flight
    assert (await airport.board(wish(), attempt=1)).flight is early.flight
    assert airport.studio.submits == 2


async def test_orphans_go_first_in_first_out_and_once_each(airport: Airport) -> None:
    first = [await airport.board(wish()) for _ in range(2)]
    for boarding in first:
        airport.flights.leave(boarding, delivered=False)
    claims = [await airport.board(wish()) for _ in range(3)]
    assert [claim.how for claim in claims] == ["orphan", "orphan", None]
    assert [claim.flight for claim in claims[:2]] == [boarding.flight for boarding in first]
    assert (await airport.board(wish("another"))).how is None
    assert (await airport.board(wish(owner="another"))).how is None


async def test_a_flight_that_is_waited_for_is_no_orphan(airport: Airport) -> None:
    first = await airport.board(wish())
    assert (await airport.board(wish())).flight is not first.flight


async def test_a_counted_retry_joins_beside_a_waiter_when_nothing_else_is_there(airport: Airport) -> None:
    """Its predecessor's leaving may not have been noticed: the counter proves that it is no new wish."""
    first = [await airport.board(wish()) for _ in range(4)]
    again = [await airport.board(wish(), attempt=1) for _ in range(4)]
    assert [boarding.flight for boarding in again] == [boarding.flight for boarding in first]
    assert airport.studio.submits == 4
    assert (await airport.board(wish(), attempt=1)).how is None, "four calls have been repeated once"
    for boarding in first:
        airport.flights.leave(boarding, delivered=True)
    assert all(boarding.flight.delivered_at is None for boarding in first), "the dead connection was told, not they"
    airport.flights.leave(again[0], delivered=True)
    airport.flights.lose(first[0])
    assert again[0].flight.delivered_at is not None


async def test_a_counted_retry_prefers_what_nobody_waits_for(airport: Airport) -> None:
    waited, free = await airport.board(wish()), await airport.board(wish())
    airport.flights.leave(free, delivered=False)
    assert (await airport.board(wish(), attempt=1)).flight is free.flight
    assert (await airport.board(wish(), attempt=1)).flight is waited.flight


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
async def test_who_repeats_whom(airport: Airport, row: Row, sign: str) -> None:
    end, delivery = row
    key, attempt = ("k" if sign == "key" else None), (1 if sign == "counter" else 0)
    airport.studio.submitting = end != "again"
    first = await airport.board(wish(), key=key)
    if end != "open":
        await airport.land(first.flight, FAILURES.get(end))
        assert first.flight.end == end
    if delivery != "waited":
        airport.flights.leave(first, delivered=delivery == "delivered")
    repeat = await airport.board(wish(), key=key, attempt=attempt)
    expected = ROWS[row][["key", "counter", "bare"].index(sign)]
    assert repeat.how == expected
    assert (repeat.flight is first.flight) is (expected is not None)
    if expected is not None and end != "open":
        assert repeat.flight.failure is first.flight.failure, "the same end is heard"
        airport.flights.leave(repeat, delivered=True)
        assert (await airport.board(wish())).how is None, "once it was heard a bare call is a new wish"


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
async def test_the_worst_of_several_failures_is_the_generations(
    airport: Airport, failures: list[Failure], told: int
) -> None:
    first = await airport.board(wish(n=2))
    for job, failure in zip(list(airport.studio.jobs), failures, strict=True):
        job.progress.submitted = isinstance(failure, SubmitOutcomeUnknown | JobLost)
    for job, failure in zip(list(airport.studio.jobs), failures, strict=True):
        job.finish(failure)
    await airport.settle()
    assert first.flight.failure is failures[told]
    airport.flights.leave(first, delivered=False)
    repeat = await airport.board(wish(n=2), attempt=1)
    assert (repeat.flight is first.flight) is (first.flight.end in ("unknown", "lost"))


async def test_an_unwanted_job_is_told_from_one_that_somebody_may_come_back_for(airport: Airport) -> None:
    left, handed, kept = [await airport.board(wish(name)) for name in ("left", "handed", "kept")]
    wanted = [boarding.flight.progress[0].wanted for boarding in (left, handed, kept)]
    airport.flights.leave(left, delivered=False)
    airport.flights.leave(handed, delivered=False)
    airport.flights.hand_over(handed.flight)
    airport.time.now += 9.9
    assert [ask() for ask in wanted] == [True, True, True]
    airport.time.now += 0.1
    assert [ask() for ask in wanted] == [False, True, True]
    await airport.board(wish("left"))
    assert wanted[0]()


async def test_what_was_handed_over_is_uncollected_from_its_end_until_it_was_read(airport: Airport) -> None:
    flights = airport.flights
    handed = [await airport.board(wish(name)) for name in "abc"]
    for boarding in handed:
        flights.leave(boarding, delivered=False)
        flights.hand_over(boarding.flight)
    assert flights.uncollected == 0
    for boarding in handed:
        await airport.land(boarding.flight)
    assert flights.uncollected == 3
    flights.deliver(handed[0].flight)
    flights.abandon(handed[1].flight)
    assert flights.uncollected == 1
    airport.time.now += RESULT_S
    flights.sweep()
    assert flights.uncollected == 0


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
async def test_a_request_costs_the_same_however_many_have_landed(airport: Airport, waiters: str) -> None:
    owner = {"owner": "me"}
    work: list[int] = []
    for _ in range(2):
        for _ in range(300):
            boarding = await airport.board(wish(**owner))
            await airport.land(boarding.flight)
            airport.flights.leave(boarding, delivered=True)
        fresh = await airport.board(wish("another", **owner))
        await airport.land(fresh.flight)
        airport.flights.leave(fresh, delivered=waiters == "delivered")
        flights, order = airport.flights, wish(**owner)
        calls: list[Callable[[], object]] = [
            lambda: flights.expects("me", key=None, attempt=1),  # noqa: B023 (called in this turn)
            lambda: flights.in_air_of("me"),  # noqa: B023
            lambda: flights.knows(order, key=None, attempt=1),  # noqa: B023
            lambda: flights.knows(order, key=None, attempt=0),  # noqa: B023
            lambda: flights.sweep(),  # noqa: B023, PLW0108
        ]
        work.append(sum(work_of(call) for call in calls))
    assert work[1] <= work[0] * 1.2


async def test_a_landed_orphan_is_handed_out_at_once_until_its_time_is_over(airport: Airport) -> None:
    first = await airport.board(wish())
    airport.flights.leave(first, delivered=False)
    await airport.land(first.flight)
    airport.time.now += RESULT_S - 0.1
    second = await airport.board(wish())
    assert second.flight.result() == first.flight.pictures
    airport.flights.leave(second, delivered=False)
    airport.time.now += 0.1
    assert (await airport.board(wish())).how is None


@pytest.mark.parametrize(("attempt", "after_s", "claims"), [(1, 9.9, True), (1, 10.0, False), (0, 0.0, False)])
async def test_a_delivered_flight_can_be_reclaimed_by_a_counted_retry_for_ten_seconds(
    airport: Airport, attempt: int, after_s: float, claims: bool
) -> None:
    first = await airport.board(wish())
    await airport.land(first.flight)
    airport.flights.leave(first, delivered=True)
    airport.time.now += after_s
    assert ((await airport.board(wish(), attempt=attempt)).flight is first.flight) is claims


async def test_an_orphan_is_taken_over_whatever_the_counter_says(airport: Airport) -> None:
    first = await airport.board(wish(), attempt=2)
    airport.flights.leave(first, delivered=False)
    second = await airport.board(wish(), attempt=1)
    assert second.flight is first.flight
    airport.flights.leave(second, delivered=True)
    assert (await airport.board(wish(), attempt=1)).how is None


async def test_a_lost_answer_can_be_asked_for_again(airport: Airport) -> None:
    first = await airport.board(wish())
    await airport.land(first.flight)
    airport.flights.leave(first, delivered=True)
    airport.flights.lose(first)
    assert (await airport.board(wish())).flight is first.flight


async def test_a_job_that_was_handed_over_belongs_to_nobody_else(airport: Airport) -> None:
    first = await airport.board(wish())
    airport.flights.leave(first, delivered=True)
    assert (await airport.board(wish())).how is None
    assert (await airport.board(wish(), attempt=1)).flight is first.flight


async def test_an_idempotency_key_attaches_and_replays_the_same_body_only(airport: Airport) -> None:
    first = await airport.board(wish(), key="k")
    second = await airport.board(wish(), key="k")
    assert (second.how, second.flight) == ("key", first.flight)
    with pytest.raises(IdempotencyKeyReused) as refusal:
        airport.flights.board(wish("other"), key="k")
    assert (refusal.value.status, refusal.value.code) == (422, "idempotency_key_reused")
    assert (await airport.board(wish(owner="other"), key="k")).how is None
    await airport.land(first.flight)
    for boarding in (first, second):
        airport.flights.leave(boarding, delivered=True)
    airport.time.now += 60
    assert (await airport.board(wish(), key="k")).flight.result() == first.flight.pictures
    assert (await airport.board(wish(), attempt=1)).how is None
    assert (await airport.board(wish())).how is None


async def test_a_key_replays_a_failure_that_may_have_cost_something_and_forgets_any_other(airport: Airport) -> None:
    first = await airport.board(wish(), key="k")
    await airport.land(first.flight, GenerationFailed("no"))
    assert (await airport.board(wish(), key="k")).flight is first.flight
    airport.studio.submitting = False
    second = await airport.board(wish(), key="l")
    await airport.land(second.flight, ProviderUnavailable("no"))
    assert (await airport.board(wish(), key="l")).flight is not second.flight


async def test_a_failure_that_may_have_cost_something_is_told_again_to_whom_it_did_not_reach(airport: Airport) -> None:
    first = await airport.board(wish())
    airport.flights.leave(first, delivered=False)
    await airport.land(first.flight, GenerationFailed("no"))
    second = await airport.board(wish(), attempt=1)
    with pytest.raises(GenerationFailed):
        second.flight.result()
    airport.flights.leave(second, delivered=True)
    assert (await airport.board(wish())).how is None, "a new call is a new wish"
    third = await airport.board(wish(), attempt=2)
    assert third.flight is first.flight
    airport.flights.leave(third, delivered=True)
    airport.time.now += 10
    assert (await airport.board(wish(), attempt=3)).flight is not first.flight


async def test_a_failure_before_any_submit_is_never_handed_out(airport: Airport) -> None:
    airport.studio.submitting = False
    first = await airport.board(wish())
    airport.flights.leave(first, delivered=False)
    await airport.land(first.flight, ProviderUnavailable("no"))
    assert (await airport.board(wish(), attempt=1)).how is None
    assert (await airport.board(wish())).how is None


async def test_pictures_of_a_failed_flight_are_kept_for_the_repeat(airport: Airport) -> None:
    first = await airport.board(wish(n=3), attempt=0)
    jobs = list(airport.studio.jobs)
    jobs[1].finish(GenerationFailed("no"))
    await airport.settle()
    assert not first.flight.done, "what was bought is brought home first"
    jobs[0].finish()
    jobs[2].finish()
    await airport.settle()
    assert isinstance(first.flight.failure, GenerationFailed)
    airport.flights.leave(first, delivered=True)
    second = await airport.board(wish(n=3))
    third = await airport.board(wish(n=3))
    await airport.land(second.flight)
    await airport.land(third.flight)
    assert (first.flight.submits, second.flight.submits, third.flight.submits) == (3, 1, 3)
    assert second.flight.pictures[0] is jobs[0]  # type: ignore[comparison-overlap]
    assert second.flight.pictures[2] is jobs[2]  # type: ignore[comparison-overlap]
    seeds = [picture.seed for picture in second.flight.pictures]  # type: ignore[attr-defined]
    assert seeds == [first.flight.seed, first.flight.seed + 1, first.flight.seed + 2]


async def test_leftovers_survive_a_second_failure_and_go_with_time(airport: Airport) -> None:
    first = await airport.board(wish(n=2))
    airport.studio.jobs[0].finish()
    airport.studio.jobs[1].finish(GenerationFailed("no"))
    await airport.settle()
    airport.flights.leave(first, delivered=True)
    second = await airport.board(wish(n=2))
    airport.studio.jobs[2].finish(GenerationFailed("no"))
    await airport.settle()
    airport.flights.leave(second, delivered=True)
    third = await airport.board(wish(n=2))
    assert third.flight.submits == 1
    airport.studio.jobs[3].finish(GenerationFailed("no"))
    await airport.settle()
    airport.flights.leave(third, delivered=True)
    airport.time.now += RESULT_S
    fourth = await airport.board(wish(n=2))
    assert fourth.flight.submits == 2


async def test_after_a_failure_nothing_more_is_bought(airport: Airport) -> None:
    airport.studio.submitting = False
    boarding = await airport.board(wish(n=3))
    airport.studio.jobs[0].finish(Overloaded("full"))
    await airport.settle()
    assert isinstance(boarding.flight.failure, Overloaded)
    assert all(job.end.cancelled() for job in airport.studio.jobs[1:])


async def test_may_start_is_asked_for_new_flights_only(airport: Airport) -> None:
    def refuse() -> None:
        raise RateLimited("enough")

    first = await airport.board(wish(), key="k")
    other = await airport.board(wish())
    airport.flights.leave(other, delivered=False)
    assert airport.flights.board(wish(), key="k", may_start=refuse).flight is first.flight
    assert airport.flights.board(wish(), attempt=1, may_start=refuse).flight is other.flight
    with pytest.raises(RateLimited):
        airport.flights.board(wish("new"), attempt=1, may_start=refuse)
    airport.flights.draining = True
    assert airport.flights.board(wish(), key="k").flight is first.flight
    with pytest.raises(Overloaded):
        airport.flights.board(wish("new"))


async def test_it_knows_whose_repeat_it_may_expect(airport: Airport) -> None:
    expects = airport.flights.expects
    kept = await airport.board(wish(owner="me"), key="k")
    assert expects("me", key="k", attempt=0)
    assert not expects("me", key="l", attempt=0)
    assert not expects("you", key="k", attempt=0)
    assert not expects("me", key=None, attempt=1)
    airport.flights.leave(kept, delivered=False)
    assert not expects("me", key=None, attempt=1)
    gone = await airport.board(wish(owner="me"))
    airport.flights.leave(gone, delivered=False)
    assert expects("me", key=None, attempt=0)
    assert expects("me", key=None, attempt=1)
    assert not expects("you", key=None, attempt=1)
    await airport.land(gone.flight)
    airport.flights.leave((await airport.board(wish(owner="me"))), delivered=True)
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


def waits(airport: Airport, flight: Flight, line: Line, seconds: float = 60.0) -> asyncio.Task[str]:
    until = Deadline.after(airport.time.clock(), seconds)
    return asyncio.get_running_loop().create_task(flight.wait(line.receive, until))


async def test_a_follower_is_served_after_the_leader_left(airport: Airport) -> None:
    leader, follower = Line(), Line()
    boarding = await airport.board(wish(), key="k")
    flight = boarding.flight
    await airport.board(wish(), key="k")
    waiting = [waits(airport, flight, leader), waits(airport, flight, follower)]
    await airport.settle()
    leader.gone.set()
    assert await waiting[0] == "left"
    airport.flights.leave(boarding, delivered=False)
    assert not flight.done
    await airport.land(flight)
    assert await waiting[1] == "done"
    assert airport.studio.submits == 1
    assert flight.waiters == 1


async def test_waiting_ends_late_or_when_all_are_sent_away(airport: Airport) -> None:
    flight = (await airport.board(wish())).flight
    assert await waits(airport, flight, Line(), 0.0) == "late"
    waiting = waits(airport, flight, Line())
    await airport.settle()
    flight.release("late")
    assert await waiting == "late"
    await airport.land(flight)
    assert await waits(airport, flight, Line()) == "done"
    assert not flight._waiting


async def test_a_cancelled_handler_leaves_the_flight_in_the_air(airport: Airport) -> None:
    flight = (await airport.board(wish())).flight
    waiting = waits(airport, flight, Line())
    await airport.settle()
    waiting.cancel()
    await airport.settle()
    assert waiting.cancelled()
    assert not flight._waiting
    assert not flight.done


async def test_watchers_hear_of_changes_until_they_stop(airport: Airport) -> None:
    flight = (await airport.board(wish())).flight
    heard: list[int] = []
    stop = flight.watch(lambda: heard.append(1))
    airport.studio.jobs[0].progress.set("generating", 0.5)
    airport.studio.jobs[0].progress.set("generating", 0.5)
    assert len(heard) == 1
    stop()
    await airport.land(flight)
    assert len(heard) == 1


# --- the end --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["at once", "under way"])
def under_way(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "under way")


async def test_an_abandoned_flight_is_forgotten_and_not_to_be_bought_again(airport: Airport, under_way: bool) -> None:
    flight = airport.flights.board(wish(), key="k").flight
    if under_way:
        await airport.settle()
    waiting = waits(airport, flight, Line())
    airport.flights.abandon(flight)
    new = airport.flights.board(wish(), key="k")
    assert new.how is None
    assert await waiting == "done"
    assert isinstance(flight.failure, JobLost)
    assert not flight.failure.should_retry
    assert all(progress.state == "failed" for progress in flight.progress)
    assert airport.flights.find(flight.id, "") is None
    assert (await airport.board(wish(), key="k")).flight is new.flight
    airport.flights.abandon(new.flight)
    await airport.settle()
    airport.assert_nothing_is_kept()


async def test_a_landed_flight_can_be_abandoned(airport: Airport) -> None:
    flight = (await airport.board(wish())).flight
    await airport.land(flight)
    airport.flights.abandon(flight)
    assert flight.failure is None
    assert (await airport.board(wish())).how is None


async def test_the_finished_pictures_of_an_abandoned_flight_are_let_go(airport: Airport) -> None:
    gone: list[Picture] = []
    make, deliverable, clock = airport.studio.make, airport.studio.deliverable, airport.time.clock()
    flights = Flights(make, deliverable, clock, hold_s=60.0, result_s=RESULT_S, let_go=gone.append)
    flight = flights.board(wish(n=2)).flight
    await airport.settle()
    first, _ = airport.studio.jobs
    first.finish()
    await airport.settle()
    flights.abandon(flight)
    await airport.settle()
    assert len(gone) == 1
    assert gone[0] is first  # type: ignore[comparison-overlap]
    await flights.close()


async def test_a_job_is_found_by_its_caller_only(airport: Airport) -> None:
    flight = (await airport.board(wish(owner="me"))).flight
    assert airport.flights.find(flight.id, "me") is flight
    assert airport.flights.find(flight.id, "you") is None
    assert airport.flights.find("imgjob_0", "me") is None
    await airport.land(flight)
    airport.time.now += RESULT_S
    assert airport.flights.find(flight.id, "me") is None


async def test_closing_ends_every_job_and_waits_for_it(airport: Airport, under_way: bool) -> None:
    several = airport.flights.board(wish(n=2)).flight
    one = airport.flights.board(wish()).flight
    gone = airport.flights.board(wish("gone")).flight
    if under_way:
        await airport.settle()
    airport.flights.abandon(gone)
    await airport.flights.close()
    assert airport.flights.in_air == 0
    assert all(job.end.cancelled() for job in airport.studio.jobs)
    for flight in (several, one):
        with pytest.raises(Overloaded):
            flight.result()


async def test_an_unforeseen_error_lands_the_flight_with_its_cause(airport: Airport) -> None:
    flight = (await airport.board(wish())).flight
    airport.studio.jobs[0].finish(ZeroDivisionError("a prompt"))
    await airport.settle()
    with pytest.raises(InternalError) as internal:
        flight.result()
    assert isinstance(internal.value.__cause__, ZeroDivisionError)
    assert "a prompt" not in internal.value.message
