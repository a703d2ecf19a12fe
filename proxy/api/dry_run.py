"""``x-images-dry-run: true``: what a call would do and cost, told without doing it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.api.context import DRY_RUN
from proxy.jobs.forecast import RouteForecast
from proxy.requests.resolve import ResolvedRequest


class DryRun(Exception):
    """Raised where a generation would start; what is told instead is the answer to the request.

    ``reattached``: an earlier generation would be joined, so that nothing would be bought.
    """

    def __init__(self, resolved: ResolvedRequest, routes: tuple[RouteForecast, ...], *, reattached: bool) -> None:
        super().__init__("a dry run")
        self.resolved = resolved
        self.routes = routes
        self.reattached = reattached


async def on_dry_run(request: Request, dry_run: Exception) -> Response:
    """Starlette's handler for DryRun; ``async`` because Starlette runs plain functions in a thread."""
    assert isinstance(dry_run, DryRun)  # noqa: S101 (registered for this class only)
    request.state.context.headers[DRY_RUN] = "true"
    return JSONResponse(_body(dry_run))


def _body(dry_run: DryRun) -> dict[str, Any]:
    resolved = dry_run.resolved
    return {
        "object": "image.dry_run",
        "model": resolved.public.name,
        "operation": resolved.checked.operation,
        "n": resolved.request.n,
        "response_format": resolved.form,
        "reattached": dry_run.reattached,
        "ignored": list(resolved.checked.unknown),
        "routes": [_route(route) for route in dry_run.routes],
    }


def _route(route: RouteForecast) -> dict[str, Any]:
    return {
        "provider": route.provider,
        "model": route.model,
        "size": f"{route.width}x{route.height}",
        "mapped": list(route.mapped),
        "dropped": list(route.dropped),
        "price": route.price,
        "seconds": None if route.seconds is None else round(route.seconds, 2),
    }
