"""What limits cost: the same pictures for a key without any, and for one with three budgets and a pace."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.machine import ENVIRONMENT, ORDINARY, ROOT, Program, callers, module, service
from tests.benchmarks.overhead import SYNC
from tests.benchmarks.table import Figure, compare

NAME = "money"
KEYS: dict[str, Sequence[str]] = {
    "unlimited": (),
    "budgeted": (
        *("--budget", "100000/day", "--budget", "100000/month", "--pictures", "100000000/month"),
        *("--per-minute", "1000000", "--at-once", "1000"),
    ),
}
AT_ONCE, SECONDS = 16, 1.0


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """Two services that differ in their one key, in turns."""
    cpu_us: dict[str, list[float]] = {name: [] for name in KEYS}
    with module("upstream", str(ORDINARY)) as (_, upstream), ExitStack() as stack, callers() as load:
        services = {name: stack.enter_context(_keyed(upstream, options)) for name, options in KEYS.items()}
        for number in range(-1, 2 * rounds):
            for name in KEYS if number % 2 else reversed(KEYS):
                program, port, secret = services[name]
                told = {**SYNC, "port": port, "secret": secret, "callers": AT_ONCE, "mark": f"{name}-{number}"}
                before = program.cpu_s()
                outcome = load.tell(**told, seconds=SECONDS * scale)
                assert not outcome["errors"], outcome
                if number >= 0:  # the first ones fill caches
                    cpu_us[name].append((program.cpu_s() - before) / len(outcome["times"]) * 1e6)
    added = [mine - other for mine, other in zip(cpu_us["budgeted"], cpu_us["unlimited"], strict=True)]
    yield compare(NAME, "a budgeted picture: CPU", "us", cpu_us["budgeted"], cpu_us["unlimited"], "unlimited")
    yield compare(NAME, "what limits add", "us", added, at_most=200, absolute=True)


@contextmanager
def _keyed(upstream: str, options: Sequence[str]) -> Iterator[tuple[Program, int, str]]:
    """Run the service with one key; yields it, its port and the key."""
    with tempfile.TemporaryDirectory() as folder:
        state, file = f"{folder}/state.sqlite3", Path(folder) / "config.toml"
        file.write_text(f'[state]\npath = "{state}"\n')
        create = [sys.executable, "-m", "proxy", "keys", "create", "bench", *options, "--config", str(file)]
        made = subprocess.run(create, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        with service(upstream, state=state) as (program, port):
            yield program, port, made.stdout.strip()
