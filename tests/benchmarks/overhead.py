"""What the service adds for one caller when the provider takes no time."""

from collections.abc import Iterator
from statistics import quantiles

from tests.benchmarks.machine import PICTURE_BYTES, Program, both, callers, module
from tests.benchmarks.table import Figure, compare

NAME = "overhead"
SYNC = {"do": "run", "model": "prodia/inference.flux-fast.schnell.txt2img.v2", "prompt": "a hill", "form": "b64_json"}
PROGRAMS = ("ours", "floor")


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """One caller, v2 in its synchronous mode: the median and the slowest hundredth, in milliseconds."""
    middle: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    slowest: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with module("upstream", str(PICTURE_BYTES)) as (_, upstream), both(upstream) as programs, callers() as load:
        for name in PROGRAMS:
            _call(load, programs[name][1], 0.5, f"warm-{name}")
        for number in range(2 * rounds):
            for name in PROGRAMS if number % 2 else reversed(PROGRAMS):
                times = _call(load, programs[name][1], 1.5 * scale, f"{number}-{name}")
                cuts = quantiles(times, n=100)
                middle[name].append(cuts[49] * 1000)
                slowest[name].append(cuts[98] * 1000)
    yield compare(NAME, "p50, v2 sync", "ms", middle["ours"], middle["floor"], at_most=1.5)
    yield compare(NAME, "p99, v2 sync", "ms", slowest["ours"], slowest["floor"])
    added = [mine - other for mine, other in zip(middle["ours"], middle["floor"], strict=True)]
    yield compare(NAME, "added at p50", "ms", added)


def _call(load: Program, port: int, seconds: float, mark: str) -> list[float]:
    outcome = load.tell(**SYNC, port=port, callers=1, seconds=seconds, mark=mark)
    assert not outcome["errors"], outcome
    times: list[float] = outcome["times"]
    return times
