"""The simulator on a real uvicorn socket, and a client that speaks no more HTTP than aiohttp does."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

import aiohttp
import pytest
import uvicorn
from starlette.types import ASGIApp

from proxy.simulator import create_simulator
from tests.simulator.client import Client, FakeTime


class Server:
    """One uvicorn in a thread of its own, on a free port of the loopback, with a time of its own."""

    def __init__(
        self, loop: str = "auto", http: str = "auto", wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app
    ) -> None:
        self.time = FakeTime()
        config = uvicorn.Config(
            wrap(create_simulator(clock=self.time.clock())),
            port=0,
            loop=loop,
            http=http,
            log_level="critical",
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self._socket.listen()
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(5)
        self._socket.close()


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
