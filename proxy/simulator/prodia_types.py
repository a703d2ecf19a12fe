"""Prodia v2's job types: time and price of one picture, the size they draw, and their settings where published.

https://docs.prodia.com/job-types has the schemas. They are closed: an unknown key is refused, and an unknown type is
answered with 429. Workflows and tools (upscaling, say) are not simulated.
"""

import math
from collections.abc import Mapping
from typing import Any

from proxy.providers.checkpoints import STYLE_PRESETS
from proxy.simulator.schema import Rule, Schema, flag, number, sides, string, strings, whole

PING = "inference.ping.v1"

# Seconds, dollars, and the types (without "inference.") that take that long and cost that much.
# Where no time is published, it is that of the most similar type.
_TABLE = """
0.01 - ping.v1
0.3 0.0025 flux-fast.schnell.txt2img.v0 flux-fast.schnell.txt2img.v1 flux-fast.schnell.txt2img.v2
0.6 0.0025 flux.schnell.txt2img.v1 flux.schnell.txt2img.v2 flux.schnell.img2img.v2
1 - flux-2.klein.4b.txt2img.v1 flux-2.klein.4b.img2img.v1
1.2 0.0025 sd15.txt2img.v1 sd15.img2img.v1 sd15.inpainting.v1
1.5 - flux-2.klein.9b.txt2img.v1
1.8 0.002 sdxl.txt2img.v1
2 0.002 sdxl.inpainting.v1
2.5 0.04 flux.pro11.txt2img.v1
3 - flux-fast.dev-kontext.img2img.v1 qwen.image-edit.lightning.img2img.v1 qwen.image-edit.plus.lightning.img2img.v2
3 0.008 flux-fast.dev.txt2img.v1
3 0.0125 flux-2.dev.txt2img.v1
3 0.04 flux.pro.txt2img.v1
4 - seedream.txt2img.v1
4 0.04 flux.pro11ultra.txt2img.v1
5 - flux-kontext.pro.txt2img.v1 flux-kontext.pro.txt2img.v2 flux-kontext.pro.img2img.v1
5 0.02 flux.dev.txt2img.v1 flux.dev.txt2img.v2 flux.dev.img2img.v2
6 - seedream-5-0.lite.txt2img.v1
7 - flux-kontext.max.txt2img.v1 flux-kontext.max.txt2img.v2 flux-kontext.max.img2img.v1
8 - seedream-4.txt2img.v1 seedream-4-5.txt2img.v1 seedream-4.img2img.v1
8 0.039 nano-banana.txt2img.v2 nano-banana.img2img.v2
10 - gemini-3-pro.txt2img.v1 recraft.txt2img.v1 recraft.v4.txt2img.v1 qwen.image-edit.plus.img2img.v2
10 - recraft.img2img.v1
12 - gemini-3-pro.img2img.v1
12 0.03 flux-2.pro.txt2img.v1 flux-2.pro.img2img.v1
14 - recraft.v4.pro.txt2img.v1
15 0.04 flux-2.max.txt2img.v1 flux-2.max.img2img.v1
22 0.06 flux-2.flex.txt2img.v1 flux-2.flex.img2img.v1
30 - gemini-3-1-flash.txt2img.v1
35 - gemini-3-1-flash.img2img.v1
40 - wan2-7.txt2img.v1
40 0.006 wan2-7.img2img.v1
"""

JOB_TYPES: Mapping[str, tuple[float, float | None]] = {
    f"inference.{name}": (float(seconds), None if dollars == "-" else float(dollars))
    for seconds, dollars, *names in map(str.split, _TABLE.strip().splitlines())
    for name in names
}
"""Seconds and dollars of one picture; dollars are None where no price is published."""


def _prompt(least: int, most: int | None = None) -> Schema:
    return {"prompt": string(least, most, required=True)}


def _one_of(words: str) -> Rule:
    """Return the rule for one of these words, the first by default."""
    return string(values=words.split(), default=words.split(maxsplit=1)[0])


_RECRAFT_SIZES = (
    "1024x1024 1024x1280 1024x1365 1024x1434 1024x1536 1024x1707 1024x1820 1024x2048 "
    "1280x1024 1365x1024 1434x1024 1536x1024 1707x1024 1820x1024 2048x1024"
)
_V4_SIZES = (
    "1024x1024 1536x768 768x1536 1280x832 832x1280 1216x896 896x1216 1152x896 896x1152 "
    "832x1344 1280x896 896x1280 1344x768 768x1344"
)
_V4_PRO_SIZES = " ".join("x".join(str(2 * int(side)) for side in size.split("x")) for size in _V4_SIZES.split())
_SCHNELL: Schema = {
    "steps": whole(1, 4, default=4),
    "style_preset": string(values=STYLE_PRESETS),
    "seed": whole(),
    "progressive": flag(),
}
_SCHNELL_V1: Schema = {
    **_prompt(3, 4096),
    **_SCHNELL,
    "resolution": _one_of("1024x1024 1024x768 1024x576 768x1024 640x640 576x1024 512x512"),
}
_RECRAFT: Schema = {
    "style": _one_of("realistic_image digital_illustration vector_illustration icon logo_raster"),
    **dict.fromkeys(("negative_prompt", "substyle", "style_id"), string()),
    "text_layout": strings(),
    "size": _one_of(_RECRAFT_SIZES),
}
_FLUX_2: Schema = {
    **_prompt(1, 32768),
    "images": strings(1, 8, required=True),
    **sides(64, 4096, step=16),
    "seed": whole(),
    "safety_tolerance": whole(0, 5, default=2),
}
_NANO_BANANA: Schema = {
    **_prompt(1, 2500),
    "aspect_ratio": _one_of("auto 1:1 2:3 3:2 4:5 5:4 4:7 7:4 9:16 16:9 9:21 21:9"),
    "include_messages": flag(default=False),
}
_SEEDREAM: Schema = {
    "guidance_scale": number(1, 10, default=2.5),
    "watermark": flag(default=False),
    "seed": whole(0, 2147483647),
}
SCHEMAS: Mapping[str, Schema] = {
    "inference.flux-fast.schnell.txt2img.v0": _SCHNELL_V1,
    "inference.flux-fast.schnell.txt2img.v1": _SCHNELL_V1,
    "inference.flux-fast.schnell.txt2img.v2": {
        **_prompt(1),
        **_SCHNELL,
        **sides(256, 1920, default=1024),
        "loras": strings(0, 3, values=("prodia/flux-lora-painting", "prodia/lora/flux/anime@v1")),
    },
    "inference.seedream.txt2img.v1": {**_prompt(3, 4096), **sides(512, 2048, default=1024), **_SEEDREAM},
    "inference.recraft.txt2img.v1": {**_prompt(1, 1000), **_RECRAFT},
    "inference.recraft.v4.txt2img.v1": {**_prompt(1, 10000), "size": _one_of(_V4_SIZES)},
    "inference.recraft.v4.pro.txt2img.v1": {**_prompt(1, 10000), "size": _one_of(_V4_PRO_SIZES)},
    "inference.recraft.img2img.v1": {
        **_prompt(1, 1000),
        "image": string(),
        "images": strings(1, 1),
        "strength": number(0, 1, default=0),
    },
    "inference.flux-2.pro.img2img.v1": _FLUX_2,
    "inference.flux-2.flex.img2img.v1": {
        **_FLUX_2,
        "steps": whole(1, 50, default=50),
        "guidance": number(1.5, 10, default=4.5),
    },
    "inference.nano-banana.txt2img.v2": _NANO_BANANA,
    "inference.nano-banana.img2img.v2": {**_NANO_BANANA, "images": strings(1, 3, required=True)},
}
"""Every other type accepts any configuration, since its schema isn't known."""

_SMALLEST, _LARGEST = 64, 4096


def needs_picture(name: str) -> bool:
    """Whether the job type works on an input picture."""
    return ".txt2img." not in name and name != PING


def pixels(name: str, config: Mapping[str, Any], given: tuple[int, int] | None) -> tuple[int, int]:
    """Return width and height of the result; ``given`` is the size of the input picture."""
    for key in ("resolution", "size"):
        if isinstance(config.get(key), str) and config[key].count("x") == 1:
            width, height = config[key].split("x")
            return _side(width, 1024), _side(height, 1024)
    ratio = str(config.get("aspect_ratio", ""))
    if ratio.count(":") == 1 and all(part.isdigit() and int(part) for part in ratio.split(":")):
        across, down = (int(part) for part in ratio.split(":"))
        width = 1024 * math.sqrt(across / down)
        return _side(round(width / 16) * 16, 1024), _side(round(width * down / across / 16) * 16, 1024)
    width, height = given or ((512, 512) if ".sd15." in name else (1024, 1024))
    return _side(config.get("width"), width), _side(config.get("height"), height)


def _side(value: Any, default: int) -> int:
    try:
        return min(_LARGEST, max(_SMALLEST, int(value)))
    except (TypeError, ValueError, OverflowError):
        return default
