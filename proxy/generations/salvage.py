"""Pictures of generations that failed as a whole: paid for, so an equal repeat makes only the others."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from proxy.generations.results import Picture


@dataclass(frozen=True, slots=True)
class Salvage:
    """What a failed generation has all the same: its pictures by number, the first seed, and when it is given up."""

    pictures: dict[int, Picture]
    seed: int
    until: float


class Salvages:
    """The salvage of each request, oldest first. ``release`` is told of pictures that nobody came back for."""

    def __init__(self, release: Callable[[Picture], None]) -> None:
        self._release = release
        self._waiting: dict[bytes, deque[Salvage]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, fingerprint: bytes, salvage: Salvage) -> None:
        """Keep a failed generation's pictures for an equal request."""
        self._waiting.setdefault(fingerprint, deque()).append(salvage)

    def take(self, fingerprint: bytes) -> Salvage | None:
        """Give the oldest salvage of a request away."""
        waiting = self._waiting.get(fingerprint)
        return waiting.popleft() if waiting else None

    def sweep(self, now: float) -> None:
        """Forget what has waited long enough; ``now`` is on the clock of ``until``."""
        for fingerprint, waiting in tuple(self._waiting.items()):
            while waiting and waiting[0].until <= now:
                for picture in waiting.popleft().pictures.values():
                    self._release(picture)
            if not waiting:
                del self._waiting[fingerprint]
