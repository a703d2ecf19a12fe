"""Translates the caller's parameters into one model's, and reports what was changed or had to be dropped."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import InvalidRequest
from proxy.providers.boundary import Model, Operation, Range
from proxy.providers.shapes import Shape
from proxy.requests.image_request import ImageRequest
from proxy.requests.summary import wrapped

# Documented for callers in docs/configuration.md, "What becomes of parameters".
_STYLE_PRESETS = {"vivid": "cinematic", "natural": "photographic"}
_MORE = frozenset({"high", "hd", "xhigh", "max"})
_SAME_RATIO = 0.02
"""Models' sides come in steps or from a list, so hardly any ratio is met exactly. This much off is not reported."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A request in one model's parameters.

    ``settings`` lacks the seed, which differs from picture to picture: ``seed`` is the caller's, None if we may
    choose. ``shape``: the picture's size in pixels, as far as it is known before it is made.
    ``mapped``: such as ``size=1792x1024->1024x576``. ``dropped``: names of parameters that this model hasn't got.
    """

    settings: Mapping[str, Any] = field(repr=False)
    shape: Shape
    seeds: Range | None
    seed: int | None
    quality: str
    mapped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def with_seed(self, seed: int) -> dict[str, Any]:
        """Return the settings of one picture. Seeds beyond the model's range wrap around."""
        if self.seeds is None:
            return dict(self.settings)
        return {**self.settings, "seed": _wrap(seed, self.seeds)}


def _wrap(seed: int, seeds: Range) -> int:
    return wrapped(seed, int(seeds.low), int(seeds.high))


class _Report:
    def __init__(self) -> None:
        self.mapped: list[str] = []
        self.dropped: list[str] = []

    def map(self, name: str, asked: object, made: object) -> None:
        self.mapped.append(f"{name}={asked}->{made}")


def refuse_unless_able(request: ImageRequest, model: Model, operation: Operation, images: int) -> None:
    """Raise InvalidRequest if the model cannot do this at all: wrong operation, prompt length, too many pictures."""
    if operation not in model.operations:
        raise InvalidRequest(f"The model cannot do this ({operation}).", param="model")
    shortest, longest = model.prompt
    length = len(request.prompt)
    if length < shortest:
        message = f"'prompt' is too short for this model: at least {shortest} characters."
        raise InvalidRequest(message, param="prompt", code="string_below_min_length")
    if longest is not None and length > longest:
        message = f"'prompt' is too long for this model: at most {longest} characters, got {length}."
        raise InvalidRequest(message, param="prompt", code="string_above_max_length")
    if images > max(1, model.max_images):
        raise InvalidRequest(f"This model takes at most {model.max_images} pictures.", param="image")


def translate(
    request: ImageRequest, model: Model, defaults: Mapping[str, Any], operation: Operation = "generate"
) -> Translation:
    """Return ``request`` in the parameters of ``model``; ``defaults`` fill in those that the caller left out."""
    given = {name: value for name in _SETTINGS if (value := getattr(request, name)) is not None}
    wanted = {**{name: value for name, value in defaults.items() if name in _SETTINGS}, **given}
    report = _Report()
    shape = _choose_shape(request, model, defaults, report)
    settings: dict[str, Any] = {}
    for name, value in wanted.items():
        # Only what the caller gave is reported: a default that one route can't use is no surprise to anybody.
        told = report if name in given else _Report()
        if name == "strength" and operation == "generate":  # how far to go from a picture, and there is none
            told.dropped.append(name)
            continue
        kept = _keep(name, value, model, told)
        if kept is not None:
            settings[name] = kept
    # After the settings: steps and a style preset that are set already win over quality and style.
    quality = _apply_quality(request, model, settings, report)
    _apply_style(request, model, settings, report)
    settings.update(shape.settings)
    _drop_unsupported(request, model, report)
    seed = request.seed if request.seed is not None else defaults.get("seed")
    return Translation(
        settings=settings,
        shape=shape,
        seeds=model.numbers.get("seed"),
        seed=None if seed in (None, -1) else int(seed),
        quality=quality,
        mapped=tuple(report.mapped),
        dropped=tuple(report.dropped),
    )


_SETTINGS = ("negative_prompt", "steps", "cfg", "sampler", "style_preset", "strength")


def _keep(name: str, value: Any, model: Model, report: _Report) -> Any:
    """Return the value that the model accepts for ``value``, or None if it has no such setting."""
    if name in model.texts:
        return value
    if name in model.numbers:
        kept = model.numbers[name].clamp(value)
        if kept != value:
            report.map(name, f"{value:g}", f"{kept:g}")
        return kept
    # Clients write names such as samplers' in their own case; providers accept theirs only.
    choice = next((word for word in model.choices.get(name, ()) if word.lower() == str(value).lower()), None)
    if choice is None:
        report.dropped.append(name)
    return choice


def _apply_quality(request: ImageRequest, model: Model, settings: dict[str, Any], report: _Report) -> str:
    """Turn quality into steps unless steps are given. Returns the answer's ``quality``: low, medium or high."""
    # None of these providers has a quality; more steps are the nearest thing (docs/configuration.md).
    asked = request.quality
    resolved = "high" if asked in _MORE else asked or "medium"
    if resolved == "medium":
        return resolved
    steps = model.numbers.get("steps")
    if steps is None or "steps" in settings:
        report.dropped.append("quality")
        return "medium"
    usual = steps.default or (steps.low + steps.high) / 2
    made = steps.high if asked in _MORE else max(steps.low, usual / 2)
    settings["steps"] = math.ceil(made)
    report.map("quality", asked, f"steps {settings['steps']}")
    return resolved


def _apply_style(request: ImageRequest, model: Model, settings: dict[str, Any], report: _Report) -> None:
    if request.style is None:
        return
    preset = _STYLE_PRESETS[request.style]
    if "style_preset" in settings or preset not in model.choices.get("style_preset", ()):
        report.dropped.append("style")
        return
    settings["style_preset"] = preset
    report.map("style", request.style, f"style_preset {preset}")


def _choose_shape(request: ImageRequest, model: Model, defaults: Mapping[str, Any], report: _Report) -> Shape:
    pixels, ratio = request.wanted_pixels(), request.wanted_ratio()
    if pixels:
        shape = model.shapes.nearest(*pixels)
        if (shape.width, shape.height) != pixels:
            name = "size" if request.width is None and request.height is None else "width,height"
            report.map(name, f"{pixels[0]}x{pixels[1]}", shape)
        return shape
    if ratio:
        shape = _nearest_ratio(model, ratio)
        if abs(shape.width / shape.height / ratio - 1) > _SAME_RATIO:
            report.map("aspect_ratio", request.aspect_ratio, shape)
        return shape
    if not any(name in defaults for name in ("width", "height", "aspect_ratio")):
        return model.shapes.default
    # A default shape is found as if it had been asked for, but its rounding is not reported.
    usual = {name: defaults.get(name) for name in ("width", "height", "aspect_ratio")}
    return _choose_shape(ImageRequest(prompt="-", **usual), model, {}, _Report())


def _nearest_ratio(model: Model, ratio: float) -> Shape:
    # At the area of the default shape: a ratio alone is no wish for a larger or a dearer picture.
    usual = model.shapes.default
    area = usual.width * usual.height
    return model.shapes.nearest(round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio)))


def _drop_unsupported(request: ImageRequest, model: Model, report: _Report) -> None:
    if request.background == "transparent":
        report.dropped.append("background")
    if request.moderation == "low":
        report.dropped.append("moderation")
    if request.input_fidelity is not None:
        report.dropped.append("input_fidelity")
    _report_seed(request, model.numbers.get("seed"), report)
    if request.output_compression is not None and request.output_format not in ("jpeg", "webp"):
        report.dropped.append("output_compression")


def _report_seed(request: ImageRequest, seeds: Range | None, report: _Report) -> None:
    if request.seed is None or request.seed == -1:
        return
    if seeds is None:
        report.dropped.append("seed")
    elif _wrap(request.seed, seeds) != request.seed:
        report.map("seed", request.seed, _wrap(request.seed, seeds))
