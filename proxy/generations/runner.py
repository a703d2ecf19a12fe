"""Who is waiting for which jobs: one flight for each wish, which outlives its caller so that a retry finds it.

OpenAI's SDKs repeat a call up to twice and mark the repeat only with a counter; others don't even do that. Equal
calls in parallel are distinct wishes all the same. ``registry`` tells which flight a request repeats; here is what
runs, and what becomes of it.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from proxy.clock import Clock, Deadline
from proxy.errors import Failure, InternalError, JobLost, Overloaded
from proxy.generations.record import Flight, badness, end_of
from proxy.generations.registry import Registry, Sign
from proxy.generations.results import Picture
from proxy.generations.salvage import Leftover, Leftovers
from proxy.jobs.run import Made
from proxy.jobs.runtime import Progress
from proxy.requests.resolve import Order

_ABANDONED_S = 10.0
"""So long a job that is not submitted yet outlives the last request that waited for it; retries come sooner."""


@dataclass(frozen=True, slots=True)
class Boarding:
    """The flight that a request goes with. ``how``: by what it was recognised as a repeat, None for a new wish.

    ``claim``: which of the requests that took the flight over, one after the other, this one is.
    """

    flight: Flight
    how: Sign | None = None
    claim: int = 0


class Flights:
    """All flights of this process: those in the air, and those landed within ``result_s`` seconds."""

    def __init__(
        self,
        make: Callable[[Order, int, Progress, Deadline], Coroutine[Any, Any, Made]],
        deliverable: Callable[[Order, Made, Callable[[], None]], Coroutine[Any, Any, Picture]],
        clock: Clock,
        *,
        hold_s: float,
        result_s: float,
        let_go: Callable[[Picture], None] = lambda _: None,
    ) -> None:
        self._make = make
        self._deliverable = deliverable
        self._clock = clock
        self._hold_s = hold_s
        self._result_s = result_s
        self._let_go = let_go
        self._registry = Registry(clock, result_s=result_s)
        self._leftovers = Leftovers(let_go)
        self._tasks: set[asyncio.Task[None]] = set()
        self._uncollected: set[str] = set()
        self._numbers = itertools.count()
        self.draining = False

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._registry)

    def in_air_of(self, owner: str) -> int:
        """How many of one owner have not ended."""
        return self._registry.open_of(owner)

    @property
    def in_air(self) -> int:
        """How many have not ended, whether anybody waits for them or not."""
        return len(self._tasks)

    @property
    def uncollected(self) -> int:
        """How many were handed over, have ended, and were not asked for since."""
        return len(self._uncollected)

    def knows(self, order: Order, *, key: str | None, attempt: int) -> bool:
        """Whether ``board`` would find what such a request repeats. Raises IdempotencyKeyReused."""
        flight, _ = self._registry.repeated(order.fingerprint, order.wish.owner, key=key, attempt=attempt)
        return flight is not None

    def board(
        self, order: Order, *, key: str | None = None, attempt: int = 0, may_start: Callable[[], None] = lambda: None
    ) -> Boarding:
        """Return the flight to wait for: the one that ``order`` repeats, or a new one.

        ``key``: the request's Idempotency-Key. ``attempt``: the SDK's retry counter, 0 for a first call.
        ``may_start`` is asked before a new flight starts and raises Failure to refuse it.
        Raises IdempotencyKeyReused, Overloaded while draining.
        """
        self.sweep()
        known, how = self._registry.repeated(order.fingerprint, order.wish.owner, key=key, attempt=attempt)
        if known is not None:
            if how == "retry" or how == "orphan":
                how = "retry" if attempt or known.delivered_at is not None else "orphan"
                known.attempt, known.delivered_at = attempt, None
                known.claim += 1
            known.waiters += 1
            self._registry.refile(known)
            return Boarding(known, how, known.claim)
        if self.draining:
            raise Overloaded("This service is shutting down.", retry_after=2.0)
        may_start()
        return Boarding(self._start(order, key, attempt))

    def leave(self, boarding: Boarding, *, delivered: bool) -> None:
        """Tell that a request no longer waits; ``delivered``: it was given the flight's end."""
        flight = boarding.flight
        flight.waiters -= 1
        if not flight.waiters:
            flight.unattended_at = self._clock.monotonic()
        if delivered and boarding.claim == flight.claim:
            self.deliver(flight)
        else:
            self._registry.refile(flight)

    def hand_over(self, flight: Flight) -> None:
        """Tell that a caller was given the flight's address: whoever has that follows it, and nobody else."""
        self.deliver(flight)
        flight.handed_over = True
        if flight.done:
            self._uncollected.add(flight.id)

    def deliver(self, flight: Flight) -> None:
        """Tell that the flight's end, or its address, reached the caller."""
        flight.delivered_at = self._clock.monotonic()
        if flight.done:
            self._uncollected.discard(flight.id)
            for picture in flight.pictures:
                self._let_go(picture)
        self._registry.refile(flight)

    def lose(self, boarding: Boarding) -> None:
        """Tell that an answer under way did not arrive: a repeat may take the flight over."""
        if boarding.claim == boarding.flight.claim:
            boarding.flight.delivered_at = None
            self._registry.refile(boarding.flight)

    def find(self, flight_id: str, owner: str) -> Flight | None:
        """Return the flight of a job address, if it is the same caller's."""
        self.sweep()
        flight = self._registry.get(flight_id)
        return flight if flight is not None and flight.owner == owner else None

    def abandon(self, flight: Flight) -> None:
        """Stop following its jobs and forget it."""
        if flight.task is not None:
            # Not to be retried: that would buy again what was just given up.
            flight.failure = JobLost("The job was abandoned.")
            flight.task.cancel()
        self._forget(flight)

    def expects(self, owner: str, *, key: str | None, attempt: int) -> bool:
        """Whether a request of ``owner`` may turn out to repeat one that is here, and so cost no new job."""
        return self._registry.may_repeat(owner, key=key, attempt=attempt)

    def sweep(self) -> None:
        """Forget what landed longer than ``result_s`` ago."""
        for flight in self._registry.outdated():
            self._let_go_of(flight)
        self._leftovers.sweep(self._clock.monotonic())

    async def close(self) -> None:
        """Stop everything and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, order: Order, key: str | None, attempt: int) -> Flight:
        leftovers = self._leftovers.take(order.fingerprint)
        chosen = order.candidates[0].translation.seed
        seed = leftovers.seed if leftovers else chosen if chosen is not None else self._clock.random.randrange(2**31)
        flight = Flight(
            id=f"imgjob_{secrets.token_hex(16)}",
            number=next(self._numbers),
            order=order,
            owner=order.wish.owner,
            seed=seed,
            hold=Deadline.after(self._clock, self._hold_s),
            created=int(self._clock.wall()),
            key=key,
            waiters=1,
            attempt=attempt,
        )
        flight.progress = [Progress(flight.changed, lambda: self._wanted(flight)) for _ in range(order.request.n)]
        self._registry.add(flight)
        pictures = leftovers.pictures if leftovers else {}
        for number in pictures:
            flight.progress[number].state = "done"
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight, pictures))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._ended(flight, pictures, task))
        return flight

    def _wanted(self, flight: Flight) -> bool:
        """Whether somebody waits for a flight, did so a moment ago, or was given its address."""
        if flight.waiters or flight.handed_over or flight.unattended_at is None:
            return True
        return self._clock.monotonic() - flight.unattended_at < _ABANDONED_S

    async def _fly(self, flight: Flight, pictures: dict[int, Picture]) -> None:
        try:
            missing = [number for number in range(flight.order.request.n) if number not in pictures]
            if len(missing) == 1:
                pictures[missing[0]] = await self._picture(flight, missing[0])
            else:
                await self._make_all(flight, missing, pictures)
            flight.pictures = tuple(pictures[number] for number in sorted(pictures))
        except Failure as failure:
            flight.failure = failure
        except Exception as error:  # noqa: BLE001 (a flight must land whatever happened; the cause is logged)
            flight.failure = InternalError()
            flight.failure.__cause__ = error
        self._land(flight, pictures)

    async def _make_all(self, flight: Flight, missing: list[int], pictures: dict[int, Picture]) -> None:
        """Make several pictures. After a failure nothing more is bought, but what was bought is brought home.

        Raises the worst failure: one that a repeat would buy again must not be told as one that it would not.
        """
        loop = asyncio.get_running_loop()
        tasks = {number: loop.create_task(self._picture(flight, number)) for number in missing}
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            for number, task in tasks.items():
                if not flight.progress[number].submitted:
                    task.cancel()
            await asyncio.wait(tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            ended = {number: task for number, task in tasks.items() if not task.cancelled()}
            pictures.update({number: task.result() for number, task in ended.items() if task.exception() is None})
        failed = {number: error for number, task in ended.items() if (error := task.exception()) is not None}
        if failed:
            raise max(failed.items(), key=lambda each: badness(each[1], submitted=flight.progress[each[0]].submitted))[
                1
            ]

    async def _picture(self, flight: Flight, number: int) -> Picture:
        made = await self._make(flight.order, flight.seed + number, flight.progress[number], flight.hold)
        return await self._deliverable(flight.order, made, lambda: flight.release("late"))

    def _ended(self, flight: Flight, pictures: dict[int, Picture], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # maybe before its first step, so that no block of its own could land it
            flight.failure = flight.failure or Overloaded("This service is shutting down.", retry_after=2.0)
            self._land(flight, pictures)

    def _land(self, flight: Flight, pictures: dict[int, Picture]) -> None:
        flight.ended_at = self._clock.monotonic()
        missing = (progress for number, progress in enumerate(flight.progress) if number not in pictures)
        flight.end = end_of(flight.failure, submitted=any(progress.submitted for progress in missing))
        if flight.failure is not None:
            for progress in flight.progress:
                if progress.state != "done":
                    progress.state = "failed"
            if flight not in self._registry:
                for picture in pictures.values():
                    self._let_go(picture)
            elif pictures:
                leftover = Leftover(pictures, flight.seed, flight.ended_at + self._result_s)
                self._leftovers.keep(flight.order.fingerprint, leftover)
        self._registry.ended(flight)
        if flight.handed_over and flight in self._registry:
            self._uncollected.add(flight.id)
        flight.task = None
        flight.order = flight.order.without_uploads()
        flight.changed()
        flight.release("done")

    def _forget(self, flight: Flight) -> None:
        self._registry.forget(flight)
        self._let_go_of(flight)

    def _let_go_of(self, flight: Flight) -> None:
        self._uncollected.discard(flight.id)
        for picture in flight.pictures:
            self._let_go(picture)
