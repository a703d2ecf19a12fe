"""How long the server waits for those who do send; in a time of the loop's own, so a busy machine refuses nobody."""

import asyncio
from typing import Any

import pytest

from proxy.server.connection import LINGER_GAP_S
from proxy.server.exchange import WireLimits
from proxy.server.process import serving
from tests.faults.wire import Line
from tests.time_skip import backend

from .service import Service

pytestmark = pytest.mark.anyio
GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    return backend(skip=not full)


class Served(Service):
    """The scripted application at an address."""

    port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


async def test_a_later_request_is_timed_from_its_first_byte() -> None:
    service = Served()
    async with serving(service) as service.port, Line.to(service) as line:
        line.send(GET + b"\r\n")
        assert (await line.answer()).status == 200
        await asyncio.sleep(WireLimits().header_s + 1)
        line.send(GET + b"\r\n")
        assert (await line.answer()).status == 200
        line.send(GET)
        assert (await line.answer()).status == 408


async def test_a_large_body_that_flows_may_take_longer() -> None:
    service = Served()
    async with serving(service) as service.port, Line.to(service) as line:
        line.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2200000\r\n\r\n")
        for _ in range(20):
            line.send(b"a" * 110_000)
            await asyncio.sleep(WireLimits().body_s / 10)
        assert (await line.answer()).status == 200
    assert [len(body) for body in service.bodies] == [2_200_000]


async def test_time_in_which_nobody_reads_does_not_count() -> None:
    service = Served()
    async with serving(service, limits=WireLimits(body_s=0.05)) as service.port, Line.to(service) as line:
        line.send(b"POST /idle HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc")
        await asyncio.sleep(0.08)
        line.send(b"def")
        assert (await line.answer()).json == {"read": 6}


async def test_a_drained_connection_is_closed_once_nothing_comes() -> None:
    service = Served()
    async with serving(service) as service.port, Line.to(service) as line:
        line.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n")
        assert (await line.answer()).status == 408
        for _ in range(5):  # still coming: still drained
            line.send(b"a")
            await line.writer.drain()
            await asyncio.sleep(LINGER_GAP_S / 2)
        await asyncio.sleep(2 * LINGER_GAP_S)
        with pytest.raises(ConnectionError):
            await drip(line, 15)


async def drip(line: Line, times: int) -> None:
    for _ in range(times):
        line.send(b"a")
        await line.writer.drain()
        await asyncio.sleep(0.02)
