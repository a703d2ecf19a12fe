"""Responses that can be asked for again: for an hour, by the key that created them.

What is kept is plain data (``Said``) without the prompt or a picture, and how the generation ended. This class is the
only place that knows where it is kept: here, in the process's memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.clock import Clock
from proxy.errors import Failure
from proxy.generations.record import Generation
from proxy.generations.results import Picture
from proxy.generations.runner import Generations

_KEPT_S = 3600.0
"""Seconds for which a response is kept, as long as a picture is by default."""
_MOST = 10_000
"""Responses that are kept at most; the oldest go first. One takes some kilobytes, mostly for its metadata."""

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a response says besides its picture, as it can be written down. ``generation``: whose picture it is.

    ``number``: what the ids of the response and its items have in common. ``edited``: the picture comes from another
    one. ``text``: of its message, None for the picture's address in Markdown. ``tokens``: of the prompt and of the
    pictures it came with.
    """

    generation: str
    number: str
    created: int
    model: str
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = "auto"
    metadata: Mapping[str, str] = field(default_factory=dict)
    previous: str | None = None
    background: bool = False
    store: bool = True
    edited: bool = False
    text: str | None = None
    tokens: tuple[int, int] = (0, 0)

    @property
    def id(self) -> str:
        """The response's id."""
        return f"resp_{self.number}"


@dataclass(slots=True)
class Kept:
    """A kept response. ``generation``: as long as it is remembered, for repeats or because it runs.

    ``pictures`` and ``failure``: how it ended. ``cancelled``: its caller gave it up before.
    """

    said: Said
    owner: str
    until: float
    generation: Generation | None
    pictures: tuple[Picture, ...] = ()
    failure: Failure | None = None
    cancelled: bool = False

    @property
    def status(self) -> Status:
        """How it is doing, in OpenAI's words."""
        if self.cancelled:
            return "cancelled"
        if self.failure is not None:
            return "failed"
        if self.pictures:
            return "completed"
        return status_of(self.generation)


def status_of(generation: Generation | None) -> Status:
    """Return how a generation that has not ended is doing, in OpenAI's words."""
    waiting = generation is not None and all(progress.state == "waiting" for progress in generation.progress)
    return "queued" if waiting else "in_progress"


class Responses:
    """The responses of the last hour, the oldest first."""

    def __init__(self, generations: Generations, clock: Clock) -> None:
        self._generations = generations
        self._clock = clock
        self._kept: dict[str, Kept] = {}

    def keep(self, said: Said, generation: Generation) -> Kept:
        """Keep a response from now on."""
        self._sweep()
        kept = Kept(said, generation.owner, self._clock.monotonic() + _KEPT_S, generation)
        self._kept.pop(said.number, None)  # a repeat of the same call gets the same response, and is the youngest now
        self._kept[said.number] = kept

        def look() -> None:
            # Only what an answer needs: the generation itself holds the prompt.
            if generation.done:
                kept.pictures, kept.failure, kept.generation = generation.pictures, generation.failure, None
                unwatch()

        unwatch = generation.watch(look)
        look()
        return kept

    def find(self, name: str, owner: str) -> Kept | None:
        """Return the response of ``owner`` with this id, or of which an item has it."""
        self._sweep()
        kept = self._kept.get(name.partition("_")[2])
        return kept if kept is not None and kept.owner == owner else None

    def running(self, kept: Kept) -> Generation | None:
        """Return the generation of a response while it is remembered by those who might repeat it."""
        return self._generations.find(kept.said.generation, kept.owner)

    async def cancel(self, kept: Kept) -> None:
        """Give up a response whose picture is still being made. What was bought stays bought."""
        if kept.generation is not None:
            kept.cancelled = True
            await self._generations.abandon(kept.generation)

    async def forget(self, kept: Kept) -> None:
        """Forget a response, and abandon its picture if that is still being made."""
        del self._kept[kept.said.number]
        generation = self.running(kept)
        if generation is not None:
            await self._generations.abandon(generation)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        while self._kept:
            number, oldest = next(iter(self._kept.items()))
            if oldest.until > now and len(self._kept) <= _MOST:
                return
            del self._kept[number]
