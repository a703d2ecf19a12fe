"""What the state in PostgreSQL costs for a picture: its four writes, by one replica and by two, on both sides.

Where it is said so, it is looked for before, as the service does: a call may repeat one of another replica.
Each replica is a process: ``python -m tests.benchmarks.postgres URL IN-FLIGHT LIMITS LOOKED-FOR``. It makes so many
pictures as each line on its standard input asks for, and tells what they cost.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from proxy.state.operations import State
from proxy.state.postgres.engine import open_postgres
from tests.benchmarks.machine import Program, module
from tests.benchmarks.state import ACCOUNT, LIMITS, picture
from tests.benchmarks.table import Figure, compare
from tests.state import database

NAME = "postgres"
PICTURES = {1: 300, 8: 2000, 16: 4000, 32: 4000, 64: 6000}
"""Of each replica, by how many are in flight."""
_SETTINGS = "\nmax_connections = 50\n"
_LEASE_MS = 10**9


class Outcome(NamedTuple):
    """Of one run: CPU in µs a picture of all replicas and of the server, pictures a second, ms of the first write."""

    client_us: float
    server_us: float
    rate: float
    first_ms: float
    groups: float


RUNS = {
    "1 in flight": (1, 1, False, False),
    "16 in flight": (1, 16, False, False),
    "64 in flight": (1, 64, False, False),
    "64 in flight, three limits": (1, 64, True, False),
    "two replicas, 8 in flight each": (2, 8, False, False),
    "two replicas, 16 in flight each": (2, 16, False, False),
    "two replicas, 32 in flight each": (2, 32, False, False),
    "two replicas, 32 in flight each, three limits": (2, 32, True, False),
    "16 in flight, looked for": (1, 16, False, True),
    "64 in flight, three limits, looked for": (1, 64, True, True),
    "two replicas, 8 in flight each, looked for": (2, 8, False, True),
    "two replicas, 32 in flight each, three limits, looked for": (2, 32, True, True),
}
_AGAINST = {
    "two replicas, 8 in flight each": "16 in flight",
    "two replicas, 16 in flight each": "16 in flight",
    "two replicas, 32 in flight each": "64 in flight",
    "two replicas, 32 in flight each, three limits": "64 in flight, three limits",
    "two replicas, 8 in flight each, looked for": "16 in flight, looked for",
    "two replicas, 32 in flight each, three limits, looked for": "64 in flight, three limits, looked for",
}
"""What one replica costs with the same load in all, or the same load on each."""


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """The runs take turns on one server. The driver's own cost is in the figures: some 15 µs a picture."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = database.start(Path(folder) / "postgres", _SETTINGS)
        for _ in range(rounds):
            for name, run in RUNS.items():
                outcomes[name].append(_run(server, *run, scale))
        server.cleanup()
    for name, (_, in_flight, limits, looked_for) in RUNS.items():
        seen, one = outcomes[name], outcomes.get(_AGAINST.get(name, ""), [])
        most = 80 if in_flight >= 16 and not (one or limits or looked_for) else None
        for what in ("client", "server"):
            ours, reference = ([getattr(each, f"{what}_us") for each in runs] for runs in (seen, one))
            if one:
                yield compare(NAME, f"{name}: {what}'s CPU", "us", ours, reference, "one", at_most=1.15)
            else:
                most = most if what == "client" else None
                yield compare(NAME, f"{name}: {what}'s CPU", "us", ours, at_most=most, absolute=True)
        yield compare(NAME, f"{name}: first write, p50", "ms", [each.first_ms for each in seen])
        yield compare(NAME, f"{name}: groups a picture", "", [each.groups for each in seen])
        yield compare(NAME, f"{name}: pictures/s", "/s", [each.rate for each in seen])


def _run(server: Any, replicas: int, in_flight: int, limits: bool, looked_for: bool, scale: float) -> Outcome:
    url = asyncio.run(database.create(server, "benchmark"))
    pictures = int(PICTURES[in_flight] * scale)
    with ExitStack() as stack:
        arguments = (url, str(in_flight), str(int(limits)), str(int(looked_for)))
        running = [stack.enter_context(module("postgres", *arguments))[0] for _ in range(replicas)]
        _ask(running, max(200, pictures // 4))  # plans are made, and pages filled
        before, began = _server_cpu_s(server), time.perf_counter()
        told = _ask(running, pictures)
        took_s, server_s = time.perf_counter() - began, _server_cpu_s(server) - before
    made = pictures * replicas
    return Outcome(
        sum(one["cpu_s"] for one in told) / made * 1e6,
        server_s / made * 1e6,
        made / took_s,
        sum(one["first_ms"] for one in told) / replicas,
        sum(one["groups"] for one in told) / made,
    )


def _ask(running: list[Program], pictures: int) -> list[dict[str, Any]]:
    for program in running:
        assert program.process.stdin is not None
        program.process.stdin.write(f"{pictures}\n")
        program.process.stdin.flush()
    return [json.loads(program.read_line()) for program in running]


def _server_cpu_s(server: Any) -> float:
    """Return the CPU seconds of the server's processes that run now."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if server.get_pid() in (parent, int(process.name)):
                total += int(process.joinpath("schedstat").read_text().split()[0]) / 1e9
        except OSError:  # it has ended
            continue
    return total


async def _serve(url: str, in_flight: int, limits: bool, looked_for: bool) -> None:
    groups: list[int] = []
    state = await open_postgres(url, lease_ms=_LEASE_MS, observe=lambda size, _: groups.append(size))
    holder = f"replica-{time.time_ns()}"
    await state.register(holder)
    if limits and not await state.standing(ACCOUNT):  # the other replica hasn't
        await state.set_limits(LIMITS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        groups.clear()
        began = time.process_time()
        firsts = await _make(state, holder, in_flight, int(line), looked_for=looked_for)
        cost = {"cpu_s": time.process_time() - began, "first_ms": sorted(firsts)[len(firsts) // 2] * 1e3}
        sys.stdout.write(json.dumps({**cost, "groups": len(groups)}) + "\n")
        sys.stdout.flush()
    await state.close()


async def _make(state: State, holder: str, in_flight: int, pictures: int, *, looked_for: bool) -> list[float]:
    turns, firsts = iter(range(pictures)), []

    async def caller() -> None:
        for _ in turns:
            first_s = await picture(state, holder, looked_for=looked_for)
            firsts.append(first_s)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return firsts


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4] == "1"))
