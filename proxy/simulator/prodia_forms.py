"""The forms in which Prodia v2 accepts and returns a job, JSON and multipart, and what can be wrong with them."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from proxy.simulator.pictures import MEDIA_TYPES
from proxy.simulator.prodia_types import JOB_TYPES, SCHEMAS, needs_picture, pixels
from proxy.simulator.scene import Drawing, measure
from proxy.simulator.schema import defaults, problem
from proxy.simulator.simulation import Job
from proxy.simulator.words import Fault, strip_words

Form = Literal["picture", "json", "multipart"]

_FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_DEFAULT_FORMAT = "jpeg"


@dataclass(frozen=True, slots=True)
class Submit:
    """A job's type and configuration, and the input files by name, in their order."""

    type: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    malformed: str = ""

    @property
    def texts(self) -> list[str]:
        """The texts that may contain steering words; the prompt first."""
        return [str(self.config.get(name, "")) for name in ("prompt", "negative_prompt")]

    def complaint(self) -> str | None:
        """Return what is wrong with the configuration of a known type; None when nothing is."""
        if self.malformed:
            return self.malformed
        schema = SCHEMAS.get(self.type)
        if schema is not None and (found := problem(schema, self.config)):
            return found
        if schema is None and not isinstance(self.config.get("prompt"), str):
            return "at '': missing property 'prompt'"
        missing = [name for name in self._named() if name not in self.files]
        if missing:
            return f"at '/images': no input named '{missing[0]}'"
        if not needs_picture(self.type):
            return None
        for name, data in self.files.items():
            if measure(data) is None:
                return f"at '/images': not a picture: {name}"
        return None if self.files else "at '/images': missing input"

    def settled(self, seed: int) -> dict[str, Any]:
        """Return the configuration with the defaults of what was not sent, as the job's JSON repeats it."""
        schema = SCHEMAS.get(self.type, {})
        config = {**defaults(schema), **self.config}
        if "seed" in schema or "seed" in config:
            config.setdefault("seed", seed)
        return config

    def drawing(self, seed: int) -> Drawing:
        """Return what to draw; ``seed`` is used where the configuration names none."""
        config = self.settled(seed)
        image, mask = self._inputs() if needs_picture(self.type) else (None, None)
        width, height = pixels(self.type, config, measure(image) if image else None)
        strength = config.get("strength")
        strength = float(strength) if isinstance(strength, int | float) else 0.5
        prompt, seed = strip_words(str(config.get("prompt", ""))), int(config.get("seed", seed))
        return Drawing(width, height, prompt, self.type, seed, image, mask, strength)

    def _named(self) -> list[str]:
        images = self.config.get("images")
        names = [*(images if isinstance(images, list) else ()), self.config.get("image"), self.config.get("mask")]
        return [name for name in names if isinstance(name, str)]

    def _inputs(self) -> tuple[bytes | None, bytes | None]:
        names = [*(self._named() or self.files), ""]
        mask = names[1] if ".inpainting." in self.type else self.config.get("mask", "")
        return self.files.get(names[0]), self.files.get(mask)


async def read_submit(request: Request) -> Submit:
    """Read a submit: JSON, or multipart with one part ``job`` and any number of ``input``."""
    files: dict[str, bytes] = {}
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            async with request.form(max_files=64) as form:
                jobs, inputs = form.getlist("job"), form.getlist("input")
                if len(jobs) != 1 or set(form) - {"job", "input"}:
                    return Submit(malformed="the form needs exactly one part 'job', and else only 'input'")
                files = {part.filename or "": await part.read() for part in inputs if isinstance(part, UploadFile)}
                body = await jobs[0].read() if isinstance(jobs[0], UploadFile) else jobs[0].encode()
        else:
            body = await request.body()
        job = json.loads(body)
    except (ValueError, RecursionError, MultiPartException):
        return Submit(malformed="the job is not JSON")
    config = job.get("config", {}) if isinstance(job, dict) else None
    if not isinstance(config, dict):
        return Submit(malformed="the job is not an object")
    return Submit(str(job.get("type")), config, files)


def accepted_form(accept: str | None) -> tuple[Form | None, str]:
    """Return the form of the answer, None when nothing listed can be made, and the picture's format.

    ``multipart/form-data; image/png`` names the picture's type in the place of a media-type parameter
    (https://docs.prodia.com/guides/output-image-formats/).
    """
    for entry in (accept or "*/*").lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        if media_type in ("*/*", "image/*"):
            return "picture", _DEFAULT_FORMAT
        if media_type in _FORMATS:
            return "picture", _FORMATS[media_type]
        if media_type == "application/json":
            return "json", _DEFAULT_FORMAT
        if media_type == "multipart/form-data":
            named = [_FORMATS[parameter] for parameter in parameters if parameter in _FORMATS]
            return "multipart", named[0] if named else _DEFAULT_FORMAT
    return None, _DEFAULT_FORMAT


def filename(job: Job) -> str:
    """Return the name of the job's one output file."""
    return f"output.{job.details['format'].replace('jpeg', 'jpg')}"


def describe(job: Job, state: str, *, price: bool = False) -> dict[str, Any]:
    """Return the job's JSON with ``state.current``; with its price if ``price`` is set and the job is completed."""
    message = "the model failed to produce an image"
    description: dict[str, Any] = {
        "id": job.id,
        "type": job.details["type"],
        "created_at": _moment(job.created),
        "updated_at": _moment(job.created + (0 if state == "processing" else job.duration_s)),
        "expires_at": _moment(job.created + job.keep_s),
        "state": {"current": state, "history": [{"message": message}] if state == "failed" else None},
        "config": job.details["config"],
    }
    if state == "failed":
        description["error"] = message
    if state == "completed":
        description["metrics"] = {"elapsed": round(job.generating_s, 6)}
    if state == "completed" and price:  # https://docs.prodia.com/reference/price
        dollars = JOB_TYPES[job.details["type"]][1]
        product = "-".join(job.details["type"].split(".")[:-2])
        description["price"] = None if dollars is None else {"product": product, "dollars": dollars}
    return description


def multipart(
    description: Mapping[str, Any], output: tuple[str, str, bytes] | None = None, broken: Fault | None = None
) -> tuple[bytes, str]:
    """Return a body with the job part and the output (file name, media type, bytes), and its content type.

    The fault's argument says what is wrong: ``boundary``, ``job`` or ``output`` is missing (the default is
    ``output``), there are ``several`` outputs, or a ``text`` comes before the picture.
    """
    flaws = [] if broken is None else broken.arguments or ["output"]
    parts = [] if "job" in flaws else [("job", "job.json", "application/json", json.dumps(description).encode())]
    if "text" in flaws:
        parts.append(("output", "message.txt", "text/plain", b"Here is your picture."))
    if output and "output" not in flaws:
        parts += [("output", *output)] * (2 if "several" in flaws else 1)
    boundary = f"prodia-{uuid.uuid4().hex}"
    body = b""
    for name, file_name, media_type, data in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"'
        body += f"--{boundary}\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n".encode() + data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, "multipart/form-data" + ("" if "boundary" in flaws else f'; boundary="{boundary}"')


def _moment(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
