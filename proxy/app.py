"""The service assembled: engine, resources, edge. Nothing else happens here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from proxy.api import accounts, chat, health, images, keys, models, openapi, organization, page, pictures, previews
from proxy.api.access import Access
from proxy.api.dry_run import DryRun, on_dry_run
from proxy.api.edge import Edge
from proxy.api.errors import on_failure, on_http_exception
from proxy.api.responses import resource as responses
from proxy.api.responses.kept import Responses
from proxy.api.sdapi import pictures as sdapi
from proxy.api.sdapi import settings as menus
from proxy.api.sdapi.callers import Callers
from proxy.api.waiting import Waiting
from proxy.clock import Clock
from proxy.config import Configuration
from proxy.engine import Engine
from proxy.errors import Failure

# Their names are label values of the metrics and words of the log: they stay when functions are renamed.
ROUTES = (
    Route("/v1/images/generations", images.create_image, name="create_image", methods=["POST"]),
    Route("/v1/images/edits", images.edit_image, name="edit_image", methods=["POST"]),
    Route("/v1/images/variations", images.vary_image, name="vary_image", methods=["POST"]),
    Route("/v1/images/generations/{id}", images.generation, name="generation", methods=["GET", "DELETE"]),
    Route("/v1/images/generations/{id}/preview", previews.get_preview, name="preview", methods=["GET"]),
    Route("/v1/models", models.list_models, name="list_models", methods=["GET"]),
    Route("/v1/models/{id:path}", models.get_model, name="get_model", methods=["GET"]),
    Route("/v1/chat/completions", chat.complete_chat, name="complete_chat", methods=["POST"]),
    Route("/v1/responses", responses.create_response, name="create_response", methods=["POST"]),
    Route("/v1/responses/{id}", responses.response, name="response", methods=["GET", "DELETE"]),
    Route("/v1/responses/{id}/cancel", responses.cancel_response, name="cancel_response", methods=["POST"]),
    Route("/sdapi/v1/txt2img", sdapi.txt2img, name="txt2img", methods=["POST"]),
    Route("/sdapi/v1/img2img", sdapi.img2img, name="img2img", methods=["POST"]),
    Route("/sdapi/v1/progress", sdapi.progress, name="sdapi_progress", methods=["GET"]),
    Route("/sdapi/v1/interrupt", sdapi.interrupt, name="sdapi_interrupt", methods=["POST"]),
    Route("/sdapi/v1/options", menus.options, name="sdapi_options", methods=["GET", "POST"]),
    Route("/sdapi/v1/sd-models", menus.list_models, name="list_sdapi_models", methods=["GET"]),
    Route("/sdapi/v1/samplers", menus.list_samplers, name="list_sdapi_samplers", methods=["GET"]),
    Route("/sdapi/v1/schedulers", menus.list_schedulers, name="list_sdapi_schedulers", methods=["GET"]),
    Route("/sdapi/v1/upscalers", menus.list_upscalers, name="list_sdapi_upscalers", methods=["GET"]),
    Route("/sdapi/v1/latent-upscale-modes", menus.list_latent_modes, name="list_sdapi_latent_modes", methods=["GET"]),
    Route("/sdapi/v1/sd-vae", menus.list_vaes, name="list_sdapi_vaes", methods=["GET"]),
    Route("/v1/key", accounts.own_key, name="own_key", methods=["GET"]),
    Route("/v1/usage", accounts.usage, name="usage", methods=["GET"]),
    Route("/v1/ledger", accounts.ledger, name="ledger", methods=["GET"]),
    Route("/v1/ledger/{job}", accounts.resolve, name="resolve_job", methods=["POST"]),
    Route("/v1/organization/costs", organization.costs, name="organization_costs", methods=["GET"]),
    Route("/v1/organization/usage/images", organization.images, name="organization_images", methods=["GET"]),
    Route("/key/generate", keys.generate_key, name="generate_key", methods=["POST"]),
    Route("/key/update", keys.update_key, name="update_key", methods=["POST"]),
    Route("/key/delete", keys.delete_keys, name="delete_keys", methods=["POST"]),
    Route("/key/block", keys.block_key, name="block_key", methods=["POST"]),
    Route("/key/unblock", keys.unblock_key, name="unblock_key", methods=["POST"]),
    Route("/key/info", keys.key_info, name="key_info", methods=["GET"]),
    Route("/key/list", keys.list_keys, name="list_keys", methods=["GET"]),
    Route("/key/{key:path}/regenerate", keys.regenerate_key, name="regenerate_key", methods=["POST"]),
    Route("/images/{name}", pictures.get_image, name="get_image", methods=["GET"]),
    Route("/healthz", health.healthz, name="healthz", methods=["GET"]),
    Route("/readyz", health.readyz, name="readyz", methods=["GET"]),
    Route("/metrics", health.metrics, name="metrics", methods=["GET"]),
    Route("/openapi.json", openapi.openapi, name="openapi", methods=["GET"]),
    Route("/", page.index, name="page", methods=["GET"]),
    Route("/usage", page.usage, name="usage_page", methods=["GET"]),
    Route("/favicon.ico", page.icon, name="icon", methods=["GET"]),
    Route("/page/{name}", page.asset, name="asset", methods=["GET"]),
)


def create_app(configuration: Configuration, clock: Clock | None = None) -> Starlette:
    """Return the service as an ASGI application; its ``state`` holds everything behind the routes."""
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
                routes=ROUTES,
                access=Access(engine.accounts.keys, server, engine.clock.monotonic),
                server=server,
                clock=engine.clock,
                metrics=engine.metrics,
            )
        ],
        exception_handlers={Failure: on_failure, HTTPException: on_http_exception, DryRun: on_dry_run},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.waiting = Waiting(engine)
    app.state.responses = Responses(engine.generations, engine.clock)
    app.state.sdapi = Callers()
    return app
