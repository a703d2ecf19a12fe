"""The simulated pictures themselves: a landscape whose colours and shapes come from the seed, with the prompt on it."""

import colorsys
import io
import math
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

_SMOOTH_PIXELS = 1200 * 1200
"""Up to this area the scene is drawn twice as large and reduced, which smooths its edges."""

_LONGEST_TEXT = 480
_LAYERS = 5
_WHITE: Colour = (255, 255, 250)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: exactly ``width`` x ``height`` pixels. ``prompt`` is already free of steering words.

    ``image`` is an input picture that shows through, ``mask`` the part of it to alter (transparent or white);
    ``strength`` 0–1 says how far the result moves from the input. ``parameters`` goes into a PNG's text chunk.
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

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


def draw(drawing: Drawing) -> Image.Image:
    """Return the finished picture; takes some 10 ms for a megapixel, so never call it on the event loop."""
    # Shapes and colours need no secrecy, only repeatability.
    random = Random(f"{drawing.seed} {drawing.model}")  # noqa: S311
    hue = random.random()
    full = (0, 0, *drawing.size)
    if drawing.image is None:
        return _captioned(_landscape(drawing.size, hue, random), drawing, full)
    given = _fitted(drawing.image, drawing.size)
    if drawing.mask is None:
        return _captioned(_tinted(given, hue, drawing.strength), drawing, full)
    area = _altered_area(drawing.mask, drawing.size)
    box = area.getbbox()
    if box is None:
        return given
    altered = _captioned(_landscape(drawing.size, hue, random), drawing, box)
    return Image.composite(altered, given, area)


def blur(picture: Image.Image, progress: float) -> Image.Image:
    """Return a small, unfinished look at a picture; it sharpens as ``progress`` goes from 0 to 1."""
    small = picture.copy()
    small.thumbnail((256, 256))
    return small.filter(ImageFilter.GaussianBlur(12 * (1 - progress)))


def measure(data: bytes) -> tuple[int, int] | None:
    """Return the size in pixels of a picture that a caller sent; None when it is no readable picture.

    It decodes the whole picture, so never call it on the event loop.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _landscape(size: tuple[int, int], hue: float, random: Random) -> Image.Image:
    dusk = random.random() < 0.5
    top = _hsv(hue, 0.75, 0.22 if dusk else 0.62)
    horizon = _hsv(hue + random.choice((0.08, -0.1, 0.14)), 0.42, 0.96)
    sun = _Sun.placed(size, random)
    picture = _sky(size, top, horizon)
    soft = ImageDraw.Draw(picture, "RGBA")
    if dusk:
        _stars(soft, size, random)
    for ring in range(6, 0, -1):
        soft.ellipse(sun.box(1 + 0.28 * ring), fill=(*_mixed(horizon, _WHITE, 0.5), 22))
    # Blending is dear, so only the opaque shapes are drawn at twice the size.
    scale = 2 if size[0] * size[1] <= _SMOOTH_PIXELS else 1
    width, height = size[0] * scale, size[1] * scale
    if scale == 2:
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    pen.ellipse(sun.box(1, scale), fill=_mixed(horizon, _WHITE, 0.75))
    _hills(pen, width, height, hue, horizon, random)
    return picture.reduce(2) if scale == 2 else picture


@dataclass(frozen=True, slots=True)
class _Sun:
    x: float
    y: float
    radius: float

    @classmethod
    def placed(cls, size: tuple[int, int], random: Random) -> "_Sun":
        width, height = size
        x, y = width * random.uniform(0.22, 0.78), height * random.uniform(0.22, 0.42)
        return cls(x, y, min(size) * random.uniform(0.07, 0.12))

    def box(self, wider: float, scale: int = 1) -> tuple[float, float, float, float]:
        x, y, radius = self.x * scale, self.y * scale, self.radius * wider * scale
        return x - radius, y - radius, x + radius, y + radius


def _sky(size: tuple[int, int], top: Colour, horizon: Colour) -> Image.Image:
    column = Image.new("RGB", (1, 64))
    for y in range(64):
        column.putpixel((0, y), _mixed(top, horizon, (y / 63) ** 1.3))
    return column.resize((1, size[1]), Image.Resampling.BICUBIC).resize(size, Image.Resampling.NEAREST)


def _stars(pen: ImageDraw.ImageDraw, size: tuple[int, int], random: Random) -> None:
    for _ in range(70):
        x, y = random.random() * size[0], random.random() ** 1.5 * size[1] * 0.5
        radius = min(size) * random.uniform(0.0008, 0.0024)
        shine = random.randint(90, 230)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*_WHITE, shine))


def _hills(pen: ImageDraw.ImageDraw, width: int, height: int, hue: float, horizon: Colour, random: Random) -> None:
    near = _hsv(hue - 0.03, 0.7, 0.15)
    for layer in range(_LAYERS):
        depth = (layer + 1) / _LAYERS
        colour = _mixed(horizon, near, 0.25 + 0.75 * depth)
        base = height * (0.42 + 0.36 * depth)
        waves = [(random.uniform(0.6, 1.4) * k, random.uniform(0, 7), height * 0.075 / k) for k in (1.0, 2.3, 5.1)]
        step = max(2, width // 160)
        line = [
            (x, base - sum(a * math.sin(f * 6.3 * x / width + p) for f, p, a in waves))
            for x in range(0, width + step, step)
        ]
        pen.polygon([(0, height), *line, (width + step, height)], fill=colour)
        if layer >= _LAYERS - 2:
            _trees(pen, line, height * 0.035 * (1 + depth), colour, random)


def _trees(
    pen: ImageDraw.ImageDraw, line: list[tuple[int, float]], tall: float, colour: Colour, random: Random
) -> None:
    for x, y in line:
        if random.random() < 0.45:
            tip = y - tall * random.uniform(0.5, 1.1)
            half = (y - tip) * 0.24
            pen.polygon([(x, tip), (x - half, y + half), (x + half, y + half)], fill=colour)


def _fitted(data: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", size)
        return ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.BILINEAR)


def _tinted(given: Image.Image, hue: float, strength: float) -> Image.Image:
    tones = ImageOps.colorize(
        given.convert("L"), _hsv(hue, 0.8, 0.12), _hsv(hue + 0.1, 0.2, 1.0), mid=_hsv(hue + 0.05, 0.6, 0.65)
    )
    return Image.blend(given, tones, 0.25 + 0.5 * min(1.0, max(0.0, strength)))


def _altered_area(mask: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(mask)) as picture:
        layers = picture.convert("RGBA").resize(size, Image.Resampling.NEAREST)
    alpha = layers.getchannel("A")
    clear = alpha.getextrema() != (255, 255)
    marked = ImageChops.invert(alpha) if clear else layers.convert("L")
    return marked.point(lambda value: 255 if value > 127 else 0)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _captioned(picture: Image.Image, drawing: Drawing, box: Box) -> Image.Image:
    left, upper, right, lower = box
    width, height = right - left, lower - upper
    pad = max(2, min(width, height) // 28)
    text = drawing.prompt[:_LONGEST_TEXT]
    size, lines = _wrapped(text, width - 4 * pad, height * 0.42, max(9, min(width, height) // 19))
    small = max(8, round(min(width, height) / 42))
    note = f"{drawing.model}  ·  {drawing.width} x {drawing.height}  ·  seed {drawing.seed}"
    while small > 8 and _font(small).getlength(note) > width - 4 * pad:
        small -= 1
    tall = round(len(lines) * size * 1.25 + small * 1.4 + 2 * pad)
    panel = (left + pad, max(upper, lower - pad - tall), right - pad, lower - pad)
    if panel[2] <= panel[0] or panel[3] <= panel[1]:
        return picture
    pen = ImageDraw.Draw(picture, "RGBA")
    pen.rounded_rectangle(panel, radius=pad, fill=(8, 10, 18, 138 if drawing.image is None else 225))
    y = panel[1] + pad * 0.8
    for line in lines:
        pen.text((panel[0] + pad, y), line, font=_font(size), fill=(255, 255, 255))
        y += size * 1.25
    pen.text((panel[0] + pad, y + small * 0.3), note, font=_font(small), fill=(255, 255, 255, 190))
    return picture


def _wrapped(text: str, width: float, height: float, size: int) -> tuple[int, list[str]]:
    """Return the largest font size (pixels) up to ``size`` at which the text fits, and its lines."""
    while True:
        lines = _lines(text, width, size)
        room = max(1, int(height / (size * 1.25)))
        if len(lines) <= room:
            return size, lines
        if size <= 11:
            return size, [*lines[: room - 1], lines[room - 1].rstrip() + " …"]
        size = max(11, round(size * 0.85))


def _lines(text: str, width: float, size: int) -> list[str]:
    font = _font(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
