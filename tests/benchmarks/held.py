"""Requests that wait: thousands attached to one running job, and a thousand with a polled job each."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.benchmarks.machine import SMALL, Program, callers, floor, module, service, settle
from tests.benchmarks.table import Figure, compare
from tests.benchmarks.throughput import POLLED

NAME = "held requests"
HELD = {**POLLED, "do": "hold", "prompt": "[held] a hill"}
REST_S, WATCH_S = 1.0, 2.0
ONE_SECOND = {"first": 1.0, "step": 1.0, "factor": 1, "longest": 1.0, "jitter": 0.1, "most": 10**9}

Start = Callable[[str], AbstractContextManager[tuple[Program, int]]]


@dataclass(slots=True)
class Samples:
    """What one program needed, round by round."""

    kib: list[float] = field(default_factory=list)
    cpu_percent: list[float] = field(default_factory=list)
    poll_ms: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    unanswered: int = 0


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """Both kinds, each round with processes of its own: memory once taken is seldom given back."""
    attached, polled = round(10_000 * scale), round(1000 * scale)
    samples = {name: Samples() for name in ("ours", "floor", "ours polled", "floor polled")}
    with module("upstream", str(SMALL)) as (_, upstream):
        for _turn in range(rounds):
            _hold(samples["ours"], service, upstream, attached, "one")
            _hold(samples["floor"], floor, upstream, attached, "one")
            _hold(samples["ours polled"], lambda url: service(url, poll_worth=0.06), upstream, polled, "")
            _hold(samples["floor polled"], lambda url: floor(url, ONE_SECOND), upstream, polled, "")
    ours, bare = samples["ours"], samples["floor"]
    title = f"{attached} attached to one job:"
    yield compare(NAME, f"{title} memory each", "KiB", ours.kib, bare.kib, at_most=40, absolute=True)
    percent, answer_s = ours.cpu_percent, ours.answer_s
    yield compare(
        NAME, f"{title} CPU while waiting", "% of a core", percent, bare.cpu_percent, at_most=3, absolute=True
    )
    yield compare(NAME, f"{title} all answered after", "s", answer_s, bare.answer_s, at_most=5, absolute=True)
    yield compare(NAME, f"{title} unanswered", "requests", [ours.unanswered], at_most=0, absolute=True)
    ours, bare = samples["ours polled"], samples["floor polled"]
    title = f"{polled} with a job each:"
    yield compare(NAME, f"{title} memory each", "KiB", ours.kib, bare.kib, at_most=45, absolute=True)
    yield compare(NAME, f"{title} CPU per poll", "ms", ours.poll_ms, bare.poll_ms)
    yield compare(NAME, f"{title} unanswered", "requests", [ours.unanswered], at_most=0, absolute=True)


def _hold(samples: Samples, start: Start, upstream: str, number: int, key: str) -> None:
    with start(upstream) as (program, port), callers() as load:
        load.tell(**POLLED | {"prompt": "warm"}, port=port, callers=2, seconds=0, mark="warm")
        settle(0.5)
        before_kib = program.resident_kib()
        load.tell(**HELD, port=port, callers=number, key=key, mark="held")
        settle(REST_S)
        samples.kib.append((program.resident_kib() - before_kib) / number)
        polls, cpu_s = _polls(upstream), program.cpu_s()
        settle(WATCH_S)
        spent_s = program.cpu_s() - cpu_s
        samples.cpu_percent.append(100 * spent_s / WATCH_S)
        samples.poll_ms.append(1000 * spent_s / max(1, _polls(upstream) - polls))
        released = time.monotonic()
        urllib.request.urlopen(f"{upstream}/release", b"").close()  # noqa: S310 (a loopback address of ours)
        outcome = load.tell(do="finish")
        samples.answer_s.append(outcome["last"] - released)
        samples.unanswered += number - outcome["good"]


def _polls(upstream: str) -> int:
    with urllib.request.urlopen(f"{upstream}/counts") as response:  # noqa: S310 (a loopback address of ours)
        polls: int = json.load(response)["polls"]
        return polls
