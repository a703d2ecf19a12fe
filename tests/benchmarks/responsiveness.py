"""How long others wait while one request is large: ``/healthz`` beside each, against the same wait when all is idle."""

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.benchmarks.machine import Program, module, service, settle
from tests.benchmarks.table import Figure, compare
from tests.benchmarks.upstream import png

NAME = "responsiveness"
IDLE_S, REST_S = 2.0, 0.3
AFTERWARDS_S = 0.1
"""Until whoever was kept waiting has its answer too."""
EXTRA_MS = 50.0
SCHNELL = "prodia/inference.flux-fast.schnell.txt2img.v2"
EDITOR, EDITOR_V1 = "prodia/inference.flux-2.pro.img2img.v1", "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"
CHAT, SDAPI, IMG2IMG = "/v1/chat/completions", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
UPLOAD = 49_000_000
TALK = "User: Draw a red lighthouse at dawn, please\nAssistant: here it is\n"
BOUNDARY = "benchmark-boundary"
JSON_HEADERS = {"content-type": "application/json"}
FORM_HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass(frozen=True, slots=True)
class Case:
    """One request; ``pieces`` returns its body. ``status`` is what it is answered with."""

    title: str
    path: str
    headers: dict[str, str]
    pieces: Callable[[], list[bytes]]
    status: int = 200


def as_json(**values: Any) -> Callable[[], list[bytes]]:
    """Return what makes a JSON body."""
    return lambda: [json.dumps(values).encode()]


def said(text: str, **values: Any) -> Callable[[], list[bytes]]:
    """Return what makes a chat request."""
    return as_json(model=SCHNELL, messages=[{"role": "user", "content": text}], **values)


def schema(properties: int) -> dict[str, Any]:
    """Return the form of an answer with so many texts."""
    texts = {str(number): {"type": "string"} for number in range(properties)}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": texts}}}


@cache
def data_url(filler: bytes = b"") -> bytes:
    """Return a picture of 49 MB, or as much of something else, as a data URL."""
    data = filler * (51_000_000 // len(filler)) if filler else png(UPLOAD)
    return b"data:image/png;base64," + base64.b64encode(data)


def json_edit(url: bytes) -> list[bytes]:
    """Return a JSON edit."""
    head = json.dumps({"prompt": "a hill", "model": EDITOR, "response_format": "url"})[:-1].encode()
    return [head, b', "images": [{"image_url": "', url, b'"}]}']


def img2img() -> list[bytes]:
    """Return a request of A1111's clients, whose pictures have no head."""
    return [
        json.dumps({"prompt": "a hill", "model": EDITOR})[:-1].encode(),
        b', "init_images": ["',
        base64.b64encode(_upload()),
        b'"]}',
    ]


def form_edit(model: str, pictures: int = 1) -> list[bytes]:
    """Return a multipart edit."""
    pieces = []
    for name, value in (("prompt", "a hill"), ("model", model), ("response_format", "url")):
        pieces.append(f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="image[]"; filename="a.png"\r\n\r\n'.encode()
    for _ in range(pictures):
        pieces += [head, _upload(), b"\r\n"]
    return [*pieces, f"--{BOUNDARY}--\r\n".encode()]


@cache
def _upload() -> bytes:
    return png(UPLOAD)


CASES = (
    Case("chat, 285 kB with a schema of 4,000", CHAT, JSON_HEADERS,
         said("Title:\n" + TALK * 3_000, response_format=schema(4_000))),
    Case("chat, 1 MB of system messages", CHAT, JSON_HEADERS, as_json(model=SCHNELL, messages=[
        *({"role": "system", "content": "generate a title title " * 600} for _ in range(60)),
        {"role": "user", "content": TALK}])),
    Case("generation, 1 MB of values", GENERATIONS, JSON_HEADERS,
         as_json(prompt="a hill", **{f"x{number}": 1 for number in range(70_000)}), 0),
    Case("sdapi, 10 of 4 MB", SDAPI, JSON_HEADERS, as_json(model=SCHNELL, prompt="[bytes:4000000]", batch_size=10)),
    Case("chat, image of 20 MB", CHAT, JSON_HEADERS, said("[bytes:20000000]", modalities=["image"])),
    Case("chat stream, image of 20 MB", CHAT, JSON_HEADERS,
         said("[bytes:20000000] again", modalities=["image"], stream=True)),
    Case("image stream, 20 MB", GENERATIONS, JSON_HEADERS,
         as_json(model=SCHNELL, prompt="[bytes:20000000] streamed", stream=True)),
    Case("base64, 40 MB", GENERATIONS, JSON_HEADERS,
         as_json(model=SCHNELL, prompt="[bytes:40000000]", response_format="b64_json")),
    Case("multipart answer of 40 MB", GENERATIONS, JSON_HEADERS,
         as_json(model=SCHNELL, prompt="[bytes:40000000]", response_format="url")),
    Case("multipart edit of 49 MB", EDITS, FORM_HEADERS, lambda: form_edit(EDITOR)),
    Case("multipart edit of 49 MB at v1", EDITS, FORM_HEADERS, lambda: form_edit(EDITOR_V1)),
    Case("JSON edit of 49 MB", EDITS, JSON_HEADERS, lambda: json_edit(data_url())),
    Case("img2img of 49 MB, bare base64", IMG2IMG, JSON_HEADERS, img2img),
    Case("JSON edit of 69 MB, refused", EDITS, JSON_HEADERS, lambda: json_edit(data_url(b"no picture")), 400),
    Case("multipart edit of 16 x 49 MB", EDITS, FORM_HEADERS, lambda: form_edit(EDITOR, 16), 0),
)  # fmt: skip


def measure(rounds: int, scale: float) -> Iterator[Figure]:
    """Each case in each round, every one preceded by a rest in which the idle wait is measured."""
    extra: dict[str, list[float]] = {case.title: [] for case in CASES}
    idle: list[float] = []
    with module("upstream", "200000") as (_, upstream), service(upstream) as (_program, port):
        _post(port, CASES[0])
        with module("health", str(port)) as (probe, _):
            for _turn in range(rounds):
                for case in CASES:
                    idle.append(_idle(probe, IDLE_S * scale))
                    _post(port, case)
                    settle(AFTERWARDS_S)
                    extra[case.title].append(probe.tell()["longest_ms"] - idle[-1])
    yield compare(NAME, "idle: longest wait", "ms", idle)
    for title, waits in extra.items():
        yield compare(NAME, f"{title}: longer than idle", "ms", waits, at_most=EXTRA_MS, absolute=True)


def _idle(probe: Program, seconds: float) -> float:
    settle(REST_S)
    probe.tell()
    settle(seconds)
    longest_ms: float = probe.tell()["longest_ms"]
    return longest_ms


def _post(port: int, case: Case) -> None:
    pieces = case.pieces()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    length = str(sum(map(len, pieces)))
    connection.request("POST", case.path, body=iter(pieces), headers={**case.headers, "content-length": length})
    response = connection.getresponse()
    while response.read(1_048_576):
        pass
    connection.close()
    assert response.status == case.status or not case.status, (case.title, response.status)
