"""The service before the simulator in a process of its own, and what befalls it there; prints what was seen as JSON."""

import asyncio
import json
import resource
import socket
import sys
import time
from typing import Any

import aiohttp

from proxy.app import create_app
from proxy.clock import Clock
from proxy.config import compose
from proxy.demo import KEYS
from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.service import Answer, Service, simulated_providers
from tests.time_skip import SkippingLoop

MODEL = "prodia/inference.flux-fast.schnell.txt2img.v2"
FILES = 48
B64: dict[str, Any] = {"response_format": "b64_json"}


def seen(answer: Answer) -> dict[str, Any]:
    """Return what a test wants to know of an answer."""
    return {"status": answer.status, "code": answer.code if answer.status >= 400 else None}


async def blocked(service: Service, _clock: "SteppingClock") -> dict[str, Any]:
    """Block the event loop for a second while a picture is made."""
    call = asyncio.create_task(service.generate("a fox [seconds:0.3] [tag:t]", model=MODEL))
    await asyncio.sleep(0.1)
    time.sleep(1)  # noqa: ASYNC251 (that is the fault)
    answer = await call
    return {
        **seen(answer),
        "counts": await service.counts("t"),
        "next": seen(await service.generate("another fox", model=MODEL)),
    }


async def stepped(service: Service, clock: "SteppingClock") -> dict[str, Any]:
    """Step the wall clock an hour forth and two back while pictures are made."""
    answers = []
    for number, step_s in enumerate((3600, -7200)):
        prompt = f"a fox {number} [seconds:0.3] [tag:t]"
        call = asyncio.create_task(service.generate(prompt, model=MODEL, response_format="b64_json"))
        await asyncio.sleep(0.1)
        clock.offset_s += step_s
        answers.append(seen(await call))
    return {"answers": answers, "counts": await service.counts("t")}


async def starved(service: Service, _clock: "SteppingClock") -> dict[str, Any]:
    """Use up all file descriptors, ask over a connection that is open, and let them go again."""
    await service.get("/healthz")
    taken: list[socket.socket] = []
    try:
        while True:
            taken.append(socket.socket())
    except OSError:
        pass
    health = await service.get("/healthz")
    refused = await service.generate("a fox [seconds:0] [tag:t]", model=MODEL)
    for each in taken:
        each.close()
    outcome = {"health": health.status, **seen(refused), "counts": await service.counts("t")}
    return {**outcome, "next": seen(await service.generate("another fox [seconds:0]", model=MODEL))}


async def full(service: Service, _clock: "SteppingClock") -> dict[str, Any]:
    """Let no file grow beyond a few kilobytes while pictures are made, and then let them grow again."""
    answers = []
    for model in (MODEL, "imagelabs/sdxl-turbo"):
        call = service.generate(f"a fox [seconds:0.1] [bytes:300000] [tag:{model[:4]}]", None, model=model, **B64)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        pending = await call
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        again = f"a fox [seconds:0.1] [bytes:300000] [tag:{model[:4]}]"
        retry = await service.generate(again, {"x-stainless-retry-count": "1"}, model=model, **B64)
        size = len(retry.json["data"][0]["b64_json"]) if retry.status == 200 else 0
        counts = await service.counts(model[:4])
        answers.append({"pending": seen(pending), "retry": seen(retry), "size": size, "counts": counts})
    left = [path.suffix for path in service.engine.directory.iterdir()]
    return {"answers": answers, "drafts": left.count(".part")}


class SteppingClock:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: time.time() + self.offset_s, monotonic=asyncio.get_running_loop().time)


async def main(scenario: str, directory: str) -> None:
    stepping = SteppingClock()
    async with serving(create_simulator(clock=stepping.clock())) as upstream_port:
        upstream = f"http://127.0.0.1:{upstream_port}"
        values = {
            "providers": simulated_providers(upstream),
            "images": {"directory": directory},
            "state": {"path": ":memory:"},
        }
        app = create_app(compose(values, KEYS), stepping.clock())
        async with serving(app) as port, aiohttp.ClientSession() as http:
            service = Service(f"http://127.0.0.1:{port}", upstream, app.state.waiting.engine, http)
            await asyncio.sleep(0.05)
            outcome = await SCENARIOS[scenario](service, stepping)
    print(json.dumps(outcome))  # noqa: T201 (read by the test)


SCENARIOS = {"blocked": blocked, "stepped": stepped, "starved": starved, "full": full}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    # To block the loop takes real time; elsewhere none is waited for.
    with asyncio.Runner(loop_factory=None if sys.argv[1] == "blocked" else SkippingLoop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2]))
