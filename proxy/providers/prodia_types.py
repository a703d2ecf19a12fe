"""Prodia v2's job types that make pictures: their settings and ranges, as data. Sources: docs/providers.md.

Schemas there are closed: an unknown key is refused, and an unknown type is answered with 429 for ever. So a type
whose schema is not published gets its prompt and nothing else, and a type that is not here is refused here.
"""

from collections.abc import Sequence
from typing import Any

from proxy.providers.boundary import Model, Operation, Range
from proxy.providers.checkpoints import STYLE_PRESETS
from proxy.providers.shapes import FixedShapes, FreeShapes, Shape, Shapes
from proxy.providers.titles import title

_EDIT: frozenset[Operation] = frozenset({"edit"})
_INPAINT: frozenset[Operation] = frozenset({"inpaint"})
_SEED = Range(0, 2_147_483_647)
_STYLES = {"style_preset": STYLE_PRESETS}

_UNPUBLISHED = FixedShapes([Shape(1024, 1024)])
"""For types whose size settings are not published: they choose, and 1024x1024 is what their pages show."""


def _sizes(word: str, *sizes: str) -> FixedShapes:
    shapes = []
    for size in sizes:
        width, height = map(int, size.split("x"))
        shapes.append(Shape(width, height, {word: size}))
    return FixedShapes(shapes)


def _transposed(*sizes: str) -> list[str]:
    """Return ``sizes`` followed by the same with width and height exchanged."""
    return [*sizes, *("x".join(reversed(size.split("x"))) for size in sizes if len(set(size.split("x"))) > 1)]


def _ratios(*ratios: str) -> FixedShapes:
    """Return shapes of about one megapixel for a type that takes a ratio and no pixel size."""
    shapes = []
    for ratio in ratios:
        across, down = map(int, ratio.split(":"))
        unit = (1024 * 1024 / (across * down)) ** 0.5
        shapes.append(Shape(round(across * unit), round(down * unit), {"aspect_ratio": ratio}))
    return FixedShapes(shapes)


def _type(name: str, shapes: Shapes = _UNPUBLISHED, **known: Any) -> Model:
    aliases = (name, *known.pop("aliases", ()))
    product, _, version = name.rsplit(".", 2)
    words = title(product if version == "v1" else f"{product} {version}")
    return Model(name=f"inference.{name}", shapes=shapes, in_answer=True, aliases=aliases, title=words, **known)


_SCHNELL = {
    "numbers": {"steps": Range(1, 4, 4), "seed": _SEED},
    "choices": _STYLES,
    "prompt": (3, 4096),
    "price_dollars": 0.0025,
    "seconds": 0.3,
}
_FLUX_2 = {"numbers": {"seed": _SEED}, "prompt": (1, 32768)}
_FLUX_2_FLEX = {
    "numbers": {"steps": Range(1, 50, 50), "cfg": Range(1.5, 10, 4.5, whole=False), "seed": _SEED},
    "wire": {"cfg": "guidance"},
    "prompt": (1, 32768),
    "price_dollars": 0.06,
    "seconds": 22.0,
}
_FLUX_2_SIZES = FreeShapes(low=64, high=4096, step=16)
_SCHNELL_SIZES = FreeShapes(low=256, high=1920, step=8)
_BANANA = {"prompt": (1, 2500), "price_dollars": 0.039, "seconds": 8.0}
_BANANA_RATIOS = _ratios("1:1", "2:3", "3:2", "4:5", "5:4", "9:16", "16:9", "21:9")
_RECRAFT_SIZES = _sizes(
    "size",
    *_transposed(
        "1024x1024", "1024x1280", "1024x1365", "1024x1434", "1024x1536", "1024x1707", "1024x1820", "1024x2048"
    ),
)
_RECRAFT_V4_SIZES = _sizes(
    "size",
    *(
        "1024x1024",
        "1536x768",
        "768x1536",
        "1280x832",
        "832x1280",
        "1216x896",
        "896x1216",
        "1152x896",
        "896x1152",
    ),
    *("832x1344", "1280x896", "896x1280", "1344x768", "768x1344"),
)
_RECRAFT_V4_PRO_SIZES = _sizes(
    "size",
    *("2048x2048", "3072x1536", "1536x3072", "2560x1664", "1664x2560", "2432x1792", "1792x2432", "2304x1792"),
    *("1792x2304", "1664x2688", "2560x1792", "1792x2560", "2688x1536", "1536x2688"),
)
_FLUX_FAST_V1_SIZES = _sizes(
    "resolution", "1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024", "512x512"
)

_GENERATE = (
    _type(
        "flux-fast.schnell.txt2img.v2",
        _SCHNELL_SIZES,
        aliases=("flux-fast-schnell", "flux-schnell"),
        **_SCHNELL,
    ),
    _type("flux-fast.schnell.txt2img.v1", _FLUX_FAST_V1_SIZES, **_SCHNELL),
    _type("flux-fast.dev.txt2img.v1"),
    _type("flux.schnell.txt2img.v1", FreeShapes(low=256, high=1920, step=8), **_SCHNELL),
    _type("flux.schnell.txt2img.v2", FreeShapes(low=256, high=1920, step=8), **_SCHNELL),
    _type("flux.dev.txt2img.v1", price_dollars=0.02, seconds=6.5),
    _type("flux.dev.txt2img.v2", price_dollars=0.02, seconds=6.5, aliases=("flux-dev",)),
    _type("flux.pro.txt2img.v1"),
    _type("flux.pro11.txt2img.v1", price_dollars=0.04, seconds=2.5, aliases=("flux-pro-1.1",)),
    _type("flux.pro11ultra.txt2img.v1"),
    _type(
        "flux-2.dev.txt2img.v1",
        FreeShapes(low=512, high=1920, step=16),
        numbers={"steps": Range(1, 50), "seed": _SEED},
        price_dollars=0.015,
        seconds=3.0,
    ),
    _type("flux-2.flex.txt2img.v1", _FLUX_2_SIZES, **_FLUX_2_FLEX),
    _type("flux-2.pro.txt2img.v1", _FLUX_2_SIZES, price_dollars=0.03, seconds=12.0, **_FLUX_2),
    _type(
        "flux-2.max.txt2img.v1",
        FreeShapes(low=256, high=2048, step=16),
        price_dollars=0.04,
        seconds=15.0,
        **_FLUX_2,
    ),
    _type("flux-2.klein.4b.txt2img.v1"),
    _type("flux-2.klein.9b.txt2img.v1"),
    *(_type(f"flux-kontext.{tier}.txt2img.{version}") for tier in ("pro", "max") for version in ("v1", "v2")),
    _type("gemini-3-pro.txt2img.v1", seconds=10.0),
    _type("gemini-3-1-flash.txt2img.v1", seconds=30.0),
    _type("nano-banana.txt2img.v2", _BANANA_RATIOS, aliases=("nano-banana",), **_BANANA),
    _type(
        "sdxl.txt2img.v1",
        FreeShapes(low=512, high=1536, step=8),
        numbers={"seed": _SEED},
        choices=_STYLES,
        texts=frozenset({"negative_prompt"}),
        price_dollars=0.002,
        seconds=2.0,
        aliases=("sdxl",),
    ),
    _type("sd15.txt2img.v1", price_dollars=0.008, seconds=1.2),
    _type(
        "seedream.txt2img.v1",
        FreeShapes(low=512, high=2048, step=1),
        numbers={"cfg": Range(1, 10, 2.5, whole=False), "seed": _SEED},
        wire={"cfg": "guidance_scale"},
        prompt=(3, 4096),
    ),
    _type("seedream-4.txt2img.v1"),
    _type("seedream-4-5.txt2img.v1"),
    _type("seedream-5-0.lite.txt2img.v1"),
    _type(
        "recraft.txt2img.v1",
        _RECRAFT_SIZES,
        texts=frozenset({"negative_prompt"}),
        prompt=(1, 1000),
        seconds=10.0,
        aliases=("recraft",),
    ),
    _type("recraft.v4.txt2img.v1", _RECRAFT_V4_SIZES, prompt=(1, 10000), seconds=10.0),
    _type("recraft.v4.pro.txt2img.v1", _RECRAFT_V4_PRO_SIZES, prompt=(1, 10000), seconds=10.0),
    _type("wan2-7.txt2img.v1", seconds=40.0),
)

_EDITS = (
    _type("flux-2.klein.4b.img2img.v1", operations=_EDIT, max_images=8),
    _type("flux-2.pro.img2img.v1", _FLUX_2_SIZES, operations=_EDIT, max_images=8, price_dollars=0.03, **_FLUX_2),
    _type("flux-2.max.img2img.v1", operations=_EDIT, max_images=8, price_dollars=0.04),
    _type("flux-2.flex.img2img.v1", _FLUX_2_SIZES, operations=_EDIT, max_images=8, **_FLUX_2_FLEX),
    *(_type(f"flux-kontext.{tier}.img2img.v1", operations=_EDIT, max_images=1) for tier in ("pro", "max")),
    _type("flux-fast.dev-kontext.img2img.v1", operations=_EDIT, max_images=1),
    _type("flux.dev.img2img.v2", operations=_EDIT, max_images=1),
    _type("flux.schnell.img2img.v2", operations=_EDIT, max_images=1),
    _type("qwen.image-edit.lightning.img2img.v1", operations=_EDIT, max_images=1),
    _type("qwen.image-edit.plus.img2img.v2", operations=_EDIT, max_images=3),
    _type("qwen.image-edit.plus.lightning.img2img.v2", operations=_EDIT, max_images=3),
    _type("seedream-4.img2img.v1", operations=_EDIT, max_images=1),
    _type("gemini-3-pro.img2img.v1", operations=_EDIT, max_images=3, seconds=12.0),
    _type("gemini-3-1-flash.img2img.v1", operations=_EDIT, max_images=3, seconds=35.0),
    _type("nano-banana.img2img.v2", _BANANA_RATIOS, operations=_EDIT, max_images=3, **_BANANA),
    _type("sd15.img2img.v1", operations=_EDIT, max_images=1),
    _type(
        "recraft.img2img.v1",
        operations=_EDIT,
        numbers={"strength": Range(0, 1, 0, whole=False)},
        max_images=1,
        prompt=(1, 1000),
        family="image",
    ),
    _type("wan2-7.img2img.v1", operations=_EDIT, max_images=1, price_dollars=0.006),
    _type("sdxl.inpainting.v1", operations=_INPAINT, max_images=1, family="image"),
    _type("sd15.inpainting.v1", operations=_INPAINT, max_images=1, family="image"),
)

TYPES: Sequence[Model] = (*_GENERATE, *_EDITS)
"""Every job type on offer; names are complete (``inference.…``), aliases leave out the prefix."""
