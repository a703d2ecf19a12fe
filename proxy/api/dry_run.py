"""``x-images-dry-run: true``: what a call would do and cost, told without doing it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.api.context import DRY_RUN
from proxy.dollars import decimal_text
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
        "cost": _cost(dry_run),
        "routes": [_route(route) for route in dry_run.routes],
    }


def _cost(dry_run: DryRun) -> str | None:
    """Return the dollars for all pictures by the first route; None where its price isn't known."""
    if dry_run.reattached:
        return "0"
    amount = dry_run.routes[0].price.amount
    return None if amount is None else _dollars(amount * dry_run.resolved.request.n)


def _dollars(amount: int | None) -> str | None:
    return None if amount is None else decimal_text(amount)


def _route(route: RouteForecast) -> dict[str, Any]:
    return {
        "provider": route.provider,
        "model": route.model,
        "size": f"{route.width}x{route.height}",
        "mapped": list(route.mapped),
        "dropped": list(route.dropped),
        "price": _dollars(route.price.amount),
        "price_source": route.price.source,
        "seconds": None if route.seconds is None else round(route.seconds, 2),
    }
