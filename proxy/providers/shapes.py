"""Which picture shapes a model can make, and which of them is nearest to a given size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Shape:
    """A picture's width and height in pixels, and the provider's settings for it."""

    width: int
    height: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Shapes(Protocol):
    """The shapes of one model."""

    @property
    def default(self) -> Shape:
        """The shape made when the request gives no size."""
        ...

    def nearest(self, width: int, height: int) -> Shape:
        """Return the shape closest to ``width`` x ``height`` pixels: aspect ratio first, then area."""
        ...

    def usual(self) -> Sequence[Shape]:
        """Return the shapes to choose from, the default first; of many, those that are asked for most."""
        ...


def _distance(shape: Shape, width: int, height: int) -> tuple[float, float]:
    # In logarithms, so that twice as wide and half as wide are equally far away.
    ratio = abs(math.log(shape.width / shape.height) - math.log(width / height))
    area = abs(math.log(shape.width * shape.height) - math.log(width * height))
    # Rounded: sizes in steps of 8 or 64 miss a ratio by a hair, and then the area should decide.
    return round(ratio, 2), area


# OpenAI's sizes, and the oblong ones of Stable Diffusion.
_USUAL = (
    *((1024, 1024), (1536, 1024), (1024, 1536), (1792, 1024), (1024, 1792), (512, 512), (256, 256)),
    *((768, 512), (512, 768)),
)


@dataclass(frozen=True, slots=True)
class FixedShapes:
    """A closed list; the first is the default."""

    shapes: Sequence[Shape]

    @property
    def default(self) -> Shape:
        """The shape made when the request gives no size."""
        return self.shapes[0]

    def nearest(self, width: int, height: int) -> Shape:
        """Return the listed shape closest to ``width`` x ``height`` pixels."""
        return min(self.shapes, key=lambda shape: _distance(shape, width, height))

    def usual(self) -> Sequence[Shape]:
        """Return all of them."""
        return self.shapes


@dataclass(frozen=True, slots=True)
class FreeShapes:
    """Any width and height from ``low`` to ``high`` pixels in steps of ``step``."""

    low: int
    high: int
    step: int = 1
    default_width: int = 1024
    default_height: int = 1024

    @property
    def default(self) -> Shape:
        """The shape made when the request gives no size."""
        return self._shape(self.default_width, self.default_height)

    def nearest(self, width: int, height: int) -> Shape:
        """Scale both sides together into the range, then round each to the step."""
        scale = min(1.0, self.high / max(width, height))
        scale = max(scale, self.low / min(width, height))
        return self._shape(self._side(width * scale), self._side(height * scale))

    def usual(self) -> Sequence[Shape]:
        """Return the default and those of the usual sizes that can be made exactly."""
        nearest = [(size, self.nearest(*size)) for size in _USUAL]
        exact = {str(shape): shape for size, shape in nearest if (shape.width, shape.height) == size}
        return list({str(self.default): self.default, **exact}.values())

    def _side(self, pixels: float) -> int:
        side = round(pixels / self.step) * self.step
        return int(min(self.high, max(self.low, side)))

    @staticmethod
    def _shape(width: int, height: int) -> Shape:
        return Shape(width, height, {"width": width, "height": height})
