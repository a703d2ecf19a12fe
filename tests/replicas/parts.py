"""Several services on one database, before one simulator, inside the test's event loop."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from proxy.app import create_app
from proxy.config import compose
from proxy.demo import KEYS
from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.object_store import BUCKET
from tests.service import Service, simulated_providers

LABS = "imagelabs/sdxl-turbo"
SCHNELL = "prodia/inference.flux-fast.schnell.txt2img.v2"


@asynccontextmanager
async def replicas(
    database_url: str,
    count: int = 2,
    *,
    environment: Mapping[str, str] | None = None,
    providers: Mapping[str, Any] | None = None,
    **tables: Any,
) -> AsyncIterator[list[Service]]:
    """Run so many replicas, each with a folder of its own, and with the bucket to which the environment leads."""
    async with AsyncExitStack() as stack:
        upstream = f"http://127.0.0.1:{await stack.enter_async_context(serving(create_simulator(speed=20.0)))}"
        http = await stack.enter_async_context(aiohttp.ClientSession())
        services = []
        for _ in range(count):
            values = {
                "providers": simulated_providers(upstream, **(providers or {})),
                "images": {
                    "directory": stack.enter_context(tempfile.TemporaryDirectory()),
                    "store": f"s3://{BUCKET}/p",
                },
                **tables,
            }
            known = {**KEYS, "IMAGES_PROXY_DATABASE_URL": database_url, **(environment or {})}
            app = create_app(compose(values, known))
            port = await stack.enter_async_context(serving(app))
            services.append(Service(f"http://127.0.0.1:{port}", upstream, app.state.waiting.engine, http))
        yield services


async def submitted(service: Service, tag: str, number: int = 1) -> None:
    """Wait until so many submits have reached the simulator."""
    async with asyncio.timeout(10):
        while (await service.counts(tag))["submits"] < number:  # noqa: ASYNC110 (another server is looked at)
            await asyncio.sleep(0.01)


async def gone(asked: "asyncio.Task[Any]") -> None:
    """Hang up, and give the service a moment to see and write that."""
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await asyncio.sleep(0.15)
