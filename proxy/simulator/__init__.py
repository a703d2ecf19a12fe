"""All the providers' dialects on one socket: for the demo, the end-to-end tests and the benchmarks.

Written from the providers' observed behaviour, not from our adapters, so that it checks them independently. Words in a
prompt steer it (``words``, ``FAULTS``). Only ``proxy.server`` can serve it, because some faults break connections.
"""

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from proxy.clock import Clock
from proxy.simulator.faults import FAULTS
from proxy.simulator.imagelabs import ImageLabs
from proxy.simulator.pictures import host
from proxy.simulator.prodia import Prodia
from proxy.simulator.prodia_v1 import ProdiaLegacy, ProdiaV1
from proxy.simulator.simulation import Simulation

__all__ = ["FAULTS", "base_urls", "create_simulator", "demo_keys"]

_DIALECTS = (Prodia, ProdiaV1, ProdiaLegacy, ImageLabs)


def create_simulator(
    *, speed: float = 1.0, clock: Clock | None = None, keys: Mapping[str, str] | None = None
) -> Starlette:
    """Return the application. Typical durations are divided by ``speed``; raises ValueError unless it is positive.

    ``keys``: by kind, the keys that are right instead of the usual ones. ``GET /_counts?tag=T`` answers with what
    arrived for prompts that contain ``[tag:T]``; without a tag, in total.
    """
    if not speed > 0:
        raise ValueError("speed must be positive")
    simulation = Simulation(clock or Clock(), speed, keys or {})

    async def counts(request: Request) -> JSONResponse:
        return JSONResponse(simulation.counts(request.query_params.get("tag", "")))

    return Starlette(
        routes=[
            *(Mount(dialect.prefix, routes=dialect(simulation).routes()) for dialect in _DIALECTS),
            host(simulation, [dialect.name for dialect in _DIALECTS if dialect.hosted]),
            Route("/_counts", counts, methods=["GET"]),
        ]
    )


def base_urls(origin: str) -> dict[str, str]:
    """Return each kind's base URL under ``origin``, such as ``http://127.0.0.1:9000``."""
    return {dialect.name: origin.rstrip("/") + dialect.prefix for dialect in _DIALECTS}


def demo_keys() -> dict[str, str]:
    """Return the key that is right at each kind that asks for one: the simulator's own, public by design."""
    return {dialect.name: dialect.key for dialect in _DIALECTS if dialect.key}
