"""No job of any Prodia v2 type sends a key or a value that its closed schema doesn't know."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers.boundary import Job, Model
from proxy.providers.checkpoints import STYLE_PRESETS
from proxy.providers.prodia_types import TYPES
from proxy.requests.image_request import ImageRequest, parse
from proxy.requests.parameters import translate
from tests.providers.examples import brought, provider

SEED = range(2_147_483_648)
SCHNELL: dict[str, Any] = {"steps": range(1, 5), "style_preset": STYLE_PRESETS, "seed": SEED}
RATIOS = ("1:1", "2:3", "3:2", "4:5", "5:4", "4:7", "7:4", "9:16", "16:9", "9:21", "21:9", "auto")


def _sides(low: int, high: int, step: int = 1) -> dict[str, Any]:
    return {"width": range(low, high + 1, step), "height": range(low, high + 1, step)}


def _both_ways(*sizes: str) -> set[str]:
    return {*sizes, *("x".join(reversed(size.split("x"))) for size in sizes)}


FLEX: dict[str, Any] = {**_sides(64, 4096, 16), "seed": SEED, "steps": range(1, 51), "guidance": (1.5, 10.0)}
PRO: dict[str, Any] = {**_sides(64, 4096, 16), "seed": SEED}
SCHEMAS: dict[str, dict[str, Any]] = {
    "flux-fast.schnell.txt2img.v1": {
        **SCHNELL,
        "resolution": {"1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024", "512x512"},
    },
    "flux-fast.schnell.txt2img.v2": {**SCHNELL, **_sides(256, 1920)},
    "flux.schnell.txt2img.v1": {**SCHNELL, **_sides(256, 1920)},
    "flux.schnell.txt2img.v2": {**SCHNELL, **_sides(256, 1920)},
    "seedream.txt2img.v1": {**_sides(512, 2048), "guidance_scale": (1.0, 10.0), "seed": SEED},
    "recraft.txt2img.v1": {
        "negative_prompt": None,
        "size": _both_ways(
            *("1024x1024", "1024x1280", "1024x1365", "1024x1434", "1024x1536", "1024x1707", "1024x1820", "1024x2048")
        ),
    },
    "recraft.v4.txt2img.v1": {
        "size": {
            *_both_ways("1024x1024", "1536x768", "1280x832", "1216x896", "1152x896", "1280x896", "1344x768"),
            "832x1344",
        }
    },
    "recraft.v4.pro.txt2img.v1": {
        "size": {
            *_both_ways("2048x2048", "3072x1536", "2560x1664", "2432x1792", "2304x1792", "2560x1792", "2688x1536"),
            "1664x2688",
        }
    },
    "flux-2.dev.txt2img.v1": {**_sides(512, 1920), "steps": range(1, 51), "seed": SEED},
    "flux-2.pro.txt2img.v1": PRO,
    "flux-2.pro.img2img.v1": PRO,
    "flux-2.flex.txt2img.v1": FLEX,
    "flux-2.flex.img2img.v1": FLEX,
    "flux-2.max.txt2img.v1": {**_sides(256, 2048), "seed": SEED},
    "nano-banana.txt2img.v2": {"aspect_ratio": RATIOS},
    "nano-banana.img2img.v2": {"aspect_ratio": RATIOS},
    "recraft.img2img.v1": {"strength": (0.0, 1.0)},
    "sdxl.txt2img.v1": {**_sides(512, 1536), "seed": SEED, "negative_prompt": None, "style_preset": STYLE_PRESETS},
}
"""Keys beside prompt and pictures, with the values each takes (a pair: a decimal range; None: any text).

From Prodia's documentation (docs/providers.md), typed again here on purpose. A type that is missing gets
its prompt and pictures only.
"""

PROMPTS = {
    **dict.fromkeys(("flux-fast.schnell.txt2img.v1", "seedream.txt2img.v1"), (3, 4096)),
    **dict.fromkeys(("recraft.txt2img.v1", "recraft.img2img.v1"), (1, 1000)),
    **dict.fromkeys(("recraft.v4.txt2img.v1", "recraft.v4.pro.txt2img.v1"), (1, 10_000)),
    **dict.fromkeys(("flux-2.pro.img2img.v1", "flux-2.flex.img2img.v1"), (1, 32_768)),
    "nano-banana.txt2img.v2": (1, 2500),
}

_requests = st.fixed_dictionaries(
    {"prompt": st.text(min_size=3, max_size=20)},
    optional={
        "size": st.sampled_from(["auto", "256x256", "1024x1024", "1792x1024", "1024x1792", "4096x1024", "64x200"]),
        "quality": st.sampled_from(["low", "standard", "medium", "high", "hd", "auto"]),
        "style": st.sampled_from(["vivid", "natural"]),
        "negative_prompt": st.text(min_size=1, max_size=5),
        "steps": st.integers(1, 150),
        "cfg_scale": st.floats(0, 30),
        "strength": st.floats(0, 1),
        "seed": st.integers(-1, 2**53 - 1),
        "sampler": st.sampled_from(["Euler a", "DDIM", "unknown"]),
        "style_preset": st.sampled_from([*STYLE_PRESETS, "Anime", "unknown"]),
        "aspect_ratio": st.sampled_from(["square", "16:9", "1:4", "4:1", "9:16", "auto"]),
        "width": st.integers(256, 1024),
        "height": st.integers(256, 1024),
        "output_format": st.sampled_from(["png", "jpeg", "webp"]),
        "background": st.sampled_from(["transparent", "opaque"]),
        "user": st.just("someone"),
        "moderation": st.just("low"),
    },
)


def _config(made_by: Model, request: ImageRequest, seed: int) -> dict[str, Any]:
    """Return what is sent for ``request``, through the same translation as in service."""
    operation = next(iter(made_by.operations))
    translation = translate(request, made_by, {}, operation)
    images = () if operation == "generate" else (brought(),) * made_by.max_images
    mask = brought() if operation == "inpaint" else None
    wanted = Job(made_by, operation, request.prompt, translation.with_seed(seed), "png", images, mask)
    call = provider("prodia").submit(wanted)
    body: Any = json.loads(bytes(call.files[0].data)) if call.files else call.json
    assert set(body) == {"type", "config"}
    assert body["type"] == made_by.name
    config: dict[str, Any] = dict(body["config"])
    assert config.pop("prompt") == request.prompt
    word = "image" if made_by.family == "image" else "images"
    assert (word in config) is (operation != "generate")
    config.pop(word, None)
    assert ("mask" in config) is (operation == "inpaint")
    config.pop("mask", None)
    return config


def _fits(value: Any, allowed: Any) -> bool:
    if allowed is None:
        return isinstance(value, str)
    if isinstance(allowed, range):
        return type(value) is int and value in allowed
    if isinstance(allowed, tuple) and isinstance(allowed[0], float):
        return isinstance(value, int | float) and not isinstance(value, bool) and allowed[0] <= value <= allowed[1]
    return value in allowed


@pytest.mark.parametrize("made_by", TYPES, ids=lambda one: one.name)
@given(checked=_requests, seed=st.integers(0, 2**53))
@settings(max_examples=8, deadline=None)
def test_only_known_keys_with_known_values_are_sent(made_by: Model, checked: dict[str, Any], seed: int) -> None:
    request, unknown = parse(_without_contradictions(checked))
    assert unknown == ()
    schema = SCHEMAS.get(made_by.name.removeprefix("inference."), {})
    config = _config(made_by, request, seed)
    assert config.keys() <= schema.keys()
    assert {name: value for name, value in config.items() if not _fits(value, schema[name])} == {}
    assert ("seed" in config) is ("seed" in schema)


def _without_contradictions(checked: dict[str, Any]) -> dict[str, Any]:
    if checked.get("output_format") == "jpeg":
        checked.pop("background", None)
    return checked


@pytest.mark.parametrize("made_by", TYPES, ids=lambda one: one.name)
def test_every_setting_a_type_offers_is_in_its_schema(made_by: Model) -> None:
    schema = SCHEMAS.get(made_by.name.removeprefix("inference."), {})
    offered = {*made_by.numbers, *made_by.choices, *made_by.texts}
    assert {made_by.wire.get(word, word) for word in offered} <= schema.keys()
    assert set(made_by.wire) <= offered
    assert made_by.shapes.default.settings.keys() <= schema.keys()
    assert made_by.operations in ({"generate"}, {"edit"}, {"inpaint"})
    assert (made_by.max_images > 0) is ("generate" not in made_by.operations)


def test_prompt_limits_are_the_published_ones() -> None:
    by_name = {one.name.removeprefix("inference."): one for one in TYPES}
    assert {name: by_name[name].prompt for name in PROMPTS} == PROMPTS


def test_names_and_aliases_lead_to_one_type() -> None:
    names = [name for one in TYPES for name in (one.name, *one.aliases)]
    assert len(set(names)) == len(names)
    assert all(one.name.startswith("inference.") and one.name[len("inference.") :] in one.aliases for one in TYPES)
    assert {name for name in SCHEMAS if f"inference.{name}" not in names} == set()
