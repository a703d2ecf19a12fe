"""The simulator, or the service before it, by a clock that runs faster: so that hours of waiting fit in minutes.

``python -m tests.benchmarks.scaled`` with the scale; for the service also the simulator's address and the poll worth,
and a mode for the provider that has several.
Only the house's own clock runs faster: connections, and so round trips, take their real time.
"""

import asyncio
import contextlib
import sys
import tempfile
import time

import uvloop

from proxy.app import create_app
from proxy.clock import Clock
from proxy.config import compose
from proxy.demo import KEYS
from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.service import simulated_providers


def scaled(scale: float) -> Clock:
    """Return a clock that runs ``scale`` times as fast."""
    return Clock(
        monotonic=lambda: time.monotonic() * scale,
        sleep=lambda seconds: asyncio.sleep(seconds / scale),
    )


async def main(scale: float, upstream: str = "", poll_worth: str = "", mode: str = "auto") -> None:
    """Serve for ever."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(asyncio.CancelledError):
        app = create_simulator(speed=1, clock=scaled(scale))
        if upstream:
            providers = simulated_providers(upstream, max_jobs=1000, mode=mode)
            tables = {"images": {"directory": folder}, "timeouts": {"poll_worth": float(poll_worth)}}
            # In no environment there is no folder for the state but the user's own.
            tables["state"] = {"path": f"{folder}/state.sqlite3"}
            app = create_app(compose({"providers": providers, **tables}, KEYS), scaled(scale))
        async with serving(app) as port:
            sys.stdout.write(f"http://127.0.0.1:{port}\n")
            sys.stdout.flush()
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]), *sys.argv[2:]))
