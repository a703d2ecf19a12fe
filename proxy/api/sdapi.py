"""The part of Automatic1111's API that frontends without OpenAI's need, such as SillyTavern's stable-diffusion.cpp.

https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
"""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from proxy.api.body import read_json
from proxy.api.context import RequestContext
from proxy.api.renderings import MARK, PicturesBody, open_pictures
from proxy.api.waiting import Waiting
from proxy.engine import Engine
from proxy.errors import InvalidRequest
from proxy.generations.record import Generation
from proxy.requests.image_request import MAX_SIDE, MIN_SIDE

_COPIED = ("prompt", "negative_prompt", "steps", "cfg_scale", "seed", "width", "height")

_READ = frozenset({*_COPIED, "model", "sampler_name", "sampler_index", "batch_size", "n_iter"})
_CHECKPOINT = "sd_model_checkpoint"
_MAX_COUNT = 10


async def txt2img(request: Request) -> ASGIApp:
    """Make pictures and return them as base64 in ``images``."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    waiting.admit(request)
    asked = await read_json(request, waiting.engine.settings.server.max_body)
    resolved = waiting.engine.resolve(_translate(asked), owner=context.owner, ignored=_ignored(asked))
    joined = await waiting.join(request, resolved)
    await waiting.hold(request, joined, "sdapi")
    parameters = {name: value for name, value in asked.items() if name in _COPIED}
    return await waiting.answer(joined, lambda: _answer(waiting, joined.generation, parameters))


async def _answer(waiting: Waiting, generation: Generation, parameters: dict[str, Any]) -> PicturesBody:
    pictures = generation.pictures
    info = {"sd_model_name": generation.request.model, "width": pictures[0].width, "height": pictures[0].height}
    answer = {"images": [MARK] * len(pictures), "parameters": parameters, "info": json.dumps(info)}
    return PicturesBody(answer, await open_pictures(waiting.engine.store, pictures))


async def list_models(request: Request) -> Response:
    """List the models by the names that ``txt2img`` accepts."""
    engine: Engine = request.app.state.waiting.engine
    names = [name for name, _ in engine.routing.listed()]
    return JSONResponse([{"title": name, "model_name": name, "filename": name, "config": None} for name in names])


async def list_samplers(request: Request) -> Response:
    """List the samplers of all usable models."""
    engine: Engine = request.app.state.waiting.engine
    catalogues = (catalogue for catalogue in engine.catalogues.values() if not catalogue.why_not)
    names = dict.fromkeys(
        name
        for catalogue in catalogues
        for model in catalogue.models.values()
        for name in model.choices.get("sampler", ())
    )
    return JSONResponse([{"name": name, "aliases": [], "options": {}} for name in names])


async def options(request: Request) -> Response:
    """Name the model in use: the default one, since each call names its own."""
    engine: Engine = request.app.state.waiting.engine
    return JSONResponse({_CHECKPOINT: engine.settings.server.default_model})


def _translate(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the request in our words. Raises InvalidRequest."""
    values = {name: asked[name] for name in _COPIED if name in asked}
    # Automatic1111's own way of choosing a model for one call.
    override = asked.get("override_settings")
    checkpoint = override.get(_CHECKPOINT) if isinstance(override, dict) else None
    values["model"] = asked.get("model") or checkpoint
    values["sampler"] = asked.get("sampler_name") or asked.get("sampler_index")
    values["n"] = _count(asked, "batch_size") * _count(asked, "n_iter")
    values["response_format"] = "b64_json"
    for side in ("width", "height"):
        if isinstance(values.get(side), int):
            # Automatic1111 takes any size, so one out of range is moved into it and not refused.
            values[side] = min(MAX_SIDE, max(MIN_SIDE, values[side]))
    return values


def _ignored(asked: dict[str, Any]) -> list[str]:
    """Return the names of given parameters that are not read here."""
    override = asked.get("override_settings")
    inner = override if isinstance(override, dict) else {}
    names = [name for name, value in asked.items() if value is not None and name not in _READ and value is not inner]
    return names + [f"override_settings.{name}" for name in inner if name != _CHECKPOINT]


def _count(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name)
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_COUNT:
        raise InvalidRequest(f"Invalid '{name}': expected a whole number from 1 to 10.", param=name)
    return value
