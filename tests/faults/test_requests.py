"""Requests that cannot be served. None of them costs a submit, and none gets a 5xx."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.server.exchange import WireLimits
from tests.service import Answer, Service, running

from .wire import LABS, PATH, SCHNELL, Line, assert_failed, eventually, submits

pytestmark = pytest.mark.anyio
IRE = "invalid_request_error"
KEYS = {"IMAGES_PROXY_KEYS": "sesame,mellon"}


async def post(service: Service, body: Any, headers: str = "") -> Answer:
    async with Line.to(service) as line:
        line.post(body, headers)
        return await line.answer()


@pytest.fixture(scope="module")
async def guarded(anyio_backend: str) -> AsyncIterator[Service]:  # noqa: ARG001 (it chooses the loop)
    """A service with keys and little patience."""
    async with running(environment=KEYS, wire=WireLimits(header_s=0.1, body_s=0.1)) as service:
        yield service


@asynccontextmanager
async def unbilled(service: Service) -> AsyncIterator[Service]:
    """Hold that nothing inside is submitted but what bears the tag ``free``."""
    before = await submits(service) - (await service.counts("free"))["submits"]
    yield service
    assert await submits(service) - (await service.counts("free"))["submits"] == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"prompt": NaN}',
        b'{"prompt": "a", "n": Infinity}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\xff"}',
        b"[" * 30_000 + b"]" * 30_000,
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b"[]",
        b'"x"',
        b"",
    ],
    ids=["broken", "nan", "infinity", "bom", "surrogate", "utf8", "deep", "digits", "list", "text", "empty"],
)
async def test_what_is_no_json_object(service: Service, body: bytes) -> None:
    async with unbilled(service):
        assert_failed(await post(service, body), 400, IRE, "invalid_json")


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({}, "prompt", "missing_required_parameter"),
        ({"prompt": ""}, "prompt", "empty_string"),
        ({"prompt": "a" * 32_001}, "prompt", "string_above_max_length"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 11}, "n", "integer_above_max_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"size": "9x9"}, "size", "invalid_value"),
        ({"response_format": "gif"}, "response_format", "invalid_value"),
    ],
    ids=str,
)
async def test_parameters_out_of_range(service: Service, values: dict[str, Any], param: str, code: str) -> None:
    async with unbilled(service):
        answer = await post(service, values if param == "prompt" else {"prompt": "a", "model": LABS, **values})
        assert_failed(answer, 400, IRE, code)
        assert answer.json["error"]["param"] == param


async def test_a_number_may_be_a_string(service: Service) -> None:
    async with unbilled(service):
        assert (await post(service, {"prompt": "a [seconds:0] [tag:free]", "model": SCHNELL, "n": "1"})).status == 200


@pytest.mark.parametrize("model", ["no-such-model", "prodia/inference.flux-fast.shnell.txt2img.v2"])
async def test_an_unknown_model_is_caught_here(service: Service, model: str) -> None:
    async with unbilled(service):
        answer = await post(service, {"prompt": "a", "model": model})
        assert_failed(answer, 404, IRE, "model_not_found")
        assert answer.json["error"]["param"] == "model"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_its_limit(service: Service, chunked: bool) -> None:
    async with unbilled(service), Line.to(service) as line:
        if chunked:
            line.send(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            line.send(b"8000\r\n" + b"a" * 32_768 + b"\r\n")
            line.send(b"8001\r\n" + b"a" * 32_769 + b"\r\n")
        else:
            line.send(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n".encode())
        answer = await line.answer()
        assert_failed(answer, 413, IRE, "request_too_large")
        assert answer.headers["connection"] == "close"
        line.half_close()
        assert await line.ended()


async def test_any_content_type_is_read_and_no_encoding(service: Service) -> None:
    async with unbilled(service):
        body = {"prompt": "a [seconds:0] [tag:free]", "model": SCHNELL}
        assert (await post(service, body, "Content-Type: text/plain\r\n")).status == 200
        answer = await post(service, body, "Content-Encoding: gzip\r\n")
        assert_failed(answer, 415, IRE, "unsupported_content_encoding")


async def test_wrong_methods_and_paths(service: Service) -> None:
    async with unbilled(service):
        wrong = await service.get(PATH)
        assert_failed(wrong, 405, IRE, None)
        assert wrong.headers["allow"] == "POST"
        assert_failed(await service.get("/v1/nowhere"), 404, IRE, None)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ("", None),
        ("Authorization: Bearer wrong\r\n", "invalid_api_key"),
        ("Authorization: Bearer schl\xfcssel\r\n", "invalid_api_key"),
        ("Authorization: Bearer sesame\r\nAuthorization: Bearer sesame\r\n", "invalid_api_key"),
        ("Authorization: Basic sesame\r\n", "invalid_api_key"),
    ],
    ids=["none", "wrong", "latin", "two", "basic"],
)
async def test_wrong_keys(guarded: Service, headers: str, code: str | None) -> None:
    async with unbilled(guarded):
        answer = await post(guarded, {"prompt": "a", "model": LABS}, headers)
        assert_failed(answer, 401, IRE, code)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "sesame" not in answer.json["error"]["message"]


HEAD = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mellon\r\n"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (HEAD + f"X: {'a' * 65_536}\r\n\r\n", 431, "headers_too_large"),
        (HEAD + "X: a\r\n" * 200 + "\r\n", 431, "headers_too_large"),
        (HEAD + "X: a", 408, "request_timeout"),
        (HEAD + "Content-Length: 20\r\n\r\n{", 408, "request_timeout"),
        (HEAD + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "invalid_value"),
        (HEAD + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "invalid_value"),
        (HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, "invalid_value"),
    ],
    ids=["long", "many", "drip", "stall", "cl+te", "two cl", "chunk"],
)
async def test_requests_that_the_connection_refuses(guarded: Service, data: str, status: int, code: str) -> None:
    async with unbilled(guarded), Line.to(guarded) as line:
        line.send(data.encode())
        answer = await line.answer()
        assert_failed(answer, status, IRE, code)
        line.half_close()
        assert await line.ended()


async def test_of_a_pipelined_pair_only_the_first_is_served() -> None:
    async with running() as service, Line.to(service) as line:
        line.post({"prompt": "a [seconds:0.1]", "model": SCHNELL})
        line.post({"prompt": "b [seconds:0.1]", "model": SCHNELL})
        assert (await line.answer()).status == 200
        line.half_close()
        assert await line.ended()
        assert await submits(service) == 1


async def test_a_pipelined_request_does_not_hide_that_the_caller_left() -> None:
    async with running() as service:
        async with Line.to(service) as line:
            line.post({"prompt": "a [seconds:0.3]", "model": SCHNELL})
            line.send(HEAD.encode())
            await eventually(lambda: [generation.waiters for generation in service.engine.generations] == [1])
            await asyncio.sleep(0.02)
        await eventually(lambda: [generation.waiters for generation in service.engine.generations] == [0])
