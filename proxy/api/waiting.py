"""A request held until its pictures are ready, its caller leaves, or the hold is over."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api.admission import Admission
from proxy.api.body import CallerLeft
from proxy.api.closing import log_unattended_end
from proxy.api.context import RequestContext
from proxy.api.headers import attempt_of, hold_s, idempotency_key, preferences
from proxy.api.responses import AnswerBroken, Blanks, ImagesResponse, PicturesBody, images_body
from proxy.clock import Deadline
from proxy.engine import Engine
from proxy.errors import Failure, GenerationPending, Overloaded, RateLimited
from proxy.generations.record import Generation
from proxy.generations.runner import Joined
from proxy.requests.resolve import Candidate, ResolvedRequest

_TURNS = 20
"""Turns of the event loop in which whatever has arrived is read: accepting, the head, the body, the handler's start."""
_ARRIVAL_S, _LOOK_AGAIN_S = 1.0, 0.005
"""The longest wait for requests whose bodies are still being read, and the time between two looks at them."""
_SHOWABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_MAX_DROPPED_SHOWN = 20


class Waiting:
    """Where requests for pictures arrive: admission before the body, then a generation, then the wait."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        server = engine.settings.server
        self.admission = Admission(server.max_in_flight, server.max_per_key, engine.clock)
        self._arriving: WeakSet[RequestContext] = WeakSet()
        engine.metrics.requests_in_flight.set_function(lambda: self.admission.in_flight)

    def admit(self, request: Request) -> None:
        """Refuse early what could only start new work: full, over the key's limit, draining. Raises Failure."""
        context: RequestContext = request.state.context
        self._arriving.add(context)
        try:
            if self.engine.draining:
                raise Overloaded("This service is shutting down.", retry_after=2.0)
            self._may_start(context.owner)
        except (Overloaded, RateLimited):
            key, attempt = idempotency_key(context.asked), attempt_of(context.asked)
            if not self.engine.generations.expects(context.owner, key=key, attempt=attempt):
                raise

    async def join(self, request: Request, resolved: ResolvedRequest) -> Joined:
        """Find or start its generation. Raises Failure; CallerLeft if nobody is there to start it for."""
        context: RequestContext = request.state.context
        key, attempt = idempotency_key(context.asked), attempt_of(context.asked)
        self._arriving.discard(context)
        if attempt and not self.engine.generations.knows(resolved, key=key, attempt=attempt):
            await self._let_arrivals_be_read(context.owner)
        joined = self.engine.generations.join(
            resolved, key=key, attempt=attempt, may_start=lambda: self._may_start_for(context, resolved)
        )
        metrics = self.engine.metrics
        if joined.how is not None:
            context.reattached = True
            metrics.reattached.labels(joined.how).inc()
            metrics.duplicates_avoided.inc(resolved.request.n)
            if joined.how == "orphan":
                metrics.orphans_rescued.inc()
        context.model = resolved.public.name if resolved.public.name in self.engine.listed_names else "other"
        if joined.how is None:
            log_unattended_end(self.engine, joined.generation, context)
        return joined

    async def _let_arrivals_be_read(self, owner: str) -> None:
        """Let the requests that are already here find or start their generations.

        After a stall a repeat may be read before the request that it repeats: both would buy.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        until = Deadline.after(self.engine.clock, _ARRIVAL_S)
        before = [context for context in self._arriving if context.owner == owner]
        while any(context in self._arriving and not context.closed for context in before) and not until.passed:
            await self.engine.clock.sleep(_LOOK_AGAIN_S)

    def _may_start_for(self, context: RequestContext, resolved: ResolvedRequest) -> None:
        if context.has_left():
            context.left = True
            raise CallerLeft
        self._may_start(context.owner)
        self.engine.check_store(resolved)

    def _may_start(self, owner: str) -> None:
        self.admission.check(owner, self.engine.generations.running, self.engine.generations.running_of)

    async def serve(self, request: Request, resolved: ResolvedRequest) -> ASGIApp:
        """Answer ``resolved``: hold the request, or hand the job over when the caller prefers that. Raises Failure."""
        joined = await self.join(request, resolved)
        generation = joined.generation
        context: RequestContext = request.state.context
        preferred = preferences(context.asked)
        if "respond-async" in preferred and "wait" not in preferred and not generation.done:
            self.engine.generations.leave(joined, delivered=False)
            self.engine.generations.hand_over(generation)
            return job_status(generation, request)
        if self.engine.settings.timeouts.heartbeat and "wait" not in preferred:
            return BeatingAnswer(self, request, joined)
        try:
            await self.hold(request, joined)
        except GenerationPending:
            if "wait" not in preferred:
                raise
            self.engine.generations.hand_over(generation)
            return job_status(generation, request)
        return self.answer(request, joined)

    async def hold(self, request: Request, joined: Joined) -> None:
        """Wait for the generation's end. Raises GenerationPending, Overloaded when draining, CallerLeft."""
        context: RequestContext = request.state.context
        generation = joined.generation
        until = Deadline.after(self.engine.clock, hold_s(context.asked, self.engine.settings.timeouts.hold))
        ending = "left"
        with self.admission.hold(context.owner):
            try:
                ending = await generation.wait(request.receive, until)
            finally:
                self.engine.generations.leave(joined, delivered=ending == "done")
                if ending != "done":  # else the answer tells it
                    describe(context, generation)
        self.engine.metrics.hold_seconds.labels("images").observe(self.engine.clock.monotonic() - context.started)
        if ending == "left":
            context.left = True
            raise CallerLeft
        if ending == "late":
            raise pending(self.engine, generation)

    def answer(
        self, request: Request, joined: Joined, body: Callable[[], PicturesBody] | None = None
    ) -> ImagesResponse:
        """Return the answer of an ended generation: ``body``'s, or else OpenAI's for pictures. Raises its Failure."""
        generation = joined.generation
        context: RequestContext = request.state.context
        describe(context, generation)
        if generation.failure is not None:
            raise generation.failure.unraised()
        made = (
            body()
            if body
            else images_body(generation.resolved, generation.pictures, generation.created, context.origin)
        )
        return ImagesResponse(made, lambda: self.engine.generations.lose(joined))


class BeatingAnswer:
    """An answer that begins with blanks when it is long in coming, for balancers that cut silent connections.

    A blank commits it to status 200. What fails after that breaks it off, and the retry is told the true status.
    """

    def __init__(self, waiting: Waiting, request: Request, joined: Joined) -> None:
        self._waiting, self._request, self._joined = waiting, request, joined

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the request and answer it. Raises Failure as long as nothing was sent, then AnswerBroken; CallerLeft."""
        blanks = Blanks(send, self._waiting.engine.settings.timeouts.heartbeat)
        context: RequestContext = self._request.state.context
        try:
            async with blanks.sent(
                self._waiting.engine.clock.sleep, lambda: describe(context, self._joined.generation)
            ):
                await self._waiting.hold(self._request, self._joined)
            answer = self._waiting.answer(self._request, self._joined)
        except Failure as failure:
            if not blanks.begun:
                raise
            self._waiting.engine.generations.lose(self._joined)
            raise AnswerBroken(failure) from failure
        await (answer.send_body(receive, send) if blanks.begun else answer(scope, receive, send))


def pending(engine: Engine, generation: Generation) -> Failure:
    """Return the failure of a request that ends while its job runs on; a retry re-attaches to it."""
    headers = {"x-images-generation": job_path(generation)}
    if engine.draining:
        return Overloaded("This service is shutting down; the picture is not ready.", retry_after=1.0, headers=headers)
    message = "The picture is not ready yet. Repeat the call: it will wait for the same picture, at no further cost."
    return GenerationPending(message, retry_after=1.0, headers=headers)


def _asked(generation: Generation) -> Candidate:
    """Return the route that was asked last, or is going to be asked first."""
    asked = {progress.runtime.name for progress in generation.progress if progress.runtime is not None}
    candidates = generation.resolved.candidates
    return next((one for one in reversed(candidates) if one.route.provider in asked), candidates[0])


def describe(context: RequestContext, generation: Generation) -> None:
    """Put into the answer's headers who makes the pictures, by how many submits, and what became of the parameters."""
    made = generation.pictures[0].finished_job.candidate if generation.pictures else None
    candidate = made or _asked(generation)
    translation = candidate.translation
    context.attempts = generation.submits
    headers = context.headers
    headers["x-images-attempts"] = str(generation.submits)
    if made is not None or generation.submitted:
        context.provider = candidate.route.provider
        headers["x-images-provider"] = candidate.route.provider
        headers["x-images-model"] = candidate.route.model.name
        seed = _first_seed(generation, candidate)
        if seed is not None:
            headers["x-images-seed"] = str(seed)
    passed_over = [pair for progress in generation.progress for pair in progress.passed_over.values()]
    headers.pop("x-images-fallback", None)  # a route that was passed over may have been asked again since
    if passed_over:
        headers["x-images-fallback"] = "; ".join(dict.fromkeys(f"{provider}: {code}" for provider, code in passed_over))
    if translation.mapped:
        headers["x-images-mapped"] = "; ".join(translation.mapped)
    dropped = shown_names((*translation.dropped, *generation.resolved.checked.unknown))
    if dropped:
        headers["x-images-dropped"] = dropped
    if context.reattached:
        headers["x-images-reattached"] = "true"


def _first_seed(generation: Generation, candidate: Candidate) -> int | None:
    told = generation.pictures[0].finished_job.finished.seed if generation.pictures else None
    seed: int | None = candidate.translation.with_seed(generation.seed).get("seed") if told is None else told
    return seed


def shown_names(names: tuple[str, ...]) -> str:
    """Return parameter names for a header: those fit to be shown, at most 20, and how many more there are."""
    showable = [name for name in names if _SHOWABLE.match(name)][:_MAX_DROPPED_SHOWN]
    more = len(names) - len(showable)
    return ", ".join([*showable, f"+{more} more"] if more else showable)


def job_path(generation: Generation) -> str:
    """Return the path of a generation's job resource."""
    return f"/v1/images/generations/{generation.id}"


def job_status(generation: Generation, request: Request) -> Response:
    """Return 202 with how the generation is doing."""
    context: RequestContext = request.state.context
    describe(context, generation)
    states = [progress.state for progress in generation.progress]
    fractions = [1.0 if p.state == "done" else p.fraction or 0.0 for p in generation.progress]
    previews = [progress.preview for progress in generation.progress if progress.preview and progress.state != "done"]
    running = any(state in ("generating", "done") for state in states)
    body: dict[str, Any] = {
        "id": generation.id,
        "object": "image.generation",
        "created_at": generation.created,
        "status": "in_progress" if running else "queued",
        "progress": round(sum(fractions) / len(fractions), 3),
        "n": generation.resolved.request.n,
        "finished": states.count("done"),
        "url": f"{context.origin}{job_path(generation)}",
    }
    if previews:
        body["preview"] = previews[0]
    return JSONResponse(body, 202, {"location": job_path(generation), "retry-after": "1"})
