"""The floor: the least that Starlette and aiohttp can do, the same submit and polls and nothing else.

No checks, no ids, no disconnects, no deadlines, no log, no figures. ``python -m tests.benchmarks.floor`` with the
base URL of a simulated Prodia v1 or v2 and the waits between polls.
"""

import asyncio
import base64
import contextlib
import json
import random
import socket
import sys
from collections.abc import AsyncIterator
from itertools import chain, count, islice, repeat
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

UPSTREAM, WAITS = sys.argv[1], json.loads(sys.argv[2])
"""``WAITS``: first seconds, step, factor, longest step, jitter, most polls."""


def waits() -> Any:
    """Return the seconds to wait before each poll."""
    grown = (WAITS["step"] * WAITS["factor"] ** n for n in islice(count(), 40))
    steps = chain([WAITS["first"]], grown, repeat(WAITS["longest"]))
    jitter, most = WAITS["jitter"], WAITS["most"]
    return (min(step, WAITS["longest"]) * random.uniform(1, 1 + jitter) for step in islice(steps, most))  # noqa: S311


# --- from here on it is the program that the service is measured against ---------------------------------------


async def generate(request: Request) -> Response:
    """Make a picture; equal Idempotency-Keys share one."""
    values, session = await request.json(), request.app.state.session
    make = make_at_once if values["model"].startswith("prodia/") else make_by_polling
    key = request.headers.get("idempotency-key")
    if key is None:
        return JSONResponse({"created": 0, "data": [await make(session, values["prompt"])]})
    shared = request.app.state.shared
    if key not in shared:
        shared[key] = asyncio.create_task(make(session, values["prompt"]))
    return JSONResponse({"created": 0, "data": [await asyncio.shield(shared[key])]})


async def make_at_once(session: aiohttp.ClientSession, prompt: str) -> dict[str, str]:
    """Submit to Prodia v2 and take the bytes."""
    job = {"type": "inference.flux-fast.schnell.txt2img.v2", "config": {"prompt": prompt}}
    headers = {"authorization": "Bearer demo-token", "accept": "image/png"}
    async with session.post(f"{UPSTREAM}/v2/job", json=job, headers=headers) as response:
        return {"b64_json": base64.b64encode(await response.read()).decode()}


async def make_by_polling(session: aiohttp.ClientSession, prompt: str) -> dict[str, str | None]:
    """Submit to Prodia v1, poll until it is done, hand on the address."""
    job = {"model": "sd_xl_base_1.0.safetensors [be9edd61]", "prompt": prompt}
    headers = {"x-prodia-key": "00000000-demo-demo-demo-000000000000"}
    async with session.post(f"{UPSTREAM}/v1/sdxl/generate", json=job, headers=headers) as response:
        answer = await response.json()
    for wait in waits():
        await asyncio.sleep(wait)
        async with session.get(f"{UPSTREAM}/v1/job/{answer['job']}", headers=headers) as response:
            answer = await response.json()
        if answer["status"] == "succeeded":
            return {"url": answer["imageUrl"]}
    return {"url": None}


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep one session."""
    app.state.shared = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
        yield


def main() -> None:
    """Serve on a free port and print it."""
    app = Starlette(routes=[Route("/v1/images/generations", generate, methods=["POST"])], lifespan=lifespan)
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=75, backlog=2048)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}/v1\n")
    sys.stdout.flush()
    asyncio.Runner(loop_factory=config.get_loop_factory()).run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
