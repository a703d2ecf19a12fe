"""What a submit to Prodia v2 carries, in either of its two forms, and what is wrong with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from proxy.simulator.catalogue import JOB_TYPES, PING, needs_picture, pixels
from proxy.simulator.scene import Drawing, measure
from proxy.simulator.schemas import SCHEMAS, defaults, problem
from proxy.simulator.words import strip_words

_TEXTS = ("prompt", "negative_prompt")


@dataclass(frozen=True, slots=True)
class Order:
    """A job's type and configuration, and the input files by name, in their order."""

    type: str | None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    malformed: str = ""

    @property
    def texts(self) -> list[str]:
        """The texts that may carry steering words; the prompt first."""
        return [str(self.config.get(name, "")) for name in _TEXTS]

    @property
    def known(self) -> bool:
        """Whether the job type exists."""
        return self.type in JOB_TYPES

    def complaint(self) -> str | None:
        """Return what is wrong with the configuration of a known type; None when nothing is."""
        if self.malformed or self.type is None or self.type == PING:
            return self.malformed or None
        schema = SCHEMAS.get(self.type)
        if schema is not None and (found := problem(schema, self.config)):
            return found
        if schema is None and needs_prompt(self.type) and not isinstance(self.config.get("prompt"), str):
            return "at '': missing property 'prompt'"
        missing = [name for name in self._named() if name not in self.files]
        if missing:
            return f"at '/images': no input named '{missing[0]}'"
        if not needs_picture(self.type):
            return None
        unreadable = [name for name, data in self.files.items() if measure(data) is None]
        if not self.files or unreadable:
            return f"at '/images': {'not a picture: ' + unreadable[0] if unreadable else 'missing input'}"
        return None

    def settled(self, seed: int) -> dict[str, Any]:
        """Return the configuration with the defaults that were not sent, as the job echoes it."""
        schema = SCHEMAS.get(self.type or "", {})
        config = {**defaults(schema), **self.config}
        if "seed" in schema or "seed" in config:
            config.setdefault("seed", seed)
        return config

    def drawing(self, seed: int) -> Drawing:
        """Return what to draw; ``seed`` is used where the configuration names none."""
        config = self.settled(seed)
        image, mask = self._inputs() if needs_picture(self.type or "") else (None, None)
        width, height = pixels(self.type or "", config, measure(image) if image else None)
        strength = config.get("strength")
        return Drawing(
            width=width,
            height=height,
            prompt=strip_words(str(config.get("prompt", ""))),
            model=self.type or "",
            seed=int(config.get("seed", seed)),
            image=image,
            mask=mask,
            strength=float(strength) if isinstance(strength, int | float) else 0.5,
        )

    def _named(self) -> list[str]:
        images = self.config.get("images", [])
        names = [*images] if isinstance(images, list) else []
        names += [self.config[key] for key in ("image", "mask") if key in self.config]
        return [name for name in names if isinstance(name, str)]

    def _inputs(self) -> tuple[bytes | None, bytes | None]:
        names = self._named() or list(self.files)
        mask = self.config.get("mask")
        if mask is None and ".inpainting." in (self.type or "") and len(names) > 1:
            mask = names[1]
        return self.files.get(names[0]) if names else None, self.files.get(mask) if mask else None


def needs_prompt(name: str) -> bool:
    """Whether the job type makes a picture from words."""
    return any(kind in name for kind in (".txt2img.", ".img2img.", ".inpainting.", ".image-edit."))


async def read_order(request: Request) -> Order:
    """Read a submit: JSON (form A) or multipart with one part ``job`` and any number of ``input`` (form B)."""
    files: dict[str, bytes] = {}
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return _order(await request.body(), files)
    try:
        async with request.form(max_files=64) as form:
            for part in form.getlist("input"):
                if isinstance(part, UploadFile):
                    files[part.filename or ""] = await part.read()
            jobs = form.getlist("job")
            if len(jobs) != 1 or set(form) - {"job", "input"}:
                return Order(None, malformed="the form needs exactly one part 'job', and else only 'input'")
            return _order(await jobs[0].read() if isinstance(jobs[0], UploadFile) else jobs[0].encode(), files)
    except MultiPartException as error:
        return Order(None, malformed=error.message)


def _order(body: bytes, files: dict[str, bytes]) -> Order:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return Order(None, malformed="the job is not JSON")
    if not isinstance(value, dict) or not isinstance(value.get("config", {}), dict):
        return Order(None, malformed="the job is not an object")
    kind = value.get("type")
    return Order(kind if isinstance(kind, str) else None, value.get("config", {}), files)
