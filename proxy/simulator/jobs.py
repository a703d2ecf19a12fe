"""A simulated job is plain data; its state is computed from the clock when somebody asks."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.clock import Clock
from proxy.simulator.scene import Drawing
from proxy.simulator.words import Words

State = Literal["queued", "generating", "finished"]

_MOST_JOBS = 20_000
"""Jobs kept at once; beyond it the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture in the making. ``started_at`` is monotonic, ``created`` Unix time, all in seconds.

    ``details`` is what the dialect wants to say about the job later: its echo of the request.
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
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

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
        """Return 0–1: how much of the generating part is over."""
        if self.generating_s == 0:
            return 1.0 if self.state(now) == "finished" else 0.0
        return min(1.0, max(0.0, (now - self.started_at - self.queued_s) / self.generating_s))


class Jobs:
    """The jobs that still exist, and how often each was polled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._polls: dict[str, int] = {}

    def add(self, job: Job) -> None:
        """Keep a job for its ``keep_s``."""
        self._jobs[job.id] = job
        while len(self._jobs) > _MOST_JOBS or self._expired(next(iter(self._jobs.values()))):
            self._polls.pop(self._jobs.popitem(last=False)[0], None)

    def find(self, job_id: str, *dialects: str) -> Job | None:
        """Return a job of one of the dialects; None when it is unknown or expired."""
        job = self._jobs.get(job_id)
        if job is None or job.dialect not in dialects or self._expired(job):
            return None
        return job

    def polled(self, job: Job) -> int:
        """Count one more poll of the job; return how many there were."""
        self._polls[job.id] = self._polls.get(job.id, 0) + 1
        return self._polls[job.id]

    def _expired(self, job: Job) -> bool:
        return self._clock.monotonic() - job.started_at > job.keep_s
