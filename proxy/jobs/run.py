"""The life of a job: a slot, one submit, and whoever follows it to its end. The only place that starts one.

A submit that may have reached the provider is never repeated, nor followed by one elsewhere: that is how one intent
stays one paid picture. A job that was accepted is followed to its end whatever happens to its caller.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from proxy.clock import Clock, Deadline
from proxy.errors import (
    Failure,
    Overloaded,
    ProviderBusy,
    ProviderFailure,
    ProviderUnavailable,
    StateUnavailable,
    SubmitOutcomeUnknown,
)
from proxy.jobs.poll import Follower
from proxy.jobs.refusals import refused_submit
from proxy.jobs.runtime import Limits, Progress, ProviderRuntime
from proxy.jobs.schedule import Key, Schedule, classify
from proxy.metrics import Metrics
from proxy.providers.boundary import SUBMIT, Finished, Job, Pending
from proxy.requests.resolve import Candidate, ResolvedRequest
from proxy.upstream.client import Interrupted, NotSent

_BEFORE_HOLD_S = 0.05
"""So much before its hold is over a request hears that no slot came free: the later answer would be "pending"."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who makes a picture and how the request was put to them, in names and plain values.

    ``width`` and ``height``: what was asked for, in pixels. ``seed``: None where the provider chose one and
    doesn't say. ``mapped`` and ``dropped``: what became of parameters, as in a translation.
    """

    provider: str
    model: str
    width: int
    height: int
    quality: str
    seed: int | None = None
    mapped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @classmethod
    def of(cls, candidate: Candidate, seed: int) -> "Origin":
        """Return the origin of what ``candidate`` makes from ``seed``."""
        route, translation = candidate.route, candidate.translation
        return cls(
            route.provider,
            route.model.name,
            translation.shape.width,
            translation.shape.height,
            translation.quality,
            translation.with_seed(seed).get("seed"),
            translation.mapped,
            translation.dropped,
        )


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A finished job, where it comes from, and until when it may be brought home."""

    finished: Finished
    origin: Origin
    lifetime: Deadline


class Jobs:
    """Runs jobs. Stateless but for the runtimes' slots and breakers and what the schedule has learned."""

    def __init__(
        self,
        runtimes: dict[str, ProviderRuntime],
        schedule: Schedule,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
        *,
        check_store: Callable[[ResolvedRequest, Sequence[Candidate]], None] = lambda *_: None,
    ) -> None:
        self.runtimes = runtimes
        self._schedule = schedule
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._check_store = check_store

    async def make(self, resolved: ResolvedRequest, seed: int, progress: Progress, hold: Deadline) -> FinishedJob:
        """Make one picture by the first route that takes it; ``hold`` bounds the wait before its submit.

        Routes are tried in order while nothing was started. When none took it, the one that is the first to say
        when it may be asked again is asked once more, then, within the hold. Raises Failure.
        """
        failures: list[tuple[Candidate, Failure]] = []
        hints: list[tuple[float, int]] = []
        for number, candidate in enumerate(resolved.candidates):
            outcome = await self._try(candidate, resolved, seed, progress, hold)
            if isinstance(outcome, FinishedJob):
                return outcome
            failures.append((candidate, outcome))
            progress.pass_over(str(candidate.route), candidate.route.provider, outcome.code)
            if isinstance(outcome, ProviderBusy) and outcome.retry_after is not None:
                hints.append((self._clock.monotonic() + outcome.retry_after, number))
        at, number = min(hints, default=(hold.at, 0))
        if at < hold.at:
            await self._clock.sleep(max(0.0, at - self._clock.monotonic()))
            candidate = resolved.candidates[number]
            progress.passed_over.pop(str(candidate.route))
            outcome = await self._try(candidate, resolved, seed, progress, hold)
            if isinstance(outcome, FinishedJob):
                return outcome
            failures.insert(0, (candidate, outcome))
            progress.pass_over(str(candidate.route), candidate.route.provider, outcome.code)
        told, failure = next((pair for pair in failures if pair[1].should_retry), failures[0])
        progress.passed_over.pop(str(told.route))
        raise failure

    async def _try(
        self, candidate: Candidate, resolved: ResolvedRequest, seed: int, progress: Progress, hold: Deadline
    ) -> FinishedJob | Failure:
        """Return the picture, or the failure after which another route may be tried. Raises any other Failure."""
        try:
            return await self._make_at(candidate, resolved, seed, progress, hold)
        except (ProviderFailure, Overloaded, StateUnavailable) as failure:
            nothing_started = not isinstance(failure, ProviderFailure) or failure.nothing_started
            over = hold.remaining <= _BEFORE_HOLD_S or not progress.wanted()
            if progress.submitted or not nothing_started or over:
                raise
            return failure

    async def _make_at(
        self, candidate: Candidate, resolved: ResolvedRequest, seed: int, progress: Progress, hold: Deadline
    ) -> FinishedJob:
        runtime = self.runtimes[candidate.route.provider]
        if not runtime.submit_breaker.allow():
            raise Overloaded(
                f"The provider '{runtime.name}' is failing; it is left alone for a moment.",
                retry_after=max(1.0, runtime.submit_breaker.wait_s),
            )
        try:
            await self._take_slot(runtime, hold)
        except BaseException:
            runtime.submit_breaker.skipped()
            raise
        runtime.figures.jobs_in_flight.inc()
        try:
            if not progress.wanted():
                runtime.submit_breaker.skipped()
                raise Overloaded("Nobody waited for this picture any more when its turn came.", retry_after=1.0)
            self._ensure_storable(runtime, resolved, candidate)
            lifetime = Deadline.after(self._clock, self._limits.lifetime_s)
            job = self._job(candidate, resolved, seed)
            finished = await self._submit_and_follow(runtime, job, progress, hold, lifetime)
            origin = Origin.of(candidate, seed)
            if finished.seed is not None:
                origin = replace(origin, seed=finished.seed)
            return FinishedJob(finished, origin, lifetime)
        finally:
            runtime.figures.jobs_in_flight.dec()
            runtime.slots.release()

    def _ensure_storable(self, runtime: ProviderRuntime, resolved: ResolvedRequest, candidate: Candidate) -> None:
        """Look once more, after the queue, whether the picture can be stored. Raises StateUnavailable."""
        try:
            self._check_store(resolved, (candidate,))
        except StateUnavailable:
            runtime.submit_breaker.skipped()
            raise

    async def _take_slot(self, runtime: ProviderRuntime, hold: Deadline) -> None:
        """Wait in order for a free slot, at most for the hold. Raises Overloaded; nothing was sent then."""
        if not runtime.slots.locked():
            await runtime.slots.acquire()
            return
        with runtime.figures.queue.track_inprogress():
            try:
                async with asyncio.timeout(max(0.0, hold.remaining - _BEFORE_HOLD_S)):
                    await runtime.slots.acquire()
            except TimeoutError:
                message = f"All {runtime.max_jobs} places at the provider '{runtime.name}' stayed taken."
                raise Overloaded(message, retry_after=1.0) from None

    @staticmethod
    def _job(candidate: Candidate, resolved: ResolvedRequest, seed: int) -> Job:
        model, checked = candidate.route.model, resolved.checked
        output_format = resolved.request.output_format or "png"
        return Job(
            model=model,
            operation=checked.operation,
            prompt=checked.request.prompt,
            settings=candidate.translation.with_seed(seed),
            output_format=output_format,
            images=checked.images,
            mask=checked.mask,
        )

    async def _submit_and_follow(
        self, runtime: ProviderRuntime, job: Job, progress: Progress, hold: Deadline, lifetime: Deadline
    ) -> Finished:
        started = self._clock.monotonic()
        answer = await self._submit(runtime, job, progress, lifetime)
        figures = runtime.figures
        figures.submits.inc()
        if isinstance(answer, Pending):
            pace = self._schedule.watch(_kind_of(runtime, job), runtime.polls_per_second)
            follower = Follower(runtime, pace, progress, self._limits, self._clock, (hold.at, lifetime.at))
            try:
                answer = await follower.follow(answer, lifetime)
            finally:
                figures.polls.inc(follower.polls)
            figures.polls_per_job.observe(follower.polls)
            figures.detection_lag.observe(pace.finished(self._clock.monotonic(), answer.elapsed_s))
        figures.job_seconds.observe(self._clock.monotonic() - started)
        progress.set("done", 1.0)
        return answer

    async def _submit(
        self, runtime: ProviderRuntime, job: Job, progress: Progress, lifetime: Deadline
    ) -> Pending | Finished:
        """Submit once. ``progress.submitted`` is true from here on unless the provider provably took nothing."""
        try:
            call = runtime.provider.submit(job)
            limit_s = lifetime.remaining if call.picture else self._limits.submit_s
            progress.submits += 1
            progress.submitted = True
            progress.provider = runtime.name
            progress.set("generating" if call.picture else "queued")
            reply = await runtime.upstream.send(call, limit_s)
            if not 200 <= reply.status < 300:
                raise refused_submit(runtime.provider, runtime.name, job, reply)
            answer = runtime.read(SUBMIT, reply)
        except StateUnavailable:
            progress.submits, progress.submitted = progress.submits - 1, False
            runtime.submit_breaker.skipped()
            raise
        except (NotSent, Interrupted, ProviderFailure) as trouble:
            self._submit_failed(runtime, progress, trouble)
        except BaseException:
            runtime.submit_breaker.skipped()
            raise
        runtime.submit_breaker.succeeded()
        return answer

    def _submit_failed(
        self, runtime: ProviderRuntime, progress: Progress, trouble: NotSent | Interrupted | ProviderFailure
    ) -> NoReturn:
        if isinstance(trouble, NotSent):
            progress.submits -= 1
            failure: ProviderFailure = ProviderUnavailable(f"The provider '{runtime.name}' cannot be reached.")
        elif isinstance(trouble, Interrupted):
            message = f"The provider '{runtime.name}' took the call and gave no answer; it may have made a picture."
            failure = SubmitOutcomeUnknown(message)
        else:
            failure = trouble
        progress.submitted = not failure.nothing_started
        if failure.blames_provider:
            runtime.submit_breaker.failed()
        else:
            runtime.submit_breaker.succeeded()
        self._metrics.submits.labels(runtime.name, failure.code or "").inc()
        raise failure from trouble


def _kind_of(runtime: ProviderRuntime, job: Job) -> Key:
    """Return the kind of job whose durations are learned together."""
    size = job.settings.get("width"), job.settings.get("height")
    return classify(runtime.name, job.model.name, *size, job.settings.get("steps"))
