"""The caller's words in each model's words, and the report of what was changed or dropped."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.providers.boundary import Model, Range
from proxy.providers.registry import KINDS, build, read_settings
from proxy.providers.shapes import FixedShapes, FreeShapes, Shape
from proxy.requests.image_request import parse
from proxy.requests.parameters import Translation, refuse_unless_able, translate

_EVERY_MODEL = [
    model
    for kind, facts in KINDS.items()
    for model in build(read_settings({"kind": kind, "base_url": facts.base_url}), "key").models()
]
_FAST = next(model for model in _EVERY_MODEL if model.name == "inference.flux-fast.schnell.txt2img.v1")
_RICH = Model(
    name="rich",
    shapes=FreeShapes(low=256, high=1536, step=8),
    numbers={
        "steps": Range(1, 50, 20),
        "cfg": Range(1, 20, 7, whole=False),
        "seed": Range(0, 99),
        "strength": Range(0.1, 0.9, 0.7, whole=False),
    },
    choices={"sampler": ("Euler", "Euler a"), "style_preset": ("cinematic", "photographic", "anime")},
    texts=frozenset({"negative_prompt"}),
    prompt=(3, 20),
    max_images=2,
)
_BARE = Model(name="bare", shapes=FixedShapes([Shape(1024, 1024), Shape(1536, 1024)]))


def _translated(model: Model, defaults: dict[str, Any] | None = None, **values: Any) -> Translation:
    return translate(parse({"prompt": "a boat", **values})[0], model, defaults or {})


def test_strength_is_for_edits() -> None:
    request, _ = parse({"prompt": "a boat", "denoising_strength": "0.95"})
    made = translate(request, _RICH, {}, "edit")
    assert (made.settings["strength"], made.mapped, made.dropped) == (0.9, ("strength=0.95->0.9",), ())
    assert translate(request, _BARE, {}, "inpaint").dropped == ("strength",)
    by_default = translate(parse({"prompt": "a boat"})[0], _RICH, {"strength": 0.5})
    assert ("strength" in by_default.settings, by_default.dropped) == (False, ())


def test_the_report_reads_as_the_design_shows_it() -> None:
    made = _translated(_FAST, size="1792x1024", quality="hd", style="vivid", moderation="low")
    assert "; ".join(made.mapped[:2]) == "size=1792x1024->1024x576; quality=hd->steps 4"
    assert made.mapped[2:] == ("style=vivid->style_preset cinematic",)
    assert made.dropped == ("moderation",)
    assert made.settings == {"steps": 4, "style_preset": "cinematic", "resolution": "1024x576"}


@pytest.mark.parametrize(
    ("values", "mapped", "dropped"),
    [
        ({}, (), ()),
        ({"size": "auto", "quality": "auto", "background": "auto", "moderation": "auto"}, (), ()),
        ({"size": "1024x1024"}, (), ()),
        ({"size": "4096x4096"}, ("size=4096x4096->1536x1536",), ()),
        ({"size": "512x512", "width": 2048, "height": 1024}, ("width,height=2048x1024->1536x768",), ()),
        ({"size": "512x512", "aspect_ratio": "1:1"}, (), ()),
        ({"steps": 60}, ("steps=60->50",), ()),
        ({"steps": 50}, (), ()),
        ({"cfg": 0.5}, ("cfg=0.5->1",), ()),
        ({"cfg": 7.5}, (), ()),
        ({"strength": 0.5}, (), ("strength",)),
        ({"sampler": "EULER A"}, (), ()),
        ({"sampler": "Heun"}, (), ("sampler",)),
        ({"style_preset": "Anime"}, (), ()),
        ({"style_preset": "vast"}, (), ("style_preset",)),
        ({"style_preset": "anime", "style": "vivid"}, (), ("style",)),
        ({"style": "natural"}, ("style=natural->style_preset photographic",), ()),
        ({"quality": "low"}, ("quality=low->steps 10",), ()),
        ({"quality": "standard"}, (), ()),
        ({"quality": "medium"}, (), ()),
        ({"quality": "max"}, ("quality=max->steps 50",), ()),
        ({"quality": "hd", "steps": 5}, (), ("quality",)),
        ({"seed": 99}, (), ()),
        ({"seed": 100}, ("seed=100->0",), ()),
        ({"seed": -1}, (), ()),
        ({"background": "transparent"}, (), ("background",)),
        ({"background": "opaque"}, (), ()),
        ({"input_fidelity": "high"}, (), ("input_fidelity",)),
        ({"output_compression": 50}, (), ("output_compression",)),
        ({"output_compression": 50, "output_format": "webp"}, (), ()),
        ({"user": "someone", "safety_identifier": "x", "negative_prompt": "fog"}, (), ()),
    ],
)
def test_what_a_rich_model_maps_and_drops(
    values: dict[str, Any], mapped: tuple[str, ...], dropped: tuple[str, ...]
) -> None:
    made = _translated(_RICH, **values)
    assert (made.mapped, made.dropped) == (mapped, dropped)


@pytest.mark.parametrize(
    ("values", "mapped", "dropped"),
    [
        ({"size": "1792x1024"}, ("size=1792x1024->1536x1024",), ()),
        ({"aspect_ratio": "16:9"}, ("aspect_ratio=16:9->1536x1024",), ()),
        ({"aspect_ratio": "3:2"}, (), ()),
        ({"quality": "hd"}, (), ("quality",)),
        ({"style": "vivid"}, (), ("style",)),
        ({"seed": 3}, (), ("seed",)),
        ({"seed": -1}, (), ()),
        ({"steps": 3, "cfg": 2, "negative_prompt": "fog"}, (), ("cfg", "negative_prompt", "steps")),
    ],
)
def test_what_a_bare_model_maps_and_drops(
    values: dict[str, Any], mapped: tuple[str, ...], dropped: tuple[str, ...]
) -> None:
    made = _translated(_BARE, **values)
    assert (made.mapped, tuple(sorted(made.dropped))) == (mapped, dropped)
    assert made.settings == {}


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"size": "768x512"}, "768x512"),
        ({"size": "768x512", "aspect_ratio": "1:1"}, "1024x1024"),
        ({"size": "768x512", "aspect_ratio": "1:1", "width": 512, "height": 640}, "512x640"),
        ({"aspect_ratio": "1:4"}, "384x1536"),
        ({"width": 640}, "640x640"),
    ],
)
def test_width_and_height_win_over_the_ratio_and_the_ratio_over_the_size(values: dict[str, Any], shape: str) -> None:
    made = _translated(_RICH, **values)
    assert str(made.shape) == shape
    assert f"{made.settings['width']}x{made.settings['height']}" == shape


@pytest.mark.parametrize(
    ("asked", "model", "said"),
    [
        ("hd", _RICH, "high"),
        ("xhigh", _RICH, "high"),
        ("low", _RICH, "low"),
        ("standard", _RICH, "medium"),
        ("standard", _BARE, "medium"),
        ("auto", _RICH, "medium"),
        (None, _RICH, "medium"),
        ("hd", _BARE, "medium"),
    ],
)
def test_the_answer_names_the_quality_that_was_made(asked: str | None, model: Model, said: str) -> None:
    assert _translated(model, quality=asked).quality == said


def test_defaults_fill_in_what_the_caller_left_open_without_a_report() -> None:
    defaults = {"steps": 99, "negative_prompt": "fog", "sampler": "Heun", "width": 2000, "height": 1000, "seed": 7}
    made = _translated(_RICH, defaults)
    assert made.settings == {"steps": 50, "negative_prompt": "fog", "width": 1536, "height": 768}
    assert (made.mapped, made.dropped, made.seed) == ((), (), 7)


def test_the_callers_words_win_over_defaults() -> None:
    defaults = {"steps": 9, "negative_prompt": "fog", "aspect_ratio": "2:1", "seed": 7}
    made = _translated(_RICH, defaults, steps=5, negative_prompt="rain", size="512x512", seed=3)
    assert made.settings == {"steps": 5, "negative_prompt": "rain", "width": 512, "height": 512}
    assert made.seed == 3


def test_a_ratio_may_be_a_default() -> None:
    assert str(_translated(_RICH, {"aspect_ratio": "2:1"}).shape) == "1448x720"


@pytest.mark.parametrize(
    ("prompt", "operation", "images", "code", "param"),
    [
        ("ab", "generate", 0, "string_below_min_length", "prompt"),
        ("a" * 21, "generate", 0, "string_above_max_length", "prompt"),
        ("abc", "edit", 1, "invalid_value", "model"),
        ("abc", "generate", 3, "invalid_value", "image"),
    ],
)
def test_a_model_that_is_not_able_is_refused(prompt: str, operation: Any, images: int, code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        refuse_unless_able(parse({"prompt": prompt})[0], _RICH, operation, images)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, code, param)


def test_prompts_at_the_limits_are_taken() -> None:
    for prompt in ("abc", "a" * 20):
        refuse_unless_able(parse({"prompt": prompt})[0], _RICH, "generate", 2)


_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.builds("{}x{}".format, st.integers(512, 2048), st.integers(512, 2048)),
        "width": st.integers(512, 2048),
        "height": st.integers(512, 2048),
        "aspect_ratio": st.sampled_from(["1:4", "4:1", "16:9", "square", "portrait", "21:9"]),
        "quality": st.sampled_from(["auto", "low", "standard", "medium", "high", "hd", "xhigh", "max"]),
        "style": st.sampled_from(["vivid", "natural"]),
        "steps": st.integers(1, 150),
        "cfg": st.floats(0, 30),
        "seed": st.integers(-1, 2**53 - 1),
        "sampler": st.sampled_from(["euler a", "DDIM", "none of them"]),
        "style_preset": st.sampled_from(["anime", "ANIME", "none of them"]),
        "negative_prompt": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
        "background": st.sampled_from(["transparent", "opaque"]),
    },
)


@given(st.sampled_from(_EVERY_MODEL), _REQUESTS, _REQUESTS, st.integers(0, 2**63), st.integers(1, 10))
def test_settings_always_lie_within_what_the_model_takes(
    model: Model, values: dict[str, Any], defaults: dict[str, Any], seed: int, count: int
) -> None:
    defaults = {name: value for name, value in defaults.items() if name not in ("size", "quality", "style")}
    made = _translated(model, defaults, **values)
    seed = made.seed if made.seed is not None else seed
    pictures = [made.with_seed(seed + number) for number in range(count)]
    words = {*model.numbers, *model.choices, *model.texts, *model.shapes.nearest(1024, 1024).settings, "upscale"}
    for settings in pictures:
        assert set(settings) <= words
        for name, limits in model.numbers.items():
            if name in settings:
                assert limits.low <= settings[name] <= limits.high
                assert isinstance(settings[name], int) or not limits.whole
        for name, choices in model.choices.items():
            assert settings.get(name, choices[0]) in choices
        if isinstance(model.shapes, FixedShapes):
            assert made.shape in model.shapes.shapes
    if "seed" in model.numbers:
        assert len({settings["seed"] for settings in pictures}) == count
    told = {report.partition("=")[0] for report in made.mapped} | set(made.dropped)
    assert told <= {*values, "width,height"}
