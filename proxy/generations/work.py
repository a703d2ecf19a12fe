"""What is done for one generation, from the first write to its end: its jobs made, carried on with, or waited for."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from proxy.clock import Clock, Deadline
from proxy.errors import Failure, IdempotencyKeyReused, JobLost, Overloaded
from proxy.generations.journal import Journal
from proxy.generations.record import Generation, badness
from proxy.generations.recorded import RecordedSteps
from proxy.generations.registry import KEY_REUSED, Registry
from proxy.generations.restored import dump_picture, failures_of, pictures_of, show
from proxy.generations.results import Picture
from proxy.jobs.runtime import Place
from proxy.jobs.steps import FinishedJob, Steps
from proxy.requests.resolve import ResolvedRequest
from proxy.requests.summary import RequestSummary
from proxy.state import records
from proxy.state.operations import StateUnavailable
from proxy.state.outcomes import Exists, Pace, Start
from proxy.state.records import JobRow, Route
from proxy.state.transitions import OPEN

_READ_AGAIN_S = 1.0
"""How often the end of a generation that another process follows is looked for."""


class Making(Protocol):
    """What makes pictures: ``proxy.jobs``, and what turns its results into pictures."""

    async def places(self, resolved: ResolvedRequest, count: int, /) -> list[Place]:
        """Take up to ``count`` places at the first route's provider without waiting."""
        ...

    async def make(
        self, resolved: ResolvedRequest, seed: int, steps: Steps, hold: Deadline, place: Place | None, /
    ) -> FinishedJob:
        """Make one picture. Raises Failure."""
        ...

    async def follow(self, row: JobRow, request: RequestSummary, steps: Steps, /) -> FinishedJob:
        """Follow a job that another process has submitted. Raises Failure."""
        ...

    async def deliverable(self, request: RequestSummary, finished: FinishedJob, late: Callable[[], None], /) -> Picture:
        """Turn a finished job's picture into the form asked for. Raises Failure."""
        ...

    def routes(self, resolved: ResolvedRequest, /) -> dict[tuple[str, str], Route]:
        """Return where the jobs may be submitted, the first route first, by provider and model."""
        ...


class Work:
    """Works on generations. ``kinds``: each provider's dialect. ``stopping``: the process ends, so what is cancelled
    is left to the next one."""

    def __init__(
        self, making: Making, journal: Journal, registry: Registry, clock: Clock, kinds: Mapping[str, str]
    ) -> None:
        self._making = making
        self._journal = journal
        self._registry = registry
        self._clock = clock
        self._kinds = kinds
        self._mirrored: dict[str, asyncio.Event] = {}
        self.stopping = False

    def told_ended(self, ids: Collection[str]) -> None:
        """Note that other replicas have ended these generations."""
        for generation in ids:
            if (waiting := self._mirrored.get(generation)) is not None:
                waiting.set()

    async def make(self, generation: Generation, resolved: ResolvedRequest) -> None:
        """Write a generation's start and make its pictures. Raises Failure."""
        places = await self._making.places(resolved, generation.request.n)
        try:
            routes = self._making.routes(resolved)
            started = await self._write_start(generation, routes, len(places), resolved.checked.pace)
            if isinstance(started, Exists):
                _give_back(places)
                await self._mirror_existing(generation, started.generation)
                return
            rows = started.jobs
            steps = self._steps(generation, rows, routes)
            # Kept no longer: the request is behind it.
            has_left, generation.has_left = generation.has_left, None
            if has_left is not None and generation.waiters <= 1 and has_left():
                for each in steps.values():
                    await each.released("server_is_overloaded")
                raise Overloaded("The caller had left before anything was sent.", retry_after=1.0)
            free = iter(places)
            given = {row.number: next(free) for row in rows if row.state == "submitting"}
            _give_back(free)  # inherited pictures need none
            works = {
                row.number: self._picture(generation, resolved, steps[row.number], given.get(row.number), row.number)
                for row in rows
                if row.state in OPEN
            }
            pictures = pictures_of(rows, generation.request)
            for number in pictures:
                generation.progress[number].state = "done"
            await self._collect(generation, pictures, failures_of(rows, pictures), works, steps)
        finally:
            generation.written.set()
            _give_back(places)

    async def _write_start(
        self, generation: Generation, routes: Mapping[tuple[str, str], Route], places: int, pace: tuple[Pace, ...]
    ) -> records.Generation | Exists:
        start = Start(
            id=generation.id,
            holder=self._journal.holder,
            account=generation.account,
            route=next(iter(routes.values())),
            n=generation.request.n,
            seed=generation.seed,
            reserve=max(route.price or 0 for route in routes.values()),
            submit=places,
            idempotency_key=generation.key,
            fingerprint=generation.fingerprint,
            request=generation.request.dump(),
            attempt=generation.attempt,
            pace=pace,
        )
        try:
            outcome = await self._journal.start(start)
        finally:
            generation.written.set()
        if isinstance(outcome, Exists):
            return outcome
        # Its seed as well: the pictures still missing are then the ones that the first call would have got.
        generation.seed = outcome.generation.row.seed
        generation.remaining = outcome.remaining
        return outcome.generation

    async def _picture(
        self, generation: Generation, resolved: ResolvedRequest, steps: RecordedSteps, place: Place | None, number: int
    ) -> Picture:
        finished = await self._making.make(resolved, generation.seed + number, steps, generation.hold, place)
        return await self._bring(generation, finished, steps)

    async def carry_on(self, generation: Generation, found: records.Generation, spread_s: float) -> None:
        """Follow the jobs of a generation that an earlier process has submitted. Raises Failure."""
        mine = tuple(row for row in found.jobs if row.state == "accepted" and row.holder == self._journal.holder)
        steps = self._steps(generation, mine, {})
        works = {row.number: self._followed(generation, row, steps[row.number], spread_s) for row in mine}
        pictures = pictures_of(found.jobs, generation.request)
        await self._collect(generation, pictures, failures_of(found.jobs, pictures), works, steps)

    async def _followed(self, generation: Generation, row: JobRow, steps: RecordedSteps, spread_s: float) -> Picture:
        await self._clock.sleep(self._clock.random.uniform(0.0, spread_s))
        resumed = self._journal.figures.resumed
        try:
            picture = await self._bring(generation, await self._making.follow(row, generation.request, steps), steps)
        except Failure as failure:
            resumed.labels(failure.code or failure.type).inc()
            raise
        resumed.labels("done").inc()
        return picture

    async def mirror(self, generation: Generation, found: records.Generation) -> None:
        """Wait for the end of a generation that another process follows, and take it. Raises Failure."""
        generation.written.set()
        ended = self._mirrored[generation.id] = asyncio.Event()
        try:
            show(found, generation)
            while found.row.ended_as is None:
                found = await self._read_again(generation, found, ended)
                show(found, generation)
        finally:
            if self._mirrored.get(generation.id) is ended:
                del self._mirrored[generation.id]
        self.take_end(generation, found)

    async def _mirror_existing(self, generation: Generation, found: records.Generation) -> None:
        """Wait for what an Idempotency-Key stands for at another replica, and take it. Raises Failure."""
        if found.row.fingerprint != generation.fingerprint:
            raise IdempotencyKeyReused(KEY_REUSED)
        self._registry.rename(generation, found.row.id)
        generation.mirrored = True
        generation.claim, generation.created = found.row.claim, found.row.created // 1000
        if found.row.ended_as is None:  # its replica is to know that somebody waits
            seen, attempt, journal = generation.claim, generation.attempt, self._journal
            generation.claim = seen + 1
            journal.soon(lambda: journal.state.claim(generation.id, seen, attempt, journal.holder))
        await self.mirror(generation, found)

    async def _read_again(
        self, generation: Generation, found: records.Generation, ended: asyncio.Event
    ) -> records.Generation:
        """Return a generation's rows when it has ended elsewhere, or a moment later. Raises JobLost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READ_AGAIN_S):
                await ended.wait()
        ended.clear()
        try:
            now = await self._journal.state.generation(generation.id)
        except StateUnavailable:
            return found
        if now is None:
            raise JobLost("The generation is not known any more.")
        return now

    def take_end(self, generation: Generation, found: records.Generation) -> None:
        """Take the end of a generation from its rows. Raises Failure: its own."""
        pictures = pictures_of(found.jobs, generation.request)
        self._conclude(generation, pictures, failures_of(found.jobs, pictures))

    def _steps(
        self, generation: Generation, rows: tuple[JobRow, ...], routes: Mapping[tuple[str, str], Route]
    ) -> dict[int, RecordedSteps]:
        return {
            row.number: RecordedSteps(self._journal, generation, row, routes, self._kinds)
            for row in rows
            if row.state in OPEN
        }

    async def _collect(
        self,
        generation: Generation,
        pictures: dict[int, Picture],
        failures: Mapping[int, Failure],
        works: Mapping[int, Coroutine[Any, Any, Picture]],
        steps: Mapping[int, RecordedSteps],
    ) -> None:
        """Gather the pictures that are being made. After a failure nothing more is bought, but what was is collected.

        Raises the worst failure: a harmless one would invite a repeat, which would buy a lost picture again.
        """
        failed: dict[int, BaseException] = dict(failures)
        try:
            if len(works) == 1:
                [(number, work)] = works.items()
                try:
                    pictures[number] = await work
                except Exception as error:  # noqa: BLE001 (raised again below, unless another one is worse)
                    failed[number] = error
            elif works:
                await self._together(pictures, failed, works, steps)
        finally:
            generation.salvage = pictures
            # Nor if it was adopted, or is worked on anew: what then becomes of its jobs isn't decided here.
            if not self.stopping and generation.task is asyncio.current_task():
                for each in steps.values():
                    await each.give_up("given_up")
        self._conclude(generation, pictures, failed)

    @staticmethod
    async def _together(
        pictures: dict[int, Picture],
        failed: dict[int, BaseException],
        works: Mapping[int, Coroutine[Any, Any, Picture]],
        steps: Mapping[int, RecordedSteps],
    ) -> None:
        loop = asyncio.get_running_loop()
        tasks = {number: loop.create_task(work) for number, work in works.items()}
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            for number, task in tasks.items():
                if not steps[number].submitted:
                    task.cancel()
            await asyncio.wait(tasks.values())
        finally:
            # Also when this generation is cancelled: no job outlives it, and finished pictures are kept.
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            for number, task in tasks.items():
                if not task.cancelled():
                    error = task.exception()
                    if error is None:
                        pictures[number] = task.result()
                    else:
                        failed[number] = error

    def _conclude(
        self, generation: Generation, pictures: Mapping[int, Picture], failures: Mapping[int, BaseException]
    ) -> None:
        """Give a generation its pictures. Raises the worst of its failures."""
        if failures:
            generation.salvage = dict(pictures)
            submitted = {number: generation.progress[number].submitted for number in failures}
            raise max(failures.items(), key=lambda each: badness(each[1], submitted=submitted[each[0]]))[1]
        generation.pictures, generation.salvage = tuple(pictures[number] for number in sorted(pictures)), {}

    async def _bring(self, generation: Generation, finished: FinishedJob, steps: RecordedSteps) -> Picture:
        try:
            picture = await self._making.deliverable(generation.request, finished, lambda: generation.release("late"))
        except Failure as failure:
            await steps.lost(failure.code or failure.type)
            raise
        await steps.done(dump_picture(picture), finished.price)
        return picture


def _give_back(places: Iterable[Place]) -> None:
    for place in places:
        place.give_back()
