"""From the command to a service that is ready, and what it takes when idle."""

import sys
import time
from collections.abc import Iterator

from tests.benchmarks.machine import SMALL, module, service, settle, started
from tests.benchmarks.table import Figure, compare

NAME = "start"
BARE = "import starlette, uvicorn, aiohttp, pydantic"


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """At least seven starts, in turns with the bare imports; the first of each warms the disk and doesn't count."""
    ready: list[float] = []
    bare: list[float] = []
    imports: list[float] = []
    idle: list[float] = []
    turns = max(7, rounds) if scale == 1 else 3
    with module("upstream", str(SMALL)) as (_, upstream):
        for _turn in range(turns + 1):
            bare.append(_run(BARE))
            began = time.perf_counter()
            with service(upstream) as (program, _):
                ready.append(time.perf_counter() - began)
                settle(0.5)
                idle.append(program.resident_kib() / 1024)
            imports.append(_run("import proxy.cli, proxy.commands.serve"))
    against = "bare imports"
    yield compare(NAME, "from the command to ready", "s", ready[1:], bare[1:], against, at_most=2)
    yield compare(NAME, "python -c 'import proxy.cli, proxy.commands.serve'", "s", imports[1:], bare[1:], against)
    yield compare(NAME, "memory when idle", "MiB", idle[1:], at_most=66.75, absolute=True)


def _run(statement: str) -> float:
    began = time.perf_counter()
    with started([sys.executable, "-c", statement]) as program:
        program.process.wait()
    return time.perf_counter() - began
