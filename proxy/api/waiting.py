"""A request held until its pictures are ready, its caller leaves, or the hold is over."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Literal
from weakref import WeakSet

from starlette.requests import Request

from proxy.accounts.prices import total
from proxy.accounts.refusals import BUDGET_REMAINING
from proxy.api.admission import Admission
from proxy.api.body import CallerLeft
from proxy.api.context import RequestContext
from proxy.api.dry_run import DryRun
from proxy.api.log_lines import log_unattended_end
from proxy.api.renderings import ImagesResponse, PicturesBody
from proxy.clock import Deadline
from proxy.dollars import decimal_text
from proxy.engine import Engine
from proxy.errors import Failure, GenerationPending, Overloaded, RateLimited, SpendLimitReached
from proxy.generations.record import Ending, Generation, Happened, Joined
from proxy.requests.resolve import ResolvedRequest

Surface = Literal["images", "stream", "chat", "responses", "sdapi"]
"""What kind of request is held: a label in the metrics."""

_TURNS = 20
"""Turns of the event loop that are enough to accept, read and start handling whatever has arrived."""
_ARRIVAL_S, _LOOK_AGAIN_S = 1.0, 0.005
"""Longest wait, in seconds, for requests whose bodies are still being read, and the time between two checks."""


class Waiting:
    """The way of a request for pictures: admission before its body is read, then a generation, then the wait."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        server = engine.settings.server
        self.admission = Admission(server.max_in_flight, server.max_per_key, engine.clock)
        self._arriving: WeakSet[RequestContext] = WeakSet()
        engine.metrics.requests_in_flight.set_function(lambda: self.admission.in_flight)

    async def admit(self, request: Request) -> None:
        """Refuse a request before its body is read: the service is full or draining, its key has nothing left.

        Raises Failure.
        """
        context: RequestContext = request.state.context
        self._arriving.add(context)
        try:
            if self.engine.draining:
                raise Overloaded("This service is shutting down.", retry_after=self.engine.come_back_s)
            self._may_start(context.owner)
            await self.engine.accounts.check_room(context.caller)
        except (Overloaded, RateLimited, SpendLimitReached):
            # A retry of a generation that exists starts nothing, and its picture may be paid for: it must pass.
            key = context.idempotency_key
            if not self.engine.generations.expects(context.owner, key=key, attempt=context.attempt):
                raise

    async def join(self, request: Request, resolved: ResolvedRequest) -> Joined:
        """Find or start the request's generation.

        Raises Failure; CallerLeft if the caller is gone before it starts; DryRun if it only asks what would happen.
        """
        context: RequestContext = request.state.context
        key, attempt = context.idempotency_key, context.attempt
        self._arriving.discard(context)
        if context.dry_run:
            raise await self._dry_run(context, resolved)
        if attempt and not self.engine.generations.knows(resolved, key=key, attempt=attempt):
            await self._let_arrivals_be_read(context.owner)
        joined = await self.engine.generations.join_shared(
            resolved,
            key=key,
            attempt=attempt,
            may_start=lambda: self._may_start_for(context, resolved),
            has_left=context.has_left,
        )
        # Nobody is told of a generation, by its address or by an answer that begins, before it is written.
        if not joined.generation.written.is_set():
            await joined.generation.written.wait()
        if joined.how is None and joined.generation.mirrored:  # its key stood for one of another replica
            joined = replace(joined, how="key", claim=joined.generation.claim)
        context.generation = joined.generation.id
        metrics = self.engine.metrics
        if joined.how is not None:
            context.reattached = True
            metrics.reattached.labels(joined.how).inc()
            metrics.duplicates_avoided.inc(resolved.request.n)
            if joined.how == "orphan":
                metrics.orphans_rescued.inc()
        self._name_model(context, resolved)
        if joined.how is None:
            log_unattended_end(self.engine, joined.generation, context)
        return joined

    async def _dry_run(self, context: RequestContext, resolved: ResolvedRequest) -> DryRun:
        """Return the answer to a call that is not to start anything. Raises the Failure that would refuse the call."""
        key, attempt = context.idempotency_key, context.attempt
        reattached = await self.engine.generations.knows_shared(resolved, key=key, attempt=attempt)
        if not reattached:
            self._may_start_for(context, resolved)
        self._name_model(context, resolved)
        return DryRun(resolved, self.engine.forecast(resolved), reattached=reattached)

    def _name_model(self, context: RequestContext, resolved: ResolvedRequest) -> None:
        # A caller's own words must not become labels of metrics: each new one is a series that stays.
        context.model = resolved.public.name if resolved.public.name in self.engine.listed_names else "other"

    async def _let_arrivals_be_read(self, owner: str) -> None:
        """Let the requests that have already arrived find or start their generations.

        After a stall of this process a repeat may be read before the request that it repeats; both would then buy.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        until = Deadline.after(self.engine.clock, _ARRIVAL_S)
        before = [context for context in self._arriving if context.owner == owner]
        while any(context in self._arriving and not context.closed for context in before) and not until.passed:
            await self.engine.clock.sleep(_LOOK_AGAIN_S)

    def _may_start_for(self, context: RequestContext, resolved: ResolvedRequest) -> None:
        # Looked up in the socket itself, at the last moment before money is spent.
        if context.has_left():
            context.left = True
            raise CallerLeft
        self._may_start(context.owner)
        self.engine.check_prices(resolved, context.caller)
        self.engine.check_store(resolved)

    def _may_start(self, owner: str) -> None:
        self.admission.check(owner, self.engine.generations.running, self.engine.generations.running_of)

    async def hold(
        self,
        request: Request,
        joined: Joined,
        surface: Surface,
        *,
        changed: Happened | None = None,
        beat: Happened | None = None,
        beat_s: float = math.inf,
    ) -> None:
        """Hold the request until its generation ends; afterwards ``context.headers`` describe it.

        Every kind of request waits here. ``changed`` is awaited after each change of the generation, ``beat`` every
        ``beat_s`` seconds; both may begin the answer. Raises GenerationPending, Overloaded when draining, CallerLeft.
        """
        context: RequestContext = request.state.context
        generation = joined.generation
        clock = self.engine.clock
        until = Deadline.after(clock, min(self.engine.settings.timeouts.hold, context.patience_s))

        async def happen(happened: Happened) -> None:
            # It may begin the answer, and headers can't be added afterwards.
            describe(context, generation)
            await happened()

        ending: Ending = "left"  # also if the wait is cancelled: the answer was not delivered
        with self.admission.hold(context.owner):
            try:
                ending = await generation.wait(
                    request.receive,
                    until,
                    changed=changed and partial(happen, changed),
                    beat=beat and partial(happen, beat),
                    beat_s=beat_s,
                )
            finally:
                self.engine.generations.leave(joined, delivered=ending == "done")
                describe(context, generation)
        self.engine.metrics.hold_seconds.labels(surface).observe(clock.monotonic() - context.started)
        if ending == "left":
            context.left = True
            raise CallerLeft
        if ending == "late":
            raise self._pending(generation)

    def _pending(self, generation: Generation) -> Failure:
        """Return the failure of a request that ends while its generation goes on; a retry joins it again."""
        # OpenAI's SDKs retry on their own after one second, and are held again: polling by way of their retries.
        headers = {"x-images-generation": address(generation)}
        if self.engine.draining:
            message = "This service is shutting down; the picture is not ready."
            return Overloaded(message, retry_after=1.0, headers=headers)
        message = (
            "The picture is not ready yet. Repeat the call: it will wait for the same picture, at no further cost."
        )
        return GenerationPending(message, retry_after=1.0, headers=headers)

    async def answer(self, joined: Joined, body: Callable[[], Awaitable[PicturesBody]]) -> ImagesResponse:
        """Return the answer of an ended generation. Raises Failure: the generation's, or that a picture is gone."""
        # An equal one, since the generation keeps its own for other callers: raising adds frames to an exception.
        failure = joined.generation.failure
        if failure is not None:
            raise failure.unraised()
        return ImagesResponse(await body(), lambda: self.engine.generations.lose(joined))


def describe(context: RequestContext, generation: Generation) -> None:
    """Describe the generation in the answer's headers: provider, model, submits, cost, what became of parameters."""
    origin = generation.origin()
    context.attempts = generation.submits
    headers = context.headers
    headers["x-images-attempts"] = str(generation.submits)
    if generation.pictures or generation.submitted:
        context.provider = origin.provider
        headers["x-images-provider"] = origin.provider
        headers["x-images-model"] = origin.model
        if origin.seed is not None:
            headers["x-images-seed"] = str(origin.seed)
    if generation.pictures:
        price = total([picture.price for picture in generation.pictures])
        headers["x-images-cost-source"] = price.source
        if price.amount is not None:
            headers["x-images-cost"] = decimal_text(price.amount)
    passed_over = [pair for progress in generation.progress for pair in progress.passed_over.values()]
    headers.pop("x-images-fallback", None)  # a route that was passed over may have been tried again since
    if passed_over:
        headers["x-images-fallback"] = "; ".join(dict.fromkeys(f"{provider}: {code}" for provider, code in passed_over))
    if origin.mapped:
        headers["x-images-mapped"] = "; ".join(origin.mapped)
    dropped = generation.request.told_dropped(origin)
    if dropped:
        headers["x-images-dropped"] = dropped
    if context.reattached:
        headers["x-images-reattached"] = "true"
    if generation.remaining is not None:
        headers[BUDGET_REMAINING] = decimal_text(generation.remaining)


def address(generation: Generation) -> str:
    """Return the path of a generation's own resource."""
    return f"/v1/images/generations/{generation.id}"


def fractions(generation: Generation) -> list[float]:
    """Return how far each job has come, from 0 to 1, as far as its provider says."""
    return [1.0 if each.state == "done" else each.fraction or 0.0 for each in generation.progress]
