"""Prodia's two older dialects: polled, pictures at a public address.

v1 (https://github.com/prodialabs/prodia-js) has a key and a JSON submit; the legacy web interface
(https://github.com/xtekky/gpt4free had a client) has no key, and a GET submit.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.providers import checkpoints as known
from proxy.simulator.faults import Dialect, decoded, json_object, picture_address
from proxy.simulator.replies import json_reply
from proxy.simulator.scene import Drawing
from proxy.simulator.schema import Schema, flag, number, problem, sides, string, whole
from proxy.simulator.simulation import Job
from proxy.simulator.words import strip_words

_ASPECT_RATIOS = {"square": (512, 512), "portrait": (512, 768), "landscape": (768, 512)}
"""Pixels of each shape; ``upscale`` doubles both sides."""

_USUAL_MODEL = {"sd": "sdv1_4.ckpt [7460a6fa]", "sdxl": "sd_xl_base_1.0.safetensors [be9edd61]"}
_GENERATING_S = {"legacy": 3.5, "sd": 2.5, "sdxl": 5.0}
_QUEUED_S = 0.7
_LEGACY_SAMPLER = "DPM++ 2M Karras"

# Where public clients disagree on a range, the widest one is accepted here.
_COMMON: Schema = {
    "prompt": string(required=True),
    "negative_prompt": string(),
    "style_preset": string(values=known.STYLE_PRESETS),
    "steps": whole(1, 50),
    "cfg_scale": number(1, 20),
    "seed": whole(-1),
    "sampler": string(values=known.SAMPLERS),
}
_FAMILIES: Mapping[str, Schema] = {
    "sd": {
        **_COMMON,
        "model": string(values=known.CHECKPOINTS),
        "upscale": flag(),
        "aspect_ratio": string(values=tuple(_ASPECT_RATIOS)),
        **sides(64, 1024, step=8),
    },
    "sdxl": {**_COMMON, "model": string(values=known.SDXL_CHECKPOINTS), **sides(512, 1536, step=8)},
}
_INPUTS: Mapping[str, Schema] = {
    "image": {"imageUrl": string(1), "imageData": string(1), "denoising_strength": number(0, 1)},
    "mask": {
        "maskUrl": string(1),
        "maskData": string(1),
        "mask_blur": whole(0),
        "inpainting_fill": whole(0, 3),
        "inpainting_mask_invert": whole(0, 1),
        "inpainting_full_res": flag(),
    },
}
_OPERATIONS = {"generate": (), "transform": ("image",), "inpainting": ("image", "mask")}


class ProdiaV1(Dialect):
    """The first keyed version of Prodia's interface, below ``/v1``."""

    name, prefix, key = "prodia-v1", "/v1", "00000000-demo-demo-demo-000000000000"

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        return [
            Route("/job/{id}", self._poll, methods=["GET"]),
            Route("/{family}/{kind}", self._names, methods=["GET"]),
            Route("/{family}/{operation}", self._submit, methods=["POST"]),
        ]

    def _refusal(self, request: Request) -> ASGIApp | None:
        right = request.headers.get("x-prodia-key") == self.right_key
        return None if right else PlainTextResponse("Unauthorized", 401)

    async def _submit(self, request: Request) -> ASGIApp:
        family, operation = request.path_params["family"], request.path_params["operation"]
        if family not in _FAMILIES or operation not in _OPERATIONS:
            return PlainTextResponse("Not Found", 404)
        body = await json_object(request)
        words, reply = self.admit(request, str(body.get("prompt", "")), str(body.get("negative_prompt", "")))
        if reply is not None:
            return reply
        drawing = await asyncio.to_thread(_drawing, family, operation, body, self.simulation.seed())
        if drawing is None:
            return PlainTextResponse("Invalid Generation Parameters", 400)
        job = self.simulation.start(self.name, words, drawing, _QUEUED_S, _GENERATING_S[family])
        return json_reply({"job": job.id, "status": "queued"}, words)

    async def _poll(self, request: Request) -> ASGIApp:
        job = self.ask(request, request.path_params["id"])
        if not isinstance(job, Job):
            return job
        answer = {"job": job.id, "status": self.simulation.state(job)}
        if answer["status"] == "finished":
            answer["status"] = "failed" if job.words.has("failed", "unsafe") else "succeeded"
            if answer["status"] == "succeeded" and not job.words.has("no-picture"):
                answer["imageUrl"] = picture_address(request, job)
        return json_reply(answer, job.words)

    async def _names(self, request: Request) -> ASGIApp:
        models = {"sd": known.CHECKPOINTS, "sdxl": known.SDXL_CHECKPOINTS}.get(request.path_params["family"])
        names = {"models": models, "samplers": models and known.SAMPLERS}.get(request.path_params["kind"])
        refusal = self._refusal(request) or (None if names else PlainTextResponse("Not Found", 404))
        return refusal or JSONResponse(names)


class ProdiaLegacy(ProdiaV1):
    """The interface of Prodia's old web page, below ``/legacy``; polls are answered as in v1."""

    name, prefix, key = "prodia-legacy", "/legacy", ""

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        return [
            Route("/generate", self._submit, methods=["GET"]),
            Route("/job/{id}", self._poll, methods=["GET"]),
            Route("/models", self._names, methods=["GET"]),
        ]

    def _refusal(self, request: Request) -> ASGIApp | None:  # noqa: ARG002 - no key is asked for
        return None

    async def _submit(self, request: Request) -> ASGIApp:
        query = request.query_params
        words, reply = self.admit(request, query.get("prompt", ""), query.get("negative_prompt", ""))
        if reply is not None:
            return reply
        ran = _settings(query, self.simulation.seed())
        prompt, model = strip_words(ran["prompt"]), ran["options"]["sd_model_checkpoint"]
        drawing = Drawing(ran["width"], ran["height"], prompt, model, ran["seed"], parameters=_parameters(ran))
        job = self.simulation.start(self.name, words, drawing, _QUEUED_S, _GENERATING_S["legacy"])
        return json_reply({"job": job.id, "status": "queued", "params": ran}, words)

    async def _names(self, _request: Request) -> ASGIApp:
        return JSONResponse({known.short_name(checkpoint): checkpoint for checkpoint in known.CHECKPOINTS})


def _drawing(family: str, operation: str, body: Mapping[str, Any], random_seed: int) -> Drawing | None:
    """Return what to draw; None when a parameter is invalid."""
    schema, pictures = dict(_FAMILIES[family]), dict[str, bytes | None]()
    for name in _OPERATIONS[operation]:
        schema.update(_INPUTS[name])
        url, data = body.get(f"{name}Url"), body.get(f"{name}Data")
        # A picture given by its address is assumed to exist and not fetched.
        pictures[name] = decoded(data) if isinstance(data, str) else None
        if (url is None) == (data is None) or (data is not None and pictures[name] is None):
            return None
    # No source says that this API refuses unknown keys, so they are ignored.
    if problem(schema, {name: value for name, value in body.items() if name in schema}):
        return None
    seed = body.get("seed", -1)
    width, height = _ASPECT_RATIOS[body.get("aspect_ratio", "square")] if family == "sd" else (1024, 1024)
    factor = 2 if family == "sd" and body.get("upscale") else 1
    size = int(body.get("width", width)) * factor, int(body.get("height", height)) * factor
    model, strength = body.get("model", _USUAL_MODEL[family]), body.get("denoising_strength", 0.7)
    seed = random_seed if seed == -1 else seed
    image, mask = pictures.get("image"), pictures.get("mask")
    return Drawing(*size, strip_words(body["prompt"]), model, seed, image, mask, strength)


def _settings(query: Mapping[str, str], random_seed: int) -> dict[str, Any]:
    """Return the query's settings as the answer repeats them: under Automatic1111's names."""
    width, height = _ASPECT_RATIOS.get(query.get("aspect_ratio", ""), _ASPECT_RATIOS["square"])
    upscale = query.get("upscale", "").lower() == "true"
    seed = int(_number(query.get("seed"), -1))
    sampler, model = query.get("sampler", _LEGACY_SAMPLER), query.get("model", known.DEFAULT_CHECKPOINT)
    return {
        "prompt": query.get("prompt", ""),
        "cfg_scale": _number(query.get("cfg"), 7),
        "steps": int(_number(query.get("steps"), 20)),
        "negative_prompt": query.get("negative_prompt", ""),
        "seed": random_seed if seed < 0 else seed,
        "upscale": upscale,
        "sampler_name": sampler if sampler in known.SAMPLERS else _LEGACY_SAMPLER,
        "width": width * (2 if upscale else 1),
        "height": height * (2 if upscale else 1),
        "options": {"sd_model_checkpoint": model if model in known.CHECKPOINTS else known.DEFAULT_CHECKPOINT},
    }


def _number(value: str | None, default: float) -> float:
    try:
        number = float(value or "")
    except ValueError:
        return default
    return number if abs(number) < 1e15 else default


def _parameters(ran: Mapping[str, Any]) -> str:
    """Return the text that Automatic1111 writes into its PNGs, from which clients read the seed back."""
    return (
        f"{strip_words(ran['prompt'])}\nNegative prompt: {ran['negative_prompt']}\n"
        f"Steps: {ran['steps']}, Sampler: {ran['sampler_name']}, CFG scale: {ran['cfg_scale']:g}, Seed: {ran['seed']}, "
        f"Size: {ran['width']}x{ran['height']}, Model: {ran['options']['sd_model_checkpoint']}"
    )
