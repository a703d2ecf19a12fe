"""How a picture of a generation is made: a job at a provider, then its result in the form that was asked for."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from proxy.accounts.prices import price_of
from proxy.clock import Clock, Deadline
from proxy.errors import JobLost
from proxy.generations.recorded import load_handle
from proxy.generations.results import Picture, Results
from proxy.jobs.run import Jobs
from proxy.jobs.runtime import Place, ProviderRuntime
from proxy.jobs.schedule import Key
from proxy.jobs.steps import FinishedJob, Steps
from proxy.metrics import Metrics
from proxy.requests.resolve import ResolvedRequest
from proxy.requests.summary import RequestSummary
from proxy.state.records import JobRow, Route

_log = logging.getLogger("proxy")
_UNREADABLE: Final = "The job cannot be followed any more."


class RouteRuntimes(Protocol):
    """The providers in operation, by routes as they are written down."""

    def route(self, provider: str, model: str) -> Route:
        """Return a route with the address and the account that a job is submitted to now."""
        ...

    def of(self, route: Route, kind: str) -> ProviderRuntime:
        """Return what speaks to where a job was submitted. Raises ValueError when the dialect is not known."""
        ...


class PictureMaking:
    """Implements ``proxy.generations.work.Making``.

    ``runtimes``: what speaks to the address that a job is, or was, submitted to. ``lifetime_s``: how long a job is
    followed.
    """

    def __init__(
        self,
        jobs: Jobs,
        results: Results,
        runtimes: RouteRuntimes,
        clock: Clock,
        metrics: Metrics,
        *,
        lifetime_s: float,
    ) -> None:
        self._jobs = jobs
        self._results = results
        self._runtimes = runtimes
        self._clock = clock
        self._metrics = metrics
        self._lifetime_s = lifetime_s

    async def places(self, resolved: ResolvedRequest, count: int, /) -> list[Place]:
        """Take up to ``count`` places at the first route's provider without waiting."""
        return await self._jobs.places(resolved, count)

    def routes(self, resolved: ResolvedRequest, /) -> dict[tuple[str, str], Route]:
        """Return where the jobs may be submitted, the first route first, by provider and model."""
        routes: dict[tuple[str, str], Route] = {}
        for candidate in resolved.candidates:
            name, model = candidate.route.provider, candidate.route.model
            price = self._jobs.price(candidate)
            route = self._runtimes.route(name, model.name)
            routes[name, model.name] = replace(route, price=price.amount, price_source=price.source)
        return routes

    async def make(
        self, resolved: ResolvedRequest, seed: int, steps: Steps, hold: Deadline, place: Place | None, /
    ) -> FinishedJob:
        """Make one picture. Raises Failure."""
        finished = await self._jobs.make(resolved, seed, steps, hold, place)
        submitted = finished.lifetime.at - self._lifetime_s
        return replace(finished, waited_s=submitted - resolved.checked.arrived)

    async def follow(self, row: JobRow, request: RequestSummary, steps: Steps, /) -> FinishedJob:
        """Follow a job that another process has submitted, where it was submitted. Raises Failure."""
        try:
            handle, kind = load_handle(row.handle or "")
            runtime = self._runtimes.of(row.route, kind)
            left_s = self._left_s(row)
            lifetime = Deadline.after(self._clock, left_s)
            finished = await self._jobs.follow(runtime, handle, steps, lifetime, Key(row.provider, row.model))
        except ValueError:  # written by a version that knew more, or for a provider that is gone
            _log.error("the job %s cannot be followed: its provider's dialect is not known here", row.id)
            await steps.lost("job_lost")
            raise JobLost(_UNREADABLE) from None
        origin = request.origin(row.provider, row.model).seeded(row.seed)
        if finished.seed is not None:
            origin = replace(origin, seed=finished.seed)
        price = price_of(row.price, row.price_source).settled(finished.cost)
        return FinishedJob(finished, origin, lifetime, runtime.upstream, price=price)

    async def deliverable(self, request: RequestSummary, finished: FinishedJob, late: Callable[[], None], /) -> Picture:
        """Turn a finished job's picture into the form asked for; record the seconds that this service added.

        Raises Failure.
        """
        started = self._clock.monotonic()
        picture = await self._results.deliverable(request, finished, late)
        self._metrics.added_seconds.observe(finished.waited_s + self._clock.monotonic() - started)
        return picture

    def _left_s(self, row: JobRow) -> float:
        """Return the seconds for which a job is still followed, none when its time is over: it is asked for once."""
        now = self._clock.wall()
        submitted = (row.submitted or 0) / 1000
        until = min(submitted + self._lifetime_s, now + self._lifetime_s)  # the clock may have been put back
        if row.expires is not None:
            until = min(until, row.expires / 1000)
        return max(0.0, until - now)
