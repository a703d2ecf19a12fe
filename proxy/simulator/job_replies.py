"""How Prodia v2 describes a job, negotiates the form of its answer and writes a multipart one (facts, 3.2 and 3.3)."""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from proxy.simulator.catalogue import JOB_TYPES
from proxy.simulator.jobs import Job
from proxy.simulator.pictures import MEDIA_TYPES
from proxy.simulator.words import Fault

Form = Literal["picture", "json", "multipart"]
Output = tuple[str, str, bytes]
"""File name, media type, bytes."""

_FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
_DEFAULT_FORMAT = "jpeg"
_DEFAULT_STEPS = 25


def accepted_form(accept: str | None) -> tuple[Form, str] | None:
    """Return the form of the answer and the picture's format; None when nothing listed can be made.

    The picture type of ``multipart/form-data; image/png`` stands where a media-type parameter would.
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
    return None


def filename(job: Job) -> str:
    """Return the name of the job's one output file."""
    return f"output.{_EXTENSIONS[job.details['format']]}"


def describe(job: Job, state: str, *, price: bool) -> dict[str, Any]:
    """Return the job JSON with ``state.current``, and with the price if it is wanted."""
    done = state in ("completed", "failed")
    message = "the model failed to produce an image"
    description: dict[str, Any] = {
        "id": job.id,
        "type": job.details["type"],
        "created_at": _moment(job.created),
        "updated_at": _moment(job.created + (job.duration_s if done else 0)),
        "expires_at": _moment(job.created + job.keep_s),
        "state": {"current": state, "history": [{"message": message}] if state == "failed" else None},
        "config": job.details["config"],
    }
    if state == "failed":
        description["error"] = message
    if state == "completed":
        steps = job.details["config"].get("steps", _DEFAULT_STEPS)
        rate = steps / job.generating_s if job.generating_s and isinstance(steps, int | float) else 0
        description["metrics"] = {"elapsed": round(job.generating_s, 6), "ips": round(rate, 2)}
    if price:
        dollars = JOB_TYPES[job.details["type"]].dollars
        product = "-".join(job.details["type"].split(".")[:-2])
        description["price"] = None if dollars is None else {"product": product, "dollars": dollars}
    return description


def multipart(description: Mapping[str, Any], *outputs: Output) -> tuple[bytes, str]:
    """Return a body with the job part and the outputs, and its content type."""
    return _encode([_job_part(description), *(("output", *output) for output in outputs)])


def broken_multipart(description: Mapping[str, Any], output: Output, fault: Fault) -> tuple[bytes, str]:
    """Return the body of F16 and its content type.

    The argument says what is wrong: ``boundary``, ``job`` or ``output`` is missing (the default is ``output``),
    there are ``several`` outputs, or a ``text`` comes before the picture.
    """
    broken = fault.arguments or ["output"]
    parts = [_job_part(description), ("output", *output)]
    if "job" in broken:
        parts = parts[1:]
    if "output" in broken:
        parts = parts[:1]
    if "several" in broken:
        parts.append(("output", f"second-{output[0]}", *output[1:]))
    if "text" in broken:
        parts.insert(1, ("output", "message.txt", "text/plain", b"Here is your picture."))
    body, media_type = _encode(parts)
    return body, "multipart/form-data" if "boundary" in broken else media_type


def _job_part(description: Mapping[str, Any]) -> tuple[str, str, str, bytes]:
    return "job", "job.json", "application/json", json.dumps(description).encode()


def _encode(parts: list[tuple[str, str, str, bytes]]) -> tuple[bytes, str]:
    boundary = f"prodia-{uuid.uuid4().hex}"
    pieces: list[bytes] = []
    for name, file_name, media_type, data in parts:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
            f"Content-Type: {media_type}\r\n\r\n"
        )
        pieces += [head.encode(), data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f'multipart/form-data; boundary="{boundary}"'


def _moment(unix_time: float) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=unix_time)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
