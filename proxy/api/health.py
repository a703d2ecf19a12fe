"""GET /healthz, /readyz and /metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.engine import Engine
from proxy.errors import NotConfigured, Overloaded
from proxy.metrics import CONTENT_TYPE


async def healthz(request: Request) -> Response:  # noqa: ARG001 (Starlette's signature)
    """Report that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Report that new work is accepted. Raises Overloaded while draining, NotConfigured when no provider is usable."""
    engine: Engine = request.app.state.waiting.engine
    if engine.draining:
        raise Overloaded("This service is shutting down.")
    if not engine.ready:
        raise NotConfigured("No provider is usable now.")
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format."""
    engine: Engine = request.app.state.waiting.engine
    return Response(engine.figures(), headers={"content-type": CONTENT_TYPE})
