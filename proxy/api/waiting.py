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
from proxy.api.context import Visit
from proxy.api.headers import attempt_of, hold_s, idempotency_key, preferences
from proxy.api.responses import AnswerBroken, Blanks, ImagesResponse, PicturesBody, images_body
from proxy.clock import Deadline
from proxy.engine import Engine
from proxy.errors import Failure, GenerationPending, Overloaded, RateLimited
from proxy.generations.record import Flight
from proxy.generations.runner import Boarding
from proxy.requests.resolve import Candidate, Order

_TURNS = 20
"""Turns of the event loop in which whatever has arrived is read: accepting, the head, the body, the handler's start."""
_ARRIVAL_S, _LOOK_AGAIN_S = 1.0, 0.005
"""The longest wait for requests whose bodies are still being read, and the time between two looks at them."""
_SHOWABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_MAX_DROPPED_SHOWN = 20


class Desk:
    """Where requests for pictures arrive: admission before the body, then a flight, then the wait."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        server = engine.settings.server
        self.admission = Admission(server.max_in_flight, server.max_per_key, engine.clock)
        self._arriving: WeakSet[Visit] = WeakSet()
        engine.metrics.requests_in_flight.set_function(lambda: self.admission.in_flight)

    def admit(self, request: Request) -> None:
        """Refuse early what could only start new work: full, over the key's limit, draining. Raises Failure."""
        visit: Visit = request.state.visit
        self._arriving.add(visit)
        try:
            if self.engine.draining:
                raise Overloaded("This service is shutting down.", retry_after=2.0)
            self._may_start(visit.owner)
        except (Overloaded, RateLimited):
            key, attempt = idempotency_key(visit.asked), attempt_of(visit.asked)
            if not self.engine.flights.expects(visit.owner, key=key, attempt=attempt):
                raise

    async def board(self, request: Request, order: Order) -> Boarding:
        """Find or start the flight for ``order``. Raises Failure, CallerLeft if there is nobody to start one for."""
        visit: Visit = request.state.visit
        key, attempt = idempotency_key(visit.asked), attempt_of(visit.asked)
        self._arriving.discard(visit)
        if attempt and not self.engine.flights.knows(order, key=key, attempt=attempt):
            await self._let_arrivals_be_read(visit.owner)
        boarding = self.engine.flights.board(
            order, key=key, attempt=attempt, may_start=lambda: self._may_start_for(visit, order)
        )
        metrics = self.engine.metrics
        if boarding.how is not None:
            visit.reattached = True
            metrics.reattached.labels(boarding.how).inc()
            metrics.duplicates_avoided.inc(order.request.n)
            if boarding.how == "orphan":
                metrics.orphans_rescued.inc()
        visit.model = order.public.name if order.public.name in self.engine.listed_names else "other"
        if boarding.how is None:
            log_unattended_end(self.engine, boarding.flight, visit)
        return boarding

    async def _let_arrivals_be_read(self, owner: str) -> None:
        """Let the requests that are already here find or start their flights.

        After a stall a repeat may be read before the request that it repeats: both would buy.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        until = Deadline.after(self.engine.clock, _ARRIVAL_S)
        before = [visit for visit in self._arriving if visit.owner == owner]
        while any(visit in self._arriving and not visit.closed for visit in before) and not until.passed:
            await self.engine.clock.sleep(_LOOK_AGAIN_S)

    def _may_start_for(self, visit: Visit, order: Order) -> None:
        if visit.has_left():
            visit.left = True
            raise CallerLeft
        self._may_start(visit.owner)
        self.engine.check_store(order)

    def _may_start(self, owner: str) -> None:
        self.admission.check(owner, self.engine.flights.in_air, self.engine.flights.in_air_of)

    async def serve(self, request: Request, order: Order) -> ASGIApp:
        """Answer ``order``: hold the request, or hand the job over when the caller prefers that. Raises Failure."""
        boarding = await self.board(request, order)
        flight = boarding.flight
        visit: Visit = request.state.visit
        preferred = preferences(visit.asked)
        if "respond-async" in preferred and "wait" not in preferred and not flight.done:
            self.engine.flights.leave(boarding, delivered=False)
            self.engine.flights.hand_over(flight)
            return job_status(flight, request)
        if self.engine.settings.timeouts.heartbeat and "wait" not in preferred:
            return BeatingAnswer(self, request, boarding)
        try:
            await self.hold(request, boarding)
        except GenerationPending:
            if "wait" not in preferred:
                raise
            self.engine.flights.hand_over(flight)
            return job_status(flight, request)
        return self.answer(request, boarding)

    async def hold(self, request: Request, boarding: Boarding) -> None:
        """Wait for the flight's end. Raises GenerationPending, Overloaded when draining, CallerLeft."""
        visit: Visit = request.state.visit
        flight = boarding.flight
        until = Deadline.after(self.engine.clock, hold_s(visit.asked, self.engine.settings.timeouts.hold))
        ending = "left"
        with self.admission.hold(visit.owner):
            try:
                ending = await flight.wait(request.receive, until)
            finally:
                self.engine.flights.leave(boarding, delivered=ending == "done")
                if ending != "done":  # else the answer tells it
                    describe(visit, flight)
        self.engine.metrics.hold_seconds.labels("images").observe(self.engine.clock.monotonic() - visit.started)
        if ending == "left":
            visit.left = True
            raise CallerLeft
        if ending == "late":
            raise pending(self.engine, flight)

    def answer(
        self, request: Request, boarding: Boarding, body: Callable[[], PicturesBody] | None = None
    ) -> ImagesResponse:
        """Return the answer of an ended flight: ``body``'s, or else OpenAI's for pictures. Raises its Failure."""
        flight = boarding.flight
        visit: Visit = request.state.visit
        describe(visit, flight)
        if flight.failure is not None:
            raise flight.failure.with_traceback(None)
        made = body() if body else images_body(flight.order, flight.pictures, flight.created, visit.origin)
        return ImagesResponse(made, lambda: self.engine.flights.lose(boarding))


class BeatingAnswer:
    """An answer that begins with blanks when it is long in coming, for balancers that cut silent connections.

    A blank commits it to status 200. What fails after that breaks it off, and the retry is told the true status.
    """

    def __init__(self, desk: Desk, request: Request, boarding: Boarding) -> None:
        self._desk, self._request, self._boarding = desk, request, boarding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the request and answer it. Raises Failure as long as nothing was sent, then AnswerBroken; CallerLeft."""
        blanks = Blanks(send, self._desk.engine.settings.timeouts.heartbeat)
        visit: Visit = self._request.state.visit
        try:
            async with blanks.sent(self._desk.engine.clock.sleep, lambda: describe(visit, self._boarding.flight)):
                await self._desk.hold(self._request, self._boarding)
            answer = self._desk.answer(self._request, self._boarding)
        except Failure as failure:
            if not blanks.begun:
                raise
            self._desk.engine.flights.lose(self._boarding)
            raise AnswerBroken(failure) from failure
        await (answer.send_body(receive, send) if blanks.begun else answer(scope, receive, send))


def pending(engine: Engine, flight: Flight) -> Failure:
    """Return the failure of a request that ends while its job runs on; a retry re-attaches to it."""
    headers = {"x-images-job": job_path(flight)}
    if engine.draining:
        return Overloaded("This service is shutting down; the picture is not ready.", retry_after=1.0, headers=headers)
    message = "The picture is not ready yet. Repeat the call: it will wait for the same picture, at no further cost."
    return GenerationPending(message, retry_after=1.0, headers=headers)


def _asked(flight: Flight) -> Candidate:
    """Return the route that was asked last, or is going to be asked first."""
    asked = {progress.outlet.name for progress in flight.progress if progress.outlet is not None}
    candidates = flight.order.candidates
    return next((one for one in reversed(candidates) if one.route.provider in asked), candidates[0])


def describe(visit: Visit, flight: Flight) -> None:
    """Put into the answer's headers who makes the pictures, by how many submits, and what became of the parameters."""
    made = flight.pictures[0].made.candidate if flight.pictures else None
    candidate = made or _asked(flight)
    translation = candidate.translation
    visit.attempts = flight.submits
    headers = visit.headers
    headers["x-images-attempts"] = str(flight.submits)
    if made is not None or flight.submitted:
        visit.provider = candidate.route.provider
        headers["x-images-provider"] = candidate.route.provider
        headers["x-images-model"] = candidate.route.model.name
        seed = _first_seed(flight, candidate)
        if seed is not None:
            headers["x-images-seed"] = str(seed)
    passed_over = [pair for progress in flight.progress for pair in progress.passed_over.values()]
    headers.pop("x-images-fallback", None)  # a route that was passed over may have been asked again since
    if passed_over:
        headers["x-images-fallback"] = "; ".join(dict.fromkeys(f"{provider}: {code}" for provider, code in passed_over))
    if translation.mapped:
        headers["x-images-mapped"] = "; ".join(translation.mapped)
    dropped = shown_names((*translation.dropped, *flight.order.wish.unknown))
    if dropped:
        headers["x-images-dropped"] = dropped
    if visit.reattached:
        headers["x-images-reattached"] = "true"


def _first_seed(flight: Flight, candidate: Candidate) -> int | None:
    told = flight.pictures[0].made.finished.seed if flight.pictures else None
    seed: int | None = candidate.translation.with_seed(flight.seed).get("seed") if told is None else told
    return seed


def shown_names(names: tuple[str, ...]) -> str:
    """Return parameter names for a header: those fit to be shown, at most 20, and how many more there are."""
    showable = [name for name in names if _SHOWABLE.match(name)][:_MAX_DROPPED_SHOWN]
    more = len(names) - len(showable)
    return ", ".join([*showable, f"+{more} more"] if more else showable)


def job_path(flight: Flight) -> str:
    """Return the path of a flight's job resource."""
    return f"/v1/images/jobs/{flight.id}"


def job_status(flight: Flight, request: Request) -> Response:
    """Return 202 with how the flight is doing."""
    visit: Visit = request.state.visit
    describe(visit, flight)
    states = [progress.state for progress in flight.progress]
    fractions = [1.0 if p.state == "done" else p.fraction or 0.0 for p in flight.progress]
    previews = [progress.preview for progress in flight.progress if progress.preview and progress.state != "done"]
    running = any(state in ("generating", "done") for state in states)
    body: dict[str, Any] = {
        "id": flight.id,
        "object": "image.job",
        "created_at": flight.created,
        "status": "in_progress" if running else "queued",
        "progress": round(sum(fractions) / len(fractions), 3),
        "n": flight.order.request.n,
        "finished": states.count("done"),
        "url": f"{visit.origin}{job_path(flight)}",
    }
    if previews:
        body["preview"] = previews[0]
    return JSONResponse(body, 202, {"location": job_path(flight), "retry-after": "1"})
