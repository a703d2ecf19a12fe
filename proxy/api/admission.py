"""How many requests may be held at once, in this process and for each key; decided before a body is read."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxy.clock import Clock
from proxy.errors import Overloaded, RateLimited

_SHORTEST_HINT_S, _LONGEST_HINT_S = 1.0, 10.0


class Admission:
    """Counts the requests being held. 0 for ``max_per_key`` means no limit for a key."""

    def __init__(self, max_in_flight: int, max_per_key: int, clock: Clock) -> None:
        self._max_in_flight = max_in_flight
        self._max_per_key = max_per_key
        self._clock = clock
        self._held: Counter[str] = Counter()
        self.in_flight = 0

    def check(self, owner: str, running: int = 0, running_of: Callable[[str], int] = lambda _: 0) -> None:
        """Raise RateLimited or Overloaded when one more request of ``owner`` would be too many.

        ``running``: generations that run, whether a request is held for them or not; those without one fill the
        process too. ``running_of`` counts those of one owner.
        """
        if self._max_per_key and max(self._held[owner], running_of(owner)) >= self._max_per_key:
            message = f"This key already holds {self._max_per_key} requests, its limit. Try again when one is answered."
            raise RateLimited(message, retry_after=self._hint_s())
        if max(self.in_flight, running) >= self._max_in_flight:
            raise Overloaded("This service holds as many requests as it may.", retry_after=self._hint_s())

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Count one request while it is held."""
        self._held[owner] += 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]

    def _hint_s(self) -> float:
        # Spread out, so that those who are refused together don't come back together.
        return self._clock.random.uniform(_SHORTEST_HINT_S, _LONGEST_HINT_S)
