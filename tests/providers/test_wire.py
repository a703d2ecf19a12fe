"""What really leaves the socket for each dialect's calls, byte by byte where it matters."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.providers.boundary import SUBMIT, Base64, Call, File, Finished, ListsModels
from proxy.providers.registry import KINDS
from proxy.upstream.bodies import PIECE_BYTES, body_of
from proxy.upstream.client import Upstream
from tests.providers.conftest import Connect
from tests.providers.examples import (
    AWKWARD,
    BOUNDARY,
    JOB,
    KEY,
    PNG,
    brought,
    content,
    follow,
    job,
    job_part,
    lower,
    model,
    multipart,
    output_part,
    provider,
)
from tests.providers.raw_server import Request, answer, raw_server, saying

pytestmark = pytest.mark.anyio

ADDED = {"host", "accept-encoding", "content-length", "content-type", "user-agent"}
"""Headers that HTTP itself needs, and our name; beside them nothing may be sent that the call doesn't say."""


async def _sent(upstream: Upstream, call: Call, url: str) -> Request:
    async with raw_server(saying(answer())) as server:
        base = call.url.replace(url, server.url)
        await upstream.send(
            Call(call.method, base, call.headers, call.query, call.json, call.files, call.picture), timeout_s=2.0
        )
        (request,) = server.requests
        return request


def _calls() -> list[tuple[str, Call]]:
    calls: list[tuple[str, Call]] = []
    for kind in KINDS:
        dialect = provider(kind, "http://upstream.test/base")
        calls += [(kind, dialect.probe()), (kind, dialect.submit(job(dialect.models()[0], seed=1)))]
        calls += [(kind, call) for call in (dialect.catalogue() if isinstance(dialect, ListsModels) else ())]
    edit = provider("prodia", "http://upstream.test/base")
    calls.append(("prodia", edit.submit(job(model(edit, "flux-2.pro.img2img.v1"), "edit", [brought()]))))
    return calls


@pytest.mark.parametrize(("kind", "call"), _calls())
async def test_what_a_call_says_is_what_is_sent(upstream: Upstream, kind: str, call: Call) -> None:
    sent = await _sent(upstream, call, "http://upstream.test")
    assert sent.method == call.method
    assert sent.target.partition("?")[0] == call.url.removeprefix("http://upstream.test")
    said = lower(call.headers)
    assert {name: sent.headers[name] for name in said} == said
    assert set(sent.headers) <= ADDED | set(said), kind
    if call.json is not None:
        assert json.loads(sent.body) == call.json
        assert sent.headers["content-type"] == "application/json"
    elif not call.files:
        assert sent.body == b""
    if not call.query:
        assert "?" not in sent.target


async def test_a_query_keeps_plus_signs_brackets_and_everything_else(upstream: Upstream) -> None:
    dialect = provider("prodia-legacy", "http://upstream.test")
    wanted = job(dialect.models()[0], prompt="a+b & c=d [é] 100%\n#?/;%2B", seed=1, sampler="DPM++ SDE Karras")
    sent = await _sent(upstream, dialect.submit(wanted), "http://upstream.test")
    path, _, query = sent.target.partition("?")
    assert path == "/generate"
    fields = dict(pair.split("=") for pair in query.split("&"))
    assert fields["sampler"].replace("%20", "+") == "DPM%2B%2B+SDE+Karras"
    assert fields["model"].replace("%20", "+") == "absolutereality_v181.safetensors+%5B3d9d4d2b%5D"
    assert fields["negative_prompt"] == ""
    assert _decoded(fields["prompt"]) == "a+b & c=d [é] 100%\n#?/;%2B"
    assert fields["prompt"].startswith("a%2Bb")
    assert set(query) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%&=+!$'()*,/:;?@")
    assert sent.headers["origin"] == "https://app.prodia.com"
    assert sent.headers["user-agent"].count("Chrome/128") == 1


def _decoded(text: str) -> str:
    """Decode a query's value as the form encoding of the web does, by hand."""
    data = bytearray()
    rest = text.replace("+", " ").encode()
    while rest:
        if rest.startswith(b"%"):
            data.append(int(rest[1:3], 16))
            rest = rest[3:]
        else:
            data += rest[:1]
            rest = rest[1:]
    return data.decode()


@pytest.mark.parametrize("kind", ["prodia", "prodia-v1"])
async def test_a_key_travels_in_its_header_only(connect: Connect, kind: str) -> None:
    dialect = provider(kind, "http://upstream.test")
    upstream = connect(credentials=dialect.credentials())
    sent = await _sent(upstream, dialect.submit(job(dialect.models()[0], seed=1)), "http://upstream.test")
    holders = [name for name, value in sent.headers.items() if KEY in value]
    assert holders == [{"prodia": "authorization", "prodia-v1": "x-prodia-key"}[kind]]
    assert KEY not in sent.target
    assert KEY.encode() not in sent.body


async def test_a_form_is_one_job_part_and_its_inputs_byte_for_byte(upstream: Upstream) -> None:
    dialect = provider("prodia", "http://upstream.test")
    pictures = [brought(AWKWARD), brought(PNG, "webp")]
    call = dialect.submit(job(model(dialect, "flux-2.pro.img2img.v1"), "edit", pictures))
    sent = await _sent(upstream, call, "http://upstream.test")
    parts = _parts(sent)
    assert [part[0] for part in parts] == [
        'form-data; name="job"; filename="job.json"',
        'form-data; name="input"; filename="image0.png"',
        'form-data; name="input"; filename="image1.webp"',
    ]
    assert [part[1] for part in parts] == ["application/json", "image/png", "image/webp"]
    assert json.loads(parts[0][2])["config"]["images"] == ["image0.png", "image1.webp"]
    assert [part[2] for part in parts[1:]] == [AWKWARD, PNG]


def _parts(sent: Request) -> list[tuple[str, str, bytes]]:
    media_type, _, boundary = sent.headers["content-type"].partition("; boundary=")
    assert media_type == "multipart/form-data"
    first, *pieces, last = (b"\r\n" + sent.body).split(f"\r\n--{boundary}".encode())
    assert (first, last.strip()) == (b"", b"--")
    parts = []
    for piece in pieces:
        head, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        named = lower(fields)
        parts.append((named["content-disposition"], named["content-type"], data))
    return parts


@pytest.mark.parametrize("size", [0, 1, 2, 3, *(PIECE_BYTES + more for more in (-1, 0, 1)), 3 * PIECE_BYTES + 7])
async def test_a_picture_in_json_is_base64_of_all_of_it(upstream: Upstream, size: int) -> None:
    data = (AWKWARD * (size // len(AWKWARD) + 1))[:size]
    mask = memoryview(data[::-1])
    values = {"prompt": "a \u0000 \U0001f98a", "imageData": Base64(data), "n": 1, "maskData": Base64(mask, "data:x,")}
    call = Call("POST", "http://upstream.test/job", {"content-type": "application/json"}, json=values)
    sent = await _sent(upstream, call, "http://upstream.test")
    assert int(sent.headers["content-length"]) == len(sent.body)
    assert json.loads(sent.body) == {
        **values,
        "imageData": base64.b64encode(data).decode(),
        "maskData": "data:x," + base64.b64encode(mask).decode(),
    }


async def test_a_body_is_sent_in_pieces() -> None:
    data = memoryview(bytes(10 * PIECE_BYTES + 1))
    files = Call("POST", "http://upstream.test", files=(File("input", "a.png", "image/png", data),))
    for call in (files, Call("POST", "http://upstream.test", json={"a": Base64(data)})):
        body = body_of(call)
        assert body is not None
        sizes = [len(piece) async for piece in body.pieces()]
        assert sum(sizes) == int(body.headers["content-length"])
        assert max(sizes) <= PIECE_BYTES * 4 // 3


async def test_a_form_may_be_sent_again_as_another_call(upstream: Upstream) -> None:
    """The parts are values, not streams that are empty after their first use."""
    call = Call("POST", "http://upstream.test/job", files=(File("input", "a.png", "image/png", AWKWARD),))
    for _ in range(2):
        assert _parts(await _sent(upstream, call, "http://upstream.test"))[0][2] == AWKWARD


@pytest.mark.parametrize(
    ("content_type", "in_file"),
    [("image/png", True), ("IMAGE/PNG", True), ("application/octet-stream", True), ("text/plain", False)],
)
async def test_only_a_picture_becomes_a_file(upstream: Upstream, content_type: str, in_file: bool) -> None:
    async with raw_server(saying(answer(AWKWARD, content_type))) as server:
        reply = await upstream.send(Call("GET", server.url, picture=True), 2.0)
        small = await upstream.send(Call("GET", server.url), 2.0)
    assert (reply.picture is not None) is in_file
    assert (content(reply.picture) if in_file else reply.body) == AWKWARD
    assert (small.picture, small.body) == (None, AWKWARD)


async def test_a_multipart_answer_survives_the_wire(upstream: Upstream) -> None:
    body = multipart(job_part(metrics={"elapsed": 0.3}), output_part(AWKWARD))
    headers: Mapping[str, Any] = {"content_type": f'multipart/form-data; boundary="{BOUNDARY}"'}
    async with raw_server(saying(answer(body, **headers))) as server:
        dialect = provider("prodia", server.url)
        reply = await upstream.send(dialect.submit(job(dialect.models()[0], seed=1)), 2.0)
    answered = dialect.read(SUBMIT, reply)
    assert isinstance(answered, Finished)
    assert isinstance(answered.image, Path)
    assert (answered.image.read_bytes(), answered.elapsed_s) == (AWKWARD, 0.3)


async def test_an_asynchronous_job_is_followed_at_its_own_address(connect: Connect) -> None:
    done = json.dumps({"id": JOB, "price": {"dollars": 0.0125}}).encode()
    said = [
        answer(json.dumps({"id": JOB}).encode(), status=201),
        answer(b"processed"),
        answer(done),
        answer(b'["a.png"]'),
    ]
    async with raw_server(saying(*said, answer(PNG, "image/png"))) as server:
        dialect = provider("prodia", f"{server.url}/v2", mode="async")
        upstream = connect(credentials=dialect.credentials())
        finished = await follow(upstream, dialect, job(dialect.models()[0], seed=1))
    assert isinstance(finished.image, Path)
    assert finished.cost == 12_500_000
    assert [request.target for request in server.requests] == [
        "/v2/job/async?price=true",
        f"/v2/job/async/{JOB}/job.state.current",
        f"/v2/job/async/{JOB}/job.json?price=true",
        f"/v2/job/async/{JOB}/output",
        f"/v2/job/async/{JOB}/output/a.png",
    ]
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
