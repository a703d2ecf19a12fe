"""``python -m tests.benchmarks``: every benchmark, one table, and the same as JSON beside it."""

import argparse
import sys
import time
from pathlib import Path

from tests.benchmarks import (
    durable,
    encoding,
    held,
    lag,
    money,
    overhead,
    postgres,
    responsiveness,
    start,
    state,
    throughput,
    two_ways,
)
from tests.benchmarks.machine import raise_limits
from tests.benchmarks.table import Figure, circumstances, show

BENCHMARKS = {
    "lag": lag,
    "overhead": overhead,
    "throughput": throughput,
    "two-ways": two_ways,
    "held": held,
    "base64": encoding,
    "responsiveness": responsiveness,
    "start": start,
    "durable": durable,
    "state": state,
    "money": money,
    "postgres": postgres,
}
QUICK_SCALE = 0.2


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (default 5)")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="one short round: a look, no evidence")
    parser.add_argument("--output", type=Path, default=Path("bench-results.json"), metavar="FILE")
    options = parser.parse_args()
    raise_limits()
    rounds, scale = (1, QUICK_SCALE) if options.quick else (options.rounds, 1.0)
    facts = circumstances(rounds)
    figures: list[Figure] = []
    for name in options.only or BENCHMARKS:
        began = time.monotonic()
        figures += BENCHMARKS[name].measure(rounds, scale)
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    show(figures, facts, options.output)


if __name__ == "__main__":
    main()
