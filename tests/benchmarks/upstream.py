"""A provider that costs next to nothing: Prodia v1 and v2 without any wait, one protocol class on a bare loop.

``/v2/job`` answers with the picture at once, in the form that is asked for. A ``/v1`` job is done at its fourth poll,
or, with ``[held]`` in the prompt, at the first poll after ``POST /release``. In a prompt, ``[bytes:N]`` asks for a
picture of N bytes instead, ``[plain]`` for one without its job. ``GET /counts`` tells how many calls there were.
``python -m tests.benchmarks.upstream`` with the bytes of a picture; prints its address.
"""

import asyncio
import json
import re
import struct
import sys
import zlib
from functools import lru_cache
from typing import Any

import httptools
import uvloop

from tests.benchmarks.machine import raise_limits

POLLS = 4
BYTES = re.compile(rb"\[bytes:(\d{1,9})\]")
BOUNDARY = "upstream-boundary"
DONE = {
    "id": "0f4c6b0e-0d3b-4e7e-9f57-3a5b0c0a9d11",
    "type": "inference.flux-fast.schnell.txt2img.v2",
    "created_at": "2026-02-10T12:30:00.612Z",
    "updated_at": "2026-02-10T12:30:00.912Z",
    "expires_at": "2026-02-10T12:35:00.612Z",
    "state": {"current": "completed", "history": None},
    "config": {"prompt": "a hill", "steps": 4, "width": 1024, "height": 1024, "seed": 7},
    "metrics": {"elapsed": 0.299, "ips": 13.36},
    "price": {"product": "inference-flux-schnell-large-steps-4", "dollars": 0.0025},
}
"""As documented: https://docs.prodia.com/reference/price."""
CHECKPOINT = "sd_xl_base_1.0.safetensors [be9edd61]"


def png(size: int) -> bytes:
    """Return what passes for a PNG of 1024x1024 pixels and ``size`` bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1024, 1024, 8, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    return head + chunk(b"IDAT", bytes(range(256)) * (max(0, size - len(head) - len(end)) // 256)) + end


class Jobs:
    """The polls of each running job; held ones count from -infinity until they are released."""

    def __init__(self, picture_bytes: int) -> None:
        self.bytes = picture_bytes
        self.polls: dict[str, int] = {}
        self.held: set[str] = set()
        self.counts = {"submits": 0, "polls": 0}

    def reply(self, path: str, body: bytes | bytearray, *, multipart: bool = False) -> bytes:
        """Answer one call; a picture within a form if that is accepted."""
        if path.endswith(("/generate", "/transform")):
            return self.submit(body)
        if path.startswith("/v1/job/"):
            return self.poll(path.rpartition("/")[2])
        if path == "/v2/job":
            self.counts["submits"] += 1
            asked = BYTES.search(body, 0, 4096)
            return picture(int(asked[1]) if asked else self.bytes, multipart and b"[plain]" not in body[:4096])
        if path == "/release":
            self.held.clear()
            return reply_json({})
        return reply_json(self.counts if path == "/counts" else [CHECKPOINT])

    def submit(self, body: bytes | bytearray) -> bytes:
        """Start a job."""
        self.counts["submits"] += 1
        job = f"job-{self.counts['submits']:08d}"
        self.polls[job] = 0
        if b"[held]" in body[:4096]:
            self.held.add(job)
        return reply_json({"job": job, "status": "generating"})

    def poll(self, job: str) -> bytes:
        """Tell of a job."""
        self.counts["polls"] += 1
        self.polls[job] += 1
        if job in self.held or self.polls[job] < POLLS:
            return reply_json({"job": job, "status": "generating"})
        return reply_json({"job": job, "status": "succeeded", "imageUrl": f"http://127.0.0.1/{job}.png"})


@lru_cache(maxsize=2)
def picture(size: int, multipart: bool) -> bytes:
    """Return a whole answer with a picture."""
    data = png(size)
    if not multipart:
        return answer(data, "image/png")
    head = f"--{BOUNDARY}\r\ncontent-disposition: form-data; name="
    job = f'{head}"job"; filename="job.json"\r\n\r\n{json.dumps(DONE)}\r\n'
    output = f'{head}"output"; filename="output.png"\r\ncontent-type: image/png\r\n\r\n'
    body = b"".join([job.encode(), output.encode(), data, f"\r\n--{BOUNDARY}--\r\n".encode()])
    return answer(body, f"multipart/form-data; boundary={BOUNDARY}")


def reply_json(value: Any) -> bytes:
    """Return a whole answer."""
    return answer(json.dumps(value).encode(), "application/json")


def answer(body: bytes, media_type: str) -> bytes:
    """Return a whole answer."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.parser = httptools.HttpRequestParser(self)
        self.transport: Any = None
        self.path, self.body, self.multipart = "", bytearray(), False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Begin a call."""
        self.path, self.body, self.multipart = url.decode().partition("?")[0], bytearray(), False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look for the form that is accepted."""
        self.multipart |= name.lower() == b"accept" and value.startswith(b"multipart/")

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(self.jobs.reply(self.path, self.body, multipart=self.multipart))


async def serve(picture_bytes: int) -> None:
    """Serve for ever."""
    jobs = Jobs(picture_bytes)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(jobs), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    raise_limits()
    uvloop.run(serve(int(sys.argv[1])))
