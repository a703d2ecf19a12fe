"""Pictures per second and CPU per picture, with the same polls, as the callers at once grow."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.benchmarks.machine import ORDINARY, Program, both, callers, module
from tests.benchmarks.overhead import PROGRAMS, SYNC
from tests.benchmarks.table import Figure, compare

NAME = "throughput"
POLLED = {
    "do": "run",
    "model": "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]",
    "prompt": "a hill",
    "form": "url",
}
KINDS = {
    "sync": (SYNC, {1: 1.0, 16: 1.0, 64: 1.0, 256: 1.0}),
    "4 polls": (POLLED, {1: 2.5, 16: 5.0, 64: 5.0, 256: 2.5, 1000: 2.5}),
}
"""The callers at once and a round's seconds: 16 that poll get no more than 100 pictures in 5 s. With polls, 256 callers
wait most of the time; 1,000 saturate a core."""
WARM_JOBS = 16
"""So many jobs before the schedule has learned to poll as often as it may."""


@dataclass(slots=True)
class Samples:
    """What one program did, round by round."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    errors: int = 0


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """Each kind of picture at each number of callers, the programs in turns.

    Each kind has processes of its own: what the service forgets after a while would cost the next kind time.
    """
    for kind, (told, numbers) in KINDS.items():
        with module("upstream", str(ORDINARY)) as (_, upstream), both(upstream) as programs, callers() as load:
            for name in PROGRAMS:
                load.tell(**told, port=programs[name][1], callers=WARM_JOBS, seconds=0, mark=f"warm-{name}")
            for number, seconds in numbers.items():
                samples = {name: Samples() for name in PROGRAMS}
                for turn in range(rounds):
                    for name in PROGRAMS if turn % 2 else reversed(PROGRAMS):
                        program, port = programs[name]
                        asked = {**told, "port": port, "callers": number, "mark": f"{number}-{turn}"}
                        sample(samples[name], load, program, {**asked, "seconds": seconds * scale})
                yield from _figures(kind, number, samples)


def sample(samples: Samples, load: Program, program: Program, told: dict[str, object]) -> list[float]:
    """Have pictures made, note what they cost, and return the seconds of each."""
    before = program.cpu_s()
    outcome = load.tell(**told)
    pictures = len(outcome["times"])
    samples.cpu_ms.append((program.cpu_s() - before) / pictures * 1000)
    samples.rates.append(pictures / outcome["seconds"])
    samples.errors += outcome["errors"]
    times: list[float] = outcome["times"]
    return times


def _figures(kind: str, number: int, samples: dict[str, Samples]) -> Iterator[Figure]:
    ours, floor = samples["ours"], samples["floor"]
    few = number == 1 and kind != "sync"  # a handful of pictures in seconds of waiting: mostly the idle process
    limit = None if few else 1.4
    title = f"{kind}, {number} at once:"
    yield compare(NAME, f"{title} CPU per picture", "ms", ours.cpu_ms, floor.cpu_ms, at_most=limit)
    least = 0.7 if kind != "sync" else None
    yield compare(NAME, f"{title} pictures/s", "/s", ours.rates, floor.rates, at_least=least)
    if number == 256:
        per_core = [1000 / each for each in ours.cpu_ms]
        yield compare(NAME, f"{title} pictures/s per core", "/s", per_core, [1000 / each for each in floor.cpu_ms])
        yield compare(NAME, f"{title} errors", "errors", [ours.errors], at_most=0, absolute=True)
