"""What the four dialects share: the clock, the jobs, the counts and the keys."""

import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.clock import Clock
from proxy.simulator.counts import Tally
from proxy.simulator.jobs import Job, Jobs
from proxy.simulator.scene import Drawing
from proxy.simulator.words import Words, read_words

DEMO_TOKEN = "demo-token"  # noqa: S105 - the simulator's own, public by design
DEMO_KEY = "00000000-demo-demo-demo-000000000000"

_SCATTER = 0.25
"""Sigma of the durations' lognormal scatter."""

_QUEUED_SHARE = 0.2
"""The queued part of a duration given by ``[seconds:…]`` alone."""

_SLOW_QUEUE_S = 180.0
"""F27: about three minutes before progress starts."""

_MOST_PROMPTS = 10_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """The keys that the simulated providers accept."""

    prodia: str = DEMO_TOKEN
    prodia_v1: str = DEMO_KEY


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit that arrived: its steering words, and the how-manieth of its prompt it is (from 1)."""

    words: Words
    nth: int


@dataclass(slots=True)
class Simulation:
    """The state behind the dialects. Durations are divided by ``speed``, unless a prompt's words set them."""

    clock: Clock
    speed: float
    tokens: Tokens
    jobs: Jobs = field(init=False)
    tally: Tally = field(default_factory=Tally)
    _seen: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.clock)

    def arrive(self, dialect: str, prompt: str, *others: str) -> Submission:
        """Count a submit by its prompt and the other texts that may carry words."""
        words = read_words(dialect, prompt, *others)
        self.tally.add("submits", words.tag)
        nth = 1
        if words.faults:
            nth = self._seen[dialect, prompt] = self._seen.pop((dialect, prompt), 0) + 1
        if len(self._seen) > _MOST_PROMPTS:
            self._seen.popitem(last=False)
        return Submission(words, nth)

    def start(
        self,
        dialect: str,
        words: Words,
        drawing: Drawing,
        *,
        queued_s: float,
        generating_s: float,
        keep_s: float = 3600.0,
        details: Mapping[str, Any] | None = None,
    ) -> Job:
        """Begin a job with these typical durations, and count it as begun."""
        queued_s, generating_s = self._spans(words, queued_s, generating_s)
        job = Job(
            id=str(uuid.UUID(int=self.clock.random.getrandbits(128), version=4)),
            dialect=dialect,
            words=words,
            drawing=drawing,
            started_at=self.clock.monotonic(),
            created=self.clock.wall(),
            queued_s=queued_s,
            generating_s=generating_s,
            keep_s=keep_s,
            details=details or {},
        )
        self.jobs.add(job)
        self.tally.add("started", words.tag)
        return job

    def poll(self, job: Job) -> int:
        """Count a poll of the job; return how many there were."""
        self.tally.add("polls", job.words.tag)
        return self.jobs.polled(job)

    def seed(self) -> int:
        """Return a seed for a caller who named none."""
        return self.clock.random.randrange(2**31)

    def _spans(self, words: Words, queued_s: float, generating_s: float) -> tuple[float, float]:
        queued_s, generating_s = self._scattered(queued_s), self._scattered(generating_s)
        if words.seconds is not None:
            queued_s = words.seconds * _QUEUED_SHARE
            generating_s = words.seconds - queued_s
        if words.queued is not None:
            queued_s = words.queued
            generating_s = generating_s if words.seconds is None else max(0.0, words.seconds - queued_s)
        if slow := words.fault("F27"):
            queued_s = slow.number(0, _SLOW_QUEUE_S / self.speed)
        if endless := words.fault("F4", "F25"):
            if "queued" in endless.arguments:
                queued_s = math.inf
            generating_s = math.inf
        return queued_s, generating_s

    def _scattered(self, typical_s: float) -> float:
        return typical_s * self.clock.random.lognormvariate(0.0, _SCATTER) / self.speed
