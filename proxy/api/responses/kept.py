"""Responses that can be asked for again: for an hour, by the key that created them.

What is kept is plain data (``Said``) without the prompt or a picture, and how the generation ended. This class is the
only place that knows where: in this process's memory, and what is in the state as long as the generation is
remembered there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from pydantic_core import from_json, to_json

from proxy.clock import Clock
from proxy.errors import Failure
from proxy.generations.record import Generation
from proxy.generations.results import Picture
from proxy.generations.runner import Generations

_KEPT_S = 3600.0
"""Seconds for which a response is kept, as long as a picture is by default."""
_MOST = 10_000
"""Responses that are kept at most; the oldest go first. One takes some kilobytes, mostly for its metadata."""
_GENERATION = "imggen_"

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a response says besides its picture: plain data that can be written down.

    ``edited``: the picture comes from another one. ``text``: of its message, None for the picture's address in
    Markdown.
    """

    model: str
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = "auto"
    metadata: Mapping[str, str] = field(default_factory=dict)
    previous: str | None = None
    background: bool = False
    store: bool = True
    edited: bool = False
    text: str | None = None

    def dump(self) -> str:
        """Return it as JSON text, without a message that repeats the caller's words."""
        return to_json({**asdict(self), "text": self.text and ""}).decode()

    @classmethod
    def load(cls, text: str) -> Self | None:
        """Read what ``dump`` has written; None if there is nothing of this kind."""
        try:
            return cls(**from_json(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Head:
    """What a response is known by. ``number``: what its id and those of its items have in common.

    ``created``: Unix time in seconds. ``tokens``: of the prompt and of the pictures that came with it.
    """

    number: str
    created: int
    tokens: int

    @classmethod
    def of(cls, generation: Generation) -> Self:
        """Return that of the response whose picture a generation makes."""
        request = generation.request
        number = generation.id.removeprefix(_GENERATION)
        return cls(number, generation.created, request.text_tokens + request.image_tokens)

    @property
    def id(self) -> str:
        """The response's id."""
        return f"resp_{self.number}"


@dataclass(slots=True)
class Kept:
    """A kept response. ``generation``: as long as its picture is being made.

    ``pictures`` and ``failure``: how it ended. ``cancelled``: its caller gave it up before.
    """

    head: Head
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
        if self.generation is None:
            return "completed" if self.failure is None else "failed"
        waiting = all(progress.state == "waiting" for progress in self.generation.progress)
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
        head = Head.of(generation)
        kept = Kept(head, said, generation.owner, self._clock.monotonic() + _KEPT_S, generation)
        self._kept.pop(head.number, None)  # a repeat of the same call gets the same response, and is the youngest now
        self._kept[head.number] = kept

        def look() -> None:
            # Only what an answer needs: the generation is forgotten earlier.
            if generation.done:
                kept.pictures, kept.failure, kept.generation = generation.pictures, generation.failure, None
                unwatch()

        unwatch = generation.watch(look)
        look()
        return kept

    async def find(self, name: str, owner: str) -> Kept | None:
        """Return the response of ``owner`` with this id, or of which an item has it."""
        self._sweep()
        number = name.partition("_")[2]
        kept = self._kept.get(number)
        if kept is not None:
            return kept if kept.owner == owner else None
        # Of another process, or of this one before it was started again.
        generation = await self._generations.find(f"{_GENERATION}{number}", owner)
        said = Said.load(generation.request.note) if generation is not None else None
        return self.keep(said, generation) if generation is not None and said is not None else None

    async def remembered(self, kept: Kept) -> Generation | None:
        """Return the generation of a response as long as it is remembered for those who might repeat it."""
        return await self._generations.find(f"{_GENERATION}{kept.head.number}", kept.owner)

    async def cancel(self, kept: Kept) -> None:
        """Give up a response whose picture is still being made. What was bought stays bought."""
        if kept.generation is not None:
            kept.cancelled = True
            await self._generations.abandon(kept.generation)

    async def forget(self, kept: Kept) -> None:
        """Forget a response, and abandon its picture if that is still being made."""
        del self._kept[kept.head.number]
        generation = await self.remembered(kept)
        if generation is not None:
            await self._generations.abandon(generation)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        while self._kept:
            number, oldest = next(iter(self._kept.items()))
            if oldest.until > now and len(self._kept) <= _MOST:
                return
            del self._kept[number]
