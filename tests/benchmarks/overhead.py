"""What the service adds for one caller when the provider takes no time."""

from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

from tests.benchmarks.machine import IN_MEMORY, ORDINARY, SMALL, Program, both, callers, module
from tests.benchmarks.table import Figure, compare

NAME = "overhead"
SYNC = {"do": "run", "model": "prodia/inference.flux-fast.schnell.txt2img.v2", "prompt": "a hill", "form": "b64_json"}
PROGRAMS = ("ours", "floor")
SECONDS = 0.7
CASES: dict[str, tuple[int, Path | None]] = {
    "200 kB": (ORDINARY, IN_MEMORY),
    "200 kB, kept on disk": (ORDINARY, None),
    "2 kB": (SMALL, IN_MEMORY),
}
"""The service opens a file before it buys a picture and keeps the picture there; the floor keeps none. A disk's file
system has a price of its own. With 2 kB, which no picture of a megapixel is, the file is a third of what is added."""


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """One caller, v2 in its synchronous mode, asking for base64."""
    for title, (size, folder) in CASES.items():
        yield from _case(title, size, folder, rounds, scale)


def _case(title: str, size: int, folder: Path | None, rounds: int, scale: float) -> Iterator[Figure]:
    middle: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    slowest: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with (
        module("upstream", str(size)) as (_, upstream),
        both(upstream, folder_in=folder) as programs,
        callers() as load,
    ):
        for name in PROGRAMS:
            _call(load, programs[name][1], 0.5, f"warm-{name}")
        for number in range(2 * rounds):
            for name in PROGRAMS if number % 2 else reversed(PROGRAMS):
                times = _call(load, programs[name][1], SECONDS * scale, f"{number}-{name}")
                cuts = quantiles(times, n=100)
                middle[name].append(cuts[49] * 1000)
                slowest[name].append(cuts[98] * 1000)
    limit = 1.5 if size == ORDINARY else None
    yield compare(NAME, f"v2 sync, {title}: p50", "ms", middle["ours"], middle["floor"], at_most=limit)
    yield compare(NAME, f"v2 sync, {title}: p99", "ms", slowest["ours"], slowest["floor"])
    added = [mine - other for mine, other in zip(middle["ours"], middle["floor"], strict=True)]
    yield compare(NAME, f"v2 sync, {title}: added at p50", "ms", added)


def _call(load: Program, port: int, seconds: float, mark: str) -> list[float]:
    outcome = load.tell(**SYNC, port=port, callers=1, seconds=seconds, mark=mark)
    assert not outcome["errors"], outcome
    times: list[float] = outcome["times"]
    return times
