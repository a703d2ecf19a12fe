"""Time and randomness, passed to whoever needs them so that tests control both."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Clock:
    """The only source of time, waiting and randomness."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds since an arbitrary moment; never steps. Every deadline is measured on it."""
    wall: Callable[[], float] = time.time
    """Unix time in seconds: for ``created`` and file ages, never for deadlines."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for a number of seconds."""
    random: Random = field(default_factory=Random)
    """For jitter and seeds, never for secrets."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock that several phases share."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> "Deadline":
        """Return the moment ``seconds`` from now."""
        return cls(clock, clock.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return self.clock.monotonic() >= self.at


@dataclass(slots=True)
class Backoff:
    """Growing pauses between tries: up to ``next_s`` seconds, then twice that each time, at most ``longest_s``."""

    clock: Clock
    next_s: float
    longest_s: float

    async def pause(self, until: Deadline, at_least_s: float = 0.0) -> bool:
        """Wait for the next try. The last one comes right at ``until``; after that, return False at once."""
        left_s = until.remaining
        if not left_s:
            return False
        # "Equal jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        wait_s = max(at_least_s, self.clock.random.uniform(self.next_s / 2, self.next_s))
        self.next_s = min(self.longest_s, self.next_s * 2)
        await self.clock.sleep(min(wait_s, left_s))
        return True
