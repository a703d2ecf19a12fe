"""Prodia v2's two ways to make a picture, and its price: what they cost in CPU, in calls and in waiting."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from math import log
from random import Random
from statistics import median

import aiohttp

from tests.benchmarks.machine import ORDINARY, Program, callers, module, service
from tests.benchmarks.overhead import SYNC
from tests.benchmarks.table import Figure, compare

NAME = "two ways"
FORMS = {"priced": "a hill", "plain": "a hill [plain]"}
AT_ONCE, SECONDS = 16, 1.0
MODES = ("async", "sync")
DURATIONS_S, SIGMA = (0.3, 2.0, 12.0), 0.2
"""How long jobs take: so many seconds in the middle, scattered by a fifth."""
JOBS, WARM, APART_S, POLL_WORTH = 8, 16, 0.15, "0.06"


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """The price's part of the CPU; then each way's calls and lag."""
    yield from _price(rounds, scale)
    yield from _ways(rounds, scale)


def _price(rounds: int, scale: float) -> Iterator[Figure]:
    """The same service with answers of both forms, in turns."""
    cpu_us: dict[str, list[float]] = {form: [] for form in FORMS}
    with module("upstream", str(ORDINARY)) as (_, upstream), service(upstream) as (program, port), callers() as load:
        for number in range(2 * rounds):
            for form in FORMS if number % 2 else reversed(FORMS):
                told = {**SYNC, "prompt": FORMS[form], "port": port, "callers": AT_ONCE, "mark": f"{form}-{number}"}
                cpu_us[form].append(_cpu_us(load, program, {**told, "seconds": SECONDS * scale}))
    added = [priced - plain for priced, plain in zip(cpu_us["priced"], cpu_us["plain"], strict=True)]
    yield compare(NAME, "200 kB in one call, with its price: CPU", "us", cpu_us["priced"], cpu_us["plain"], "plain")
    yield compare(NAME, "what the price adds", "us", added, at_most=80, absolute=True)


def _cpu_us(load: Program, program: Program, told: dict[str, object]) -> float:
    before = program.cpu_s()
    outcome = load.tell(**told)
    assert not outcome["errors"], outcome
    return (program.cpu_s() - before) / len(outcome["times"]) * 1e6


def _ways(rounds: int, scale: float) -> Iterator[Figure]:
    """The same jobs in both modes in real time; the first ones teach how long they take and don't count."""
    chance = Random(5)  # noqa: S311 (repeatable)
    for usual_s in DURATIONS_S:
        number = max(1, round(JOBS * rounds * scale))
        jobs = [chance.lognormvariate(log(usual_s), SIGMA) for _ in range(WARM + number)]
        lags: dict[str, list[float]] = {}
        calls: dict[str, float] = {}
        with module("scaled", "1") as (_, simulator):
            for mode in MODES:
                with module("scaled", "1", simulator, POLL_WORTH, mode) as (_, url):
                    lags[mode], calls[mode] = asyncio.run(_follow(url, simulator, jobs, f"{mode}-{usual_s:g}"))
        added = (median(lags["async"]) - median(lags["sync"])) * 1000
        ours, other = ([1000 * median(lags[mode])] for mode in MODES)
        yield compare(NAME, f"job of {usual_s:g} s, async: lag, median", "ms", ours, other, "sync")
        yield compare(NAME, f"job of {usual_s:g} s: what async adds, median", "ms", [added])
        yield compare(NAME, f"job of {usual_s:g} s, async: calls", "", [calls["async"]], [calls["sync"]], "sync")


async def _follow(url: str, simulator: str, jobs: Sequence[float], tag: str) -> tuple[list[float], float]:
    """Return by how many seconds each answer came later than its job was done, and the calls for each job."""
    async with aiohttp.ClientSession() as session:
        tasks: list[asyncio.Task[float]] = []
        for number, seconds in enumerate(jobs):
            if number == WARM:
                await asyncio.gather(*tasks)
            counted = f"[tag:{tag}]" if number >= WARM else ""
            prompt = f"hill {number} [seconds:{seconds:.4f}] [bytes:{ORDINARY}] {counted}"
            tasks.append(asyncio.create_task(_lag(session, url, prompt, seconds)))
            await asyncio.sleep(APART_S)
        lags = await asyncio.gather(*tasks)
        async with session.get(f"{simulator}/_counts", params={"tag": tag}) as response:
            counts = await response.json()
    number = len(jobs) - WARM
    lists = number if counts["polls"] else 0  # an asynchronous job's list of outputs, which is not counted there
    return lags[WARM:], (counts["submits"] + counts["polls"] + counts["fetches"] + lists) / number


async def _lag(session: aiohttp.ClientSession, url: str, prompt: str, seconds: float) -> float:
    began = time.monotonic()
    async with session.post(
        f"{url}/v1/images/generations", json={"prompt": prompt, "model": SYNC["model"]}
    ) as response:
        assert response.status == 200, await response.text()
    return time.monotonic() - began - seconds
