"""Runs generations in tasks of their own: they outlive the requests that wait for them.

The HTTP surface and the command line both come through here. A generation is written into the state before anything is
sent for it, so it outlives the process too (docs/reliability.md).
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from proxy.clock import Clock, Deadline
from proxy.errors import Failure, InternalError, JobLost, Overloaded
from proxy.generations.journal import Journal
from proxy.generations.record import Generation, Joined, Sign, end_of
from proxy.generations.registry import Registry
from proxy.generations.restored import restored
from proxy.generations.results import Picture
from proxy.generations.work import Making, Work
from proxy.jobs.steps import Progress
from proxy.requests.resolve import ResolvedRequest
from proxy.state import records
from proxy.state.outcomes import Recovered
from proxy.state.records import JobId, generation_id

_log = logging.getLogger("proxy")
_ABANDONED_S = 10.0
"""Seconds that a job not yet submitted outlives the last request that waited for it; a repeat comes sooner than that.

OpenAI's SDKs wait at most 8 s: https://github.com/openai/openai-python/blob/main/src/openai/_constants.py
"""
_SPREAD_S, _SPREAD_PER_JOB_S = 2.0, 0.002
"""Within so many seconds the jobs that an earlier process left are asked for, at most, and for each of them."""
_READ_AGAIN_S = 1.0


class Generations:
    """All generations of this process: those that run and those that ended less than ``result_s`` seconds ago.

    ``kinds``: each provider's dialect. ``pin`` and ``release`` begin and end the time in which a picture must stay.
    """

    def __init__(
        self,
        making: Making,
        journal: Journal,
        clock: Clock,
        *,
        hold_s: float,
        result_s: float,
        kinds: Mapping[str, str],
        pin: Callable[[Picture], None] = lambda _: None,
        release: Callable[[Picture], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._hold_s = hold_s
        self._pin = pin
        self._release = release
        self._registry = Registry(clock, result_s=result_s)
        self._work = Work(making, journal, self._registry, clock, kinds)
        self._running: dict[asyncio.Task[None], Generation] = {}
        self._uncollected: set[str] = set()
        self._numbers = itertools.count()
        self.draining = False

    def __iter__(self) -> Iterator[Generation]:
        return iter(self._registry)

    def running_of(self, owner: str) -> int:
        """How many generations of one owner have not ended."""
        return self._registry.open_of(owner)

    @property
    def running(self) -> int:
        """How many generations have not ended, whether anybody waits for them or not."""
        return len(self._running)

    @property
    def resumable(self) -> bool:
        """Whether another process could carry on with all that runs."""
        return all(progress.resumable for generation in self._running.values() for progress in generation.progress)

    @property
    def uncollected(self) -> int:
        """How many generations were handed over, have ended, and have not been asked for since."""
        return len(self._uncollected)

    async def open(self) -> int:
        """Register this process, adopt the jobs that an earlier one left, and remember what repeats may ask for.

        Returns how many jobs are carried on with. Raises proxy.state.operations.StateUnavailable.
        """
        await self._journal.register()
        carried_on = await self.recover()
        for found in await self._journal.state.remembered():
            if self._registry.get(found.row.id) is None and found.row.ended_as != "again":
                self._restore(found)
        return carried_on

    async def recover(self) -> int:
        """Carry on with the jobs that nobody follows; returns how many. Raises operations.StateUnavailable."""
        jobs = 0
        more = not self._journal.behind  # else what is late would look as if nobody had followed it
        while more:
            recovered = await self._journal.recover(self._jobs_in_hand)
            self._adopt(recovered)
            jobs += len(recovered.jobs)
            more = recovered.more
        return jobs

    def knows(self, resolved: ResolvedRequest, *, key: str | None, attempt: int) -> bool:
        """Whether ``join`` would find a generation that such a request repeats. Raises IdempotencyKeyReused."""
        generation, _ = self._registry.repeated(resolved.fingerprint, resolved.checked.owner, key=key, attempt=attempt)
        return generation is not None

    def join(
        self,
        resolved: ResolvedRequest,
        *,
        key: str | None = None,
        attempt: int = 0,
        may_start: Callable[[], None] = lambda: None,
    ) -> Joined:
        """Return the generation to wait for: the one that ``resolved`` repeats, or a new one.

        ``key``: the request's Idempotency-Key. ``attempt``: the SDK's retry counter, 0 for a first call.
        ``may_start`` is called before a new generation starts; it raises a Failure to refuse that.
        Raises IdempotencyKeyReused, Overloaded while draining.
        """
        # No await from here on: between the lookup and the start another request must not slip in.
        self.sweep()
        known, how = self._registry.repeated(resolved.fingerprint, resolved.checked.owner, key=key, attempt=attempt)
        if known is not None:
            # Only these take a generation over; by one key any number of callers may wait side by side.
            if how != "key":
                self._claim(known, attempt)
            return self.attend(known, how)
        # After the lookup: even while draining a repeat gets what was made for it.
        if self.draining:
            raise Overloaded("This service is shutting down.", retry_after=2.0)
        may_start()
        return Joined(self._start(resolved, key, attempt))

    def leave(self, joined: Joined, *, delivered: bool) -> None:
        """Note that a request no longer waits; ``delivered``: it was given the generation's end."""
        generation = joined.generation
        generation.waiters -= 1
        if not generation.waiters:
            generation.unattended_at = self._clock.monotonic()
        # Once a repeat has taken over, the first caller's answer counts for nothing: it went to a dead connection.
        if delivered and joined.claim == generation.claim:
            self.deliver(generation)
        else:
            self._registry.refile(generation)

    def attend(self, generation: Generation, how: Sign | None = None) -> Joined:
        """Wait for a generation beside whoever else does; ``leave`` ends that."""
        generation.waiters += 1
        self._registry.refile(generation)
        return Joined(generation, how, generation.claim)

    def hand_over(self, generation: Generation) -> None:
        """Note that a caller was given the generation's address: from now on it belongs to whoever has that."""
        self.deliver(generation)
        generation.handed_over = True
        self._expect_collection(generation)

    def deliver(self, generation: Generation) -> None:
        """Note that the generation's end, or its address, was sent to the caller."""
        generation.delivered_at = self._clock.monotonic()
        if generation.end != "again":  # that one is asked for anew, whatever was told of it
            self._journal.soon(lambda: self._journal.state.deliver(generation.id, generation.claim))
        if generation.done:
            self._uncollected.discard(generation.id)
            for picture in generation.pictures:
                self._release(picture)
        self._registry.refile(generation)

    def lose(self, joined: Joined) -> None:
        """Note that an answer did not arrive: a repeat may take the generation over."""
        generation = joined.generation
        if joined.claim == generation.claim:
            self._claim(generation, generation.attempt)
            for picture in generation.pictures:
                self._pin(picture)
            self._expect_collection(generation)
            self._registry.refile(generation)

    def find(self, generation_id: str, owner: str) -> Generation | None:
        """Return the generation with this id if it is ``owner``'s."""
        self.sweep()
        generation = self._registry.get(generation_id)
        return generation if generation is not None and generation.owner == owner else None

    async def abandon(self, generation: Generation) -> None:
        """Stop following a generation's jobs, and let nobody find it any more. It unbuys nothing."""
        if generation.task is not None:
            # A failure that says "don't retry": a repeat would buy again what was just given up.
            generation.failure = JobLost("The generation was abandoned.")
            generation.task.cancel()
        self._forget(generation)
        await self._journal.surely(lambda: self._journal.state.hide(generation.id))

    def expects(self, owner: str, *, key: str | None, attempt: int) -> bool:
        """Whether a request of ``owner`` may turn out to repeat one that is here, and so cost no new job."""
        return self._registry.may_repeat(owner, key=key, attempt=attempt)

    def sweep(self) -> None:
        """Forget what ended more than ``result_s`` seconds ago."""
        for generation in self._registry.outdated():
            self._release_pictures_of(generation)

    async def close(self) -> None:
        """Cancel everything that runs, and leave it to the next process as it stands in the state."""
        self._work.stopping = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- starting, and carrying on -----------------------------------------------------------------------------

    def _start(self, resolved: ResolvedRequest, key: str | None, attempt: int) -> Generation:
        chosen = resolved.candidates[0].translation.seed
        wall = self._clock.wall()
        generation = Generation(
            id=generation_id(int(wall * 1000)),
            number=next(self._numbers),
            request=resolved.summary(),
            fingerprint=resolved.fingerprint,
            account=resolved.checked.account,
            seed=chosen if chosen is not None else self._clock.random.randrange(2**31),
            hold=Deadline.after(self._clock, self._hold_s),
            created=int(wall),
            key=key,
            waiters=1,
            attempt=attempt,
        )
        generation.progress = [
            Progress(generation.changed, lambda: self._wanted(generation)) for _ in range(generation.request.n)
        ]
        self._registry.add(generation)
        self._run(generation, lambda: self._work.make(generation, resolved))
        return generation

    def _adopt(self, recovered: Recovered) -> None:
        """Carry on with what was recovered."""
        spread_s = min(_SPREAD_S, _SPREAD_PER_JOB_S * len(recovered.jobs))
        ours = frozenset(recovered.jobs)
        for found in recovered.follow:
            generation = self._registry.get(found.row.id)
            if generation is None:
                generation = self._read(found)
                if generation is None or found.row.hidden:  # nobody would get its pictures
                    for row in found.jobs:
                        if row.id in ours:
                            self._journal.later(partial(self._journal.state.end, row.id, row.epoch, "lose", "job_lost"))
                    continue
                self._registry.add(generation)
            elif generation.task is not None:  # it was waiting for the one that is gone
                generation.task.cancel()
            self._run(generation, partial(self._work.carry_on, generation, found, ours, spread_s))

    def _restore(self, found: records.Generation) -> None:
        """Remember a generation that nobody follows here."""
        generation = self._read(found)
        if generation is None:
            return
        self._registry.add(generation)
        if found.row.ended_as is None:
            self._run(generation, lambda: self._work.mirror(generation, found))
            return
        generation.unattended_at = self._clock.monotonic()
        try:
            self._work.take_end(generation, found)
        except Failure as failure:
            generation.failure = failure
        self._finish(generation)
        if generation.delivered_at is None:
            for picture in (*generation.pictures, *generation.salvage.values()):
                self._pin(picture)

    def _read(self, found: records.Generation) -> Generation | None:
        """Return a generation from its rows; None if these can't be read."""
        try:
            return restored(found, next(self._numbers), self._clock, self._wanted)
        except ValueError as error:
            _log.error("the generation %s cannot be read: %s", found.row.id, error)
            return None

    def _run(self, generation: Generation, work: Callable[[], Awaitable[None]]) -> None:
        # The loop keeps weak references only: https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
        task = asyncio.get_running_loop().create_task(self._to_the_end(generation, work))
        generation.task = task
        self._running[task] = generation
        task.add_done_callback(lambda task: self._ended(generation, task))

    async def _to_the_end(self, generation: Generation, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Failure as failure:
            generation.failure = failure.unraised()  # a raised one keeps the uploads in memory, by its traceback
        except Exception as error:  # noqa: BLE001 (a generation must end whatever happened; the cause is logged)
            generation.failure = InternalError()
            generation.failure.__cause__ = error
        self._finish(generation)

    # --- ends --------------------------------------------------------------------------------------------------

    def _ended(self, generation: Generation, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if task.cancelled() and generation.task is task:  # maybe before its first step, where nothing could catch it
            generation.failure = generation.failure or Overloaded("This service is shutting down.", retry_after=2.0)
            self._finish(generation)

    def _finish(self, generation: Generation) -> None:
        generation.ended_at = self._clock.monotonic()
        generation.written.set()
        # Pictures that are here can't have been lost: only the others decide what a repeat would buy twice.
        here = range(len(generation.pictures)) if generation.failure is None else generation.salvage
        missing = [progress for number, progress in enumerate(generation.progress) if number not in here]
        generation.end = end_of(generation.failure, submitted=any(progress.submitted for progress in missing))
        if generation.failure is not None:
            for progress in missing:
                progress.state = "failed"
            if generation not in self._registry:  # abandoned: nobody will come for its pictures
                self._release_pictures_of(generation)
        self._registry.ended(generation)
        self._expect_collection(generation)
        generation.task = None
        generation.changed()
        generation.release("done")

    def _wanted(self, generation: Generation) -> bool:
        """Whether somebody waits for a generation, did so just now, or was given its address."""
        if generation.waiters or generation.handed_over or generation.unattended_at is None:
            return True
        return self._clock.monotonic() - generation.unattended_at < _ABANDONED_S

    def _claim(self, generation: Generation, attempt: int) -> None:
        """Take a generation over for a repeat, or for nobody when its answer was lost."""
        seen, generation.claim = generation.claim, generation.claim + 1
        generation.attempt, generation.delivered_at = attempt, None
        journal = self._journal
        journal.soon(lambda: journal.state.claim(generation.id, seen, attempt, journal.holder))

    def _jobs_in_hand(self) -> Iterator[JobId]:
        """Yield the jobs that this process follows, or is about to start."""
        for generation in self._running.values():
            yield from (JobId(generation.id, number) for number in range(generation.request.n))

    def _expect_collection(self, generation: Generation) -> None:
        if generation.handed_over and generation.done and generation in self._registry:
            self._uncollected.add(generation.id)

    def _forget(self, generation: Generation) -> None:
        self._registry.forget(generation)
        self._release_pictures_of(generation)

    def _release_pictures_of(self, generation: Generation) -> None:
        self._uncollected.discard(generation.id)
        for picture in (*generation.pictures, *generation.salvage.values()):
            self._release(picture)
