"""The real service before the simulator, each on a socket of its own, inside the test's event loop."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from proxy.app import create_app
from proxy.config import compose
from proxy.demo import KEYS
from proxy.engine import Engine
from proxy.providers.registry import KINDS
from proxy.server.exchange import WireLimits
from proxy.server.process import serving
from proxy.simulator import base_urls, create_simulator
from proxy.state.settings import IN_MEMORY
from tests.time_skip import clock


@dataclass(frozen=True, slots=True)
class Service:
    """A running service. ``url`` has no path; ``upstream`` is the simulator's."""

    url: str
    upstream: str
    engine: Engine
    http: aiohttp.ClientSession

    async def generate(self, prompt: str, headers: Mapping[str, str] | None = None, **values: Any) -> "Answer":
        """Ask for pictures."""
        return await self.post("/v1/images/generations", {"prompt": prompt, **values}, headers)

    async def post(self, path: str, values: Any, headers: Mapping[str, str] | None = None) -> "Answer":
        """Post JSON."""
        async with self.http.post(self.url + path, json=values, headers=headers) as response:
            return await Answer.read(response)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> "Answer":
        """Get a resource, or an address as it stands in an answer."""
        async with self.http.get(path if path.startswith("http") else self.url + path, headers=headers) as response:
            return await Answer.read(response)

    async def counts(self, tag: str) -> dict[str, int]:
        """Return what reached the simulator for prompts bearing ``[tag:…]``: submits, started, polls, fetches."""
        async with self.http.get(f"{self.upstream}/_counts", params={"tag": tag}) as response:
            counts: dict[str, int] = await response.json()
            return counts


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any

    @classmethod
    async def read(cls, response: aiohttp.ClientResponse) -> "Answer":
        """Read the whole answer."""
        body = await response.read()
        is_json = response.content_type == "application/json"
        return cls(response.status, response.headers, body, await response.json() if is_json and body else None)

    @property
    def code(self) -> str | None:
        """The error's code."""
        code: str | None = self.json["error"]["code"]
        return code


def simulated_providers(origin: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return all providers' tables, leading to the simulator at ``origin``.

    ``changes`` go into each whose kind has that key.
    """
    values = {
        "enabled": True,
        "allow_private_hosts": True,
        "image_hosts": ["127.0.0.1"],
        "image_base_url": f"{origin}/pictures",
        **changes,
    }
    keys = {kind: KINDS[kind].settings.model_fields for kind in KINDS}
    assert set(values) <= set().union(*keys.values())
    return {
        kind: {key: value for key, value in {"base_url": url, **values}.items() if key in keys[kind]}
        for kind, url in base_urls(origin).items()
    }


@asynccontextmanager
async def running(
    *,
    environment: Mapping[str, str] | None = None,
    speed: float = 20.0,
    providers: Mapping[str, Any] | None = None,
    wire: WireLimits | None = None,
    **tables: Any,
) -> AsyncIterator[Service]:
    """Run the service before a simulator. ``tables`` are configuration tables; ``providers`` changes every provider."""
    async with serving(create_simulator(speed=speed, clock=clock())) as upstream_port:
        upstream = f"http://127.0.0.1:{upstream_port}"
        with tempfile.TemporaryDirectory() as directory:
            images = {"directory": directory, **tables.pop("images", {})}
            tables.setdefault("state", {"path": IN_MEMORY})
            values = {"providers": simulated_providers(upstream, **(providers or {})), "images": images, **tables}
            configuration = compose(values, {**KEYS, **(environment or {})})
            app = create_app(configuration, clock())
            async with serving(app, limits=wire) as port, aiohttp.ClientSession() as http:
                yield Service(f"http://127.0.0.1:{port}", upstream, app.state.waiting.engine, http)
