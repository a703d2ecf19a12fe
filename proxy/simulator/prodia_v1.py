"""Prodia v1: keyed, JSON submit, polled, pictures at a public address (facts, section 2)."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.checkpoints import (
    ASPECT_RATIOS,
    SAMPLERS,
    SD_MODELS,
    SDXL_DEFAULT,
    SDXL_MODELS,
    STYLE_PRESETS,
    V1_DEFAULT,
)
from proxy.simulator.faults import (
    POLL_FAULTS,
    SUBMIT_FAULTS,
    Behaviour,
    Behaviours,
    as_json,
    plain,
    poll_fault,
    result_address,
    submit_fault,
)
from proxy.simulator.jobs import Job
from proxy.simulator.replies import json_reply, text
from proxy.simulator.scene import Drawing, measure
from proxy.simulator.schemas import Choice, Field, Flag, Number, Text, problem
from proxy.simulator.simulation import Simulation
from proxy.simulator.words import Fault, strip_words

_DIALECT = "prodia-v1"
_INVALID = "Invalid Generation Parameters"
_FAILED = ("F3", "F30", "nsfw", "failed")

_QUEUED_S = 0.6
_GENERATING_S = {"sd": 2.5, "sdxl": 5.0}
"""Facts, 2.7: within a few seconds, to judge by the clients' limits."""

_COMMON: Mapping[str, Field] = {
    "prompt": Text(required=True),
    "negative_prompt": Text(),
    "style_preset": Choice(STYLE_PRESETS),
    "steps": Number(1, 50, 20),
    "cfg_scale": Number(1, 20, 7, whole=False),
    "seed": Number(-1, None, -1),
    "sampler": Choice(SAMPLERS, "Euler"),
}
_FAMILIES: Mapping[str, Mapping[str, Field]] = {
    "sd": {
        **_COMMON,
        "model": Choice(SD_MODELS, V1_DEFAULT),
        "upscale": Flag(default=False),
        "aspect_ratio": Choice(tuple(ASPECT_RATIOS)),
        "width": Number(64, 1024, step=8),
        "height": Number(64, 1024, step=8),
    },
    "sdxl": {
        **_COMMON,
        "model": Choice(SDXL_MODELS, SDXL_DEFAULT),
        "width": Number(512, 1536, 1024, step=8),
        "height": Number(512, 1536, 1024, step=8),
    },
}
"""Facts, 2.3: where the sources disagree on a range, the widest one holds here."""

_INPUTS: Mapping[str, Mapping[str, Field]] = {
    "image": {
        "imageUrl": Text(1),
        "imageData": Text(1),
        "denoising_strength": Number(0, 1, 0.7, whole=False),
    },
    "mask": {
        "maskUrl": Text(1),
        "maskData": Text(1),
        "mask_blur": Number(0, None),
        "inpainting_fill": Number(0, 3),
        "inpainting_mask_invert": Number(0, 1),
        "inpainting_full_res": Flag(),
    },
}
_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "generate": (),
    "transform": ("image",),
    "inpainting": ("image", "mask"),
}


def _no_access(fault: Fault) -> ASGIApp:
    status = fault.status(401)
    return text("Payment Required" if status == 402 else "Unauthorized", status)


_SUBMIT: Behaviours = {
    **SUBMIT_FAULTS,
    "F8": plain(400, _INVALID),
    "F9": Behaviour(_no_access, unless="poll"),
}
_POLL: Behaviours = {**POLL_FAULTS, "F9": Behaviour(_no_access, needs="poll")}


class ProdiaV1:
    """The first keyed version of Prodia's interface, below ``/v1``."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        submits = [Route(f"/{{family:str}}/{operation}", self.submit, methods=["POST"]) for operation in _OPERATIONS]
        lists = [Route(f"/{{family:str}}/{name}", self.names, methods=["GET"]) for name in ("models", "samplers")]
        return [Route("/job/{id}", self.poll, methods=["GET"]), *submits, *lists]

    async def submit(self, request: Request) -> ASGIApp:
        """Start a job."""
        family, operation = request.path_params["family"], request.url.path.rpartition("/")[2]
        if family not in _FAMILIES:
            return text("Not Found", 404)
        body = await _body(request)
        texts = [str(body.get(name, "")) for name in ("prompt", "negative_prompt")]
        submission = self._simulation.arrive(_DIALECT, *texts)
        if reply := self._unauthorized(request) or submit_fault(self._simulation, submission, _SUBMIT):
            return reply
        drawing = await asyncio.to_thread(_drawing, family, operation, body, self._simulation.seed())
        if drawing is None:
            return text(_INVALID, 400)
        job = self._simulation.start(
            _DIALECT, submission.words, drawing, queued_s=_QUEUED_S, generating_s=_GENERATING_S[family]
        )
        return json_reply({"job": job.id, "status": "queued"}, job.words)

    async def poll(self, request: Request) -> ASGIApp:
        """Answer with the job's state, and with its address once it succeeded."""
        job = self._simulation.jobs.find(request.path_params["id"], _DIALECT)
        refusal = self._unauthorized(request)
        if job is None or refusal:
            self._simulation.tally.add("polls", job.words.tag if job else "")
            return refusal or text("Not Found", 404)
        fault = poll_fault(self._simulation, job, _POLL)
        return fault or json_reply(describe_job(self._simulation, request, job), job.words)

    async def names(self, request: Request) -> ASGIApp:
        """Answer with the list of models or samplers."""
        family, kind = request.path_params["family"], request.url.path.rpartition("/")[2]
        if refusal := self._unauthorized(request):
            return refusal
        if family not in _FAMILIES:
            return text("Not Found", 404)
        models = SD_MODELS if family == "sd" else SDXL_MODELS
        return as_json(list(models if kind == "models" else SAMPLERS))

    def _unauthorized(self, request: Request) -> ASGIApp | None:
        right = request.headers.get("x-prodia-key") == self._simulation.tokens.prodia_v1
        return None if right else text("Unauthorized", 401)


def describe_job(simulation: Simulation, request: Request, job: Job) -> dict[str, Any]:
    """Return the answer to a poll, the same in v1 and in the legacy interface."""
    state = job.state(simulation.clock.monotonic())
    if state != "finished":
        return {"job": job.id, "status": state}
    if job.words.has(*_FAILED):
        return {"job": job.id, "status": "failed"}
    if job.words.has("F5"):
        return {"job": job.id, "status": "succeeded"}
    return {"job": job.id, "status": "succeeded", "imageUrl": result_address(request, job)}


async def _body(request: Request) -> dict[str, Any]:
    try:
        value = await request.json()
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _drawing(family: str, operation: str, body: Mapping[str, Any], random_seed: int) -> Drawing | None:
    """Return what to draw; None when a parameter is invalid."""
    schema = dict(_FAMILIES[family])
    inputs = _OPERATIONS[operation]
    for name in inputs:
        schema.update(_INPUTS[name])
    # Unknown keys are not known to be refused on this surface.
    if problem(schema, {name: value for name, value in body.items() if name in schema}):
        return None
    pictures: dict[str, bytes | None] = {}
    for name in inputs:
        if (f"{name}Data" in body) == (f"{name}Url" in body):
            return None
        # A picture given by its address is taken for granted and not fetched.
        pictures[name] = _decoded(body[f"{name}Data"]) if f"{name}Data" in body else None
        if pictures[name] == b"":
            return None
    width, height = _pixels(family, body)
    seed = body.get("seed", -1)
    return Drawing(
        width=width,
        height=height,
        prompt=strip_words(body["prompt"]),
        model=body.get("model", V1_DEFAULT if family == "sd" else SDXL_DEFAULT),
        seed=random_seed if seed == -1 else seed,
        image=pictures.get("image"),
        mask=pictures.get("mask"),
        strength=body.get("denoising_strength", 0.7),
    )


def _decoded(value: str) -> bytes:
    """Return the picture's bytes; empty when they are no picture."""
    try:
        data = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return b""
    return data if measure(data) else b""


def _pixels(family: str, body: Mapping[str, Any]) -> tuple[int, int]:
    width, height = (512, 512) if family == "sd" else (1024, 1024)
    if "aspect_ratio" in body and family == "sd":
        width, height = ASPECT_RATIOS[body["aspect_ratio"]]
    factor = 2 if family == "sd" and body.get("upscale") else 1
    return body.get("width", width) * factor, body.get("height", height) * factor
