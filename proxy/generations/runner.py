"""Runs generations: one for each request, outliving the caller's connection so that a repeat finds it.

OpenAI's SDKs repeat a call up to twice and mark the repeat with a counter only; other clients don't even do that. Yet
equal calls at the same time are different calls. ``registry`` knows which generation a request repeats; this module
owns the tasks and what becomes of them.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from proxy.clock import Clock, Deadline
from proxy.errors import Failure, InternalError, JobLost, Overloaded
from proxy.generations.record import Generation, badness, end_of
from proxy.generations.registry import Registry, Salvage, Salvages, Sign
from proxy.generations.results import Picture
from proxy.jobs.steps import FinishedJob, Progress
from proxy.requests.resolve import ResolvedRequest

_ABANDONED_S = 10.0
"""Seconds that a job not yet submitted outlives the last request that waited for it; a repeat comes sooner than that.

OpenAI's SDKs wait at most 8 s: https://github.com/openai/openai-python/blob/main/src/openai/_constants.py
"""


@dataclass(frozen=True, slots=True)
class Joined:
    """The generation that a request waits for. ``how``: what gave the request away as a repeat, None if it is new.

    ``claim``: the generation's ``claim`` when this request joined it; a later one has taken it over since if it grew.
    """

    generation: Generation
    how: Sign | None = None
    claim: int = 0


class Generations:
    """All generations of this process: those that run and those that ended less than ``result_s`` seconds ago."""

    def __init__(
        self,
        make: Callable[[ResolvedRequest, int, Progress, Deadline], Coroutine[Any, Any, FinishedJob]],
        deliverable: Callable[[ResolvedRequest, FinishedJob, Callable[[], None]], Coroutine[Any, Any, Picture]],
        clock: Clock,
        *,
        hold_s: float,
        result_s: float,
        release: Callable[[Picture], None] = lambda _: None,
    ) -> None:
        self._make = make
        self._deliverable = deliverable
        self._clock = clock
        self._hold_s = hold_s
        self._result_s = result_s
        self._release = release
        self._registry = Registry(clock, result_s=result_s)
        self._salvages = Salvages(release)
        self._tasks: set[asyncio.Task[None]] = set()
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
        return len(self._tasks)

    @property
    def uncollected(self) -> int:
        """How many generations were handed over, have ended, and have not been asked for since."""
        return len(self._uncollected)

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
                known.attempt, known.delivered_at = attempt, None
                known.claim += 1
            known.waiters += 1
            self._registry.refile(known)
            return Joined(known, how, known.claim)
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

    def attend(self, generation: Generation) -> Joined:
        """Wait for a generation beside whoever else does, without taking it over."""
        generation.waiters += 1
        self._registry.refile(generation)
        return Joined(generation, claim=generation.claim)

    def hand_over(self, generation: Generation) -> None:
        """Note that a caller was given the generation's address: from now on it belongs to whoever has that."""
        self.deliver(generation)
        generation.handed_over = True
        self._expect_collection(generation)

    def deliver(self, generation: Generation) -> None:
        """Note that the generation's end, or its address, was sent to the caller."""
        generation.delivered_at = self._clock.monotonic()
        if generation.done:
            self._uncollected.discard(generation.id)
            for picture in generation.pictures:
                self._release(picture)
        self._registry.refile(generation)

    def lose(self, joined: Joined) -> None:
        """Note that an answer did not arrive: a repeat may take the generation over."""
        if joined.claim == joined.generation.claim:
            joined.generation.delivered_at = None
            self._expect_collection(joined.generation)
            self._registry.refile(joined.generation)

    def find(self, generation_id: str, owner: str) -> Generation | None:
        """Return the generation with this id if it is ``owner``'s."""
        self.sweep()
        generation = self._registry.get(generation_id)
        return generation if generation is not None and generation.owner == owner else None

    def abandon(self, generation: Generation) -> None:
        """Stop following a generation's jobs, and forget it."""
        if generation.task is not None:
            # A failure that says "don't retry": a repeat would buy again what was just given up.
            generation.failure = JobLost("The generation was abandoned.")
            generation.task.cancel()
        self._forget(generation)

    def expects(self, owner: str, *, key: str | None, attempt: int) -> bool:
        """Whether a request of ``owner`` may turn out to repeat one that is here, and so cost no new job."""
        return self._registry.may_repeat(owner, key=key, attempt=attempt)

    def sweep(self) -> None:
        """Forget what ended more than ``result_s`` seconds ago."""
        for generation in self._registry.outdated():
            self._release_pictures_of(generation)
        self._salvages.sweep(self._clock.monotonic())

    async def close(self) -> None:
        """Cancel everything that runs, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, resolved: ResolvedRequest, key: str | None, attempt: int) -> Generation:
        # Its seed as well: the pictures still missing are then the ones that the first call would have got.
        salvages = self._salvages.take(resolved.fingerprint)
        chosen = resolved.candidates[0].translation.seed
        seed = salvages.seed if salvages else chosen if chosen is not None else self._clock.random.randrange(2**31)
        generation = Generation(
            id=f"imggen_{secrets.token_hex(16)}",  # it is in an address, so nobody must be able to guess it
            number=next(self._numbers),
            resolved=resolved,
            owner=resolved.checked.owner,
            seed=seed,
            hold=Deadline.after(self._clock, self._hold_s),
            created=int(self._clock.wall()),
            key=key,
            waiters=1,
            attempt=attempt,
        )
        generation.progress = [
            Progress(generation.changed, lambda: self._wanted(generation)) for _ in range(resolved.request.n)
        ]
        self._registry.add(generation)
        pictures = salvages.pictures if salvages else {}
        for number in pictures:
            generation.progress[number].state = "done"
        # The loop keeps weak references only: https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
        generation.task = asyncio.get_running_loop().create_task(self._run(generation, pictures))
        self._tasks.add(generation.task)
        generation.task.add_done_callback(lambda task: self._ended(generation, pictures, task))
        return generation

    def _wanted(self, generation: Generation) -> bool:
        """Whether somebody waits for a generation, did so just now, or was given its address."""
        if generation.waiters or generation.handed_over or generation.unattended_at is None:
            return True
        return self._clock.monotonic() - generation.unattended_at < _ABANDONED_S

    async def _run(self, generation: Generation, pictures: dict[int, Picture]) -> None:
        try:
            missing = [number for number in range(generation.resolved.request.n) if number not in pictures]
            if len(missing) == 1:
                pictures[missing[0]] = await self._picture(generation, missing[0])
            else:
                await self._make_all(generation, missing, pictures)
            generation.pictures = tuple(pictures[number] for number in sorted(pictures))
        except Failure as failure:
            generation.failure = failure.unraised()  # a raised one keeps the uploads in memory, by its traceback
        except Exception as error:  # noqa: BLE001 (a generation must end whatever happened; the cause is logged)
            generation.failure = InternalError()
            generation.failure.__cause__ = error
        self._finish(generation, pictures)

    async def _make_all(self, generation: Generation, missing: list[int], pictures: dict[int, Picture]) -> None:
        """Make several pictures. After a failure nothing more is bought, but what was bought is still collected.

        Raises the worst failure: a harmless one would invite a repeat, which would buy a lost picture again.
        """
        loop = asyncio.get_running_loop()
        tasks = {number: loop.create_task(self._picture(generation, number)) for number in missing}
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            for number, task in tasks.items():
                if not generation.progress[number].submitted:
                    task.cancel()
            await asyncio.wait(tasks.values())
        finally:
            # Also when this generation is cancelled: no job outlives it, and finished pictures are kept.
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            ended = {number: task for number, task in tasks.items() if not task.cancelled()}
            pictures.update({number: task.result() for number, task in ended.items() if task.exception() is None})
        failed = {number: error for number, task in ended.items() if (error := task.exception()) is not None}
        if failed:
            raise max(
                failed.items(), key=lambda each: badness(each[1], submitted=generation.progress[each[0]].submitted)
            )[1]

    async def _picture(self, generation: Generation, number: int) -> Picture:
        steps = generation.progress[number]
        finished_job = await self._make(generation.resolved, generation.seed + number, steps, generation.hold)
        try:
            picture = await self._deliverable(generation.resolved, finished_job, lambda: generation.release("late"))
        except Failure as failure:
            await steps.lost(failure.code or failure.type)
            raise
        await steps.done(picture.name)
        return picture

    def _ended(self, generation: Generation, pictures: dict[int, Picture], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # maybe before its first step, where none of its own blocks could have caught it
            generation.failure = generation.failure or Overloaded("This service is shutting down.", retry_after=2.0)
            self._finish(generation, pictures)

    def _finish(self, generation: Generation, pictures: dict[int, Picture]) -> None:
        generation.ended_at = self._clock.monotonic()
        # Pictures that are here can't have been lost: only the others decide what a repeat would buy twice.
        missing = (progress for number, progress in enumerate(generation.progress) if number not in pictures)
        generation.end = end_of(generation.failure, submitted=any(progress.submitted for progress in missing))
        if generation.failure is not None:
            for progress in generation.progress:
                if progress.state != "done":
                    progress.state = "failed"
            if generation not in self._registry:  # abandoned: nobody will come for its pictures
                for picture in pictures.values():
                    self._release(picture)
            elif pictures:
                salvage = Salvage(pictures, generation.seed, generation.ended_at + self._result_s)
                self._salvages.keep(generation.resolved.fingerprint, salvage)
        self._registry.ended(generation)
        self._expect_collection(generation)
        generation.task = None
        generation.resolved = generation.resolved.without_uploads()  # megabytes that would stay for ``result_s``
        generation.changed()
        generation.release("done")

    def _expect_collection(self, generation: Generation) -> None:
        if generation.handed_over and generation.done and generation in self._registry:
            self._uncollected.add(generation.id)

    def _forget(self, generation: Generation) -> None:
        self._registry.forget(generation)
        self._release_pictures_of(generation)

    def _release_pictures_of(self, generation: Generation) -> None:
        self._uncollected.discard(generation.id)
        for picture in generation.pictures:
            self._release(picture)
