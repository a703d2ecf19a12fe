"""The tasks of generations: each is made, carried on with, or followed at another process, and then it has an end."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from proxy.clock import Clock
from proxy.errors import Failure, InternalError, JobLost, Overloaded
from proxy.generations.journal import Journal
from proxy.generations.record import Generation, end_of
from proxy.generations.registry import Registry
from proxy.generations.restored import restored
from proxy.generations.results import Picture
from proxy.generations.work import Work
from proxy.state import records
from proxy.state.outcomes import Recovered
from proxy.state.records import JobId

_log = logging.getLogger("proxy")
_ABANDONED_S = 10.0
"""Seconds that a job not yet submitted outlives the last request that waited for it; a repeat comes sooner than that.

OpenAI's SDKs wait at most 8 s: https://github.com/openai/openai-python/blob/main/src/openai/_constants.py
"""
_SPREAD_S, _SPREAD_PER_JOB_S = 2.0, 0.002
"""Within so many seconds the jobs that an earlier process left are asked for, at most, and for each of them."""


class Tasks:
    """What runs, and what becomes of it. ``pin`` and ``release`` begin and end the time in which a picture must stay.

    ``uncollected``: the generations that were handed over, have ended, and have not been asked for since.
    """

    def __init__(
        self,
        work: Work,
        journal: Journal,
        registry: Registry,
        clock: Clock,
        pin: Callable[[Picture], None],
        release: Callable[[Picture], None],
    ) -> None:
        self._work = work
        self._journal = journal
        self._registry = registry
        self._clock = clock
        self._pin = pin
        self._release = release
        self.running: dict[asyncio.Task[None], Generation] = {}
        self.uncollected: set[str] = set()
        self.numbers = itertools.count()

    async def recover(self) -> int:
        """Carry on with the jobs that nobody follows; returns how many. Raises operations.StateUnavailable."""
        jobs = 0
        more = not self._journal.behind  # else what is late would look as if nobody had followed it
        while more:
            recovered = await self._journal.recover(self.jobs_in_hand)
            self.adopt(recovered)
            jobs += len(recovered.jobs)
            more = recovered.more
        return jobs

    async def close(self) -> None:
        """Cancel everything that runs, and leave it to the next process as it stands in the state."""
        self._work.stopping = True
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    def adopt(self, recovered: Recovered) -> None:
        """Carry on with what was recovered."""
        spread_s = min(_SPREAD_S, _SPREAD_PER_JOB_S * len(recovered.jobs))
        for found in recovered.follow:
            generation = self._registry.get(found.row.id)
            if generation is None:
                generation = self.read(found)
                if generation is None or found.row.hidden:  # nobody would get its pictures
                    for row in found.jobs:
                        if row.id in recovered.jobs:
                            self._journal.later(partial(self._journal.state.end, row.id, row.epoch, "lose", "job_lost"))
                    continue
                self._registry.add(generation)
            generation.mirrored = False
            self.run(generation, partial(self._work.carry_on, generation, found, spread_s))

    def read(self, found: records.Generation) -> Generation | None:
        """Return a generation from its rows, of which nobody knows yet; None if these can't be read."""
        try:
            return restored(found, next(self.numbers), self._clock, self.wanted)
        except ValueError as error:
            _log.error("the generation %s cannot be read: %s", found.row.id, error)
            return None

    def restore(self, found: records.Generation) -> Generation | None:
        """Remember a generation that nobody follows here; None if it can't be read."""
        generation = self.read(found)
        if generation is not None:
            self.remember(generation, found)
        return generation

    def mirror(self, generation: Generation, found: records.Generation) -> None:
        """Wait for the end of a generation that another process follows, in place of whatever was done for it."""
        generation.mirrored = True
        self.run(generation, lambda: self._work.mirror(generation, found))

    def remember(self, generation: Generation, found: records.Generation) -> None:
        """Remember what was made of these rows: with its end, or as one that another process follows."""
        self._registry.add(generation)
        if found.row.ended_as is None:
            self.mirror(generation, found)
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

    def run(self, generation: Generation, work: Callable[[], Awaitable[None]]) -> None:
        """Work on a generation from now on, in place of whatever was done for it before."""
        before = generation.task
        # The loop keeps weak references only: https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
        task = asyncio.get_running_loop().create_task(self._to_the_end(generation, work))
        generation.task = task
        self.running[task] = generation
        task.add_done_callback(lambda task: self._ended(generation, task))
        if before is not None:
            before.cancel()

    async def _to_the_end(self, generation: Generation, work: Callable[[], Awaitable[None]]) -> None:
        told: Failure | None = None
        try:
            await work()
        except Failure as failure:
            told = failure.unraised()  # a raised one keeps the uploads in memory, by its traceback
        except Exception as error:  # noqa: BLE001 (a generation must end whatever happened; the cause is logged)
            told = InternalError()
            told.__cause__ = error
        if generation.task is asyncio.current_task():  # else it is worked on anew
            generation.failure = generation.failure or told
            self._finish(generation)

    def _ended(self, generation: Generation, task: asyncio.Task[None]) -> None:
        del self.running[task]
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
                self.release_pictures_of(generation)
        self._registry.ended(generation)
        self.expect_collection(generation)
        generation.task = None
        generation.changed()
        generation.release("done")

    def wanted(self, generation: Generation) -> bool:
        """Whether somebody waits for a generation, did so just now, or was given its address."""
        if generation.waiters or generation.waited_elsewhere or generation.handed_over:
            return True
        if generation.unattended_at is None:
            return True
        return self._clock.monotonic() - generation.unattended_at < _ABANDONED_S

    def jobs_in_hand(self) -> Iterator[JobId]:
        """Yield the jobs that this process follows, or is about to start."""
        for generation in self.running.values():
            if generation.mirrored:
                continue
            yield from (JobId(generation.id, number) for number in range(generation.request.n))

    def expect_collection(self, generation: Generation) -> None:
        """Note that an end waits for whoever has the generation's address."""
        if generation.handed_over and generation.done and generation in self._registry:
            self.uncollected.add(generation.id)

    def abandon(self, generation: Generation) -> None:
        """Stop following a generation's jobs, and let nobody find it here any more."""
        if generation.task is not None:
            # A failure that says "don't retry": a repeat would buy again what was just given up.
            generation.failure = JobLost("The generation was abandoned.")
            generation.task.cancel()
        self.forget(generation)

    def forget(self, generation: Generation) -> None:
        """Let nobody find a generation here any more."""
        self._registry.forget(generation)
        self.release_pictures_of(generation)

    def release_pictures_of(self, generation: Generation) -> None:
        """Note that nobody will ask for a generation's pictures."""
        self.uncollected.discard(generation.id)
        for picture in (*generation.pictures, *generation.salvage.values()):
            self._release(picture)
