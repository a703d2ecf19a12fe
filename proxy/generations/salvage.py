"""Pictures of flights that failed as a whole: paid for, so an equal repeat makes only the others."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from proxy.generations.results import Picture


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one failed flight brought home: its pictures by number, the seed they were counted from, when it ends."""

    pictures: dict[int, Picture]
    seed: int
    until: float


class Leftovers:
    """The leftovers of each wish, oldest first. ``let_go`` is told of pictures that nobody came back for."""

    def __init__(self, let_go: Callable[[Picture], None]) -> None:
        self._let_go = let_go
        self._waiting: dict[bytes, deque[Leftover]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, fingerprint: bytes, leftover: Leftover) -> None:
        """Keep a failed flight's pictures for an equal wish."""
        self._waiting.setdefault(fingerprint, deque()).append(leftover)

    def take(self, fingerprint: bytes) -> Leftover | None:
        """Give the oldest leftover of a wish away."""
        waiting = self._waiting.get(fingerprint)
        return waiting.popleft() if waiting else None

    def sweep(self, now: float) -> None:
        """Forget what has waited long enough; ``now`` is on the clock of ``until``."""
        for fingerprint, waiting in tuple(self._waiting.items()):
            while waiting and waiting[0].until <= now:
                for picture in waiting.popleft().pictures.values():
                    self._let_go(picture)
            if not waiting:
                del self._waiting[fingerprint]
