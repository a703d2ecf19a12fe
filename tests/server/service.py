"""A scripted application: what a test asks for stands in the path. As a script it is a service that takes signals."""

import argparse
import asyncio
import json
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from proxy.server.exchange import WireLimits
from proxy.server.process import loop_factory, serve

QUICK = WireLimits(header_s=0.2, body_s=0.2)


@dataclass(slots=True)
class Service:
    """``/held`` answers after release or drain, ``/stuck`` never; everything else as its method below says."""

    disconnects: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False
    broken_startup: bool = False
    running: int = 0

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope in self.scopes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        self.scopes.append(scope)
        answers = {
            "/early": self.refuse_unread,
            "/early-after-a-while": self.refuse_unread_late,
            "/held": self.hold,
            "/stuck": self.hang,
            "/crash": self.crash,
            "/stubborn": self.ignore_cancelling,
            "/silent": self.say_nothing,
            "/cut": self.cut,
            "/begin-and-crash": self.begin_and_crash,
            "/idle": self.read_late,
            "/readyz": self.tell_readiness,
        }
        self.running += 1
        try:
            await answers.get(scope["path"], self.echo)(receive, send)
        finally:
            self.running -= 1

    async def live(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.broken_startup:
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan over", flush=True)  # noqa: T201 - read by the tests of signals
        await send({"type": "lifespan.shutdown.complete"})

    async def read(self, receive: Receive) -> bytes | None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects.append("body")
                return None
            piece: bytes = message["body"]
            body += piece
            if not message["more_body"]:
                self.bodies.append(body)
                return body

    async def echo(self, receive: Receive, send: Send) -> None:
        body = await self.read(receive)
        if body is not None:
            await answer(send, 200, {"read": len(body)})

    async def read_late(self, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await self.echo(receive, send)

    async def refuse_unread(self, _receive: Receive, send: Send) -> None:
        await answer(send, 413, {"early": True})

    async def refuse_unread_late(self, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await self.refuse_unread(receive, send)

    async def hold(self, receive: Receive, send: Send) -> None:
        if await self.read(receive) is None:
            return
        gone = asyncio.create_task(self.watch(receive))
        waits = [asyncio.create_task(event.wait()) for event in (self.released, self.refused)]
        await asyncio.wait([gone, *waits], return_when=asyncio.FIRST_COMPLETED)
        for task in (gone, *waits):
            task.cancel()
        await answer(send, 503 if self.refused.is_set() else 200, {"held": True})

    async def watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnects.append("held")

    async def hang(self, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async def ignore_cancelling(self, _receive: Receive, _send: Send) -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def crash(self, _receive: Receive, _send: Send) -> None:
        message = "a fault of the application"
        raise ValueError(message)

    async def say_nothing(self, _receive: Receive, _send: Send) -> None:
        return

    async def cut(self, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def begin_and_crash(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await self.crash(receive, send)

    async def tell_readiness(self, _receive: Receive, send: Send) -> None:
        await answer(send, 503 if self.draining else 200, {"ready": not self.draining})


async def answer(send: Send, status: int, content: Any) -> None:
    """Send a whole JSON answer."""
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def main() -> int:
    """Serve until a signal; print ``port N`` once bound and ``drain S`` when told to drain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--drain", type=float, default=5.0)
    parser.add_argument("--finish", type=float, default=0.0, help="seconds after which held requests succeed")
    parser.add_argument("--files", type=int, default=0, help="most open files")
    parser.add_argument("--quick", action="store_true", help="wait a fifth of a second for what a client sends")
    options = parser.parse_args()
    if options.files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.files, options.files))
    service = Service()

    def drain(patience_s: float) -> None:
        service.draining = True
        print(f"drain {patience_s:g}", flush=True)  # noqa: T201
        if patience_s and options.finish:
            asyncio.get_running_loop().call_later(options.finish, service.released.set)
        else:
            asyncio.get_running_loop().call_later(patience_s, service.refused.set)

    serving = serve(
        service,
        host="127.0.0.1",
        port=0,
        limits=QUICK if options.quick else WireLimits(),
        drain_s=options.drain,
        on_drain=drain,
        on_started=lambda addresses: print(f"port {addresses[0][1]}", flush=True),  # noqa: T201
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        status = runner.run(serving)
    print("clean end", flush=True)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
