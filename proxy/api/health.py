"""GET /healthz, /readyz and /metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.engine import Engine
from proxy.metrics import CONTENT_TYPE


async def healthz(request: Request) -> Response:  # noqa: ARG001 (Starlette's signature)
    """Say that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Say whether new work is taken: 200, or 503 while draining or when no provider is usable."""
    engine: Engine = request.app.state.desk.engine
    if engine.ready:
        return JSONResponse({"status": "ready"})
    reason = "draining" if engine.draining else "no provider is usable"
    return JSONResponse({"status": "not ready", "reason": reason}, 503, {"retry-after": "1"})


async def metrics(request: Request) -> Response:
    """Return the figures in Prometheus's text format."""
    engine: Engine = request.app.state.desk.engine
    return Response(engine.figures(), headers={"content-type": CONTENT_TYPE})
