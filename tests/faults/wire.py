"""A client that sends exactly the bytes it is told, and what every failure must look like."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from tests.service import Answer, Service

PATH = "/v1/images/generations"
LABS = "imagelabs/sdxl-turbo"
SCHNELL = "prodia/inference.flux-fast.schnell.txt2img.v2"
V1 = "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"
LEGACY = "prodia-legacy/dreamshaper_8.safetensors [9d40847d]"
_REQUEST_ID = re.compile(r"req_[0-9a-f]{32}\Z")


class Reachable(Protocol):
    """A service at an address; ``url`` has no path."""

    @property
    def url(self) -> str: ...


@dataclass(slots=True)
class Line:
    """One connection to the service."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    @asynccontextmanager
    async def to(cls, service: Reachable) -> AsyncIterator[Self]:
        """Connect."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, body: bytes | Mapping[str, Any], headers: str = "", path: str = PATH) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
        self.send(head.encode("latin-1") + data)

    async def answer(self) -> Answer:
        """Read one answer, whole; asyncio.IncompleteReadError when the connection ends before."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            if headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body, json.loads(body) if body else None)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def ended(self) -> bool:
        """Whether the service ends the connection without another byte."""
        async with asyncio.timeout(10):
            return await self.reader.read(1) == b""

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        connection: socket.socket = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def assert_failed(answer: Answer, status: int, kind: str, code: str | None, *, retry: bool = False) -> None:
    """Hold an answer to what every failure promises, and to its own status, type, code and retry advice."""
    assert answer.json is not None, answer.body
    error = answer.json["error"]
    assert (answer.status, error["type"], error["code"]) == (status, kind, code), error
    assert set(answer.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["content-type"] == "application/json"
    assert _REQUEST_ID.match(headers["x-request-id"])
    assert headers["x-should-retry"] == ("true" if retry else "false")
    if retry:
        assert 1 <= int(headers["retry-after"]) <= 30
    else:
        assert "retry-after" not in headers


async def submits(service: Service) -> int:
    """Return how many submits reached the simulator in all."""
    return int((await service.get(f"{service.upstream}/_counts")).json["submits"])


async def eventually(condition: Any, seconds: float = 5.0) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (whatever the condition looks at tells nobody)
            await asyncio.sleep(0.005)
