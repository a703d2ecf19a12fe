"""What Automatic1111's clients ask for to fill their menus, and the model that they choose there."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.api.body import read_json
from proxy.api.sdapi.callers import Callers, caller
from proxy.api.sdapi.fields import CHECKPOINT
from proxy.engine import Engine
from proxy.errors import InvalidRequest

_NO_SCHEDULER = {
    "name": "automatic",
    "label": "Automatic",
    "aliases": None,
    "default_rho": -1,
    "need_inner_model": False,
}
_NO_UPSCALER = {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}


async def list_models(request: Request) -> Response:
    """List the models by the names that a request may use."""
    engine: Engine = request.app.state.waiting.engine
    told = {"hash": None, "sha256": None, "config": None}
    key = request.state.context.caller.key
    names = [name for name, _ in engine.routing.listed() if key.may_use(name)]
    return JSONResponse([{"title": name, "model_name": name, "filename": name, **told} for name in names])


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


async def list_schedulers(_request: Request) -> Response:
    """List the one scheduler there is: the provider's own choice."""
    return JSONResponse([_NO_SCHEDULER])


async def list_upscalers(_request: Request) -> Response:
    """List no upscaler but "None", which is always Automatic1111's first."""
    return JSONResponse([_NO_UPSCALER])


async def list_latent_modes(_request: Request) -> Response:
    """List no way to upscale latents."""
    return JSONResponse([])


async def list_vaes(_request: Request) -> Response:
    """List no VAE."""
    return JSONResponse([])


async def options(request: Request) -> Response:
    """Report the caller's options, or take them: all without effect but the model."""
    engine: Engine = request.app.state.waiting.engine
    callers: Callers = request.app.state.sdapi
    if request.method == "POST":
        _choose(engine, callers, caller(request), await read_json(request, engine.settings.server.max_body))
        return JSONResponse(None)
    chosen = callers.chosen(caller(request)) or engine.settings.server.default_model
    return JSONResponse({CHECKPOINT: chosen, "samples_format": "png"})


def _choose(engine: Engine, callers: Callers, whose: str, asked: dict[str, Any]) -> None:
    """Note the chosen model for calls that name none. Raises InvalidRequest, UnknownModel, NotConfigured."""
    model = asked.get(CHECKPOINT)
    if model is None:
        return
    if not isinstance(model, str):
        raise InvalidRequest(f"'{CHECKPOINT}' must be a string.", param=CHECKPOINT, code="invalid_type")
    if model:
        engine.routing.resolve(model)
    callers.choose(whose, model)
