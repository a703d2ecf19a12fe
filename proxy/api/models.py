"""GET /v1/models and /v1/models/{id}."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.engine import Engine
from proxy.errors import NotConfigured, UnknownModel
from proxy.providers.boundary import Operation

# Some frontends fill their list of sizes from here. A size that a model can't make becomes its nearest.
_SIZES = ["auto", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792", "512x512", "256x256"]
_CREATED = 1_767_225_600
"""2026-01-01: OpenAI's clients need an integer, and nobody knows when a model here was made."""


def describe(name: str, owner: str, operations: frozenset[Operation]) -> dict[str, Any]:
    """Return OpenAI's model object, with additions by which frontends recognise a picture model.

    ``operations``: what it can do: generate, edit, inpaint (edit within a mask).
    """
    takes_images = bool(operations - {"generate"})
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": owner,
        "type": "image",
        "parameters": {"prompt": {"default": ""}, "size": {"default": "1024x1024", "enum": _SIZES}},
        "supported_endpoint_types": ["image-generation"],
        "capabilities": ["image"],
        "labels": ["image"],
        "operations": sorted(operations),
        "architecture": {
            "input_modalities": ["text", "image"] if takes_images else ["text"],
            "output_modalities": ["image"],
        },
    }


async def list_models(request: Request) -> Response:
    """List the configured names, then the models of usable providers; or only what ``list_models`` leaves of them."""
    engine: Engine = request.app.state.waiting.engine
    models = [describe(name, owner, engine.routing.operations(name)) for name, owner in engine.routing.listed()]
    return JSONResponse({"object": "list", "data": models})


async def get_model(request: Request) -> Response:
    """Describe one model, by any name that a request may use for it. Raises UnknownModel."""
    engine: Engine = request.app.state.waiting.engine
    name = request.path_params["id"]
    owners = dict(engine.routing.known())
    if name not in owners:
        try:
            engine.routing.resolve(name)
        except NotConfigured as refusal:
            raise UnknownModel(refusal.message) from None
    return JSONResponse(describe(name, owners.get(name, "images-proxy"), engine.routing.operations(name)))
