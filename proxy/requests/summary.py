"""What an answer needs to know of the request that started its generation: plain data that can be written down.

It outlives the request, its uploads and this process. Nothing in it is a prompt or a caller's own words, but for the
names of unknown parameters that may be shown in a header, and the metadata that a caller wants kept.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from pydantic_core import from_json, to_json

_SHOWABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
MAX_NAMES_SHOWN = 20

Form = Literal["url", "b64_json"]
"""The field in which a picture is answered."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a picture comes from, or may come from, and what was asked for there, in names and plain values.

    ``width`` and ``height``: as asked for, in pixels. ``seeds``: the lowest and the highest that the model takes, None
    if it takes none. ``seed``: None where the provider chose one and doesn't say. ``mapped`` and ``dropped``: what
    became of parameters, as in a ``Translation``.
    """

    provider: str
    model: str
    width: int
    height: int
    quality: str
    seeds: tuple[int, int] | None = None
    seed: int | None = None
    mapped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def seeded(self, seed: int) -> "Origin":
        """Return the origin of the picture with this seed."""
        return self if self.seeds is None else replace(self, seed=wrapped(seed, *self.seeds))


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """A request that was resolved.

    ``model``: its public name. ``origins``: one for each route, in order, without a seed. ``text_tokens`` and
    ``image_tokens``: estimates. ``unknown``: names of parameters that nobody knows; ``unshown``: how many more there
    are that cannot be shown. ``note``: text of the HTTP surface's own, never of the prompt.
    """

    model: str
    n: int
    form: Form
    origins: tuple[Origin, ...]
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = None
    partial_images: int = 0
    text_tokens: int = 1
    image_tokens: int = 0
    unknown: tuple[str, ...] = ()
    unshown: int = 0
    note: str = field(default="", repr=False)

    def dump(self) -> str:
        """Return it as JSON text."""
        return to_json(self).decode()

    @classmethod
    def load(cls, text: str) -> Self:
        """Read what ``dump`` has written, by this version or another. Raises ValueError."""
        try:
            values: dict[str, Any] = from_json(text)
            origins = tuple(Origin(**_known(Origin, origin)) for origin in values["origins"])
            return cls(**{**_known(cls, values), "origins": origins})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no summary of a request: {error}") from error

    def origin(self, provider: str, model: str) -> Origin:
        """Return the origin for a route; that of the first one if this route isn't among them."""
        return next((one for one in self.origins if (one.provider, one.model) == (provider, model)), self.origins[0])

    def told_dropped(self, origin: Origin) -> str:
        """Return what was dropped on a route, for a header: at most 20 names, and how many more there are."""
        names = (*origin.dropped, *self.unknown)
        shown = names[:MAX_NAMES_SHOWN]
        more = len(names) - len(shown) + self.unshown
        return ", ".join([*shown, f"+{more} more"] if more else shown)


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``kind``: a newer version may have written more, and during an update both read all rows."""
    names = {each.name for each in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in names}


def estimated_tokens(text: str) -> int:
    """Return how many tokens a text may be: four characters to each, at least one."""
    return max(1, math.ceil(len(text) / 4))


def pixel_tokens(width: int, height: int) -> int:
    """Return how many tokens a picture may be: a thousand pixels to each."""
    return math.ceil(width * height / 1000)


def wrapped(seed: int, low: int, high: int) -> int:
    """Return a seed within a model's range."""
    # Not clamped: the seeds of n pictures must stay different.
    return low + seed % (high - low + 1)


def showable(names: Sequence[str]) -> tuple[str, ...]:
    """Return those parameter names, at most 20, that can stand in a header."""
    # They are the caller's words: a line break in one would forge a header, and thousands would overflow it.
    return tuple(name for name in names if _SHOWABLE.match(name))[:MAX_NAMES_SHOWN]
