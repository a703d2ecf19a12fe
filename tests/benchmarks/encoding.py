"""Pictures of 4 MB asked for as base64, 16 at once: how fast, and how much memory at the most."""

from collections.abc import Iterator

from tests.benchmarks.machine import callers, floor, module, service
from tests.benchmarks.overhead import PROGRAMS, SYNC
from tests.benchmarks.table import Figure, compare

NAME = "base64"
PICTURE, AT_ONCE, SECONDS = 4_000_000, 16, 4.0


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """Each round with processes of its own, for the peak of the memory."""
    peak: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    rate: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with module("upstream", str(PICTURE)) as (_, upstream), callers() as load:
        for _turn in range(rounds):
            for name, start in (("ours", service), ("floor", floor)):
                with start(upstream) as (program, port):
                    before = program.cpu_s()
                    asked = {**SYNC, "port": port, "callers": AT_ONCE, "seconds": SECONDS * scale, "mark": ""}
                    outcome = load.tell(**asked)
                    assert not outcome["errors"], outcome
                    rate[name].append(len(outcome["times"]) / (program.cpu_s() - before))
                    peak[name].append(program.peak_kib() / 1024)
    yield compare(NAME, "16 x 4 MB: peak memory", "MiB", peak["ours"], peak["floor"], at_most=143, absolute=True)
    yield compare(NAME, "16 x 4 MB: pictures/s per core", "/s", rate["ours"], rate["floor"], at_least=25, absolute=True)
