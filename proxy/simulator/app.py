"""Assembles the simulator: every dialect below its own prefix, the pictures, and the counts for tests."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from proxy.clock import Clock
from proxy.simulator.cdn import Cdn
from proxy.simulator.imagelabs import ImageLabs
from proxy.simulator.prodia import Prodia
from proxy.simulator.prodia_legacy import ProdiaLegacy
from proxy.simulator.prodia_v1 import ProdiaV1
from proxy.simulator.simulation import Simulation, Tokens

_PREFIXES = {"prodia": "/v2", "prodia-v1": "/v1", "prodia-legacy": "/legacy", "imagelabs": "/imagelabs"}


def create_simulator(*, speed: float = 1.0, clock: Clock | None = None, tokens: Tokens | None = None) -> Starlette:
    """Return the application. Typical durations are divided by ``speed``; raises ValueError unless it is positive.

    ``GET /_counts?tag=T`` answers with what arrived for prompts bearing ``[tag:T]``; without a tag, in total.
    """
    if not speed > 0:
        raise ValueError("speed must be positive")
    simulation = Simulation(clock or Clock(), speed, tokens or Tokens())

    async def counts(request: Request) -> JSONResponse:
        return JSONResponse(simulation.tally.read(request.query_params.get("tag")))

    dialects = {
        "prodia": Prodia(simulation).routes(),
        "prodia-v1": ProdiaV1(simulation).routes(),
        "prodia-legacy": ProdiaLegacy(simulation).routes(),
        "imagelabs": ImageLabs(simulation).routes(),
    }
    mounts = [Mount(_PREFIXES[kind], routes=routes) for kind, routes in dialects.items()]
    return Starlette(
        routes=[
            *mounts,
            Mount("/pictures", routes=Cdn(simulation).routes()),
            Route("/_counts", counts, methods=["GET"]),
        ]
    )


def base_urls(origin: str) -> dict[str, str]:
    """Return each kind's base URL under ``origin``, such as ``http://127.0.0.1:9000``."""
    return {kind: origin.rstrip("/") + prefix for kind, prefix in _PREFIXES.items()}
