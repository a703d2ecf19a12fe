"""ImageLabs: POST submit, POST poll, a page's headers for a key. https://github.com/xtekky/gpt4free had a client."""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.faults import COMMON, Behaviour, Behaviours, Dialect, decoded, json_object, picture_address
from proxy.simulator.replies import CHALLENGE, json_reply
from proxy.simulator.scene import Drawing
from proxy.simulator.schema import Schema, number, problem, sides, string
from proxy.simulator.simulation import Job
from proxy.simulator.words import Fault, strip_words

_SIDE = 512
_QUEUED_S = 2.0
_SECONDS_PER_512_SQUARED = 4.0
_SCHEMA: Schema = {
    "prompt": string(1, required=True),
    "negative_prompt": string(),
    "seed": string(),
    "subseed": string(),
    **sides(64, 4096),
    "reference_strength": number(0, 100),
}
_STATUS = {"queued": "Queued", "generating": "In Progress", "finished": "Done"}


def _no_task(fault: Fault) -> ASGIApp:
    return JSONResponse({"message": "crafting failed"} if "missing" in fault.arguments else {"task_id": None})


class ImageLabs(Dialect):
    """The interface of ImageLabs' editor page, below ``/imagelabs``."""

    name, prefix = "imagelabs", "/imagelabs"
    unknown_job = JSONResponse({"error": "unknown task"}, 404)
    behaviours: ClassVar[Behaviours] = {
        **COMMON,
        "no-job": Behaviour(_no_task),
        "unsafe": Behaviour(_no_task),
        "invalid": Behaviour(lambda _: JSONResponse({"error": "a parameter is invalid"}, 400)),
    }

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        return [
            Route("/txt2img", self._submit, methods=["POST"]),
            Route("/progress", self._poll, methods=["POST"]),
        ]

    def _refusal(self, request: Request) -> ASGIApp | None:
        headers = request.headers
        page = headers.get("origin") and headers.get("referer") and headers.get("x-requested-with") == "XMLHttpRequest"
        return None if page else HTMLResponse(CHALLENGE, 403)

    async def _submit(self, request: Request) -> ASGIApp:
        body = await json_object(request)
        words, reply = self.admit(request, str(body.get("prompt", "")), str(body.get("negative_prompt", "")))
        if reply is not None:
            return reply
        if complaint := problem(_SCHEMA, {name: value for name, value in body.items() if name in _SCHEMA}):
            return JSONResponse({"error": complaint}, 400)
        drawing = await asyncio.to_thread(_drawing, body)
        if drawing is None:
            return JSONResponse({"error": "at '/reference_image': not a picture"}, 400)
        generating_s = _SECONDS_PER_512_SQUARED * drawing.width * drawing.height / 512**2
        job = self.simulation.start(self.name, words, drawing, _QUEUED_S, generating_s)
        return json_reply({"task_id": job.id}, words)

    async def _poll(self, request: Request) -> ASGIApp:
        job = self.ask(request, str((await json_object(request)).get("task_id")))
        return json_reply(self._progress(request, job), job.words) if isinstance(job, Job) else job

    def _progress(self, request: Request, job: Job) -> dict[str, Any]:
        state, words = self.simulation.state(job), job.words
        done, stuck = state == "finished", state == "generating" and words.has("stuck")
        answer: dict[str, Any] = {
            "status": _STATUS["generating" if words.has("early-picture") and done else state],
            "progress": 0.4 if stuck else round(job.progress(self.simulation.clock.monotonic()), 4),
            "current_image_url": None,
            "final_image_url": picture_address(request, job) if done and not words.has("no-picture") else None,
        }
        if state == "generating":
            answer["current_image_url"] = picture_address(request, job, "-preview")
        if done and words.has("failed"):
            answer |= {"status": "Error: generation failed", "final_image_url": None, "code": 17, "detail": {}}
        if odd := words.fault("odd-status"):
            answer["status"] = "Simmering" if odd.text == "unknown" else None
            if odd.text == "missing":
                del answer["status"]
        return answer


def _drawing(body: Mapping[str, Any]) -> Drawing | None:
    """Return what to draw; None if the reference is no picture. Its form isn't known, so several are accepted."""
    reference, seed = str(body.get("reference_image") or ""), body.get("seed", "")
    given = None
    if reference and not reference.startswith(("http://", "https://")):
        given = decoded(reference.rpartition(",")[2])
        if given is None:
            return None
    # Seeds are texts in this dialect; words too make the same picture each time.
    number = int(seed) if seed.isdecimal() and len(seed) < 20 else zlib.crc32(seed.encode())
    size = int(body.get("width", _SIDE)), int(body.get("height", _SIDE))
    # Presumed to be percent, where a strong reference leaves the picture nearly as it was.
    strength = 1 - body.get("reference_strength", 30) / 100
    return Drawing(*size, strip_words(body["prompt"]), "ImageLabs", number, image=given, strength=strength)
