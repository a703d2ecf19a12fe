"""What the dialects share: the clock, the keys, the jobs and the counts."""

import math
import uuid
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, get_args

from proxy.clock import Clock
from proxy.simulator.scene import Drawing
from proxy.simulator.words import Words, read_words

State = Literal["queued", "generating", "finished"]
Event = Literal["submits", "polls", "fetches", "started"]
"""``submits``: all that arrived; ``started``: jobs that really began and are billed; ``polls``: calls that ask about a
job; ``fetches``: downloads of a picture (GET, not HEAD)."""

_SCATTER = 0.25
"""Sigma of the durations' lognormal scatter."""
_QUEUED_SHARE = 0.2
"""The queued part of a duration given by ``[seconds:…]`` alone."""
_SLOW_QUEUE_S = 180.0
_MOST_PROMPTS = _MOST_TAGS = 10_000
_MOST_JOBS = 20_000
"""Kept at once; beyond it the oldest are forgotten."""
_TOTAL = ""


@dataclass(slots=True)
class Job:
    """One picture being made, as plain data: its state is computed from the clock whenever it is needed.

    ``started_at`` is monotonic, ``created`` Unix time, all in seconds. ``details`` is what the dialect's later answers
    repeat from the submit.
    """

    id: str
    dialect: str
    words: Words
    drawing: Drawing = field(repr=False)
    started_at: float
    created: float
    queued_s: float
    generating_s: float
    keep_s: float
    details: Mapping[str, Any] = field(repr=False)
    polls: int = 0

    @property
    def duration_s(self) -> float:
        """Seconds from the submit to the finished picture; infinite for a job that never ends."""
        return self.queued_s + self.generating_s

    def state(self, now: float) -> State:
        """Return where the job is at a moment on the monotonic clock."""
        elapsed = now - self.started_at
        if elapsed < self.queued_s:
            return "queued"
        return "generating" if elapsed < self.duration_s else "finished"

    def progress(self, now: float) -> float:
        """Return the share of the generating part that is over, 0–1."""
        if self.state(now) == "finished":
            return 1.0
        return max(0.0, now - self.started_at - self.queued_s) / (self.generating_s or 1.0)


class Simulation:
    """The state behind the dialects. Durations are divided by ``speed``, unless a prompt's words set them.

    ``keys``: by dialect, the keys that are right instead of the dialects' own.
    """

    def __init__(self, clock: Clock, speed: float, keys: Mapping[str, str]) -> None:
        self.clock = clock
        self.speed = speed
        self.keys = keys
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter, {_TOTAL: Counter()})
        self._prompts: Counter[str] = Counter()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def count(self, event: Event, tag: str) -> None:
        """Count one event, in total and for the tag if there is one."""
        for group in {_TOTAL, tag}:
            self._counts[group][event] += 1
        # The oldest tag is forgotten. The totals are the first entry, so it is the second.
        if len(self._counts) > _MOST_TAGS:
            del self._counts[next(islice(self._counts, 1, 2))]

    def counts(self, tag: str = _TOTAL) -> dict[str, int]:
        """Return the counts of a tag (zeros where it is unknown), or the totals."""
        counts = self._counts.get(tag, Counter())
        return {event: counts[event] for event in get_args(Event)}

    def arrive(self, prompt: str, *others: str) -> tuple[Words, int]:
        """Count a submit by its prompt and the other texts that may contain words.

        Returns the words, and how many submits with faults this prompt has had in all dialects, including this one.
        """
        words = read_words(prompt, *others)
        self.count("submits", words.tag)
        if not words.faults:
            return words, 1
        self._prompts[prompt] += 1
        if len(self._prompts) > _MOST_PROMPTS:
            del self._prompts[next(iter(self._prompts))]
        return words, self._prompts[prompt]

    def start(
        self,
        dialect: str,
        words: Words,
        drawing: Drawing,
        queued_s: float,
        generating_s: float,
        keep_s: float = 3600.0,
        **details: Any,
    ) -> Job:
        """Begin a job with these typical durations, count it as begun, and keep it for ``keep_s``."""
        job_id = str(uuid.UUID(int=self.clock.random.getrandbits(128), version=4))
        spans, now = self._spans(words, queued_s, generating_s), (self.clock.monotonic(), self.clock.wall())
        job = self._jobs[job_id] = Job(job_id, dialect, words, drawing, *now, *spans, keep_s, details)
        while len(self._jobs) > _MOST_JOBS or self._expired(next(iter(self._jobs.values()))):
            self._jobs.popitem(last=False)
        self.count("started", words.tag)
        return job

    def find(self, job_id: str, *dialects: str) -> Job | None:
        """Return a job of one of the dialects; None when it is unknown or expired."""
        job = self._jobs.get(job_id)
        return None if job is None or job.dialect not in dialects or self._expired(job) else job

    def state(self, job: Job) -> State:
        """Return where the job is now."""
        return job.state(self.clock.monotonic())

    def poll(self, job: Job) -> int:
        """Count a poll of the job; return how many there were."""
        self.count("polls", job.words.tag)
        job.polls += 1
        return job.polls

    def seed(self) -> int:
        """Return a random seed for a submit without one."""
        return self.clock.random.randrange(2**31)

    def _expired(self, job: Job) -> bool:
        return self.clock.monotonic() - job.started_at > job.keep_s

    def _spans(self, words: Words, queued_s: float, generating_s: float) -> tuple[float, float]:
        queued_s, generating_s = self._scattered(queued_s), self._scattered(generating_s)
        if words.seconds is not None:
            queued_s = words.seconds * _QUEUED_SHARE
            generating_s = words.seconds - queued_s
        if words.queued is not None:
            queued_s = words.queued
            generating_s = generating_s if words.seconds is None else max(0.0, words.seconds - queued_s)
        if slow := words.fault("slow"):
            queued_s = slow.number(0, _SLOW_QUEUE_S / self.speed)
        if stuck := words.fault("stuck"):
            queued_s, generating_s = math.inf if "queued" in stuck.arguments else 0.0, math.inf
        return queued_s, generating_s

    def _scattered(self, typical_s: float) -> float:
        return typical_s * self.clock.random.lognormvariate(0.0, _SCATTER) / self.speed
