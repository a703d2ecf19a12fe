"""Prodia v2: one blocking POST that answers with bytes, and its asynchronous variant (facts, section 3)."""

import asyncio
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.catalogue import JOB_TYPES, PING
from proxy.simulator.faults import (
    POLL_FAULTS,
    SUBMIT_FAULTS,
    Behaviour,
    Behaviours,
    as_json,
    plain,
    poll_fault,
    submit_fault,
)
from proxy.simulator.job_replies import accepted_form, broken_multipart, describe, filename, multipart
from proxy.simulator.jobs import Job
from proxy.simulator.orders import Order, read_order
from proxy.simulator.pictures import picture_of
from proxy.simulator.replies import Cut, deliver, json_reply, text
from proxy.simulator.simulation import Simulation
from proxy.simulator.words import Fault, Words

_DIALECT = "prodia"
_KEEP_S = 300.0
"""``expires_at`` is exactly five minutes after ``created_at``."""

_NSFW = "prompt: rejected by the content filter (NSFW)"
_QUEUED_SHARE = 0.1


def _refused(error: str) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "error": f"jsonschema validation failed with 'config#'\n- {error}"}


def _refused_multipart(_: Fault) -> ASGIApp:
    body, media_type = multipart(_refused("at '/steps': maximum: got 1,000, want 4"))
    return Response(body, 400, media_type=media_type)


def _detail(fault: Fault) -> ASGIApp:
    in_words = "steps must be at most 4"
    is_object = "object" in fault.arguments
    return as_json({"detail": {"field": "steps", "reason": in_words} if is_object else in_words}, 400)


def _wait(fault: Fault) -> ASGIApp:
    return text("capacity reached", 429, {"retry-after": f"{fault.number(1, 2):g}"})


_NSFW_REFUSAL = Behaviour(lambda _: as_json(_refused(_NSFW), 400))

_SUBMIT: Behaviours = {
    **SUBMIT_FAULTS,
    "401": plain(401, "token is invalid"),
    "F10": plain(401, "token is invalid"),
    "F11": Behaviour(_wait, times=1),
    "F12": plain(429, "no capacity for this job type"),
    "F13": Behaviour(_refused_multipart),
    "F14": Behaviour(_detail),
    "F30": _NSFW_REFUSAL,
    "nsfw": _NSFW_REFUSAL,
}

_POLL: Behaviours = {**POLL_FAULTS, "F17": Behaviour(lambda _: text("Not Found", 404), times=0, when="after")}


class Prodia:
    """The second version of Prodia's interface, below ``/v2``."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        job = "/job/async/{id}"
        return [
            Route("/job", self.run, methods=["POST"]),
            Route("/job/async", self.begin, methods=["POST"]),
            Route(f"{job}/job.state.current", self.state, methods=["GET"]),
            Route(f"{job}/job.json", self.describe, methods=["GET"]),
            Route(f"{job}/output", self.outputs, methods=["GET"]),
            Route(f"{job}/output/{{filename}}", self.output, methods=["GET"]),
        ]

    async def run(self, request: Request) -> ASGIApp:
        """Make a picture and answer with it; the call lasts as long as the job."""
        order = await read_order(request)
        accepted = accepted_form(request.headers.get("accept"))
        words, reply = await self._admit(request, order)
        if reply is None and accepted is None:
            reply = as_json(_refused("Accept: none of the listed types can be made"), 400)
        if reply is not None or accepted is None:
            return reply or text("", 400)
        if order.type == PING:
            return as_json({"id": str(uuid.uuid4()), "type": PING, "state": {"current": "completed", "history": None}})
        job = await self._start(order, words, accepted[1])
        await self._simulation.clock.sleep(job.duration_s)
        return await self._answer(job, accepted[0], price=_priced(request))

    async def begin(self, request: Request) -> ASGIApp:
        """Start a job and answer with its description."""
        order = await read_order(request)
        words, reply = await self._admit(request, order)
        if reply is not None:
            return reply
        if order.type == PING:
            return as_json(_refused("this job type does not permit async"), 400)
        accepted = accepted_form(request.headers.get("accept"))
        job = await self._start(order, words, accepted[1] if accepted else "jpeg")
        return json_reply(describe(job, "processing", price=_priced(request)), words, 201)

    async def state(self, request: Request) -> ASGIApp:
        """Answer with the bare state word."""
        job = self._ask(request)
        return text(self._word(job)) if isinstance(job, Job) else job

    async def describe(self, request: Request) -> ASGIApp:
        """Answer with the job's description."""
        job = self._ask(request)
        if not isinstance(job, Job):
            return job
        word = self._word(job)
        # Facts, 3.3: the same success is called processed in one place and completed in the other.
        state = "completed" if word == "processed" else word
        return json_reply(describe(job, state, price=_priced(request)), job.words)

    async def outputs(self, request: Request) -> ASGIApp:
        """Answer with the names of the job's files."""
        job = self._find(request)
        if not isinstance(job, Job):
            return job
        bad = job.words.fault("badurl")
        done = self._word(job) == "processed" and not job.words.has("F18")
        names = [bad.text if bad else filename(job)] if done else []
        return json_reply(names, job.words)

    async def output(self, request: Request) -> ASGIApp:
        """Answer with one of the job's files."""
        job = self._find(request)
        if not isinstance(job, Job):
            return job
        self._simulation.tally.add("fetches", job.words.tag)
        if request.path_params["filename"] != filename(job) or self._word(job) != "processed":
            return text("Not Found", 404)
        data, media_type = await picture_of(job, job.details["format"])
        return deliver(data, media_type, job.words, self._simulation.clock.sleep)

    async def _admit(self, request: Request, order: Order) -> tuple[Words, ASGIApp | None]:
        if order.type == PING:
            return Words(), self._unauthorized(request)
        submission = self._simulation.arrive(_DIALECT, *order.texts)
        reply = self._unauthorized(request) or submit_fault(self._simulation, submission, _SUBMIT)
        if reply is None and not order.known and not order.malformed:
            # Facts, 3.5: the answer to an unknown type, deliberately the same as to a lack of capacity.
            reply = text("no capacity for this job type", 429)
        if reply is None and (complaint := await asyncio.to_thread(order.complaint)):
            reply = as_json(_refused(complaint), 400)
        return submission.words, reply

    def _unauthorized(self, request: Request) -> Response | None:
        right = f"Bearer {self._simulation.tokens.prodia}"
        return None if request.headers.get("authorization") == right else text("token is invalid", 401)

    async def _start(self, order: Order, words: Words, image_format: str) -> Job:
        seed = self._simulation.seed()
        seconds = JOB_TYPES[order.type or ""].seconds
        return self._simulation.start(
            _DIALECT,
            words,
            await asyncio.to_thread(order.drawing, seed),
            queued_s=seconds * _QUEUED_SHARE,
            generating_s=seconds * (1 - _QUEUED_SHARE),
            keep_s=_KEEP_S,
            details={"format": image_format, "type": order.type, "config": order.settled(seed)},
        )

    def _find(self, request: Request) -> Job | ASGIApp:
        """Return the job, or the refusal: without the token, or for a job that is unknown or expired."""
        job = self._simulation.jobs.find(request.path_params["id"], _DIALECT)
        if refusal := self._unauthorized(request):
            return refusal
        return text("Not Found", 404) if job is None or job.words.has("F17") else job

    def _ask(self, request: Request) -> Job | ASGIApp:
        """Count a poll and return the job, or what is answered instead."""
        job = self._simulation.jobs.find(request.path_params["id"], _DIALECT)
        refusal = self._unauthorized(request)
        if job is None or refusal:
            self._simulation.tally.add("polls", job.words.tag if job else "")
            return refusal or text("Not Found", 404)
        return poll_fault(self._simulation, job, _POLL) or job

    def _word(self, job: Job) -> str:
        if job.state(self._simulation.clock.monotonic()) != "finished":
            return "processing"
        return "failed" if job.words.has("failed") else "processed"

    async def _answer(self, job: Job, form: str, *, price: bool) -> ASGIApp:
        words, sleep = job.words, self._simulation.clock.sleep
        if words.has("failed"):
            return json_reply(describe(job, "failed", price=price), words)
        if form == "json" or words.has("F15"):
            return json_reply(describe(job, "completed", price=price), words)
        data, media_type = await picture_of(job, job.details["format"])
        fault = words.fault("F16")
        if fault or form == "multipart":
            description, output = describe(job, "completed", price=price), (filename(job), media_type, data)
            if fault:
                data, media_type = broken_multipart(description, output, fault)
            else:
                data, media_type = multipart(description, output)
        if cut := words.fault("F29"):
            return Response(data, media_type="text/html") if "type" in cut.arguments else Cut(data, media_type)
        return deliver(data, media_type, words, sleep)


def _priced(request: Request) -> bool:
    return request.query_params.get("price") == "true"
