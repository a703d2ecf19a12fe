"""The job types of Prodia v2 whose configuration is known in full (facts, 3.7), and a check against them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.simulator.checkpoints import STYLE_PRESETS


@dataclass(frozen=True, slots=True)
class Text:
    """A string; lengths in characters."""

    shortest: int = 0
    longest: int | None = None
    default: str | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a closed list."""

    values: tuple[str, ...]
    default: str | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds; ``step`` is what a whole number must be a multiple of."""

    low: float | None = None
    high: float | None = None
    default: float | None = None
    whole: bool = True
    step: int = 1
    required: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    default: bool | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list of strings."""

    fewest: int = 0
    most: int | None = None
    choices: tuple[str, ...] = ()
    default: None = None
    required: bool = False


Field = Text | Choice | Number | Flag | Items
Schema = Mapping[str, Field]

_SEED = Number()
_STYLE = Choice(STYLE_PRESETS)
_RECRAFT_SIZES = (
    "1024x1024",
    "1024x1280",
    "1024x1365",
    "1024x1434",
    "1024x1536",
    "1024x1707",
    "1024x1820",
    "1024x2048",
)
_V4 = (
    "1024x1024 1536x768 768x1536 1280x832 832x1280 1216x896 896x1216 1152x896 896x1152 "
    "832x1344 1280x896 896x1280 1344x768 768x1344"
)
_V4_PRO = (
    "2048x2048 3072x1536 1536x3072 2560x1664 1664x2560 2432x1792 1792x2432 2304x1792 "
    "1792x2304 1664x2688 2560x1792 1792x2560 2688x1536 1536x2688"
)
_RATIOS = "1:1 2:3 3:2 4:5 5:4 4:7 7:4 9:16 16:9 9:21 21:9 auto"


def _transposed(sizes: tuple[str, ...]) -> tuple[str, ...]:
    return sizes + tuple("x".join(reversed(size.split("x"))) for size in sizes[1:])


_NANO_BANANA: Schema = {
    "prompt": Text(1, 2500, required=True),
    "aspect_ratio": Choice(tuple(_RATIOS.split()), "auto"),
    "include_messages": Flag(default=False),
}
_FLUX_2: Schema = {
    "prompt": Text(1, 32768, required=True),
    "images": Items(1, 8, required=True),
    "width": Number(64, 4096, step=16),
    "height": Number(64, 4096, step=16),
    "seed": _SEED,
    "safety_tolerance": Number(0, 5, 2),
}

_FLUX_FAST_V1: Schema = {
    "prompt": Text(3, 4096, required=True),
    "steps": Number(1, 4, 4),
    "resolution": Choice(
        ("1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024", "512x512"), "1024x1024"
    ),
    "style_preset": _STYLE,
    "seed": _SEED,
    "progressive": Flag(),
}

SCHEMAS: Mapping[str, Schema] = {
    "inference.flux-fast.schnell.txt2img.v0": _FLUX_FAST_V1,
    "inference.flux-fast.schnell.txt2img.v1": _FLUX_FAST_V1,
    "inference.flux-fast.schnell.txt2img.v2": {
        "prompt": Text(1, required=True),
        "width": Number(256, 1920, 1024),
        "height": Number(256, 1920, 1024),
        "steps": Number(1, 4, 4),
        "style_preset": _STYLE,
        "loras": Items(0, 3, ("prodia/flux-lora-painting", "prodia/lora/flux/anime@v1")),
        "progressive": Flag(),
        "seed": _SEED,
    },
    "inference.seedream.txt2img.v1": {
        "prompt": Text(3, 4096, required=True),
        "width": Number(512, 2048, 1024),
        "height": Number(512, 2048, 1024),
        "guidance_scale": Number(1, 10, 2.5, whole=False),
        "watermark": Flag(default=False),
        "seed": Number(0, 2147483647),
    },
    "inference.recraft.txt2img.v1": {
        "prompt": Text(1, 1000, required=True),
        "negative_prompt": Text(),
        "style": Choice(
            ("realistic_image", "digital_illustration", "vector_illustration", "icon", "logo_raster"),
            "realistic_image",
        ),
        "substyle": Text(),
        "style_id": Text(),
        "text_layout": Items(),
        "size": Choice(_transposed(_RECRAFT_SIZES), "1024x1024"),
    },
    "inference.recraft.v4.txt2img.v1": {
        "prompt": Text(1, 10000, required=True),
        "size": Choice(tuple(_V4.split()), "1024x1024"),
    },
    "inference.recraft.v4.pro.txt2img.v1": {
        "prompt": Text(1, 10000, required=True),
        "size": Choice(tuple(_V4_PRO.split()), "2048x2048"),
    },
    "inference.recraft.img2img.v1": {
        "prompt": Text(1, 1000, required=True),
        "image": Text(),
        "images": Items(1, 1),
        "strength": Number(0, 1, 0, whole=False),
    },
    "inference.flux-2.pro.img2img.v1": _FLUX_2,
    "inference.flux-2.flex.img2img.v1": {
        **_FLUX_2,
        "steps": Number(1, 50, 50),
        "guidance": Number(1.5, 10, 4.5, whole=False),
    },
    "inference.nano-banana.txt2img.v2": _NANO_BANANA,
    "inference.nano-banana.img2img.v2": {**_NANO_BANANA, "images": Items(1, 3, required=True)},
}
"""Everything else in the catalogue takes any configuration, since its schema isn't known."""


def problem(schema: Schema, config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a configuration, in the words of Prodia's validator; None when nothing is."""
    for name in config:
        if name not in schema:
            return f"at '': additional properties '{name}' not allowed"
    for name, rule in schema.items():
        if name not in config:
            if rule.required:
                return f"at '': missing property '{name}'"
            continue
        if complaint := _complaint(rule, config[name]):
            return f"at '/{name}': {complaint}"
    return None


def defaults(schema: Schema) -> dict[str, Any]:
    """Return the values that are used, and echoed, for what a configuration leaves out."""
    return {name: rule.default for name, rule in schema.items() if rule.default is not None}


def _complaint(rule: Field, value: Any) -> str | None:
    if isinstance(rule, Number):
        return _number_complaint(rule, value)
    if isinstance(rule, Flag):
        return None if isinstance(value, bool) else f"got {_kind(value)}, want boolean"
    if isinstance(rule, Items):
        return _items_complaint(rule, value)
    if not isinstance(value, str):
        return f"got {_kind(value)}, want string"
    if isinstance(rule, Choice):
        allowed = ", ".join(f"'{choice}'" for choice in rule.values)
        return None if value in rule.values else f"value must be one of {allowed}"
    if len(value) < rule.shortest:
        return f"minLength: got {len(value):,}, want {rule.shortest:,}"
    if rule.longest is not None and len(value) > rule.longest:
        return f"maxLength: got {len(value):,}, want {rule.longest:,}"
    return None


def _number_complaint(rule: Number, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"got {_kind(value)}, want {'integer' if rule.whole else 'number'}"
    if rule.whole and value != int(value):
        return "got number, want integer"
    if rule.low is not None and value < rule.low:
        return f"minimum: got {value:,}, want {rule.low:,}"
    if rule.high is not None and value > rule.high:
        return f"maximum: got {value:,}, want {rule.high:,}"
    return f"multipleOf: got {value:,}, want {rule.step}" if rule.whole and value % rule.step else None


def _items_complaint(rule: Items, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return f"got {_kind(value)}, want array of strings"
    if len(value) < rule.fewest:
        return f"minItems: got {len(value)}, want {rule.fewest}"
    if rule.most is not None and len(value) > rule.most:
        return f"maxItems: got {len(value)}, want {rule.most}"
    unknown = [item for item in value if rule.choices and item not in rule.choices]
    return f"value must be one of {', '.join(rule.choices)}" if unknown else None


def _kind(value: Any) -> str:
    kinds = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "list": "array", "dict": "object"}
    return kinds.get(type(value).__name__, "null")
