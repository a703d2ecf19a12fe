"""A process that is stopped while its callers leave and repeat: the repeat may be read before what it repeats."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.demo import KEYS
from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.faults.wire import LABS, PATH, SCHNELL, Line
from tests.service import simulated_providers
from tests.time_skip import backend, real_time

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.realtime,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process"),
]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Another process is waited for, so no time is skipped."""
    return backend(skip=False)


ROOT = Path(__file__).parents[2]
INTENTS = 10
DUE_S = 2.0
"""Seconds in which headers and body have to arrive."""
_numbers = count()


class Stalled:
    """The service in a process of its own; the simulator stays in the test's, where it is not stopped."""

    def __init__(self, url: str, upstream: str, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self.upstream = upstream
        self._process = process

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the process stand still meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def submits(self, tag: str) -> int:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.upstream}/_counts", params={"tag": tag}) as response,
        ):
            return int((await response.json())["submits"])


@pytest.fixture(scope="module")
async def service(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stalled]:  # noqa: ARG001 (it chooses the loop)
    directory = tmp_path_factory.mktemp("stalls")
    async with serving(create_simulator(speed=20.0)) as port:
        upstream = f"http://127.0.0.1:{port}"
        lines = [f'[images]\ndirectory = "{directory / "pictures"}"', f"[timeouts]\nheader = {DUE_S}\nbody = {DUE_S}"]
        for name, table in simulated_providers(upstream).items():
            lines.append(f"[providers.{name}]")
            values = {**table, "max_jobs": 40}
            lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
        config = directory / "config.toml"
        config.write_text("\n".join(lines))
        command = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--config", str(config)]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env={**os.environ, **KEYS},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            said = (await process.stdout.readline()).decode()
            found = re.search(r"Base URL: (\S+)/v1", said)
            assert found, said
            with real_time():
                yield Stalled(found[1], upstream, process)
        finally:
            process.kill()
            await process.communicate()


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def leave(line: Line, how: str) -> None:
    if how != "stays":
        {"close": line.writer.close, "reset": line.reset, "half-close": line.half_close}[how]()


@pytest.fixture
def tag() -> str:
    """A tag for the simulator's counts that no other test uses."""
    return f"t{next(_numbers)}"


def body(number: int, model: str, tag: str, seconds: float = 0.1) -> dict[str, str]:
    prompt = f"a fox {number} [seconds:{seconds}] [tag:{tag}]"
    return {"prompt": prompt, "model": model, "size": "256x256", "response_format": "b64_json"}


async def test_what_arrived_during_a_stall_arrived_in_time(service: Stalled, tag: str) -> None:
    """The times are over when the process goes on, before it has read anything."""
    async with Line.to(service) as whole, Line.to(service) as half:
        data = json.dumps(body(0, SCHNELL, tag)).encode()
        half.send(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        await asyncio.sleep(0.2)  # these it reads, and waits for the body
        with service.stopped():
            whole.post(body(1, SCHNELL, tag))
            half.send(data)
            await asyncio.sleep(DUE_S + 0.1)
        assert [(await line.answer()).status for line in (whole, half)] == [200, 200]


@pytest.mark.parametrize("model", [SCHNELL, LABS])
@pytest.mark.parametrize("connections", ["fresh", "kept alive"])
@pytest.mark.parametrize("how", ["close", "reset", "half-close", "stays"])
async def test_a_retry_that_is_read_with_what_it_repeats_buys_nothing_more(
    service: Stalled, tag: str, how: str, connections: str, model: str
) -> None:
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(Line.to(service)) for _ in range(2 * INTENTS)]
        if connections == "kept alive":
            for line in lines:
                line.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await line.answer()).status == 200
        with service.stopped():
            for number, line in enumerate(lines[:INTENTS]):
                line.post(body(number, model, tag))
            await asyncio.sleep(0.02)
            for line in lines[:INTENTS]:
                leave(line, how)
            for number, line in enumerate(lines[INTENTS:]):
                line.post(body(number, model, tag), "x-stainless-retry-count: 1\r\n")
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(*(line.answer() for line in lines[INTENTS:]))
        assert [answer.status for answer in answers] == [200] * INTENTS
        assert await service.submits(tag) == INTENTS


@pytest.mark.parametrize("how", ["close", "stays"])
async def test_equal_calls_repeated_in_a_stall_stay_as_many_pictures(service: Stalled, tag: str, how: str) -> None:
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(Line.to(service)) for _ in range(8)]
        for line in lines[:4]:
            line.post(body(0, SCHNELL, tag, 0.5))
        while await service.submits(tag) < 4:  # noqa: ASYNC110 (the count is asked for over HTTP)
            await asyncio.sleep(0.01)
        with service.stopped():
            for line in lines[:4]:
                leave(line, how)
            for line in lines[4:]:
                line.post(body(0, SCHNELL, tag, 0.5), "x-stainless-retry-count: 1\r\n")
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(*(line.answer() for line in lines[4:]))
        assert len({answer.json["data"][0]["b64_json"] for answer in answers}) == 4
        assert await service.submits(tag) == 4


async def test_a_caller_who_left_before_the_start_starts_nothing_by_key_either(service: Stalled, tag: str) -> None:
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(Line.to(service)) for _ in range(4)]
        with service.stopped():
            for line in lines:
                line.post(body(1, SCHNELL, tag), "idempotency-key: k\r\n")
            for line in lines[:3]:
                line.writer.close()
            await asyncio.sleep(0.02)
        assert (await lines[3].answer()).status == 200
        assert await service.submits(tag) == 1
