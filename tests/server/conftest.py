"""Servers to talk to with plain sockets: two in a thread for each loop, and processes of their own."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from proxy.server.process import serving

from .client import Client
from .service import QUICK, Service

SCRIPT = Path(__file__).with_name("service.py")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


class Background:
    """A ``Service`` on a loop of its own, served with the usual limits and, at ``hasty_port``, with ``QUICK`` ones."""

    def __init__(self, loop_name: str) -> None:
        self.service = Service()
        self.port = self.hasty_port = 0
        self._started = threading.Event()
        self._loop = LOOPS[loop_name]()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._started.wait(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with serving(self.service) as self.port, serving(self.service, limits=QUICK) as self.hasty_port:
            self._started.set()
            await self._over.wait()

    def call(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)

    def settle(self) -> None:
        """Let the loop begin and end what is left of a test's requests, or the next test sees it."""

        async def turn() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            while self.service.running:  # noqa: ASYNC110 (the application tells nobody)
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(turn(), self._loop).result(10)

    def stop(self) -> None:
        self.call(self._over.set)
        self._thread.join(10)


@pytest.fixture(scope="session", params=LOOPS)
def background(request: pytest.FixtureRequest) -> Iterator[Background]:
    served = Background(request.param)
    yield served
    served.stop()


@pytest.fixture
def service(background: Background) -> Iterator[Service]:
    """The scripted application, with nothing remembered of other tests."""
    yield background.service
    background.call(background.service.released.set)
    background.settle()
    for memory in (background.service.disconnects, background.service.bodies, background.service.scopes):
        memory.clear()
    background.call(background.service.released.clear)


@pytest.fixture
def client(background: Background, service: Service) -> Iterator[Client]:  # noqa: ARG001 - cleared afterwards
    with Client(background.port) as connection:
        yield connection


@pytest.fixture
def hasty(background: Background, service: Service) -> Iterator[Client]:  # noqa: ARG001 - cleared afterwards
    """A client of whom the next byte is expected within a fifth of a second."""
    with Client(background.hasty_port) as connection:
        yield connection


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds; five seconds at most."""

    def wait(condition: Callable[[], object]) -> None:
        until = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < until, "the condition never held"
            time.sleep(0.005)

    return wait


class Process:
    """The scripted service in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", SCRIPT, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().removeprefix("port "))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, list[str], str]:
        """Return the exit status, the lines printed since the port, and the log."""
        output, log = self.process.communicate(timeout=15)
        return self.process.returncode, output.splitlines(), log

    def held(self, request: bytes) -> Client:
        client = Client(self.port)
        client.send(request)
        with Client(self.port) as other:  # answered after the held one was accepted
            other.get("/x")
        return client


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.process.communicate()
