"""The demo: the same service, with its providers simulated inside the process."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy import config
from proxy.accounts.given import GivenKeys, key_digest
from proxy.providers.registry import KINDS
from proxy.server.process import serving
from proxy.simulator import base_urls, create_simulator, demo_keys
from proxy.state.settings import IN_MEMORY

KEYS = {KINDS[kind].key_env: key for kind, key in demo_keys().items()}
"""The environment in which every provider that asks for a key has the simulator's."""


@asynccontextmanager
async def simulated(
    path: Path | None, environment: Mapping[str, str], speed: float, **overrides: Any
) -> AsyncIterator[config.Configuration]:
    """Start the simulator and yield a configuration that leads to it. Raises config.ConfigurationError, OSError.

    ``speed`` divides the simulated durations. Pictures go to a temporary folder unless the file names one.
    """
    with tempfile.TemporaryDirectory(prefix="images-proxy-demo-") as directory:
        async with serving(create_simulator(speed=speed)) as port:
            origin = f"http://127.0.0.1:{port}"
            providers = {
                kind: {"base_url": url, "enabled": True, "allow_private_hosts": True, "image_hosts": ["127.0.0.1"]}
                for kind, url in base_urls(origin).items()
            }
            providers["prodia-legacy"]["image_base_url"] = f"{origin}/pictures"
            # A client in a container can't reach the simulator's own addresses, so pictures are always copied.
            below = {"images": {"directory": directory, "copies": "always"}}
            # Whatever file or environment say: the demo's generations are nobody's, and must not meet real ones;
            # nor may its pictures reach anybody's storage.
            overrides = {
                **overrides,
                "state": {"path": IN_MEMORY, "database_url_env": ""},
                "images": {**overrides.get("images", {}), "store": ""},
            }
            # The demo's keys replace real ones, which thus never reach the simulator.
            loaded = config.load(path, {**environment, **KEYS}, below=below, providers=providers, **overrides)
            yield replace(loaded, demo=True, **_with_admin_key(loaded.given))


def _with_admin_key(given: GivenKeys) -> dict[str, Any]:
    """Return an admin key made for this run, if its owner has set none, so that administration can be tried."""
    if given.admin:
        return {}
    # Not one that asks callers for keys: the demo stays open on this machine.
    key = secrets.token_urlsafe(18)
    return {"given": replace(given, admin=key_digest(key), admin_asks=False), "demo_admin_key": key}
