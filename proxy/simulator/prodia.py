"""Prodia v2: one blocking POST that answers with bytes, and its asynchronous variant. https://docs.prodia.com"""

import asyncio
import uuid
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.faults import COMMON, Behaviour, Behaviours, Dialect, plain
from proxy.simulator.pictures import deliver_picture, picture_of
from proxy.simulator.prodia_forms import Submit, accepted_form, describe, filename, multipart, read_submit
from proxy.simulator.prodia_types import JOB_TYPES, PING
from proxy.simulator.replies import cut, deliver, hang, json_reply
from proxy.simulator.simulation import Job
from proxy.simulator.words import Fault, Words

_KEEP_S = 300.0
"""``expires_at`` is exactly five minutes after ``created_at``."""


def _error(error: str) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "error": f"jsonschema validation failed with 'config#'\n- {error}"}


def _refused(error: str) -> Response:
    return JSONResponse(_error(error), 400)


def _invalid(fault: Fault) -> ASGIApp:
    if "object" in fault.arguments:
        return JSONResponse({"detail": {"field": "steps", "reason": "must be at most 4"}}, 400)
    if "detail" in fault.arguments:
        return JSONResponse({"detail": "steps must be at most 4"}, 400)
    body, media_type = multipart(_error("at '/steps': maximum: got 1,000, want 4"))
    return Response(body, 400, media_type=media_type)


class Prodia(Dialect):
    """The second version of Prodia's interface, below ``/v2``."""

    name, prefix, key, hosted = "prodia", "/v2", "demo-token", False
    behaviours: ClassVar[Behaviours] = {
        **COMMON,
        "401": plain(401, "token is invalid"),
        "invalid": Behaviour(_invalid),
        "unsafe": Behaviour(lambda _: _refused("prompt: rejected by the content filter (NSFW)")),
    }

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        job = "/job/async/{id}"
        return [
            Route("/job", self._run, methods=["POST"]),
            Route("/job/async", self._begin, methods=["POST"]),
            Route(f"{job}/job.state.current", self._state, methods=["GET"]),
            Route(f"{job}/job.json", self._describe, methods=["GET"]),
            Route(f"{job}/output", self._outputs, methods=["GET"]),
            Route(f"{job}/output/{{filename}}", self._output, methods=["GET"]),
        ]

    def _refusal(self, request: Request) -> ASGIApp | None:
        right = f"Bearer {self.right_key}"
        return None if request.headers.get("authorization") == right else PlainTextResponse("token is invalid", 401)

    async def _run(self, request: Request) -> ASGIApp:
        submit = await read_submit(request)
        if submit.type == PING:  # not counted as a submit: it makes no picture
            done = {"id": str(uuid.uuid4()), "type": PING, "state": {"current": "completed", "history": None}}
            return self._refusal(request) or JSONResponse(done)
        form, image_format = accepted_form(request.headers.get("accept"))
        words, reply = await self._check(request, submit)
        if reply is None and form is None:
            reply = _refused("Accept: none of the listed types can be made")
        if reply is not None:
            return reply
        job = await self._start(submit, words, image_format)
        if words.has("stuck"):
            return hang
        await self.simulation.clock.sleep(job.duration_s)
        return await self._answer(job, form, price=request.query_params.get("price") == "true")

    async def _begin(self, request: Request) -> ASGIApp:
        submit = await read_submit(request)
        if submit.type == PING:
            return self._refusal(request) or _refused("this job type does not permit async")
        words, reply = await self._check(request, submit)
        if reply is None and words.has("no-async"):
            reply = _refused("this job type does not permit async")
        if reply is not None:
            return reply
        job = await self._start(submit, words, accepted_form(request.headers.get("accept"))[1])
        return json_reply(describe(job, "processing"), words, 201)

    async def _state(self, request: Request) -> ASGIApp:
        job = self.ask(request, request.path_params["id"])
        return PlainTextResponse(self._word(job)) if isinstance(job, Job) else job

    async def _describe(self, request: Request) -> ASGIApp:
        job = self.ask(request, request.path_params["id"])
        if not isinstance(job, Job):
            return job
        # The same success is "processed" in job.state.current and "completed" here.
        word = self._word(job).replace("processed", "completed")
        return json_reply(describe(job, word, price=request.query_params.get("price") == "true"), job.words)

    async def _outputs(self, request: Request) -> ASGIApp:
        job = self._find(request)
        if not isinstance(job, Job):
            return job
        bad = job.words.fault("bad-url")
        done = self._word(job) == "processed" and not job.words.has("no-picture")
        return json_reply([bad.text if bad else filename(job)] if done else [], job.words)

    async def _output(self, request: Request) -> ASGIApp:
        job = self._find(request)
        if not isinstance(job, Job):
            return job
        self.simulation.count("fetches", job.words.tag)
        if request.path_params["filename"] != filename(job) or self._word(job) != "processed":
            return PlainTextResponse("Not Found", 404)
        return await deliver_picture(self.simulation, job, job.details["format"])

    async def _check(self, request: Request, submit: Submit) -> tuple[Words, ASGIApp | None]:
        words, reply = self.admit(request, *submit.texts)
        if reply is None and submit.type not in JOB_TYPES and not submit.malformed:
            # Not 400: Prodia answers an unknown type like a lack of capacity (docs/providers.md).
            reply = PlainTextResponse("no capacity for this job type", 429)
        if reply is None and (complaint := await asyncio.to_thread(submit.complaint)):
            reply = _refused(complaint)
        return words, reply

    async def _start(self, submit: Submit, words: Words, image_format: str) -> Job:
        seed, seconds = self.simulation.seed(), JOB_TYPES[submit.type][0]
        drawing = await asyncio.to_thread(submit.drawing, seed)
        echo = {"format": image_format, "type": submit.type, "config": submit.settled(seed)}
        return self.simulation.start(self.name, words, drawing, 0.1 * seconds, 0.9 * seconds, _KEEP_S, **echo)

    def _find(self, request: Request) -> Job | ASGIApp:
        """Return the job, or the refusal: without the token, or for a job that is unknown or expired."""
        job = self.simulation.find(request.path_params["id"], self.name)
        if refusal := self._refusal(request):
            return refusal
        return PlainTextResponse("Not Found", 404) if job is None or job.words.has("gone") else job

    def _word(self, job: Job) -> str:
        if self.simulation.state(job) != "finished":
            return "processing"
        return "failed" if job.words.has("failed") else "processed"

    async def _answer(self, job: Job, form: str | None, *, price: bool) -> ASGIApp:
        words = job.words
        if words.has("failed"):
            return json_reply(describe(job, "failed"), words)
        description = describe(job, "completed", price=price)
        if form == "json" or words.has("no-picture"):
            return json_reply(description, words)
        data, media_type = await picture_of(job, job.details["format"])
        broken = words.fault("broken-multipart")
        if broken or form == "multipart":
            data, media_type = multipart(description, (filename(job), media_type, data), broken)
        if words.has("wrong-type"):
            return Response(data, media_type="text/html")
        if words.has("cut"):
            return cut(data, media_type)
        return deliver(data, media_type, words, self.simulation.clock.sleep)
