"""A provider's poll budget: the most polls per second, and a price that makes jobs plan fewer when it runs short.

Time is cut into windows that hold a whole number of polls. A poll is booked in a window when it is planned, so the
limit holds by construction. The price keeps bookings near: without it they would queue ever further into the future.
"""

import math
from random import Random


class Budget:
    """Windows of equal length, each with the polls booked in it and the rate that the booking jobs would like."""

    def __init__(self, per_s: float) -> None:
        # A rate below one still needs a window that holds a whole poll: 0.2 per second is one in five seconds.
        self.per_s, self._capacity = per_s, math.ceil(per_s)
        self._width_s = self._capacity / per_s
        self._booked: dict[int, tuple[int, float]] = {}
        self._window, self._full, self._wanted_per_s = -1, 0, 0.0

    def price(self, now: float) -> float:
        """Return q, how many times the budget the waiting jobs want; at least 1."""
        window = int(now // self._width_s)
        if window > self._window:
            self._booked = {each: booked for each, booked in self._booked.items() if each >= window}
            self._wanted_per_s = sum(wanted_per_s for _, wanted_per_s in self._booked.values())
            self._window, self._full = window, max(window, self._full)
        return max(1.0, self._wanted_per_s / self.per_s)

    def book(self, at: float, wanted_per_s: float, chance: Random) -> float:
        """Return the moment, ``at`` or later, that is free for a job which would like ``wanted_per_s`` polls."""
        # All windows before ``_full`` are full: without it each booking at a busy provider would search them again.
        window = first = max(int(at // self._width_s), self._full)
        while (booked := self._booked.get(window, (0, 0.0)))[0] >= self._capacity:
            window += 1
        if first == self._full:
            self._full = window
        self._booked[window] = booked[0] + 1, booked[1] + wanted_per_s
        self._wanted_per_s += wanted_per_s
        start = window * self._width_s
        # Spread over the window: all at its start would be a burst.
        return at if start <= at else start + chance.random() * self._width_s
