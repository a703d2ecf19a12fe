"""What reached the simulator, in total and by the ``[tag:…]`` of the prompt."""

from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Literal

Event = Literal["submits", "polls", "fetches", "started"]

_MOST_TAGS = 10_000


@dataclass(slots=True)
class Counts:
    """``submits`` counts every submit that arrived, ``started`` the jobs that really began and are billed.

    ``polls`` are questions about a job, ``fetches`` downloads of a picture (GET, not HEAD).
    """

    submits: int = 0
    polls: int = 0
    fetches: int = 0
    started: int = 0


class Tally:
    """The totals and the counts of each tag."""

    def __init__(self) -> None:
        self._totals = Counts()
        self._tags: OrderedDict[str, Counts] = OrderedDict()

    def add(self, event: Event, tag: str) -> None:
        """Count one event."""
        groups = [self._totals]
        if tag:
            groups.append(self._tags.setdefault(tag, Counts()))
        for counts in groups:
            setattr(counts, event, getattr(counts, event) + 1)
        while len(self._tags) > _MOST_TAGS:
            self._tags.popitem(last=False)

    def read(self, tag: str | None) -> dict[str, int]:
        """Return the counts of a tag (zeros where it is unknown), or the totals."""
        return asdict(self._totals if tag is None else self._tags.get(tag, Counts()))
