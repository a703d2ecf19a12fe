"""A circuit breaker: after a run of failures that the provider caused, calls are refused at once for a while."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from proxy.clock import Clock

# The pattern is https://martinfowler.com/bliki/CircuitBreaker.html; the figures are in docs/reliability.md.
_IN_A_ROW = 5
_WINDOW_S, _LEAST_CALLS, _FAILED_SHARE = 30.0, 10, 0.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _JITTER = 5.0, 60.0, 0.2


@dataclass(slots=True)
class Breaker:
    """Guards one operation (submit or poll) at one provider.

    Opens after 5 failures in a row, or when at least half of 10 or more calls in 30 s failed; stays open for 5 s,
    doubling up to 60 s (± 20 %); then lets one probe through.
    """

    clock: Clock
    _failures_in_a_row: int = 0
    _recent: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=200))
    _pause_s: float = _FIRST_PAUSE_S
    _open_until: float | None = None
    _probing: bool = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Whether calls may be made (closed), none may (open), or one as a probe (half-open)."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self.clock.monotonic() >= self._open_until else "open"

    @property
    def wait_s(self) -> float:
        """Seconds until the next call may be made; 0 if it may be made now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self.clock.monotonic())

    def allow(self) -> bool:
        """Whether a call may be made now. In half-open state this takes the one probe.

        Whoever was allowed must report how it went: a probe that is never reported would block all later calls.
        """
        state = self.state
        if state == "closed":
            return True
        if state == "open" or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Record a call that the provider answered as it should."""
        self._recent.append((self.clock.monotonic(), True))
        self._failures_in_a_row = 0
        self._open_until, self._probing, self._pause_s = None, False, _FIRST_PAUSE_S

    def skipped(self) -> None:
        """Record that an allowed call said nothing about the provider's health: another one may probe."""
        self._probing = False

    def failed(self) -> None:
        """Record a failure that the provider caused."""
        if self.state == "open":
            return  # a call from before it opened: it must not make the pause any longer
        now = self.clock.monotonic()
        self._recent.append((now, False))
        self._failures_in_a_row += 1
        window = [good for at, good in self._recent if at >= now - _WINDOW_S]
        often = len(window) >= _LEAST_CALLS and window.count(False) >= _FAILED_SHARE * len(window)
        if self._probing or self._failures_in_a_row >= _IN_A_ROW or often:
            self._open(now)

    def _open(self, now: float) -> None:
        # Jitter: else all processes that saw the same outage would probe at the same moment.
        jitter = self.clock.random.uniform(1 - _JITTER, 1 + _JITTER)
        self._open_until = now + self._pause_s * jitter
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
        self._probing = False
        self._failures_in_a_row = 0
        self._recent.clear()
