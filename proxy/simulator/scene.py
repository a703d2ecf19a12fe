"""The simulated pictures: hills whose colours and shapes come from prompt and seed, with the prompt written below."""

import colorsys
import io
import textwrap
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

Box = tuple[int, int, int, int]

_CAPTION_SHARE = 0.25
"""Of the height. Always the same, and opaque: so an edit of a picture made here covers its old caption."""
_SMALLEST_FONT = 9
_BAND = (12, 14, 24)
_WIDE = 0.52
"""A letter's average width, as a share of its height."""
_HILLS = 6
_font = lru_cache(maxsize=64)(ImageFont.load_default)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: exactly ``width`` x ``height`` pixels. ``prompt`` no longer contains steering words.

    ``image`` is an input picture that shows through, ``mask`` the part of it to alter (transparent or white);
    ``strength`` 0–1 says how far the result moves from the input. ``parameters`` goes into a PNG.
    """

    width: int
    height: int
    prompt: str = field(repr=False)
    model: str
    seed: int
    image: bytes | None = field(default=None, repr=False)
    mask: bytes | None = field(default=None, repr=False)
    strength: float = 0.5
    parameters: str = field(default="", repr=False)


def draw(drawing: Drawing) -> Image.Image:
    """Return the finished picture; takes some 10 ms for a megapixel, so never call it on the event loop."""
    random = Random(f"{drawing.seed} {drawing.model} {drawing.prompt}")  # noqa: S311 (repeatable, not secret)
    hue, size = random.random(), (drawing.width, drawing.height)
    full = (0, 0, *size)
    if drawing.image is None:
        return _captioned(_hills(size, hue, random), drawing, full)
    with Image.open(io.BytesIO(drawing.image)) as picture:
        # Lets a large JPEG be decoded at a fraction of its size.
        picture.draft("RGB", size)
        given = ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.BILINEAR)
    if drawing.mask is None:
        tones = ImageOps.colorize(given.convert("L"), _colour(hue, 0.8, 0.12), _colour(hue + 0.1, 0.2, 1))
        share = 0.25 + 0.5 * min(1.0, max(0.0, drawing.strength))
        return _captioned(Image.blend(given, tones, share), drawing, full)
    area = _altered_area(drawing.mask, size)
    box, hills = area.getbbox(), _hills(size, hue, random)
    # A picture that was made here has its caption outside the mask still, and one is enough.
    return Image.composite(_captioned(hills, drawing, box) if box and not _is_captioned(given) else hills, given, area)


def measure(data: bytes) -> tuple[int, int] | None:
    """Return the size in pixels of a picture that a caller sent; None when it is unreadable. Blocks: it decodes it."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _hills(size: tuple[int, int], hue: float, random: Random) -> Image.Image:
    """Return a sky, and hills that darken towards the front."""
    width, height = size
    column = Image.linear_gradient("L").resize((1, height))
    horizon = _colour(hue + random.uniform(-0.2, 0.2), 0.4, 1)
    picture = ImageOps.colorize(column, _colour(hue, 0.7, random.uniform(0.2, 0.7)), horizon).resize(size)
    pen = ImageDraw.Draw(picture)
    for depth in (hill / _HILLS for hill in range(_HILLS)):
        x, half = random.random() * width, random.uniform(0.3, 0.9) * width
        top = height * (0.4 + 0.35 * depth + random.uniform(-0.08, 0.08))
        colour = _colour(hue + random.uniform(-0.06, 0.06), 0.6, 0.75 - 0.6 * depth)
        pen.ellipse((x - half, top, x + half, top + 2 * height), fill=colour)
    return picture


def _altered_area(mask: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(mask)) as picture:
        layers = picture.convert("RGBA").resize(size, Image.Resampling.NEAREST)
    alpha = layers.getchannel("A")
    # OpenAI's masks are transparent where to edit, Prodia's are opaque and white there.
    marked = ImageChops.invert(alpha) if alpha.getextrema() != (255, 255) else layers.convert("L")
    return marked.point(lambda value: 255 if value > 127 else 0)


def _is_captioned(picture: Image.Image) -> bool:
    edge = picture.crop((0, round(picture.height * 0.77), 2, picture.height))
    far = ImageChops.difference(edge, Image.new("RGB", edge.size, _BAND)).point(lambda value: max(0, value - 9))
    return far.getbbox() is None


def _captioned(picture: Image.Image, drawing: Drawing, box: Box) -> Image.Image:
    """Write the prompt, and how the picture was made, into the lowest part of the box."""
    left, upper, right, lower = box
    width, height = right - left, round((lower - upper) * _CAPTION_SHARE)
    band = Image.new("RGB", (width, height), _BAND)
    pen, pad = ImageDraw.Draw(band), height // 12
    note = f"{drawing.model}  ·  {drawing.width} x {drawing.height}  ·  seed {drawing.seed}"
    small = max(_SMALLEST_FONT, height // 10)
    pen.text((pad, height - pad - small), note, font=_font(small), fill=(150, 155, 175))
    size, lines = _wrapped(drawing.prompt, width - 2 * pad, height - 2 * pad - 2 * small, height // 4)
    pen.multiline_text((pad, pad), "\n".join(lines), font=_font(size), fill=(255, 255, 255), spacing=size // 5)
    picture.paste(band, (left, lower - height))
    return picture


def _wrapped(text: str, width: float, height: float, size: int) -> tuple[int, list[str]]:
    """Return the largest font size (pixels) up to ``size`` at which the text fits, and its lines."""
    size = max(_SMALLEST_FONT, size)
    room = max(1, int(height / (size * 1.2)))
    lines = textwrap.wrap(text, max(8, int(width / (size * _WIDE))))
    if len(lines) <= room or size == _SMALLEST_FONT:
        return size, lines[:room]
    return _wrapped(text, width, height, round(size * 0.85))
