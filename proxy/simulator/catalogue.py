"""Prodia v2's job types with their time and price for one picture (facts, 3.7 and 3.8), and the size they draw."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class JobType:
    """``seconds`` is the typical time; where none is published it is that of the type's nearest relative."""

    seconds: float
    dollars: float | None = None


PING = "inference.ping.v1"

# Name (without "inference."), seconds, dollars.
_TABLE = """
flux-fast.schnell.txt2img.v0 0.3 0.0025
flux-fast.schnell.txt2img.v1 0.3 0.0025
flux-fast.schnell.txt2img.v2 0.3 0.0025
flux-fast.dev.txt2img.v1 3 0.008
flux.schnell.txt2img.v1 0.6 0.0025
flux.schnell.txt2img.v2 0.6 0.0025
flux.dev.txt2img.v1 5 0.02
flux.dev.txt2img.v2 5 0.02
flux.pro.txt2img.v1 3 0.04
flux.pro11.txt2img.v1 2.5 0.04
flux.pro11ultra.txt2img.v1 4 0.04
flux-2.dev.txt2img.v1 3 0.0125
flux-2.flex.txt2img.v1 22 0.06
flux-2.pro.txt2img.v1 12 0.03
flux-2.max.txt2img.v1 15 0.04
flux-2.klein.4b.txt2img.v1 1 -
flux-2.klein.9b.txt2img.v1 1.5 -
flux-kontext.pro.txt2img.v1 5 -
flux-kontext.pro.txt2img.v2 5 -
flux-kontext.max.txt2img.v1 7 -
flux-kontext.max.txt2img.v2 7 -
gemini-3-pro.txt2img.v1 10 -
gemini-3-1-flash.txt2img.v1 30 -
nano-banana.txt2img.v2 8 0.039
sdxl.txt2img.v1 1.8 0.002
sd15.txt2img.v1 1.2 0.0025
seedream.txt2img.v1 4 -
seedream-4.txt2img.v1 8 -
seedream-4-5.txt2img.v1 8 -
seedream-5-0.lite.txt2img.v1 6 -
recraft.txt2img.v1 10 -
recraft.v4.txt2img.v1 10 -
recraft.v4.pro.txt2img.v1 14 -
wan2-7.txt2img.v1 40 -
flux-kontext.pro.img2img.v1 5 -
flux-kontext.max.img2img.v1 7 -
flux-fast.dev-kontext.img2img.v1 3 -
flux.dev.img2img.v2 5 0.02
flux.schnell.img2img.v2 0.6 0.0025
flux-2.pro.img2img.v1 12 0.03
flux-2.max.img2img.v1 15 0.04
flux-2.flex.img2img.v1 22 0.06
flux-2.klein.4b.img2img.v1 1 -
qwen.image-edit.lightning.img2img.v1 3 -
qwen.image-edit.plus.img2img.v2 10 -
qwen.image-edit.plus.lightning.img2img.v2 3 -
seedream-4.img2img.v1 8 -
gemini-3-pro.img2img.v1 12 -
gemini-3-1-flash.img2img.v1 35 -
nano-banana.img2img.v2 8 0.039
sd15.img2img.v1 1.2 0.0025
recraft.img2img.v1 10 -
wan2-7.img2img.v1 40 0.006
sdxl.inpainting.v1 2 0.002
sd15.inpainting.v1 1.2 0.0025
upscale.v1 1 0.001
resrgan.upscale.v1 1 0.001
hypir.upscale.v1 6 0.05
birefnet.segment.v1 0.5 0.0025
remove-background.v1 0.5 0.0025
ping.v1 0.01 -
"""


def _read(table: str) -> dict[str, JobType]:
    rows = (line.split() for line in table.strip().splitlines())
    return {
        f"inference.{name}": JobType(float(seconds), None if dollars == "-" else float(dollars))
        for name, seconds, dollars in rows
    }


JOB_TYPES: Mapping[str, JobType] = _read(_TABLE)
"""The workflow types are not simulated; like any unknown type they are answered with 429."""

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
    if ".upscale." in name or name == "inference.upscale.v1":
        factor = _side(config.get("upscale", 2), 2, 1)
        width, height = given or (512, 512)
        return _side(width * factor, 1024), _side(height * factor, 1024)
    ratio = str(config.get("aspect_ratio", ""))
    if ratio.count(":") == 1 and all(part.isdigit() and int(part) for part in ratio.split(":")):
        across, down = (int(part) for part in ratio.split(":"))
        width = 1024 * math.sqrt(across / down)
        return _side(round(width / 16) * 16, 1024), _side(round(width * down / across / 16) * 16, 1024)
    standard = (512, 512) if name.startswith("inference.sd15.") else (1024, 1024)
    width, height = given or standard
    return _side(config.get("width"), width), _side(config.get("height"), height)


def _side(value: Any, default: int, smallest: int = _SMALLEST) -> int:
    try:
        return min(_LARGEST, max(smallest, int(value)))
    except (TypeError, ValueError, OverflowError):
        return default
