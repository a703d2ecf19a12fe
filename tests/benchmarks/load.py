"""The callers: a process of their own on a bare loop, told by JSON lines what to do, telling in JSON what came of it.

``run``: so many callers, each with one connection and one call at a time, for so many seconds. ``hold``: so many
callers that send one call each; answered as soon as all were sent. ``finish``: wait for their answers.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from tests.benchmarks.machine import raise_limits

BATCH = 100
PATIENCE_S = 120.0


class Caller(asyncio.Protocol):
    """One connection. ``answered`` resolves to the answer's status, 0 for a broken connection."""

    __slots__ = ("answered", "head", "missing", "status", "transport")

    def __init__(self) -> None:
        self.transport: Any = None
        self.answered: asyncio.Future[int] | None = None
        self.head: bytes | None = b""
        self.missing = self.status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def send(self, request: bytes) -> asyncio.Future[int]:
        """Send a call; returns the future of its answer."""
        self.answered = asyncio.get_running_loop().create_future()
        self.head, self.missing = b"", 0
        self.transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        """Count the answer's bytes off."""
        if self.head is not None:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self.head = self.head[:end].lower(), self.head[end + 4 :], None
            self.status = int(head[9:12])
            self.missing = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        self.missing -= len(data)
        if self.missing <= 0:
            self._settle(self.status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Count as broken if an answer was due."""
        self._settle(0)

    def _settle(self, status: int) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(status)


def requests(told: dict[str, Any]) -> Iterator[bytes]:
    """Yield calls whose prompts differ, as callers' do, unless the order has a key that makes them one."""
    for number in itertools.count():
        prompt = told["prompt"] + ("" if told.get("key") else f" {told['mark']}-{number}")
        body = json.dumps({"prompt": prompt, "model": told["model"], "response_format": told["form"]}).encode()
        head = [
            "POST /v1/images/generations HTTP/1.1",
            f"host: 127.0.0.1:{told['port']}",
            "content-type: application/json",
            "accept: */*",
            "user-agent: benchmark",
            f"content-length: {len(body)}",
            *([f"idempotency-key: {told['key']}"] if told.get("key") else []),
            *([f"authorization: Bearer {told['secret']}"] if told.get("secret") else []),
        ]
        yield "\r\n".join([*head, "", ""]).encode() + body


class Load:
    """What was asked for is done by the method of that name."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.answers: list[asyncio.Future[int]] = []

    async def run(self, told: dict[str, Any]) -> dict[str, Any]:
        """Call for ``seconds``, at least once each; the figures are over the answers that came."""
        calls, until = requests(told), time.monotonic() + told["seconds"]
        times: list[float] = []
        errors = 0
        callers = await self._connect(told["port"], told["callers"])

        async def call(caller: Caller) -> None:
            nonlocal errors
            while True:
                began = time.perf_counter()
                status = await caller.send(next(calls))
                times.append(time.perf_counter() - began)
                errors += status != 200
                if time.monotonic() >= until or status == 0:
                    return

        began = time.monotonic()
        await asyncio.gather(*map(call, callers))
        took = time.monotonic() - began
        for caller in callers:
            caller.transport.close()
        return {"times": sorted(times), "errors": errors, "seconds": took}

    async def hold(self, told: dict[str, Any]) -> dict[str, Any]:
        """Send one call on each of ``callers`` connections."""
        calls, began = requests(told), time.monotonic()
        for first in range(0, told["callers"], BATCH):
            batch = await self._connect(told["port"], min(BATCH, told["callers"] - first))
            self.callers += batch
            self.answers += [caller.send(next(calls)) for caller in batch]
            await asyncio.sleep(0.01)
        return {"seconds": time.monotonic() - began}

    async def finish(self, _: dict[str, Any]) -> dict[str, Any]:
        """Wait for the answers."""
        await asyncio.wait(self.answers, timeout=PATIENCE_S)
        last = time.monotonic()
        good = sum(answer.done() and answer.result() == 200 for answer in self.answers)
        for caller in self.callers:
            caller.transport.close()
        self.callers, self.answers = [], []
        return {"good": good, "last": last}

    async def _connect(self, port: int, number: int) -> list[Caller]:
        loop = asyncio.get_running_loop()
        made = await asyncio.gather(*(loop.create_connection(Caller, "127.0.0.1", port) for _ in range(number)))
        return [caller for _, caller in made]


async def main() -> None:
    """Do what each line of standard input asks for."""
    load = Load()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        outcome = await getattr(load, told["do"])(told)
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise_limits()
    uvloop.run(main())
