"""Prodia's legacy web interface: GET submit, GET poll, no key (facts, section 1)."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.checkpoints import ASPECT_RATIOS, LEGACY_DEFAULT, SAMPLERS, SD_MODELS
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
from proxy.simulator.prodia_v1 import describe_job
from proxy.simulator.replies import Hang, json_reply, text
from proxy.simulator.scene import Drawing
from proxy.simulator.simulation import Simulation
from proxy.simulator.words import strip_words

_DIALECT = "prodia-legacy"
_SAMPLER = "DPM++ 2M Karras"
_QUEUED_S = 0.8
_GENERATING_S = 3.5

_SUBMIT: Behaviours = {
    **SUBMIT_FAULTS,
    "F1": plain(404, "404 page not found"),
    "F2": Behaviour(lambda _: Hang()),
    "F6": Behaviour(lambda _: as_json({"status": "queued"}), charged=lambda _: True),
}


class ProdiaLegacy:
    """The interface of Prodia's old web page, below ``/legacy``."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def routes(self) -> list[Route]:
        """Return the routes below the base address."""
        return [
            Route("/generate", self.submit, methods=["GET"]),
            Route("/job/{id}", self.poll, methods=["GET"]),
            Route("/models", self.models, methods=["GET"]),
        ]

    async def submit(self, request: Request) -> ASGIApp:
        """Start a job; what isn't understood falls back to its default."""
        query = request.query_params
        prompt, negative = query.get("prompt", ""), query.get("negative_prompt", "")
        submission = self._simulation.arrive(_DIALECT, prompt, negative)
        if reply := submit_fault(self._simulation, submission, _SUBMIT):
            return reply
        settings = _settings(query, self._simulation.seed())
        checkpoint = settings["options"]["sd_model_checkpoint"]
        drawing = Drawing(
            width=settings["width"],
            height=settings["height"],
            prompt=strip_words(prompt),
            model=checkpoint,
            seed=settings["seed"],
            parameters=_parameters(settings),
        )
        job = self._simulation.start(
            _DIALECT, submission.words, drawing, queued_s=_QUEUED_S, generating_s=_GENERATING_S
        )
        return json_reply({"job": job.id, "status": "queued", "params": settings}, job.words)

    async def poll(self, request: Request) -> ASGIApp:
        """Answer with the job's state, and with its address once it succeeded."""
        job = self._simulation.jobs.find(request.path_params["id"], _DIALECT)
        if job is None:
            self._simulation.tally.add("polls", "")
            return text("Not Found", 404)
        fault = poll_fault(self._simulation, job, POLL_FAULTS)
        return fault or json_reply(describe_job(self._simulation, request, job), job.words)

    async def models(self, _request: Request) -> ASGIApp:
        """Answer with display names and the checkpoints behind them."""
        return as_json({name.rpartition(" [")[0].rpartition(".")[0]: name for name in SD_MODELS})


def _settings(query: Mapping[str, str], random_seed: int) -> dict[str, Any]:
    width, height = ASPECT_RATIOS.get(query.get("aspect_ratio", ""), ASPECT_RATIOS["square"])
    upscale = query.get("upscale", "").lower() == "true"
    seed = int(_number(query.get("seed"), -1))
    sampler, model = query.get("sampler", _SAMPLER), query.get("model", LEGACY_DEFAULT)
    return {
        "prompt": query.get("prompt", ""),
        "cfg_scale": _number(query.get("cfg"), 7),
        "steps": int(_number(query.get("steps"), 20)),
        "negative_prompt": query.get("negative_prompt", ""),
        "seed": random_seed if seed < 0 else seed,
        "upscale": upscale,
        "sampler_name": sampler if sampler in SAMPLERS else _SAMPLER,
        "width": width * (2 if upscale else 1),
        "height": height * (2 if upscale else 1),
        "options": {"sd_model_checkpoint": model if model in SD_MODELS else LEGACY_DEFAULT},
    }


def _number(value: str | None, default: float) -> float:
    try:
        number = float(value or "")
    except ValueError:
        return default
    return number if abs(number) < 1e15 else default


def _parameters(settings: Mapping[str, Any]) -> str:
    """Return the text that Automatic1111 writes into its PNGs, from which clients read the seed back."""
    return (
        f"{strip_words(settings['prompt'])}\nNegative prompt: {settings['negative_prompt']}\n"
        f"Steps: {settings['steps']}, Sampler: {settings['sampler_name']}, CFG scale: {settings['cfg_scale']:g}, "
        f"Seed: {settings['seed']}, Size: {settings['width']}x{settings['height']}, "
        f"Model: {settings['options']['sd_model_checkpoint']}"
    )
