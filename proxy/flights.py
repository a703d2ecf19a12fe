"""Who is waiting for which jobs: one flight for each wish, which outlives its caller so that a retry finds it.

OpenAI's SDKs repeat a call up to twice and mark the repeat only with a counter; others don't even do that. Equal
calls in parallel are distinct wishes all the same. So a repeat is told by an ``Idempotency-Key``, by the counter,
or by a flight that nobody waits for any more, and takes over exactly one flight (``Flights.board``).
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from proxy.clock import Clock, Deadline
from proxy.errors import Failure, IdempotencyKeyReused, InternalError, JobLost, Overloaded
from proxy.flight import Flight
from proxy.jobs import Made
from proxy.leftovers import Leftover, Leftovers
from proxy.orders import Order
from proxy.outlets import Progress
from proxy.results import Picture

_RECLAIMABLE_S = 10.0
"""A written answer is not a received one: so long a counted retry may still take over a delivered flight."""


@dataclass(frozen=True, slots=True)
class Boarding:
    """The flight that a request goes with. ``how``: by what it was recognised as a repeat, None for a new wish."""

    flight: Flight
    how: Literal["key", "retry", "orphan"] | None = None


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
        self._by_id: dict[str, Flight] = {}
        self._by_fingerprint: dict[bytes, list[Flight]] = {}
        self._by_key: dict[tuple[str, str], Flight] = {}
        self._landed: deque[Flight] = deque()
        self._leftovers = Leftovers(let_go)
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._by_id.values()))

    def in_air_of(self, owner: str) -> int:
        """How many of one owner have not ended."""
        return sum(flight.owner == owner and not flight.done for flight in self._by_id.values())

    @property
    def in_air(self) -> int:
        """How many have not ended, whether anybody waits for them or not."""
        return len(self._tasks)

    def board(
        self, order: Order, *, key: str | None = None, attempt: int = 0, may_start: Callable[[], None] = lambda: None
    ) -> Boarding:
        """Return the flight to wait for: the one that ``order`` repeats, or a new one.

        ``key``: the request's Idempotency-Key. ``attempt``: the SDK's retry counter, 0 for a first call.
        ``may_start`` is asked before a new flight starts and raises Failure to refuse it.
        Raises IdempotencyKeyReused, Overloaded while draining.
        """
        self.sweep()
        owner = order.wish.owner
        if key is not None:
            known = self._by_key.get((owner, key))
            if known is not None:
                if known.order.fingerprint != order.fingerprint:
                    raise IdempotencyKeyReused("This Idempotency-Key was used with another body.")
                known.waiters += 1
                return Boarding(known, "key")
        else:
            claimed = self._claim(order.fingerprint, attempt)
            if claimed is not None:
                orphan = claimed.delivered_at is None
                claimed.waiters, claimed.attempt, claimed.delivered_at = 1, attempt, None
                return Boarding(claimed, "retry" if attempt or not orphan else "orphan")
        if self.draining:
            raise Overloaded("This service is shutting down.", retry_after=2.0)
        may_start()
        return Boarding(self._start(order, key, attempt))

    def leave(self, flight: Flight, *, delivered: bool) -> None:
        """Tell that a request no longer waits; ``delivered``: it was given the flight's end, or its job's address."""
        flight.waiters -= 1
        if delivered:
            self.deliver(flight)

    def deliver(self, flight: Flight) -> None:
        """Tell that the flight's end, or its job's address, reached the caller."""
        flight.delivered_at = self._clock.monotonic()
        for picture in flight.pictures:
            self._let_go(picture)

    def lose(self, flight: Flight) -> None:
        """Tell that an answer under way did not arrive: a repeat may take the flight over."""
        flight.delivered_at = None

    def find(self, flight_id: str, owner: str) -> Flight | None:
        """Return the flight of a job address, if it is the same caller's."""
        self.sweep()
        flight = self._by_id.get(flight_id)
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
        if key is not None:
            return (owner, key) in self._by_key
        return any(flight.owner == owner and self._claimable(flight, attempt) for flight in self._by_id.values())

    def sweep(self) -> None:
        """Forget what landed longer than ``result_s`` ago."""
        oldest = self._clock.monotonic() - self._result_s
        while self._landed and (self._landed[0].ended_at or 0.0) <= oldest:
            self._forget(self._landed.popleft())
        self._leftovers.sweep(self._clock.monotonic())

    async def close(self) -> None:
        """Stop everything and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _claim(self, fingerprint: bytes, attempt: int) -> Flight | None:
        """Return the flight that a repeat takes over, first in, first out.

        A counted one takes the highest counter below its own: were it to take another's lower one, that caller's
        retry would find only a flight that it is too early for, and buy again.
        """
        claimable = [flight for flight in self._by_fingerprint.get(fingerprint, ()) if self._claimable(flight, attempt)]
        if not attempt:
            return claimable[0] if claimable else None

        def nearness(flight: Flight) -> tuple[bool, int, bool]:
            return flight.attempt < attempt, flight.attempt, flight.delivered_at is None

        return max(claimable, key=nearness, default=None)

    def _claimable(self, flight: Flight, attempt: int) -> bool:
        if flight.waiters or flight.key is not None:
            return False
        if flight.failure is not None and not self._is_final(flight, flight.failure):
            return False
        if flight.delivered_at is None:
            return True
        return flight.attempt < attempt and self._clock.monotonic() - flight.delivered_at < _RECLAIMABLE_S

    @staticmethod
    def _is_final(flight: Flight, failure: Failure) -> bool:
        """Whether a failure is to be heard again; after any other a repeat makes what is missing."""
        return flight.submitted and not failure.should_retry

    def _start(self, order: Order, key: str | None, attempt: int) -> Flight:
        leftovers = self._leftovers.take(order.fingerprint)
        chosen = order.candidates[0].translation.seed
        seed = leftovers.seed if leftovers else chosen if chosen is not None else self._clock.random.randrange(2**31)
        flight = Flight(
            id=f"imgjob_{secrets.token_hex(16)}",
            order=order,
            owner=order.wish.owner,
            seed=seed,
            hold=Deadline.after(self._clock, self._hold_s),
            created=int(self._clock.wall()),
            key=key,
            waiters=1,
            attempt=attempt,
        )
        flight.progress = [Progress(flight.changed) for _ in range(order.request.n)]
        self._by_id[flight.id] = flight
        self._by_fingerprint.setdefault(order.fingerprint, []).append(flight)
        if key is not None:
            self._by_key[flight.owner, key] = flight
        pictures = leftovers.pictures if leftovers else {}
        for number in pictures:
            flight.progress[number].state = "done"
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight, pictures))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._ended(flight, pictures, task))
        return flight

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
        """Make several pictures. After a failure nothing more is bought, but what was bought is brought home."""
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
        for task in ended.values():
            if (failure := task.exception()) is not None:
                raise failure

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
        kept = flight.id in self._by_id
        if kept:
            self._landed.append(flight)
        if flight.failure is not None:
            for progress in flight.progress:
                if progress.state != "done":
                    progress.state = "failed"
            if not kept:
                for picture in pictures.values():
                    self._let_go(picture)
            elif pictures:
                leftover = Leftover(pictures, flight.seed, flight.ended_at + self._result_s)
                self._leftovers.keep(flight.order.fingerprint, leftover)
            if not self._is_final(flight, flight.failure):
                self._forget_key(flight)
        flight.task = None
        flight.order = flight.order.without_uploads()
        flight.changed()
        flight.release("done")

    def _forget(self, flight: Flight) -> None:
        self._by_id.pop(flight.id, None)
        for picture in flight.pictures:
            self._let_go(picture)
        alike = self._by_fingerprint.get(flight.order.fingerprint, [])
        if flight in alike:
            alike.remove(flight)
            if not alike:
                del self._by_fingerprint[flight.order.fingerprint]
        self._forget_key(flight)

    def _forget_key(self, flight: Flight) -> None:
        if flight.key is not None and self._by_key.get((flight.owner, flight.key)) is flight:
            del self._by_key[flight.owner, flight.key]
