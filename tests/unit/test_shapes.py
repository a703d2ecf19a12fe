import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.shapes import FixedShapes, FreeShapes, Shape

_LISTED = FixedShapes(
    [Shape(1024, 1024), Shape(1024, 768), Shape(1024, 576), Shape(768, 1024), Shape(640, 640), Shape(512, 512)]
)


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((1024, 1024), "1024x1024"),
        ((512, 512), "512x512"),
        ((256, 256), "512x512"),
        ((4096, 4096), "1024x1024"),
        ((600, 600), "640x640"),
        ((1792, 1024), "1024x576"),
        ((1024, 1792), "768x1024"),
        ((400, 300), "1024x768"),
    ],
)
def test_the_nearest_listed_shape_has_the_ratio_first_and_then_the_area(asked: tuple[int, int], made: str) -> None:
    assert str(_LISTED.nearest(*asked)) == made


def test_the_first_listed_shape_is_the_default() -> None:
    assert str(_LISTED.default) == "1024x1024"


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((1024, 1024), (1024, 1024)),
        ((4096, 4096), (1536, 1536)),
        ((64, 64), (256, 256)),
        ((4096, 2048), (1536, 768)),
        ((1001, 1003), (1000, 1000)),
        ((64, 256), (256, 1024)),
        ((256, 1024), (256, 1024)),
    ],
)
def test_free_shapes_scale_both_sides_together(asked: tuple[int, int], made: tuple[int, int]) -> None:
    shape = FreeShapes(low=256, high=1536, step=8).nearest(*asked)
    assert (shape.width, shape.height) == made
    assert shape.settings == {"width": made[0], "height": made[1]}


@given(st.integers(64, 4096), st.floats(0.25, 4), st.sampled_from([(64, 1024, 8), (256, 1920, 8), (512, 2048, 1)]))
def test_free_shapes_stay_in_range_and_on_the_step(width: int, ratio: float, limits: tuple[int, int, int]) -> None:
    low, high, step = limits
    height = min(4096, max(64, round(width / ratio)))
    shape = FreeShapes(low=low, high=high, step=step).nearest(width, height)
    for side in (shape.width, shape.height):
        assert low <= side <= high
        assert side % step == 0
    if high >= 4 * low:  # otherwise the flattest shapes don't fit the range at their ratio
        assert abs(math.log(shape.width / shape.height * height / width)) < 0.15
