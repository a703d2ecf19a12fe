"""GET /v1/models and /v1/models/{id}."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.accounts.prices import stated_price
from proxy.config import Configuration
from proxy.dollars import decimal_text
from proxy.engine import Engine
from proxy.errors import NotConfigured, UnknownModel
from proxy.providers.boundary import Operation, Range
from proxy.providers.settings import ProviderSettings
from proxy.providers.titles import title
from proxy.requests.routing import Route

_CREATED = 1_767_225_600
"""2026-01-01: OpenAI's clients need an integer, and nobody knows when a model here was made."""
_OPERATIONS: tuple[Operation, ...] = ("generate", "edit", "inpaint")


def describe(
    name: str, owner: str, routes: Sequence[Route], providers: Mapping[str, ProviderSettings]
) -> dict[str, Any]:
    """Return OpenAI's model object, with additions by which frontends recognise a picture model and show its settings.

    ``routes``: those that can be used, in their order. ``providers``: the settings of each. In the object,
    ``operations`` tells what can be done: generate, edit, inpaint (edit within a mask). Sizes and settings are those of
    the first route that can do the first of these; ``edit`` and ``inpaint`` tell apart what another route does in
    another way. ``providers``: who is asked, in this order, where it isn't just the owner. Dollars and seconds are for
    one picture, left out where unknown: some clients stumble over null.
    """
    able = dict(_able(routes))
    operations = frozenset().union(*(route.model.operations for route in routes))
    first = next(iter(able.values()), None)
    takes = _takes(first, providers) if first else {}
    usual = takes.pop("sizes", [str(first.model.shapes.default) if first else "1024x1024"])
    described = {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": owner,
        "type": "image",
        "name": (first.model.title if first and name == str(first) else "") or title(name.rpartition("/")[2]),
        "parameters": {"prompt": {"default": ""}, "size": {"default": usual[0], "enum": ["auto", *usual]}},
        "supported_endpoint_types": ["image-generation"],
        "capabilities": ["image"],
        "labels": ["image"],
        "operations": sorted(operations),
        "architecture": {
            "input_modalities": ["text", "image"] if operations - {"generate"} else ["text"],
            "output_modalities": ["image"],
        },
        **takes,
    }
    asked = {operation: _providers(routes, operation) for operation in able}
    usual_ones = next(iter(asked.values()), [])
    for operation, route in able.items():
        if route != first:
            others = {} if asked[operation] == usual_ones else {"providers": asked[operation]}
            described[operation] = _takes(route, providers) | others
    return described | ({} if usual_ones == [owner] else {"providers": usual_ones})


def _providers(routes: Sequence[Route], operation: Operation) -> list[str]:
    return list(dict.fromkeys(route.provider for route in routes if operation in route.model.operations))


def _able(routes: Sequence[Route]) -> Iterator[tuple[Operation, Route]]:
    """Yield each operation with the first route that can do it."""
    for operation in _OPERATIONS:
        route = next((route for route in routes if operation in route.model.operations), None)
        if route is not None:
            yield operation, route


def _takes(route: Route, providers: Mapping[str, ProviderSettings]) -> dict[str, Any]:
    """Return what a model takes, costs and lasts: only what is known of it, and no more than a kilobyte can hold.

    ``sizes``: if there are any to choose. Of a number the lowest, highest and usual; of words, all.
    """
    model = route.model
    price = stated_price(model, providers[route.provider].prices).amount
    sizes = [str(shape) for shape in model.shapes.usual()]
    settings: dict[str, Any] = {name: _range(numbers) for name, numbers in model.numbers.items() if name != "seed"}
    settings |= {name: list(words) for name, words in model.choices.items()}
    settings |= dict.fromkeys(sorted({*model.texts, *({"seed"} & set(model.numbers))}), True)
    known = {
        "sizes": sizes if len(sizes) > 1 else None,
        "settings": settings,
        "max_images": model.max_images if model.max_images > 1 else None,
        "price": None if price is None else float(decimal_text(price)),
        "seconds": model.seconds,
    }
    # Nothing is left out that says something: a price of nothing is one.
    return {name: value for name, value in known.items() if value or (name == "price" and value is not None)}


def _range(numbers: Range) -> list[float]:
    return [numbers.low, numbers.high, *(() if numbers.default is None else (numbers.default,))]


async def list_models(request: Request) -> Response:
    """List the names that ``list_models`` leaves, the configured first; and the providers, with why one isn't used."""
    engine: Engine = request.app.state.waiting.engine
    settings, configuration = engine.settings.providers, engine.configuration
    key = request.state.context.caller.key
    listed = [(name, owner) for name, owner in engine.routing.listed() if key.may_use(name)]
    models = [describe(name, owner, engine.routing.usable(name), settings) for name, owner in listed]
    providers = [_provider(configuration, name) for name in settings]
    demo = {"demo": True} if configuration.demo else {}
    return JSONResponse({"object": "list", "data": models, "providers": providers, **demo})


def _provider(configuration: Configuration, name: str) -> dict[str, Any]:
    why_not = configuration.why_not(name)
    reasons = {"why_not": why_not, "how_to_use": configuration.how_to_use(name)} if why_not else {}
    return {"name": name, "used": not why_not, **reasons}


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
    routes, settings = engine.routing.usable(name), engine.settings.providers
    return JSONResponse(describe(name, owners.get(name, "images-proxy"), routes, settings))
