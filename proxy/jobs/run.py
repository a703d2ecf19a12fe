"""The life of a job: a slot, one submit, polls until its end. The only module that submits.

A submit that may have reached a provider is never repeated, there or at another provider: so nobody pays twice for one
picture. A job that was accepted is followed to its end, whatever becomes of its caller.
"""

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from functools import partial

from proxy.accounts.prices import Price, known_price
from proxy.clock import Clock, Deadline
from proxy.errors import (
    ContentRefused,
    Failure,
    GenerationFailed,
    Overloaded,
    ProviderBusy,
    ProviderFailure,
    ProviderUnavailable,
    SpendLimitReached,
    StateUnavailable,
    SubmitOutcomeUnknown,
)
from proxy.jobs.job import job_of, kind_of, would_be_missed
from proxy.jobs.poll import Follower
from proxy.jobs.refusals import OnlyAtOnce, refused_submit
from proxy.jobs.runtime import Limits, Place, ProviderRuntime
from proxy.jobs.schedule import Key, Pace, Schedule
from proxy.jobs.steps import FinishedJob, Steps
from proxy.metrics import Metrics
from proxy.providers.boundary import Finished, Handle, Job, Pending
from proxy.requests.resolve import Candidate, ResolvedRequest
from proxy.upstream.client import Interrupted, NotSent

_BEFORE_HOLD_S = 0.05
"""How long before the end of the hold a job stops waiting for a slot.

Any later, and the caller would get "pending" for a generation that has bought nothing.
"""


class Jobs:
    """Runs jobs. Has no state but the slots and breakers of the runtimes, and what was learned of times and prices.

    ``told``: what providers last told of prices, in nano-dollars by ``Price.name``; it is added to.
    """

    def __init__(
        self,
        runtimes: dict[str, ProviderRuntime],
        schedule: Schedule,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
        *,
        check_store: Callable[[ResolvedRequest, Sequence[Candidate]], None] = lambda *_: None,
        told: MutableMapping[str, int] | None = None,
    ) -> None:
        self.runtimes = runtimes
        self._told = {} if told is None else told
        self._schedule = schedule
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._check_store = check_store

    def price(self, candidate: Candidate) -> Price:
        """Return what a picture by this route costs, as far as it is known now."""
        return known_price(candidate, self.runtimes[candidate.route.provider].prices, self._told)

    async def places(self, resolved: ResolvedRequest, count: int) -> list[Place]:
        """Take up to ``count`` places at the first route's provider, as far as they are free now. Does not wait."""
        return await self.runtimes[resolved.candidates[0].route.provider].places(count)

    async def make(
        self, resolved: ResolvedRequest, seed: int, steps: Steps, hold: Deadline, place: Place | None = None
    ) -> FinishedJob:
        """Make one picture by the first route that accepts the job; ``hold`` bounds the wait before the submit.

        Routes are tried in order as long as nothing was started. If none accepts it, the one with the earliest
        Retry-After is tried once more at that moment, if it lies within the hold. ``place``: taken beforehand, for
        the first route; it is given back in any case. Raises Failure.
        """
        try:
            return await self._make(resolved, seed, steps, hold, place)
        except Failure as failure:
            if not steps.submitted:
                await steps.released(_code(failure))
            raise
        finally:
            if place is not None:
                place.give_back()

    async def follow(
        self, runtime: ProviderRuntime, handle: Handle, steps: Steps, lifetime: Deadline, kind: Key | None = None
    ) -> Finished:
        """Follow a job that was accepted before, by its handle alone; the first poll is made at once.

        ``kind``: the kind of job whose durations set the pace. It takes no slot, since the job is running anyway and
        must not be in a new caller's way. Raises ProviderFailure (GenerationTimeout after ``lifetime``), and ValueError
        when the handle isn't of the runtime's dialect.
        """
        runtime.figures.jobs_in_flight.inc()
        try:
            pace = self._schedule.watch(kind or Key(runtime.name, ""), runtime.own_polls_per_second)
            pending = Pending(handle, "generating", at_once=True)
            finished, _ = await self._follow(runtime, pending, pace, steps, (lifetime,))
            steps.progress("done", 1.0)
            return finished
        finally:
            runtime.figures.jobs_in_flight.dec()

    async def _make(
        self, resolved: ResolvedRequest, seed: int, steps: Steps, hold: Deadline, place: Place | None
    ) -> FinishedJob:
        failures: list[tuple[Candidate, Failure]] = []
        hints: list[tuple[float, int]] = []
        for number, candidate in enumerate(resolved.candidates):
            outcome = await self._try(candidate, resolved, seed, steps, hold, place)
            if isinstance(outcome, FinishedJob):
                return outcome
            failures.append((candidate, outcome))
            if isinstance(outcome, ProviderBusy) and outcome.retry_after is not None:
                hints.append((self._clock.monotonic() + outcome.retry_after, number))
        at, number = min(hints, default=(hold.at, 0))
        # Once only: a route that always says "later" would keep the caller waiting for nothing.
        if at < hold.at:
            await self._clock.sleep(max(0.0, at - self._clock.monotonic()))
            candidate = resolved.candidates[number]
            steps.reconsider(str(candidate.route))
            outcome = await self._try(candidate, resolved, seed, steps, hold)
            if isinstance(outcome, FinishedJob):
                return outcome
            failures.insert(0, (candidate, outcome))  # newer than what the same route said before
        # One retryable failure is enough: on a repeat, that route may work. Else the preferred route's counts.
        told, failure = next((pair for pair in failures if pair[1].should_retry), failures[0])
        steps.reconsider(str(told.route))
        raise failure

    async def _try(
        self,
        candidate: Candidate,
        resolved: ResolvedRequest,
        seed: int,
        steps: Steps,
        hold: Deadline,
        place: Place | None = None,
    ) -> FinishedJob | Failure:
        """Return the finished job, or a failure after which the next route may be tried. Raises any other Failure."""
        try:
            return await self._make_at(candidate, resolved, seed, steps, hold, place)
        except (ProviderFailure, Overloaded, StateUnavailable, SpendLimitReached) as failure:
            nothing_started = not isinstance(failure, ProviderFailure) or failure.nothing_started
            over = hold.remaining <= _BEFORE_HOLD_S or not steps.wanted()
            if steps.submitted or not nothing_started or over:
                raise
            steps.pass_over(str(candidate.route), candidate.route.provider, failure.code)
            return failure

    async def _make_at(
        self,
        candidate: Candidate,
        resolved: ResolvedRequest,
        seed: int,
        steps: Steps,
        hold: Deadline,
        place: Place | None,
    ) -> FinishedJob:
        runtime = self.runtimes[candidate.route.provider]
        if not runtime.submit_breaker.allow():
            raise Overloaded(
                f"The provider '{runtime.name}' is failing; it is left alone for a moment.",
                retry_after=max(1.0, runtime.submit_breaker.wait_s),
            )
        try:
            if place is None or not place.hand_over(runtime):
                await self._take_slot(runtime, hold)
        except BaseException:  # cancelled as well: a probe that was taken must be given back
            runtime.submit_breaker.skipped()
            raise
        runtime.figures.jobs_in_flight.inc()
        try:
            # After the wait for a slot, the last moment at which giving up costs nothing.
            if not steps.wanted():
                runtime.submit_breaker.skipped()
                raise Overloaded("Nobody waited for this picture any more when its turn came.", retry_after=1.0)
            # Begins here: the wait for a slot must not shorten the time in which the job may be made.
            lifetime = Deadline.after(self._clock, self._limits.lifetime_s)
            price = self.price(candidate)
            job = self._durable(runtime, job_of(candidate, resolved, seed), price)
            ensure_storable = partial(self._check_store, resolved, (candidate,))
            finished = await self._either_way(runtime, job, steps, (hold, lifetime), ensure_storable)
            if finished.cost is not None:
                self._told[price.name] = finished.cost
            origin = candidate.origin().seeded(seed)
            if finished.seed is not None:
                origin = replace(origin, seed=finished.seed)
            return FinishedJob(finished, origin, lifetime, runtime.upstream, price=price.settled(finished.cost))
        finally:
            runtime.figures.jobs_in_flight.dec()
            runtime.free_slot()

    async def _take_slot(self, runtime: ProviderRuntime, hold: Deadline) -> None:
        """Wait in line for a free slot, at most until the hold ends. Raises Overloaded; nothing was sent then."""
        # ``locked`` is true as well while others wait, so nobody jumps the queue here:
        # https://docs.python.org/3/library/asyncio-sync.html#asyncio.Semaphore.locked
        if not runtime.slots.locked():
            await runtime.slots.acquire()
            return
        with runtime.figures.queue.track_inprogress():
            try:
                async with asyncio.timeout(max(0.0, hold.remaining - _BEFORE_HOLD_S)):
                    await runtime.slots.acquire()
            except TimeoutError:
                message = f"All {runtime.own_slots} places at the provider '{runtime.name}' stayed taken."
                raise Overloaded(message, retry_after=1.0) from None

    def _durable(self, runtime: ProviderRuntime, job: Job, price: Price) -> Job:
        """Return the job, marked as durable if its loss would cost something and it can be."""
        usual_s = self._schedule.usual_s(kind_of(runtime.name, job)) or job.model.seconds
        return replace(job, durable=job.model.name not in runtime.only_at_once and would_be_missed(price, usual_s))

    async def _either_way(
        self,
        runtime: ProviderRuntime,
        job: Job,
        steps: Steps,
        deadlines: tuple[Deadline, Deadline],
        ensure_storable: Callable[[], None],
    ) -> Finished:
        """Make a job; one that can't be durable, the other way: its provider has refused and so started nothing."""
        try:
            return await self._submit_and_follow(runtime, job, steps, deadlines, ensure_storable)
        except OnlyAtOnce:
            job = replace(job, durable=False)
            finished = await self._submit_and_follow(runtime, job, steps, deadlines, ensure_storable)
        # Only now: the words of a refusal may be the prompt's, and then this submit is refused as well.
        runtime.only_at_once.add(job.model.name)
        return finished

    async def _submit_and_follow(
        self,
        runtime: ProviderRuntime,
        job: Job,
        steps: Steps,
        deadlines: tuple[Deadline, Deadline],
        ensure_storable: Callable[[], None],
    ) -> Finished:
        hold, lifetime = deadlines
        started = self._clock.monotonic()
        answer = await self._submit(runtime, job, steps, lifetime, ensure_storable)
        figures = runtime.figures
        figures.submits.inc()
        kind = kind_of(runtime.name, job)
        if isinstance(answer, Pending):
            pace = self._schedule.watch(kind, runtime.own_polls_per_second)
            # The hold as well: a last poll just before it ends may spare the caller a 504 and a second call.
            answer, polls = await self._follow(runtime, answer, pace, steps, (lifetime, hold))
            figures.polls_per_job.observe(polls)
            figures.detection_lag.observe(pace.finished(self._clock.monotonic(), answer.elapsed_s))
        else:
            self._schedule.learn(kind, self._clock.monotonic() - started)
        figures.job_seconds.observe(self._clock.monotonic() - started)
        steps.progress("done", 1.0)
        return answer

    async def _follow(
        self, runtime: ProviderRuntime, pending: Pending, pace: Pace, steps: Steps, deadlines: Sequence[Deadline]
    ) -> tuple[Finished, int]:
        """Return the finished job and the number of polls; the first of ``deadlines`` is its lifetime."""
        moments = tuple(deadline.at for deadline in deadlines)
        follower = Follower(runtime, pace, steps, self._limits, self._clock, moments)
        try:
            return await follower.follow(pending, deadlines[0]), follower.polls
        except ProviderFailure as failure:
            # These two are the provider's own word that there is no picture. After all others there may be one.
            given_up = isinstance(failure, ContentRefused | GenerationFailed)
            await (steps.failed if given_up else steps.lost)(_code(failure))
            raise
        finally:
            runtime.figures.polls.inc(follower.polls)

    async def _submit(
        self,
        runtime: ProviderRuntime,
        job: Job,
        steps: Steps,
        lifetime: Deadline,
        ensure_storable: Callable[[], None],
    ) -> Pending | Finished:
        """Submit once. From here on ``steps.submitted`` is true, unless the provider provably started nothing."""
        try:
            call = runtime.provider.submit(job)
            if not call.picture:  # else ``upstream`` opens the picture's own file before it sends anything
                ensure_storable()
            await steps.submitting(runtime.name, job.model.name)
        except BaseException:
            runtime.submit_breaker.skipped()
            raise
        try:
            steps.progress("generating" if call.picture else "queued")
            # Where the answer is the picture itself, this one call lasts as long as the job.
            limit_s = lifetime.remaining if call.picture else self._limits.submit_s
            reply = await runtime.upstream.send(call, limit_s)
            if not 200 <= reply.status < 300:
                raise refused_submit(runtime.provider, runtime.name, job, reply)
            answer = runtime.read(call.handle, reply)
        except StateUnavailable as unstorable:  # raised before the call goes out
            runtime.submit_breaker.skipped()
            await steps.not_started(_code(unstorable), sent=False)
            raise
        except (NotSent, Interrupted, ProviderFailure) as trouble:
            failure = _submit_failure(runtime.name, trouble)
            self._count(runtime, failure)
            await _tell(steps, failure, sent=not isinstance(trouble, NotSent))
            raise failure from trouble
        except BaseException:  # cancelled: whether the call arrived is unknown, so it stays counted as submitted
            runtime.submit_breaker.skipped()
            raise
        runtime.submit_breaker.succeeded()
        if isinstance(answer, Pending):
            await steps.accepted(answer.handle, answer.expires_s)
        return answer

    def _count(self, runtime: ProviderRuntime, failure: ProviderFailure) -> None:
        if failure.blames_provider:
            runtime.submit_breaker.failed()
        else:  # a refusal is a good answer as far as the breaker is concerned
            runtime.submit_breaker.succeeded()
        self._metrics.submits.labels(runtime.name, failure.code or "").inc()


def _submit_failure(name: str, trouble: NotSent | Interrupted | ProviderFailure) -> ProviderFailure:
    if isinstance(trouble, NotSent):
        return ProviderUnavailable(f"The provider '{name}' cannot be reached.")
    if isinstance(trouble, Interrupted):
        message = f"The provider '{name}' took the call and gave no answer; it may have made a picture."
        return SubmitOutcomeUnknown(message)
    return trouble


async def _tell(steps: Steps, failure: ProviderFailure, *, sent: bool) -> None:
    """Report how a submit failed. Where a picture may have been bought, that is unknown."""
    code = _code(failure)
    if failure.nothing_started:
        await steps.not_started(code, sent=sent)
    elif isinstance(failure, ContentRefused | GenerationFailed):
        await steps.failed(code)
    else:
        await steps.unknown(code)


def _code(failure: Failure) -> str:
    return failure.code or failure.type
