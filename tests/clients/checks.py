"""What the Python clients' scripts share. They run in environments of their own, so nothing of ours is imported."""

import base64
import io
import json
import sys
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

KEY = "sk-clients"
"""The key that the keyed demo asks for."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client under test. ``open`` and ``keyed`` are the two demos' origins; the second asks for ``KEY``."""

    name: str
    version: str
    open: str
    keyed: str

    @contextmanager
    def check(self, what: str) -> Iterator[None]:
        """Run a check and print its outcome as a line of JSON; the others go on after a failure."""
        problem = ""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever a client raises is this check's failure)
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0][:200]
        line = {"client": self.name, "version": self.version, "checked": what, "problem": problem}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def raised(kinds: Any, call: Callable[[], object]) -> Any:
    """Return the error of this kind, or of one of these, that ``call`` raises."""
    try:
        call()
    except kinds as error:
        return error
    raise AssertionError(f"nothing was raised, wanted {kinds}")


def decoded(text: str | None) -> Image.Image:
    """Return the picture in a base64 text."""
    assert text
    assert not text.startswith("data:")
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    image.load()
    return image


def fetched(address: str | None) -> Image.Image:
    """Return the picture at an address; no key goes along."""
    assert address
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=30) as response:  # noqa: S310 (checked above)
        assert response.headers["content-type"].startswith("image/")
        image = Image.open(io.BytesIO(response.read()))
    image.load()
    return image


def picture(width: int = 512, height: int = 512, mode: str = "RGB", colour: str | tuple[int, ...] = "teal") -> bytes:
    """Return a plain PNG."""
    out = io.BytesIO()
    Image.new(mode, (width, height), colour).save(out, format="PNG")
    return out.getvalue()


def mask() -> bytes:
    """Return a mask that is transparent everywhere: all may change."""
    return picture(mode="RGBA", colour=(0, 0, 0, 0))
