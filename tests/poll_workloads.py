"""Simulated jobs and the poll schedules that follow them: used by the tests and by benchmarks.

A job is done upstream so many seconds after its submit. A poll sent at s sees the state half a round trip later and
is answered after a whole one; lag is the time from done to the answer that says so. Durations are lognormal, with
episodes in which the queue makes a tenth of all jobs five times as long (facts: reliability.md 3.4).
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from proxy.jobs.schedule import Pace, Schedule, classify

State = Literal["queued", "generating"]
ROUND_TRIP_S, ROUND_TRIP_SIGMA = 0.08, 0.4
SPIKE_ENTER, SPIKE_LEAVE, SPIKE_FACTOR = 0.01, 0.09, 5.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs as drawn: ``median_s`` and ``sigma`` of the logarithm; ``drift`` doubles the median half-way.

    With ``queue_s`` (its median) a job is first queued, and spikes lengthen the queue, not the generation.
    ``progress``: what the provider says of itself: nothing, an honest figure, or a number without meaning.
    """

    name: str
    median_s: float
    sigma: float
    spikes: bool = True
    drift: bool = False
    queue_s: float = 0.0
    progress: Literal["none", "honest", "junk"] = "none"
    every_s: float = 5.0


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    """One job: when it is submitted, how long it is queued and generating, and how its progress figure bends."""

    submitted: float
    queued_s: float
    generating_s: float
    bend: float

    @property
    def done(self) -> float:
        """The moment the picture is ready."""
        return self.submitted + self.queued_s + self.generating_s

    def progress(self, at: float) -> float:
        """Return an honest figure: in steps of 5 %, and bent because not all steps take equally long."""
        share = (at - self.submitted - self.queued_s) / self.generating_s
        return math.floor(20 * math.pow(min(1.0, max(0.0, share)), self.bend)) / 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy did on a workload: lag in seconds, polls per job, share of jobs given up."""

    mean_s: float
    median_s: float
    p95_s: float
    polls: float
    lost: float

    def __str__(self) -> str:
        return f"{self.mean_s:6.2f} {self.median_s:6.2f} {self.p95_s:6.2f} {self.polls:7.2f} {100 * self.lost:6.2f}"


HEADINGS = f"{'mean':>6s} {'p50':>6s} {'p95':>6s} {'polls':>7s} {'lost %':>6s}"

WORKLOADS = {
    each.name: each
    for each in (
        Workload("2 s", 2.0, 0.35),
        Workload("4 s", 4.0, 0.30),
        Workload("12 s", 12.0, 0.25),
        Workload("4 s calm", 4.0, 0.30, spikes=False),
        Workload("4 s drift", 4.0, 0.30, drift=True),
    )
}


def seeded(seed: int) -> random.Random:
    """Return chance that repeats itself."""
    return random.Random(seed)  # noqa: S311 - nothing here is secret


def jobs(workload: Workload, count: int, seed: int) -> Iterator[SimulatedJob]:
    """Draw the workload's jobs, submitted at random moments ``every_s`` apart in the mean."""
    chance = seeded(seed)
    spike, now = False, 0.0
    for i in range(count):
        spike = workload.spikes and (chance.random() >= SPIKE_LEAVE if spike else chance.random() < SPIKE_ENTER)
        median_s = workload.median_s * (2 if workload.drift and i >= count // 2 else 1)
        took_s = median_s * math.exp(chance.gauss(0, workload.sigma))
        queued_s = 0.0
        if workload.queue_s:
            queued_s = workload.queue_s * math.exp(chance.gauss(0, 0.5)) + spike * (SPIKE_FACTOR - 1) * took_s
        elif spike:
            took_s *= SPIKE_FACTOR
        now += chance.expovariate(1 / workload.every_s)
        yield SimulatedJob(now, queued_s, took_s, math.exp(chance.gauss(0, 0.15)))


class Follower(Protocol):
    """Decides when one job is polled."""

    def next_wait(self, now: float, state: State, progress: float | None) -> float | None:
        """Return the seconds to wait, None to give up."""
        ...

    def finished(self, now: float) -> None:
        """Take note that the job is done."""
        ...


class Fixed:
    """Follows by a rule that learns nothing: a first wait, then always the same."""

    def __init__(self, first_s: float, step_s: float, most: int) -> None:
        self._waits = itertools.chain([first_s], itertools.repeat(step_s, most - 1))

    def next_wait(self, now: float, state: State, progress: float | None) -> float | None:  # noqa: ARG002
        return next(self._waits, None)

    def finished(self, now: float) -> None:
        pass


class Learned:
    """Follows by the schedule; ``blind`` keeps the provider's state and progress from it."""

    def __init__(self, pace: Pace, blind: bool) -> None:
        self._pace, self._blind = pace, blind

    def next_wait(self, now: float, state: State, progress: float | None) -> float | None:
        if self._blind:
            state, progress = "generating", None
        return self._pace.next_wait(now=now, state=state, progress=progress)

    def finished(self, now: float) -> None:
        self._pace.finished(now)


Policy = Callable[[Callable[[], float]], Callable[[], Follower]]
"""Given the simulation's clock, returns what makes one follower for each job."""


def fixed(first_s: float, step_s: float, most: int = 10**9) -> Policy:
    """Poll after ``first_s``, then every ``step_s``, at most so many times."""
    return lambda _: lambda: Fixed(first_s, step_s, most)


def learned(worth_s: float, *, budget_per_s: float = 0.0, blind: bool = False, seed: int = 2) -> Policy:
    """Poll as ``proxy.jobs.schedule`` says."""

    def start(now: Callable[[], float]) -> Callable[[], Follower]:
        schedule = Schedule(worth_s=worth_s, random=seeded(seed), now=now)
        key = classify("simulated", "model", 1024, 1024, 4)
        return lambda: Learned(schedule.watch(key, budget_per_s), blind)

    return start


IMAGELABS_SEED, PRODIA_SEED, PRODIA_JS = fixed(0, 1.0), fixed(0, 2.0, 30), fixed(0.25, 0.25)


def simulate(workload: Workload, policy: Policy, count: int, seed: int = 1) -> Outcome:
    """Run ``count`` jobs, overlapping as they fall, and measure."""
    chance = seeded(seed + 1)
    junk = seeded(seed + 2)
    clock = 0.0
    watch = policy(lambda: clock)
    tie = itertools.count()
    lags: list[float] = []
    polls = 0
    # A place in the queue is a moment at which an answer arrives, and when the provider looked to give it.
    queue: list[tuple[float, int, float, SimulatedJob, Follower | None]] = []
    for job in jobs(workload, count, seed):
        heapq.heappush(queue, (job.submitted, next(tie), job.submitted, job, None))
    while queue:
        clock, _, looked, job, follower = heapq.heappop(queue)
        follower = follower or watch()
        if looked >= job.done:
            lags.append(clock - job.done)
            follower.finished(clock)
            continue
        state: State = "queued" if looked < job.submitted + job.queued_s else "generating"
        progress = None
        if workload.progress != "none" and state == "generating":
            progress = job.progress(looked) if workload.progress == "honest" else junk.random()
        wait = follower.next_wait(clock, state, progress)
        if wait is None:
            continue
        polls += 1
        trip = ROUND_TRIP_S * math.exp(chance.gauss(0, ROUND_TRIP_SIGMA))
        sent = clock + wait
        heapq.heappush(queue, (sent + trip, next(tie), sent + trip / 2, job, follower))
    lags.sort()
    return Outcome(
        sum(lags) / len(lags), lags[len(lags) // 2], lags[int(0.95 * len(lags))], polls / count, 1 - len(lags) / count
    )
