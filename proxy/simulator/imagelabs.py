"""ImageLabs: POST submit, POST poll, a page's headers instead of a key (facts, section 5)."""

import asyncio
import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.faults import (
    CHALLENGE_ON_POLL,
    CHALLENGE_ON_SUBMIT,
    POLL_FAULTS,
    SUBMIT_FAULTS,
    Behaviour,
    Behaviours,
    address,
    as_json,
    poll_fault,
    result_address,
    submit_fault,
)
from proxy.simulator.jobs import Job
from proxy.simulator.replies import challenge, json_reply
from proxy.simulator.scene import Drawing, measure
from proxy.simulator.simulation import Simulation
from proxy.simulator.words import Fault, strip_words

_DIALECT = "imagelabs"
_HEADERS = ("origin", "referer")
_DEFAULT_SIDE = 512
_SMALLEST, _LARGEST = 64, 4096
_QUEUED_S = 2.0
_SECONDS_PER_512_SQUARED = 4.0
"""Facts, 5.6: 512 pixels are quick, 1024 take many polls."""


def _no_task(fault: Fault) -> ASGIApp:
    return as_json({"message": "crafting failed"} if "missing" in fault.arguments else {"task_id": None})


def _not_json(fault: Fault) -> ASGIApp:
    page = "" if "empty" in fault.arguments else "<!DOCTYPE html><html><title>ImageLabs</title></html>"
    return Response(page, media_type="text/html")


def _refused_content(_: Fault) -> ASGIApp:
    return as_json({"task_id": None})


_NSFW = Behaviour(_refused_content, unless="status")

_SUBMIT: Behaviours = {
    **SUBMIT_FAULTS,
    "F19": Behaviour(_no_task),
    "F20": CHALLENGE_ON_SUBMIT,
    "F21": Behaviour(_not_json, unless="poll"),
    "F30": _NSFW,
    "nsfw": _NSFW,
}
_POLL: Behaviours = {
    **POLL_FAULTS,
    "F20": CHALLENGE_ON_POLL,
    "F21": Behaviour(_not_json, needs="poll"),
}


class ImageLabs:
    """The interface of ImageLabs' editor page, below ``/imagelabs``."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        return [
            Route("/txt2img", self.submit, methods=["POST"]),
            Route("/progress", self.poll, methods=["POST"]),
        ]

    async def submit(self, request: Request) -> ASGIApp:
        """Start a job."""
        body = await _body(request)
        texts = [str(body.get(name, "")) for name in ("prompt", "negative_prompt")]
        submission = self._simulation.arrive(_DIALECT, *texts)
        if not _from_the_page(request):
            return challenge()
        if reply := submit_fault(self._simulation, submission, _SUBMIT):
            return reply
        reference, complaint = await asyncio.to_thread(_reference, body)
        if complaint := complaint or _complaint(body):
            return as_json({"error": complaint}, 400)
        drawing = _drawing(body, reference)
        work = drawing.width * drawing.height / 512**2
        job = self._simulation.start(
            _DIALECT,
            submission.words,
            drawing,
            queued_s=_QUEUED_S,
            generating_s=_SECONDS_PER_512_SQUARED * work,
        )
        return json_reply({"task_id": job.id}, job.words)

    async def poll(self, request: Request) -> ASGIApp:
        """Answer with the task's progress."""
        body = await _body(request)
        if not _from_the_page(request):
            return challenge()
        job = self._simulation.jobs.find(str(body.get("task_id")), _DIALECT)
        if job is None:
            self._simulation.tally.add("polls", "")
            return as_json({"error": "unknown task"}, 404)
        fault = poll_fault(self._simulation, job, _POLL)
        return fault or json_reply(self._progress(request, job), job.words)

    def _progress(self, request: Request, job: Job) -> dict[str, Any]:
        now = self._simulation.clock.monotonic()
        state, words = job.state(now), job.words
        done = state == "finished"
        answer: dict[str, Any] = {
            "status": {"queued": "Queued", "generating": "In Progress", "finished": "Done"}[state],
            "progress": round(job.progress(now), 4),
            "current_image_url": None,
            "final_image_url": result_address(request, job) if done else None,
        }
        if state == "generating":
            answer["current_image_url"] = f"{address(request)}/pictures/{job.id}-preview.png"
        if words.has("F25"):
            answer |= {"progress": 0.4, "status": "In Progress"}
            answer["current_image_url"] = f"{address(request)}/pictures/{job.id}-preview.png"
        if done and words.has("F22"):
            answer["final_image_url"] = None
        if done and words.has("F24"):
            answer["status"] = "In Progress"
        if done and words.has("F26", "failed", "F30", "nsfw"):
            answer |= {"status": "Error: generation failed", "final_image_url": None, "code": 17, "detail": {}}
        if odd := words.fault("F23"):
            answer["status"] = "Simmering" if "unknown" in odd.arguments else None
            if "missing" in odd.arguments:
                del answer["status"]
        return answer


def _from_the_page(request: Request) -> bool:
    """Whether the call bears the headers that the editor's own page sends."""
    headers = request.headers
    return all(headers.get(name) for name in _HEADERS) and headers.get("x-requested-with") == "XMLHttpRequest"


async def _body(request: Request) -> dict[str, Any]:
    try:
        value = await request.json()
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _complaint(body: Mapping[str, Any]) -> str:
    """Return what is wrong with a submit; empty when nothing is."""
    if not isinstance(body.get("prompt"), str) or not body["prompt"]:
        return "prompt is required"
    for name in ("seed", "subseed"):
        if not isinstance(body.get(name, ""), str):
            return f"{name} must be a string"
    for name in ("width", "height"):
        side = body.get(name, _DEFAULT_SIDE)
        if isinstance(side, bool) or not isinstance(side, int) or not _SMALLEST <= side <= _LARGEST:
            return f"{name} must be an integer from {_SMALLEST} to {_LARGEST}"
    strength = body.get("reference_strength", 0)
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 100:
        return "reference_strength must be a number from 0 to 100"
    return ""


def _reference(body: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """Return the reference picture and what is wrong with it. The encoding isn't known, so several are taken."""
    value = body.get("reference_image")
    if not value:
        return None, ""
    if not isinstance(value, str):
        return None, "reference_image must be a string"
    if value.startswith(("http://", "https://")):
        return None, ""
    try:
        data = base64.b64decode(value.rpartition(",")[2], validate=True)
    except (ValueError, binascii.Error):
        data = b""
    return (data, "") if measure(data) else (None, "reference_image is not a picture")


def _drawing(body: Mapping[str, Any], reference: bytes | None) -> Drawing:
    seed = body.get("seed", "")
    return Drawing(
        width=body.get("width", _DEFAULT_SIDE),
        height=body.get("height", _DEFAULT_SIDE),
        prompt=strip_words(body["prompt"]),
        model="ImageLabs",
        seed=int(seed) if seed.isdecimal() and len(seed) < 20 else zlib.crc32(seed.encode()),
        image=reference,
        # A percent scale is presumed: a strong reference leaves the picture nearly as it was.
        strength=1 - body.get("reference_strength", 30) / 100,
    )
