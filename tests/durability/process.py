"""A service in a process of its own that can be killed, stopped and started again on the same state."""

import asyncio
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from proxy.demo import KEYS
from proxy.state.checker import problems
from proxy.state.records import Everything
from proxy.state.sqlite.engine import open_sqlite
from tests.service import Answer, simulated_providers

ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """The service on one folder. ``upstream``: the simulator, which stays in the test's own process.

    ``tables``: configuration besides the providers; ``changes``: what all providers that know the key have.
    """

    folder: Path
    upstream: str
    changes: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    port: int = 0
    errors: list[str] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    @property
    def file(self) -> Path:
        return self.folder / "state" / "state.sqlite3"

    @property
    def whole_environment(self) -> dict[str, str]:
        """What it is started with."""
        return {**os.environ, **KEYS, **self.environment}

    def configure(self) -> Path:
        """Write the configuration anew."""
        tables: dict[str, dict[str, Any]] = {"state": {"path": str(self.file)}, **self.tables}
        for name, table in simulated_providers(self.upstream, **{"max_jobs": 50, **self.changes}).items():
            tables[f"providers.{name}"] = table
        lines = []
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
        path = self.folder / "config.toml"
        path.write_text("\n".join(lines))
        return path

    async def start(self, point: str = "", *, wait: bool = True) -> None:
        """Start it; ``point``: where it kills itself. ``wait``: until it says that it is ready."""
        arguments = ["serve", "--port", str(self.port), "--config", str(self.configure())]
        module = ["tests.durability.points", point] if point else ["proxy"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *module,
            *arguments,
            cwd=ROOT,
            env=self.whole_environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.get_running_loop().create_task(self._read_errors(self._process))
        if wait:
            await self.ready()

    async def ready(self) -> None:
        """Wait until it says where it listens."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = (await self._process.stdout.readline()).decode()
        found = re.search(r"Base URL: (http://[^/]+:(\d+))/v1", said)
        assert found, (said, self.errors)
        self.url, self.port = found[1], int(found[2])

    async def _read_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.errors.append(line.decode())

    async def ended(self, within_s: float = 20.0) -> int:
        """Wait for its end, and return its status."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            status = await self._process.wait()
        if self._reading is not None:
            await self._reading
        return status

    async def kill(self) -> None:
        """Kill it, at whatever it is just doing."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self.ended()

    def terminate(self) -> None:
        """Ask it to stop."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def stop(self) -> int:
        """Stop it properly."""
        self.terminate()
        return await self.ended(60)

    async def generate(self, prompt: str, headers: dict[str, str] | None = None, **values: Any) -> Answer | None:
        """Ask for pictures; None when the connection broke."""
        try:
            async with (
                aiohttp.ClientSession(self.url) as http,
                http.post("/v1/images/generations", json={"prompt": prompt, **values}, headers=headers) as response,
            ):
                return await Answer.read(response)
        except (aiohttp.ClientError, ConnectionError):
            return None

    async def counts(self, tag: str) -> dict[str, int]:
        """Return what reached the simulator for prompts bearing ``[tag:…]``."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.upstream}/_counts", params={"tag": tag}) as response,
        ):
            counts: dict[str, int] = await response.json()
            return counts

    async def reached(self, tag: str, what: str, number: int = 1) -> None:
        """Wait until so many submits, polls … have reached the simulator."""
        async with asyncio.timeout(20):
            while (await self.counts(tag))[what] < number:  # noqa: ASYNC110 (another server is looked at)
                await asyncio.sleep(0.02)

    async def everything(self) -> Everything:
        """Return all rows of the state, after checking that they agree; the service may run."""
        state = await asyncio.to_thread(open_sqlite, self.file)
        try:
            found = await state.everything()
        finally:
            await state.close()
        assert problems(found) == []
        return found


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
