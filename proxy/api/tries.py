"""Wrong keys by address: whoever tries many is not answered for the rest of the minute."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from proxy.errors import RateLimited

_MOST: Final = 10
_MINUTE_S: Final = 60.0
_MOST_ADDRESSES: Final = 10_000


class Tries:
    """Counts wrong keys in each minute. ``monotonic``: seconds that never step."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._failed: Counter[str] = Counter()

    def check(self, address: str) -> None:
        """Raise RateLimited when an address has tried too often; a right key is not looked at then either."""
        left_s = self._began + _MINUTE_S - self._monotonic()
        if left_s <= 0:
            self._began, left_s = self._monotonic(), _MINUTE_S
            self._failed.clear()
        if self._failed[address] >= _MOST:
            raise RateLimited("Too many wrong keys came from this address.", retry_after=left_s)

    def failed(self, address: str) -> None:
        """Count a wrong key."""
        if len(self._failed) >= _MOST_ADDRESSES:  # so many at once are no people who mistype
            self._failed.clear()
        self._failed[address] += 1
