"""A plain client of each dialect, written for these tests only: it keeps whatever came back."""

import asyncio
import io
import itertools
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from PIL import Image

from proxy.clock import Clock
from proxy.simulator import base_urls, demo_keys

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
PAGE = {
    "origin": "https://editor.imagelabs.net",
    "referer": "https://editor.imagelabs.net/",
    "x-requested-with": "XMLHttpRequest",
}
V1_KEY = demo_keys()["prodia-v1"]
_MOST_POLLS = 25
_PATIENCE_S = 10.0


def picture_file(colour: str, size: tuple[int, int] = (96, 96)) -> bytes:
    """Return a PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@dataclass
class FakeTime:
    """A clock that stands still until somebody moves it; who sleeps on it moves it."""

    now: float = 1000.0
    random: Random = field(default_factory=lambda: Random(1))  # noqa: S311 - repeatable, not secret

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=lambda: self.now, sleep=self._sleep, random=self.random)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Answer:
    """One answer; ``broken`` names what happened instead of (the rest of) it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    broken: str = ""

    @property
    def type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def picture(self) -> Image.Image:
        picture = Image.open(io.BytesIO(self.body))
        picture.load()
        return picture


@dataclass
class Story:
    """Everything that one job's client saw, from the submit to the picture."""

    submit: Answer
    polls: list[Answer] = field(default_factory=list)
    picture: Answer = field(default_factory=Answer)
    counts: dict[str, int] = field(default_factory=dict)


class Client:
    """Calls the simulator, whose time it moves on by a second after each poll."""

    _numbers = itertools.count()

    def __init__(self, session: aiohttp.ClientSession, origin: str, time: FakeTime) -> None:
        self.time = time
        self.session = session
        self.urls = base_urls(origin)
        self.origin = origin
        self.patience_s = _PATIENCE_S
        # aiohttp would quietly repeat a GET whose connection broke, and so hide (and undo) the break.
        session._retry_connection = False

    async def call(self, method: str, url: str, *, most: int = 5_000_000, **options: Any) -> Answer:
        """Return the answer, of which at most ``most`` bytes are read."""
        status, headers, body = 0, {}, bytearray()
        try:
            timeout = aiohttp.ClientTimeout(total=self.patience_s)
            async with self.session.request(method, url, timeout=timeout, **options) as response:
                status = response.status
                headers = {name.lower(): value for name, value in response.headers.items()}
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > most:
                        return Answer(status, headers, bytes(body), "too long")
        except TimeoutError:
            return Answer(status, headers, bytes(body), "timeout")
        except (aiohttp.ClientError, ConnectionError) as error:
            return Answer(status, headers, bytes(body), type(error).__name__)
        return Answer(status, headers, bytes(body))

    async def v2(self, path: str = "/job", accept: str = "image/png", **options: Any) -> Answer:
        headers = {"authorization": f"Bearer {demo_keys()['prodia']}", "accept": accept} | options.pop("headers", {})
        method = "POST" if path.partition("?")[0] in ("/job", "/job/async") else "GET"
        return await self.call(method, self.urls["prodia"] + path, headers=headers, **options)

    async def schnell(self, prompt: str, path: str = "/job", accept: str = "image/png", **config: Any) -> Answer:
        body = {"type": SCHNELL, "config": {"prompt": prompt, **config}}
        return await self.v2(path, accept, json=body)

    async def v1(self, path: str, body: Any = None, key: str = V1_KEY) -> Answer:
        method = "GET" if body is None else "POST"
        return await self.call(method, self.urls["prodia-v1"] + path, headers={"x-prodia-key": key}, json=body)

    async def legacy(self, path: str, **query: str) -> Answer:
        return await self.call("GET", self.urls["prodia-legacy"] + path, params=query)

    async def imagelabs(self, path: str, body: Any, headers: dict[str, str] = PAGE) -> Answer:
        return await self.call("POST", self.urls["imagelabs"] + path, headers=headers, json=body)

    async def counts(self, tag: str) -> dict[str, int]:
        counts: dict[str, int] = (await self.call("GET", f"{self.origin}/_counts", params={"tag": tag})).json
        return counts

    async def follow(self, kind: str, words: str) -> Story:
        """Submit a prompt with the words, poll until the end, fetch the picture."""
        tag = f"story{next(self._numbers)}"
        prompt = f"a boat [tag:{tag}] [seconds:2.5] {words}"
        story = Story(await self._submit(kind, prompt))
        job = self._job(story.submit)
        if story.submit.status < 300 and job:
            result = await self._poll_to_the_end(kind, job, story)
            if result:
                story.picture = await self._fetch(kind, job, result)
        story.counts = await self.counts(tag)
        return story

    async def _submit(self, kind: str, prompt: str) -> Answer:
        if kind == "prodia":
            return await self.schnell(prompt, width=512, height=512)
        if kind == "prodia-async":
            return await self.schnell(prompt, "/job/async", width=512, height=512)
        if kind == "prodia-v1":
            return await self.v1("/sd/generate", {"prompt": prompt})
        if kind == "prodia-legacy":
            return await self.legacy("/generate", new="true", prompt=prompt)
        return await self.imagelabs("/txt2img", {"prompt": prompt, "seed": "1", "subseed": "2"})

    @staticmethod
    def _job(answer: Answer) -> str | None:
        try:
            body = answer.json
        except ValueError:
            return None
        return body.get("job") or body.get("task_id") or (body.get("id") if answer.status == 201 else None)

    async def _poll_to_the_end(self, kind: str, job: str, story: Story) -> str | None:
        while len(story.polls) < _MOST_POLLS:
            poll = await self._poll(kind, job)
            story.polls.append(poll)
            if poll.broken in ("too long", "timeout"):
                return None
            if poll.status == 200 and not poll.broken and (end := _end(kind, poll)) is not None:
                return end
            self.time.now += 1
        return None

    async def _poll(self, kind: str, job: str) -> Answer:
        if kind == "prodia-async":
            return await self.v2(f"/job/async/{job}/job.state.current")
        if kind == "imagelabs":
            return await self.imagelabs("/progress", {"task_id": job})
        return await (self.v1(f"/job/{job}") if kind == "prodia-v1" else self.legacy(f"/job/{job}"))

    async def _fetch(self, kind: str, job: str, result: str) -> Answer:
        if kind != "prodia-async":
            return await self.call("GET", result)
        names = (await self.v2(f"/job/async/{job}/output")).json
        return await self.v2(f"/job/async/{job}/output/{names[0]}") if names else Answer()


def _end(kind: str, poll: Answer) -> str | None:
    """Return the picture's address when the job is over, "" when it ended without one, None while it runs."""
    if kind == "prodia-async":
        return {"processing": None, "processed": "output"}.get(poll.body.decode(), "")
    try:
        body = poll.json
    except ValueError:
        return None
    address: str = body.get("imageUrl") or body.get("final_image_url") or ""
    status = str(body.get("status"))
    over = status in ("failed", "succeeded", "Done") or "Error" in status
    return address if address or over else None
