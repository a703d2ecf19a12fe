"""Thousands of broken requests against a real process: it lives, stays small, and answers only in its own form."""

import asyncio
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .conftest import Process, Start

REQUESTS, FULL_REQUESTS = 10_000, 100_000
AT_ONCE = 50
LONGEST_GROWTH = 30 * 1024 * 1024
SEEDS = [
    b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
    b"OPTIONS * HTTP/1.0\r\nHost: [::1]:80\r\nConnection: keep-alive\r\n\r\n",
]
WORDS = [
    b"\r\n",
    b"\0",
    b"\xff",
    b":",
    b" ",
    b"chunked",
    b"Content-Length: 9\r\n",
    b"Host: b\r\n",
    b"HTTP/2.0",
    b"-1",
    b"%zz",
]


def mutate(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at:at] = chance.choice(WORDS)
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 40)]
            case 4:
                data[at:at] = chance.choice(WORDS) * chance.randint(1, 4000)
            case _:
                data += chance.choice(SEEDS)
    return bytes(data)


def check(output: bytes) -> int:
    """Return the first answer's status, 0 for none; whatever is refused must be refused in JSON."""
    if not output:
        return 0
    head, _, body = output.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert status < 500 or status == 501, output
    assert b"text/plain" not in head
    if status in {400, 408, 431, 501}:
        assert set(json.loads(body)) == {"error"}
    return status


async def attack(port: int, requests: Iterator[bytes]) -> list[int]:
    """Send request after request, each on a connection of its own; every other one is cut off at once."""
    statuses = []
    for number, request in enumerate(requests):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        output = b""
        try:
            writer.write(request)
            if number % 2:
                writer.write_eof()
            async with asyncio.timeout(0.03):
                output = await reader.read(65536)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()
        statuses.append(check(output))
    return statuses


async def attack_all(port: int, requests: list[bytes]) -> list[int]:
    shared = iter(requests)
    crowds = await asyncio.gather(*(attack(port, shared) for _ in range(AT_ONCE)))
    return [status for crowd in crowds for status in crowd]


def resident(service: Process) -> int:
    """Bytes of memory in use."""
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory use from /proc")
@pytest.mark.fuzz
def test_broken_requests_neither_kill_nor_grow_the_process(start: Start, full: bool) -> None:
    service = start("--quick")
    chance = random.Random(20260512)  # noqa: S311 - repeatable on purpose
    requests = [mutate(chance) for _ in range(FULL_REQUESTS if full else REQUESTS)]
    asyncio.run(attack_all(service.port, requests[:500]))
    before = resident(service)
    statuses = asyncio.run(attack_all(service.port, requests))
    assert len(statuses) == len(requests)
    assert {200, 400, 413, 431} <= set(statuses)
    assert resident(service) - before < LONGEST_GROWTH
    with Client(service.port) as client:
        assert client.get("/x").status == 200
    service.signal(signal.SIGTERM)
    assert service.end()[::2] == (0, "")
