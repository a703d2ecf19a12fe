"""Thousands of requests, faults, leavers and repeats in any mixture: nothing leaks, nothing is paid twice."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from proxy.state.checker import problems
from proxy.state.money import Balance
from tests.faults.wire import LABS, LEGACY, SCHNELL, V1, Line, eventually
from tests.service import Answer, Service, running

REQUESTS, FULL_REQUESTS, AT_ONCE = 2000, 20_000, 60
RESULT_S = 3
"""So long ended generations are kept. Once longer has passed, as many are forgotten as come."""
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.soak,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc"),
]

PAID, REFUSED = "paid", "refused"
REFUSALS = ("busy:1:0.01", "401", "invalid", "503")
FAULTS = ("drop", "500", "unsafe", "no-picture", "failed", "not-a-picture", "bad-url:https://evil.test/x.png",
          "not-json",
          "no-job", "cut:submit", "huge:json", "hang")  # fmt: skip
POLLED_FAULTS = ("gateway:1", "drop:poll:1", "cut:1", "failed", "no-picture")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@dataclass
class Crowd:
    """Callers of all kinds. An intent is one picture that somebody asked for once, however often they call."""

    service: Service
    random: Random
    requests: int = 0
    intents: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=count)

    async def call(self, body: Mapping[str, Any], headers: Mapping[str, str], leave_s: float | None = None) -> Answer:
        """Call once; ``leave_s``: hang up after so long, in one of the ways there are."""
        self.requests += 1
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        async with Line.to(self.service) as line:
            line.post(body, lines)
            if leave_s is None:
                answer = await line.answer()
                self.statuses[answer.status] += 1
                return answer
            try:
                async with asyncio.timeout(leave_s):
                    await line.answer()
            except TimeoutError:
                pass
            self.random.choice([line.reset, line.half_close, line.writer.close])()
            await asyncio.sleep(0.01)
            raise ConnectionError

    async def insist(self, body: Mapping[str, Any], cuts: int) -> None:
        """Call as an SDK does that is cut off ``cuts`` times: repeat with a counter while that is advised."""
        for attempt in range(12):
            headers = {"x-stainless-retry-count": str(attempt)} if attempt else {}
            leave_s = self.random.uniform(0.0, 0.05) if attempt < cuts else None
            try:
                answer = await self.call(body, headers, leave_s)
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            if answer.headers["x-should-retry" if answer.status >= 400 else "x-request-id"] != "true":
                return

    async def keep_coming(self, enough: Callable[[], bool]) -> None:
        """Be one caller after the other, many at a time, until it is ``enough``."""

        async def keep_coming() -> None:
            while not enough():
                await self.come(next(self._numbers))

        await asyncio.gather(*(keep_coming() for _ in range(AT_ONCE)))

    async def come(self, number: int) -> None:
        """Be one caller with one intent."""
        chance = self.random
        model = chance.choices([SCHNELL, V1, LEGACY, LABS], [20, 1, 1, 1])[0]
        polled = model != SCHNELL
        fault = ""
        if chance.random() < 0.25:
            fault = f"[fault:{chance.choice(POLLED_FAULTS if polled else FAULTS)}]"
        kind = PAID
        if not polled and chance.random() < 0.05:
            kind, fault = REFUSED, f"[fault:{chance.choice(REFUSALS)}]"
        self.intents[kind] += 1
        body: dict[str, Any] = {
            "prompt": f"a fox {number} [tag:{kind}] [seconds:{chance.choice([0.0, 0.02, 0.05])}] [bytes:3000] {fault}",
            "model": model,
            "size": "256x256",
            "response_format": chance.choice(["url", "b64_json"]),
        }
        await chance.choices([self.plainly, self.with_a_key, self.with_handover, self.wrongly], [12, 2, 2, 1])[0](body)

    async def plainly(self, body: dict[str, Any]) -> None:
        """Be cut off up to three times."""
        await self.insist(body, self.random.choice([0, 0, 1, 2, 3]))

    async def with_a_key(self, body: dict[str, Any]) -> None:
        """Ask several times at once for the same."""
        headers = {"idempotency-key": f"key-{self.requests}-{id(body)}"}
        calls = (self.call(body, headers, leave_s) for leave_s in (None, 0.01, None))
        await asyncio.gather(*calls, return_exceptions=True)

    async def with_handover(self, body: dict[str, Any]) -> None:
        """Take the job's address, and follow or abandon it."""
        answer = await self.call(body, {"prefer": "respond-async"})
        if answer.status != 202:
            return
        if self.random.random() < 0.3:
            assert await self.ask("DELETE", answer.headers["location"]) == 204
            return
        while await self.ask("GET", answer.headers["location"]) == 202:  # noqa: ASYNC110 (a client polls)
            await asyncio.sleep(0.05)

    async def ask(self, method: str, path: str) -> int:
        """Return the status of a call without a body."""
        self.requests += 1
        async with Line.to(self.service) as line:
            line.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return (await line.answer()).status

    async def wrongly(self, body: dict[str, Any]) -> None:
        """Ask for what cannot be."""
        wrong: dict[str, Any] = self.random.choice([{"n": 99}, {"size": "1x1"}, {"model": "none"}, {"prompt": ""}])
        answer = await self.call({**body, **wrong}, {})
        assert answer.status in (400, 404), json.dumps(wrong)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def rest(service: Service) -> None:
    """Wait until nothing is under way, and close the connections that are kept for the next call."""
    await eventually(lambda: service.engine.generations.running == 0, 10)
    for runtime in service.engine.runtimes.values():
        await runtime.upstream.close()
    await asyncio.sleep(0.05)


def tasks() -> Counter[str]:
    return Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())


@contextmanager
def burning(processes: int) -> Iterator[None]:
    """Let so many processes do nothing as fast as they can."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


async def test_soak(monkeypatch: pytest.MonkeyPatch, full: bool, pytestconfig: pytest.Config) -> None:
    monkeypatch.setattr("proxy.generations.results._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("proxy.jobs.breaker._IN_A_ROW", 10**9)
    monkeypatch.setattr("proxy.jobs.breaker._LEAST_CALLS", 10**9)
    timeouts = {"hold": 1, "submit": 0.3, "lifetime": 3, "result": RESULT_S}
    limits = {"budget": ["100000/month", "100000/day"], "pictures": ["10000000"]}
    async with running(timeouts=timeouts, providers={"max_jobs": 40}, limits=limits) as service:
        await service.generate("warm up [seconds:0] [bytes:3000]", model=SCHNELL)
        await rest(service)
        files, running_tasks = open_files(), tasks()
        requests = pytestconfig.getoption("--soak-requests") or (FULL_REQUESTS if full else REQUESTS)
        chance = Random(pytestconfig.getoption("--soak-seed"))  # noqa: S311 (seeded on purpose)
        crowd = Crowd(service, chance)
        with burning(pytestconfig.getoption("--soak-burners")):
            warm = time.monotonic() + 2 * RESULT_S
            await crowd.keep_coming(lambda: time.monotonic() >= warm and crowd.requests >= requests / 4)
            await rest(service)
            before, last = resident_bytes(), crowd.requests + requests
            await crowd.keep_coming(lambda: crowd.requests >= last)
        await rest(service)
        after = resident_bytes()
        assert crowd.statuses[200] > crowd.requests / 4
        assert crowd.statuses[502] > crowd.requests / 40
        assert crowd.statuses[500] == 0
        await _assert_nothing_is_left(service, files, running_tasks)
        await _assert_nothing_is_paid_twice(crowd)
        await _assert_money_agrees(service)
        assert after <= before * 1.1


async def _assert_nothing_is_left(service: Service, files: int, running_tasks: Counter[str]) -> None:
    engine = service.engine
    await eventually(lambda: open_files() <= files)
    await eventually(lambda: not tasks() - running_tasks)
    for runtime in engine.runtimes.values():
        assert runtime.slots._value == runtime.max_jobs
    assert not list(engine.directory.glob("*.part"))
    generations = engine.generations
    assert not any(generation.waiters for generation in generations)
    registry = generations._registry
    registry._result_s = 0.0
    generations.sweep()
    assert not any((registry._by_id, registry._by_key, registry._equals, registry._places, registry._ended))


async def _assert_nothing_is_paid_twice(crowd: Crowd) -> None:
    paid, refused = await crowd.service.counts(PAID), await crowd.service.counts(REFUSED)
    assert 0 < paid["submits"] <= crowd.intents[PAID]
    # What was refused cost nothing and may be asked for again.
    assert 0 < refused["started"] <= crowd.intents[REFUSED]


async def _assert_money_agrees(service: Service) -> None:
    """Every balance is what its entries sum up to, and they are about the jobs that the simulator has begun."""
    state = service.engine.journal.state
    everything = await state.everything()
    assert problems(everything) == []
    sums = {
        by: tuple(map(sum, zip(*(row.balance for row in await state.usage(by, 0)), strict=True)))
        for by in ("key", "provider", "day")
    }
    assert len(set(sums.values())) == 1
    total = Balance(*sums["key"])
    assert {row.balance for row in everything.spend} == {total}
    assert total.reserved == total.reserved_pictures == 0
    released = sum(entry.kind == "release" for entry in everything.ledger)
    async with service.http.get(f"{service.upstream}/_counts") as response:
        begun = (await response.json())["started"]
    # What the provider itself calls failed was begun, and is released; what is unknown was begun or not.
    assert total.spent_pictures <= begun <= total.used("pictures") + released
