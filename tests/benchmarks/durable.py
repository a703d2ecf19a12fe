"""What it costs that a picture survives the process: the same service with its state on a disk and in memory."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from proxy.state.outcomes import Start
from proxy.state.records import Account, JobId, Route, generation_id
from proxy.state.sqlite.engine import open_sqlite
from tests.benchmarks.machine import ORDINARY, SMALL, callers, module, service
from tests.benchmarks.overhead import SYNC
from tests.benchmarks.table import Figure, compare
from tests.benchmarks.throughput import POLLED, Samples, sample

NAME = "durable"
KINDS = {"sync": SYNC, "polled": POLLED}
AT_ONCE = (1, 16, 64)
SECONDS = 4.0
OPEN_JOBS = 1000


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """CPU per picture and the time of one, the two services in turns; then the start on many open jobs."""
    for kind, told in KINDS.items():
        with (
            module("upstream", str(ORDINARY)) as (_, upstream),
            service(upstream) as disk,
            service(upstream, state=":memory:") as memory,
            callers() as load,
        ):
            programs = {"disk": disk, "memory": memory}
            for _, port in programs.values():
                load.tell(**told, port=port, callers=16, seconds=0.3, mark="warm")
            for number in AT_ONCE:
                samples = {name: Samples() for name in programs}
                middles: dict[str, list[float]] = {name: [] for name in programs}
                for turn in range(2 * rounds):
                    for name in programs if turn % 2 else reversed(programs):
                        program, port = programs[name]
                        asked = {**told, "port": port, "callers": number, "mark": f"{number}-{turn}-{name}"}
                        times = sample(samples[name], load, program, {**asked, "seconds": SECONDS * scale})
                        middles[name].append(median(times) * 1000)
                yield from _figures(f"{kind}, {number} at once:", number, samples, middles)
    yield from _starts(rounds, round(OPEN_JOBS * scale))


def _figures(title: str, number: int, samples: dict[str, Samples], middles: dict[str, list[float]]) -> Iterator[Figure]:
    cost = [1000 * (a - b) for a, b in zip(samples["disk"].cpu_ms, samples["memory"].cpu_ms, strict=True)]
    limit = 200 if number >= 16 else None
    yield compare(NAME, f"{title} more CPU per picture", "µs", cost, at_most=limit, absolute=True)
    added = [a - b for a, b in zip(middles["disk"], middles["memory"], strict=True)]
    limit = 2 if number == 1 else None
    yield compare(NAME, f"{title} more time at p50", "ms", added, at_most=limit, absolute=True)


def _starts(rounds: int, jobs: int) -> Iterator[Figure]:
    """How long a start takes that finds many jobs accepted."""
    full: list[float] = []
    empty: list[float] = []
    with module("upstream", str(SMALL)) as (_, upstream), tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for times, number in ((full, jobs), (empty, 0)):
                path = Path(folder) / f"{turn}-{number}" / "state.sqlite3"
                asyncio.run(_leave(path, upstream, number))
                began = time.perf_counter()
                with service(upstream, state=str(path)):
                    times.append(time.perf_counter() - began)
    yield compare(NAME, f"start on {jobs} open jobs", "s", full, empty, "start on none", at_most=3, absolute=True)


async def _leave(path: Path, upstream: str, jobs: int) -> None:
    """Write accepted jobs of a process that is gone."""
    state = await asyncio.to_thread(open_sqlite, path, synchronous="normal")
    await state.register("gone")
    route = Route("prodia-v1", "sd_xl_base_1.0.safetensors [be9edd61]", f"{upstream}/v1", "PRODIA_API_KEY")
    origin = (
        '{"provider":"prodia-v1","model":"sd_xl_base_1.0.safetensors [be9edd61]","width":8,"height":8,"quality":"x"}'
    )
    request = f'{{"model":"m","n":1,"form":"url","origins":[{origin}]}}'

    async def one(number: int) -> None:
        start = Start(
            generation_id(int(time.time() * 1000)),
            "gone",
            route=route,
            submit=1,
            account=Account(),
            fingerprint=number.to_bytes(16),
            request=request,
        )
        await state.start(start)
        handle = f'{{"kind":"prodia-v1","handle":"{{\\"step\\":\\"job\\",\\"id\\":\\"gone-{number:08}\\"}}"}}'
        await state.accept(JobId(start.id, 0), 0, "gone", handle)

    await asyncio.gather(*(one(number) for number in range(jobs)))
    await state.retire("gone")
    await state.close()
