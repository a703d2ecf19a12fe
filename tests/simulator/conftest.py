"""The simulator on a real socket, and a client that speaks no more HTTP than aiohttp does."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Self

import aiohttp
import pytest

from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.simulator.client import Client, FakeTime


class Server:
    """The house's server in a thread of its own, on a free port of the loopback, with a time of its own."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self.time = FakeTime()
        self.origin = ""
        self._port: Future[int] = Future()
        self._loop_factory = loop_factory
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with serving(create_simulator(clock=self.time.clock())) as port:
            self._port.set_result(port)
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._port.result(10)}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, server.origin, server.time)
