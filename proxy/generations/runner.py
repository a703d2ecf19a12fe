"""Who is waiting for which jobs: one generation for each request, which outlives its caller so that a retry finds it.

OpenAI's SDKs repeat a call up to twice and mark the repeat only with a counter; others don't even do that. Equal
calls in parallel are distinct intents all the same. ``registry`` tells which generation a request repeats; here is what
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
from proxy.generations.record import Generation, badness, end_of
from proxy.generations.registry import Registry, Salvage, Salvages, Sign
from proxy.generations.results import Picture
from proxy.jobs.steps import FinishedJob, Progress
from proxy.requests.resolve import ResolvedRequest

_ABANDONED_S = 10.0
"""So long a job that is not submitted yet outlives the last request that waited for it; retries come sooner."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The generation that a request goes with. ``how``: by what it was recognised as a repeat, None for a new intent.

    ``claim``: which of the requests that took the generation over, one after the other, this one is.
    """

    generation: Generation
    how: Sign | None = None
    claim: int = 0


class Generations:
    """All generations of this process: those running, and those ended within ``result_s`` seconds."""

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
        """How many of one owner have not ended."""
        return self._registry.open_of(owner)

    @property
    def running(self) -> int:
        """How many have not ended, whether anybody waits for them or not."""
        return len(self._tasks)

    @property
    def uncollected(self) -> int:
        """How many were handed over, have ended, and were not asked for since."""
        return len(self._uncollected)

    def knows(self, resolved: ResolvedRequest, *, key: str | None, attempt: int) -> bool:
        """Whether ``join`` would find what such a request repeats. Raises IdempotencyKeyReused."""
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
        ``may_start`` is asked before a new generation starts and raises Failure to refuse it.
        Raises IdempotencyKeyReused, Overloaded while draining.
        """
        self.sweep()
        known, how = self._registry.repeated(resolved.fingerprint, resolved.checked.owner, key=key, attempt=attempt)
        if known is not None:
            if how == "retry" or how == "orphan":
                how = "retry" if attempt or known.delivered_at is not None else "orphan"
                known.attempt, known.delivered_at = attempt, None
                known.claim += 1
            known.waiters += 1
            self._registry.refile(known)
            return Joined(known, how, known.claim)
        if self.draining:
            raise Overloaded("This service is shutting down.", retry_after=2.0)
        may_start()
        return Joined(self._start(resolved, key, attempt))

    def leave(self, joined: Joined, *, delivered: bool) -> None:
        """Tell that a request no longer waits; ``delivered``: it was given the generation's end."""
        generation = joined.generation
        generation.waiters -= 1
        if not generation.waiters:
            generation.unattended_at = self._clock.monotonic()
        if delivered and joined.claim == generation.claim:
            self.deliver(generation)
        else:
            self._registry.refile(generation)

    def hand_over(self, generation: Generation) -> None:
        """Tell that a caller was given the generation's address: whoever has that follows it, and nobody else."""
        self.deliver(generation)
        generation.handed_over = True
        self._expect_collection(generation)

    def deliver(self, generation: Generation) -> None:
        """Tell that the generation's end, or its address, reached the caller."""
        generation.delivered_at = self._clock.monotonic()
        if generation.done:
            self._uncollected.discard(generation.id)
            for picture in generation.pictures:
                self._release(picture)
        self._registry.refile(generation)

    def lose(self, joined: Joined) -> None:
        """Tell that an answer under way did not arrive: a repeat may take the generation over."""
        if joined.claim == joined.generation.claim:
            joined.generation.delivered_at = None
            self._expect_collection(joined.generation)
            self._registry.refile(joined.generation)

    def find(self, generation_id: str, owner: str) -> Generation | None:
        """Return the generation at an address, if it is the same caller's."""
        self.sweep()
        generation = self._registry.get(generation_id)
        return generation if generation is not None and generation.owner == owner else None

    def abandon(self, generation: Generation) -> None:
        """Stop following its jobs and forget it."""
        if generation.task is not None:
            # Not to be retried: that would buy again what was just given up.
            generation.failure = JobLost("The generation was abandoned.")
            generation.task.cancel()
        self._forget(generation)

    def expects(self, owner: str, *, key: str | None, attempt: int) -> bool:
        """Whether a request of ``owner`` may turn out to repeat one that is here, and so cost no new job."""
        return self._registry.may_repeat(owner, key=key, attempt=attempt)

    def sweep(self) -> None:
        """Forget what ended longer than ``result_s`` ago."""
        for generation in self._registry.outdated():
            self._release_pictures_of(generation)
        self._salvages.sweep(self._clock.monotonic())

    async def close(self) -> None:
        """Stop everything and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, resolved: ResolvedRequest, key: str | None, attempt: int) -> Generation:
        salvages = self._salvages.take(resolved.fingerprint)
        chosen = resolved.candidates[0].translation.seed
        seed = salvages.seed if salvages else chosen if chosen is not None else self._clock.random.randrange(2**31)
        generation = Generation(
            id=f"imggen_{secrets.token_hex(16)}",
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
        generation.task = asyncio.get_running_loop().create_task(self._run(generation, pictures))
        self._tasks.add(generation.task)
        generation.task.add_done_callback(lambda task: self._ended(generation, pictures, task))
        return generation

    def _wanted(self, generation: Generation) -> bool:
        """Whether somebody waits for a generation, did so a moment ago, or was given its address."""
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
            generation.failure = failure.unraised()
        except Exception as error:  # noqa: BLE001 (a generation must end whatever happened; the cause is logged)
            generation.failure = InternalError()
            generation.failure.__cause__ = error
        self._finish(generation, pictures)

    async def _make_all(self, generation: Generation, missing: list[int], pictures: dict[int, Picture]) -> None:
        """Make several pictures. After a failure nothing more is bought, but what was bought is brought home.

        Raises the worst failure: one that a repeat would buy again must not be told as one that it would not.
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
        if task.cancelled():  # maybe before its first step, so that no block of its own could end it
            generation.failure = generation.failure or Overloaded("This service is shutting down.", retry_after=2.0)
            self._finish(generation, pictures)

    def _finish(self, generation: Generation, pictures: dict[int, Picture]) -> None:
        generation.ended_at = self._clock.monotonic()
        missing = (progress for number, progress in enumerate(generation.progress) if number not in pictures)
        generation.end = end_of(generation.failure, submitted=any(progress.submitted for progress in missing))
        if generation.failure is not None:
            for progress in generation.progress:
                if progress.state != "done":
                    progress.state = "failed"
            if generation not in self._registry:
                for picture in pictures.values():
                    self._release(picture)
            elif pictures:
                salvage = Salvage(pictures, generation.seed, generation.ended_at + self._result_s)
                self._salvages.keep(generation.resolved.fingerprint, salvage)
        self._registry.ended(generation)
        self._expect_collection(generation)
        generation.task = None
        generation.resolved = generation.resolved.without_uploads()
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
