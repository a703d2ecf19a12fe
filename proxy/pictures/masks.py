"""Masks: OpenAI marks what to change by transparency, the providers by white."""

import io
from typing import Any

from proxy.pictures.codec import NotAPicture

_OPAQUE = 255


def luminance(data: bytes | memoryview) -> bytes:
    """Return a mask as a black and white PNG: white where the picture may change. Raises NotAPicture. Blocks.

    A transparent mask is white where it is transparent; one without transparency is taken as it is.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 (a service that sees no mask never pays for loading it)

    source: Any = io.BytesIO(data)
    try:
        with Image.open(source, formats=["PNG", "WEBP", "JPEG"]) as mask:
            mask.load()
            transparent = mask.mode in ("RGBA", "LA", "PA") or "transparency" in mask.info
            alpha = None
            if transparent:  # each copy takes four bytes a pixel
                alpha = (mask if mask.mode in ("RGBA", "LA") else mask.convert("RGBA")).getchannel("A")
            # A canvas exports an alpha channel even where nothing is transparent: then black and white tell.
            white = ImageOps.invert(alpha) if alpha and any(alpha.histogram()[:_OPAQUE]) else mask.convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise NotAPicture("the mask cannot be decoded") from None
    out = io.BytesIO()
    white.save(out, format="PNG")
    return out.getvalue()
