"""What reviews and adversarial trials found, kept from coming back."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.service import Service, running

pytestmark = pytest.mark.anyio
SCHNELL = "prodia/inference.flux-fast.schnell.txt2img.v2"


def _raw(body: bytes) -> bytes:
    lines = ["POST /v1/images/generations HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _connect(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_cut_on_its_way_is_given_to_the_repeat(stream: bool) -> None:
    async with running() as service:
        checked = {"prompt": "cat [tag:cut] [seconds:0.05] [bytes:8000000]", "model": "gpt-image-1", "stream": stream}
        reader, writer = await _connect(service)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        writer.write(_raw(json.dumps(checked).encode()))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        for _ in range(200):
            if all(
                generation.delivered_at is None and generation.waiters == 0 for generation in service.engine.generations
            ):
                break
            await asyncio.sleep(0.01)
        answer = await service.post("/v1/images/generations", {**checked, "stream": False})
        assert answer.status == 200
        assert answer.headers["x-images-reattached"] == "true"
        assert (await service.counts("cut"))["submits"] == 1


async def test_the_connection_stays_in_step_after_any_size_of_picture() -> None:
    async with running() as service:
        reader, writer = await _connect(service)
        for size in (36_640, 36_700, 36_760, 36_820):
            checked = {"prompt": f"q [bytes:{size}]", "model": "gpt-image-1"}
            writer.write(_raw(json.dumps(checked).encode()))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200 ")
            length = int(head.lower().partition("content-length:")[2].partition("\r\n")[0])
            assert json.loads(await reader.readexactly(length))["data"][0]["b64_json"]
        writer.close()
        await writer.wait_closed()


async def test_a_retry_of_a_partly_busy_request_makes_only_what_is_missing() -> None:
    async with running(timeouts={"hold": 3}) as service:
        checked = {"prompt": "cat [tag:part] [seconds:0.05] [fault:busy:1:30]", "model": SCHNELL, "n": 4}
        first = await service.post("/v1/images/generations", checked)
        assert (first.status, first.code, first.headers["x-should-retry"]) == (429, "provider_busy", "true")
        second = await service.post("/v1/images/generations", checked, {"x-stainless-retry-count": "1"})
        assert second.status == 200
        assert len(second.json["data"]) == 4
        assert (await service.counts("part"))["started"] == 4


async def test_looking_at_a_jobs_head_does_not_take_its_answer() -> None:
    async with running(timeouts={"hold": 0.1}) as service:
        checked = {"prompt": "cat [tag:head] [seconds:0.4]", "model": SCHNELL}
        late = await service.post("/v1/images/generations", checked)
        assert late.code == "generation_pending"
        path = late.headers["x-images-generation"]
        status = 202
        while status == 202:
            await asyncio.sleep(0.05)
            async with service.http.head(service.url + path) as response:
                status = response.status
        assert status == 200
        assert (await service.post("/v1/images/generations", checked)).headers["x-images-reattached"] == "true"
        assert (await service.counts("head"))["submits"] == 1


async def test_no_hint_outlasts_a_jobs_lifetime() -> None:
    async with running(timeouts={"lifetime": 0.6}) as service:
        answer = await service.generate("cat [fault:busy:poll:9:300] [seconds:9]", model="imagelabs/sdxl-turbo")
        assert (answer.status, answer.code) == (504, "generation_timeout")


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/chat/completions", "/v1/images/edits"])
async def test_a_body_of_countless_values_is_refused_before_it_is_built(path: str) -> None:
    async with running() as service:
        body = b'{"messages":[' + b"[]," * 60_000 + b"0]}"
        async with service.http.post(service.url + path, data=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "invalid_json"


async def test_what_follows_a_form_is_bounded() -> None:
    async with running(server={"max_upload": 1024}) as service:

        async def endless() -> AsyncIterator[bytes]:
            yield b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n--b--\r\n'
            for _ in range(400):
                yield b"\r\n" * 32_768

        headers = {"content-type": "multipart/form-data; boundary=b"}
        async with service.http.post(service.url + "/v1/images/edits", data=endless(), headers=headers) as response:
            assert response.status == 413


async def test_numbers_too_long_to_print() -> None:
    async with running() as service:
        huge = b"1" + b"0" * 4000
        for path, body in (
            ("/sdapi/v1/txt2img", b'{"prompt":"a","batch_size":' + huge + b',"n_iter":' + huge + b"}"),
            ("/v1/images/generations", b'{"prompt":"a","n":' + huge + b"}"),
            ("/v1/images/generations", b'{"prompt":"a","seed":-' + huge + b"}"),
        ):
            async with service.http.post(service.url + path, data=body) as response:
                assert response.status == 400
                assert len((await response.json())["error"]["message"]) < 200


async def test_a_keys_handed_over_jobs_count_for_its_limit() -> None:
    environment = {"IMAGES_PROXY_KEYS": "a,b"}
    async with running(environment=environment, server={"max_per_key": 2}) as service:
        headers = {"authorization": "Bearer a", "prefer": "respond-async"}
        answers = [await service.generate(f"cat {n} [seconds:3]", headers, model=SCHNELL) for n in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 429]
        other = await service.generate("cat [seconds:0.05]", {"authorization": "Bearer b"}, model=SCHNELL)
        assert other.status == 200


async def test_a_picture_outlasts_a_small_quota_until_its_caller_has_it() -> None:
    async with running(images={"max_bytes": 50_000}) as service:
        answer = await service.generate("cat [bytes:40000] [seconds:0.05]", model="gpt-image-1", n=3)
        assert answer.status == 200
        assert len(answer.json["data"]) == 3
