"""Pictures, jobs and replies that the tests of every dialect share."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from proxy import __version__
from proxy.providers.boundary import (
    Finished,
    Handle,
    InputPicture,
    Job,
    ListsModels,
    Model,
    Operation,
    Pending,
    Provider,
    Reply,
)
from proxy.providers.multipart import Parts
from proxy.providers.registry import KINDS, build, read_settings
from proxy.upstream.client import Upstream

JOB = "0f4c6b0e-0d3b-4e7e-9f57-3a5b0c0a9d11"
KEY = "key-that-nobody-may-see"
PROMPT = 'a fox & a hen, 50% ü +1 #?/[x]\n"quoted"'
BOUNDARY = "----seam"
NAMED = {"user-agent": f"images-proxy/{__version__}"}
"""What every call carries unless its dialect names another client."""
PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"
_MOST_CALLS = 10


ANSWERS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "prodia": {
        "submit": [{"id": JOB, "error": None, "state": {"current": "completed", "history": [{"message": "it began"}]}}],
        "begun": [
            {
                "id": JOB,
                "type": "inference.flux-fast.schnell.txt2img.v2",
                "config": {"prompt": "a fox", "seed": 5},
                "state": {"current": "processing", "history": [{"message": "it has begun"}]},
                "metrics": {"elapsed": 1.5},
            },
        ],
        "state": ["processing", "processed", "failed"],
        "price": [
            {
                "id": JOB,
                "config": {"prompt": "a fox", "seed": 5},
                "state": {"current": "completed", "history": None},
                "metrics": {"elapsed": 1.5},
                "price": {"product": "inference-flux-schnell-large-steps-4", "dollars": 0.0025},
            },
        ],
        "details": [{"id": JOB, "error": None, "state": {"current": "failed", "history": [{"message": "no memory"}]}}],
        "output": [["output.png"], ["message.txt", "https://images.prodia.xyz/a.png"]],
        "picture": [{"id": JOB, "error": "it has expired", "detail": {"field": "steps"}, "message": "gone"}],
    },
    "prodia-v1": {
        "submit": [{"job": JOB, "status": "queued"}],
        "job": [
            {"job": JOB, "status": "generating"},
            {"job": JOB, "status": "succeeded", "imageUrl": "https://images.prodia.xyz/a.png"},
            {"job": JOB, "status": "failed", "error": "no memory"},
        ],
    },
    "prodia-legacy": {
        "submit": [{"job": JOB, "status": "queued", "params": {"prompt": "a fox", "seed": 5}}],
        "job": [
            {"job": JOB, "status": "generating"},
            {"job": JOB, "status": "succeeded", "imageUrl": "https://images.prodia.xyz/a.png"},
            {"job": JOB, "status": "failed", "error": "no memory"},
        ],
    },
    "imagelabs": {
        "submit": [{"task_id": JOB}],
        "progress": [
            {"status": "In Progress", "progress": 0.4, "current_image_url": "/a-preview.png", "final_image_url": None},
            {"status": "Done", "progress": 1, "current_image_url": None, "final_image_url": "https://a.test/a.png"},
            {"status": "Error: no memory", "progress": 0, "code": 17, "detail": {}, "final_image_url": None},
        ],
    },
}
"""What each kind answers with 200, as JSON, by the step that was asked (``submit`` for the first): while the job runs,
when it is done, when it failed. The contract of all providers is tried with these and with every field of them wrong.
"""

FOLLOWED: Mapping[str, Mapping[str, Any]] = {"prodia": {"mode": "async"}}
"""The settings with which a kind's jobs are followed, where those are not its usual ones."""
BEGUN: Mapping[str, Handle] = {"prodia": Handle("begun")}
"""With what the answer to the submit of such a job is read, where that is not ``SUBMIT``."""


def picture(size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """Return a small picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind)
    return file.getvalue()


def content(fetched: Path | bytes | None) -> bytes:
    """Return the bytes of what upstream calls a picture."""
    assert fetched is not None
    return fetched.read_bytes() if isinstance(fetched, Path) else fetched


PNG = picture()
AWKWARD = PNG + f"\r\n--{BOUNDARY}x\r\n--{BOUNDARY[:-1]}\r\n\r\n--\r\n\x00\xff".encode("latin-1") + b"\r\n"
"""A picture whose bytes hold line ends, NUL, and nearly the boundary that surrounds it."""


def provider(kind: str, base_url: str = "", **settings: Any) -> Provider:
    """Return a dialect bound to ``base_url`` (its usual address when empty) and to KEY."""
    values = {"kind": kind, "base_url": base_url or KINDS[kind].base_url, **settings}
    return build(read_settings(values), KEY)


def lister(kind: str) -> ListsModels:
    """Return a dialect that lists its models."""
    dialect = provider(kind)
    assert isinstance(dialect, ListsModels)
    return dialect


def model(dialect: Provider, name: str) -> Model:
    """Return the model of that name or alias."""
    return next(one for one in dialect.models() if name in (one.name, *one.aliases))


def brought(data: bytes = PNG, kind: str = "png") -> InputPicture:
    """Return a picture that the caller brought."""
    return InputPicture(data, kind, 8, 8)


def job(
    made_by: Model,
    operation: Operation = "generate",
    images: Sequence[InputPicture] = (),
    mask: InputPicture | None = None,
    output_format: str = "png",
    prompt: str = PROMPT,
    **settings: Any,
) -> Job:
    """Return a job in the model's default shape; ``settings`` come on top."""
    shaped = {**made_by.shapes.default.settings, **settings}
    return Job(made_by, operation, prompt, shaped, output_format, tuple(images), mask)


def reply(body: object = b"", status: int = 200, **headers: str) -> Reply:
    """Return a reply; a ``body`` that isn't bytes is sent as JSON. ``content_type`` becomes ``content-type``."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    usual = {} if isinstance(body, bytes) else {"content-type": "application/json"}
    return Reply(status, {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}, data)


def streamed(body: bytes, content_type: str, piece: int = 7) -> Reply:
    """Return the reply as ``upstream`` makes it of a multipart body; where a file's path would be, its bytes are."""
    written: list[bytes | memoryview] = []
    parts = Parts(content_type, "output", written.append)
    for start in range(0, len(body), piece):
        parts.feed(body[start : start + piece])
    parts.finish()
    assert parts.found == bool(written)
    picture = cast("Path", b"".join(written)) if parts.found else None
    return Reply(200, {"content-type": content_type}, picture=picture, parts=parts.kept)


def multipart(*parts: tuple[str, str, str, bytes], boundary: str = BOUNDARY) -> bytes:
    """Return a multipart body; each part is its name, file name, content type and bytes."""
    body = b""
    for name, file_name, content_type, data in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"'
        body += f"--{boundary}\r\n{disposition}\r\nContent-Type: {content_type}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def job_part(**values: Any) -> tuple[str, str, str, bytes]:
    """Return the part that holds a job's JSON."""
    return ("job", "job.json", "application/json", json.dumps({"id": JOB, **values}).encode())


def output_part(data: bytes, name: str = "output.png", content_type: str = "image/png") -> tuple[str, str, str, bytes]:
    """Return a part that holds an output."""
    return ("output", name, content_type, data)


async def follow(upstream: Upstream, dialect: Provider, wanted: Job) -> Finished:
    """Submit ``wanted`` and ask on without waiting until it is finished."""
    call = dialect.submit(wanted)
    asked = call.handle
    for _ in range(_MOST_CALLS):
        answer = dialect.read(asked, await upstream.send(call, 2.0))
        if isinstance(answer, Finished):
            return answer
        asked = Handle.load(answer.handle.dump())
        call = dialect.ask(asked)
    raise AssertionError("the job was not finished")


def pending(answer: Pending | Finished) -> Pending:
    """Return the answer of a job that runs on."""
    assert isinstance(answer, Pending)
    return answer


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with lower-case names."""
    return {name.lower(): value for name, value in headers.items()}
