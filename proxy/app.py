"""The service assembled: engine, resources, edge. Nothing else happens here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from proxy.api import chat, health, images, models, openapi, page, sdapi, stored
from proxy.api.access import Access
from proxy.api.edge import Edge
from proxy.api.errors import on_failure, on_http_exception
from proxy.api.holding import Desk
from proxy.clock import Clock
from proxy.config import Configuration
from proxy.engine import Engine
from proxy.errors import Failure

ROUTES = (
    Route("/v1/images/generations", images.create_image, methods=["POST"]),
    Route("/v1/images/edits", images.edit_image, methods=["POST"]),
    Route("/v1/images/variations", images.vary_image, methods=["POST"]),
    Route("/v1/images/jobs/{id}", images.job, methods=["GET", "DELETE"]),
    Route("/v1/models", models.list_models, methods=["GET"]),
    Route("/v1/models/{id:path}", models.get_model, methods=["GET"]),
    Route("/v1/chat/completions", chat.complete_chat, methods=["POST"]),
    Route("/sdapi/v1/txt2img", sdapi.txt2img, methods=["POST"]),
    Route("/sdapi/v1/sd-models", sdapi.list_models, methods=["GET"]),
    Route("/sdapi/v1/samplers", sdapi.list_samplers, methods=["GET"]),
    Route("/sdapi/v1/options", sdapi.options, methods=["GET"]),
    Route("/images/{name}", stored.get_image, methods=["GET"]),
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/metrics", health.metrics, methods=["GET"]),
    Route("/openapi.json", openapi.openapi, methods=["GET"]),
    Route("/", page.index, methods=["GET"]),
    Route("/favicon.ico", page.icon, methods=["GET"]),
    Route("/page/{name}", page.asset, methods=["GET"]),
)


def create_app(configuration: Configuration, clock: Clock | None = None) -> Starlette:
    """Return the service as an ASGI application; its ``state.desk`` leads to everything inside."""
    engine = Engine(configuration, clock)
    server = configuration.settings.server

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await engine.open()
        try:
            yield
        finally:
            await engine.close()

    app = Starlette(
        routes=list(ROUTES),
        middleware=[
            Middleware(
                Edge,
                access=Access(configuration.key_digests, server),
                server=server,
                clock=engine.clock,
                metrics=engine.metrics,
            )
        ],
        exception_handlers={Failure: on_failure, HTTPException: on_http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.desk = Desk(engine)
    return app
