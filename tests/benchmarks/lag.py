"""How soon a caller has a picture that is done, and at how many polls: the service and the usual rules, side by side.

Every job runs once in each arm, at the same moment, for the same time, at the same simulator. Lag is what the caller
waited beyond the job's own duration. Time runs five times as fast; so do all schedules.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean

import aiohttp

from tests.benchmarks.machine import floor, module
from tests.benchmarks.table import Figure, compare
from tests.poll_workloads import SimulatedJob, Workload, jobs, seeded

NAME = "lag and polls (time / 5)"
SCALE = 5.0
EVERY_S, APART_S = 0.7, 0.02
ROUND, WARM = 38, 40
V1, LABS = "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]", "imagelabs/sdxl-turbo"
"""Prodia v1 is told no queue and tells no progress; ImageLabs tells both."""
RULES: dict[str, dict[str, float]] = {
    "ImageLabs' 1 s": {"first": 0, "step": 1, "factor": 1, "longest": 1, "most": 10**9},
    "Prodia's 2 s": {"first": 0, "step": 2, "factor": 1, "longest": 2, "most": 30},
    "250 ms": {"first": 0.25, "step": 0.25, "factor": 1, "longest": 0.25, "most": 10**9},
    "backoff x1.5": {"first": 0.5, "step": 0.75, "factor": 1.5, "longest": 5, "most": 10**9},
}
WORTHS = (0.06, 0.2)
"""The default, to beat the 1 s rule and to be compared with 250 ms; the one to beat Prodia's."""
AWARE = "ours, told state and progress"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to follow jobs: where it is asked, and for which model."""

    name: str
    url: str
    model: str
    told: bool = False

    def prompt(self, job: SimulatedJob, tag: str) -> str:
        """Return what makes the simulator take as long as the job does."""
        total = job.queued_s + job.generating_s
        return f"a hill [seconds:{total:.4f}] [queued:{job.queued_s if self.told else 0:.4f}] [tag:{tag}]"


@dataclass(slots=True)
class Samples:
    """An arm's lags in seconds, round by round, and its polls per job."""

    lags: list[list[float]] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)

    @property
    def means(self) -> list[float]:
        """Each round's mean lag."""
        return [fmean(lags) for lags in self.lags]

    @property
    def p95(self) -> float:
        """The lag of all rounds together that a twentieth exceeds."""
        pooled = sorted(lag for lags in self.lags for lag in lags)
        return pooled[int(0.95 * len(pooled))]

    @property
    def costs(self) -> list[float]:
        """Each round's lag and polls in one figure, a poll at its default worth."""
        return [mean + WORTHS[0] * polls for mean, polls in zip(self.means, self.polls, strict=True)]


WORKLOADS = {
    "lognormal 4 s": (Workload("lognormal", 4.0, 0.3, spikes=False, every_s=EVERY_S),),
    "bimodal 2/5 s": (
        Workload("quick", 2.0, 0.15, spikes=False, every_s=EVERY_S),
        Workload("slow", 5.0, 0.15, spikes=False, every_s=EVERY_S),
    ),
    "drift 2-4 s": (Workload("drift", 2.0, 0.3, spikes=False, drift=True, every_s=EVERY_S),),
    "spikes 2+1 s": (Workload("spikes", 2.0, 0.3, queue_s=1.0, every_s=EVERY_S),),
}


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """Each workload with schedules that have learned nothing yet; the first jobs teach and don't count."""
    for title, mixture in islice(WORKLOADS.items(), None if scale == 1 else 1):
        with ExitStack() as stack:
            _, simulator = stack.enter_context(module("scaled", f"{SCALE}"))
            arms = list(_arms(stack, simulator))
            samples = asyncio.run(_run(arms, list(_draw(mixture, WARM + rounds * ROUND)), rounds, simulator))
        yield from _figures(title, samples)


def _arms(stack: ExitStack, simulator: str) -> Iterator[Arm]:
    for worth in WORTHS:
        _, url = stack.enter_context(module("scaled", f"{SCALE}", simulator, f"{worth}"))
        yield Arm(f"ours, poll_worth {worth}", url, V1)
        if worth == WORTHS[0]:
            yield Arm(AWARE, url, LABS, told=True)
    for name, rule in RULES.items():
        waits = {key: value if key in ("factor", "most") else value / SCALE for key, value in rule.items()}
        _, port = stack.enter_context(floor(simulator, {**waits, "jitter": 0}))
        yield Arm(name, f"http://127.0.0.1:{port}", V1)


def _draw(mixture: tuple[Workload, ...], count: int) -> Iterator[SimulatedJob]:
    chance = seeded(3)
    streams = [jobs(workload, count, seed) for seed, workload in enumerate(mixture, 5)]
    for together in zip(*streams, strict=True):
        yield together[chance.randrange(len(together))]


async def _run(arms: list[Arm], drawn: list[SimulatedJob], rounds: int, simulator: str) -> dict[str, Samples]:
    samples = {arm.name: Samples() for arm in arms}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _round(session, arms, drawn[:WARM], "warm")
        for number in range(rounds):
            batch = drawn[WARM + number * ROUND :][:ROUND]
            for arm, lags in zip(arms, await _round(session, arms, batch, f"{number}"), strict=True):
                samples[arm.name].lags.append(lags)
                tag = _tag(f"{number}", arms.index(arm))
                async with session.get(f"{simulator}/_counts", params={"tag": tag}) as response:
                    samples[arm.name].polls.append((await response.json())["polls"] / len(batch))
    return samples


async def _round(
    session: aiohttp.ClientSession, arms: list[Arm], batch: list[SimulatedJob], mark: str
) -> list[list[float]]:
    """Run the batch in every arm at once; returns each arm's lags."""
    tasks: list[list[asyncio.Task[float]]] = [[] for _ in arms]
    turns = list(range(len(arms)))
    for job in batch:
        random.shuffle(turns)
        for number in turns:
            tag = _tag(mark, number)
            tasks[number].append(asyncio.create_task(_ask(session, arms[number], job, tag)))
            await asyncio.sleep(APART_S / SCALE)
        await asyncio.sleep(EVERY_S / SCALE - len(arms) * APART_S / SCALE)
    return [list(await asyncio.gather(*each)) for each in tasks]


async def _ask(session: aiohttp.ClientSession, arm: Arm, job: SimulatedJob, tag: str) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    body = {"model": arm.model, "prompt": arm.prompt(job, tag), "response_format": "url"}
    async with session.post(f"{arm.url}/v1/images/generations", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
    return (loop.time() - began) * SCALE - job.queued_s - job.generating_s


def _tag(mark: str, number: int) -> str:
    return f"{mark}-{number}"


def _figures(title: str, samples: dict[str, Samples]) -> Iterator[Figure]:
    default, thrifty = (samples[f"ours, poll_worth {worth}"] for worth in WORTHS)
    limits = (
        (default, WORTHS[0], "ImageLabs' 1 s", 0.7, 1.0, None),
        (thrifty, WORTHS[1], "Prodia's 2 s", 1.0, 1.0, 1.05),
        (default, WORTHS[0], "250 ms", 2.4, 0.45, None),
        (default, WORTHS[0], "backoff x1.5", None, None, None),
    )
    for ours, worth, name, lag, polls, p95 in limits:
        other, what = samples[name], f"{title}, poll_worth {worth}"
        yield compare(NAME, f"{what}: mean lag", "s", ours.means, other.means, name, at_most=lag)
        yield compare(NAME, f"{what}: p95 lag", "s", [ours.p95], [other.p95], name, at_most=p95)
        yield compare(NAME, f"{what}: polls per picture", "", ours.polls, other.polls, name, at_most=polls)
    aware, blind = samples[AWARE], "ours without"
    what = f"{title}, poll_worth {WORTHS[0]}, state and progress used"
    yield compare(NAME, f"{what}: mean lag", "s", aware.means, default.means, blind)
    yield compare(NAME, f"{what}: polls per picture", "", aware.polls, default.polls, blind)
    yield compare(NAME, f"{what}: lag + worth x polls", "s", aware.costs, default.costs, blind, at_most=1.0)
