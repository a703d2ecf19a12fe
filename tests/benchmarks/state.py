"""What the state costs for a picture: its four writes, on a file and in memory, with so many pictures in flight."""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from proxy.state.money import Limit
from proxy.state.operations import State
from proxy.state.outcomes import Start, Started
from proxy.state.records import Account, JobId, Route, generation_id
from proxy.state.sqlite.engine import open_sqlite
from tests.benchmarks.table import Figure, compare

NAME = "state"
IN_FLIGHT = {1: 500, 16: 3000, 64: 3000}
"""Pictures in flight, and how many are made of each."""
_PRICE = 2_500_000
_ROUTE = Route(
    "prodia", "inference.flux-fast.schnell.txt2img.v2", "https://prodia.test/v2", "PRODIA_TOKEN", _PRICE, "table"
)
ACCOUNT = Account("k1", "ann", "family")
_REQUEST = '{"model": "dall-e-3", "size": "1024x1024", "response_format": "url"}'
_MUCH = 10**15
LIMITS = [
    Limit("all", "dollars", "month", _MUCH),
    Limit("key:k1", "dollars", "day", _MUCH),
    Limit("owner:family", "pictures", "month", _MUCH),
]


class Outcome(NamedTuple):
    """Of one run: CPU in µs a picture (of all threads, of the loop's), commits a picture, pictures a second, ms of its
    first write, bytes a picture."""

    cpu_us: float
    loop_us: float
    commits: float
    rate: float
    first_ms: float
    size: float


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """The runs take turns. The driver's own cost is in the figures: some 15 µs a picture."""
    runs = {
        **{f"file, {number} in flight": (number, True, False) for number in IN_FLIGHT},
        "file, 16 in flight, three limits": (16, True, True),
        "memory, 16 in flight": (16, False, False),
    }
    outcomes: dict[str, list[Outcome]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (number, on_disk, limits) in runs.items():
            outcomes[name].append(asyncio.run(_run(number, int(IN_FLIGHT[number] * scale), on_disk, limits)))
    for name, (number, _, limits) in runs.items():
        most = 200 if number > 1 and not limits else None
        seen = outcomes[name]
        yield compare(NAME, f"{name}: CPU", "us", [one.cpu_us for one in seen], at_most=most, absolute=True)
        yield compare(NAME, f"{name}: of it the loop", "us", [one.loop_us for one in seen])
        yield compare(NAME, f"{name}: first write, p50", "ms", [one.first_ms for one in seen])
        yield compare(NAME, f"{name}: commits a picture", "", [one.commits for one in seen])
        yield compare(NAME, f"{name}: pictures/s", "/s", [one.rate for one in seen])
    yield compare(NAME, "bytes on disk for a picture", "B", [one.size for one in outcomes["file, 16 in flight"]])


async def _run(in_flight: int, pictures: int, on_disk: bool, limits: bool) -> Outcome:
    groups: list[int] = []
    firsts: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.sqlite3" if on_disk else None
        state = open_sqlite(path, exclusive=True, observe=lambda size, _: groups.append(size))
        await state.register("me")
        await state.set_limits(LIMITS if limits else [])
        groups.clear()
        turns = iter(range(pictures))

        async def caller() -> None:
            for _ in turns:
                first_s = await picture(state, "me")
                firsts.append(first_s)

        began = time.process_time(), time.thread_time(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        cpu_s, loop_s, wall_s = (
            after - before
            for after, before in zip((time.process_time(), time.thread_time(), time.perf_counter()), began, strict=True)
        )
        size = path.stat().st_size / pictures if path is not None else 0.0
        await state.close()
    return Outcome(
        cpu_s / pictures * 1e6,
        loop_s / pictures * 1e6,
        len(groups) / pictures,
        pictures / wall_s,
        median(firsts) * 1e3,
        size,
    )


async def picture(state: State, holder: str, *, looked_for: bool = False) -> float:
    """Make one: start and submit in one write, accepted, done, delivered (which nobody waits for).

    ``looked_for``: first whether it repeats another one, as replicas do. Returns the seconds until it was started.
    """
    name = generation_id(int(time.time() * 1000))
    start = Start(
        name, holder, ACCOUNT, _ROUTE, reserve=_PRICE, submit=1, fingerprint=secrets.token_bytes(16), request=_REQUEST
    )
    began = time.perf_counter()
    if looked_for:
        assert not await state.repeatable(ACCOUNT.key, start.fingerprint)
    outcome = await state.start(start)
    first_s = time.perf_counter() - began
    assert isinstance(outcome, Started)
    job = JobId(name, 0)
    await state.accept(job, 0, holder, f'{{"step": "poll", "id": "{name}"}}', 1)
    picture = f'{{"name": "{name}.png", "type": "image/png", "width": 1024, "height": 1024, "bytes": 200000}}'
    change = await state.finish(job, 0, picture, cost=_PRICE, price_source="provider", price_name="prodia/flux/4")
    assert change.applied
    state.deliver(name, 0)
    return first_s
