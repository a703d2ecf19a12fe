"""Masks: OpenAI marks what to change by transparency, the providers by white."""

import io
from typing import Any

from PIL import Image, ImageOps

from proxy.pictures import NotAPicture


def luminance(data: bytes | memoryview) -> bytes:
    """Return a mask as a black and white PNG: white where the picture may change. Raises NotAPicture. Blocks.

    A transparent mask is white where it is transparent; one without transparency is taken as it is.
    """
    source: Any = io.BytesIO(data)
    try:
        with Image.open(source, formats=["PNG", "WEBP", "JPEG"]) as mask:
            mask.load()
            if mask.mode in ("RGBA", "LA", "PA") or "transparency" in mask.info:
                white = ImageOps.invert(mask.convert("RGBA").getchannel("A"))
            else:
                white = mask.convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise NotAPicture("the mask cannot be decoded") from None
    out = io.BytesIO()
    white.save(out, format="PNG")
    return out.getvalue()
