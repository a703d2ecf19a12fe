"""Time and chance, handed to whoever needs them so that tests own both."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Clock:
    """The house's only source of time, waiting and randomness."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds since an arbitrary moment; never steps. Every deadline is measured on it."""
    wall: Callable[[], float] = time.time
    """Unix time in seconds: for ``created`` and file ages, never for deadlines."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for so many seconds."""
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
