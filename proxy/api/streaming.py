"""Server-sent events: pictures as OpenAI streams them, with comments as heartbeats while nothing happens.

No byte goes out before there is something to say, so what fails early still has its own status. Each event ends in
a blank line, the last one too: Python's SDK loses an event without it (contract §3).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from proxy.api.body import CallerLeft
from proxy.api.context import RequestContext
from proxy.api.headers import hold_s
from proxy.api.responses import MARK, PIECE_BYTES, PicturesBody, departure, facts, files_of, usage
from proxy.api.waiting import Waiting, describe, pending
from proxy.clock import Deadline
from proxy.errors import Failure
from proxy.generations.record import Generation
from proxy.generations.runner import Joined
from proxy.pictures.codec import Facts, NotAPicture, inspect_file
from proxy.pictures.store import remove
from proxy.upstream.client import Upstream

BEAT_S = 10.0
BEAT = b": waiting\n\n"

Happening = Literal["changed", "beat", "done", "late", "left"]


async def follow(generation: Generation, receive: Receive, until: Deadline, beat_s: float) -> AsyncIterator[Happening]:
    """Yield what happens to a generation: changes, and silences of ``beat_s``; last its end, the hold's, or a leave."""
    news = asyncio.Event()
    unwatch = generation.watch(news.set)
    try:
        with generation.attended(receive) as ending:
            ending.add_done_callback(lambda _: news.set())
            while not generation.done:
                try:
                    async with asyncio.timeout(min(beat_s, until.remaining)):
                        await news.wait()
                except TimeoutError:
                    if until.passed:
                        yield "late"
                        return
                    yield "beat"
                    continue
                news.clear()
                if not ending.done():
                    yield "changed"
                elif ending.result() != "done":
                    yield ending.result()
                    return
        yield "done"
    finally:
        unwatch()


def event(name: str, data: dict[str, Any]) -> bytes:
    """Return one event."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class Stream:
    """An event stream that starts when the first bytes are written."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def write(self, data: bytes) -> None:
        """Send bytes, the response's start before the first of them."""
        if not self.started:
            self.started = True
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
            headers.append((b"x-accel-buffering", b"no"))
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        if len(data) >= PIECE_BYTES:
            await asyncio.sleep(0)  # one piece of many: others have their turn between them

    async def end(self) -> None:
        """End the response."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class HeldStream:
    """An ASGI response that follows a generation as a stream; subclass-free: what is said is given as functions."""

    def __init__(
        self,
        waiting: Waiting,
        request: Request,
        joined: Joined,
        *,
        changed: Callable[[Stream], Awaitable[None]],
        finished: Callable[[], Iterator[bytes]],
        failed: Callable[[Failure], Iterator[bytes]],
        close: Callable[[], None] = lambda: None,
        beat: Callable[[], bytes] = lambda: BEAT,
    ) -> None:
        self._waiting, self._request, self._joined, self._generation = waiting, request, joined, joined.generation
        self._changed, self._finished, self._failed, self._beat = changed, finished, failed, beat
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Follow the generation to its end. Raises Failure as long as nothing was sent, CallerLeft."""
        engine = self._waiting.engine
        context: RequestContext = self._request.state.context
        timeouts = engine.settings.timeouts
        until = Deadline.after(engine.clock, hold_s(context.asked, timeouts.hold))
        stream = Stream(send)
        happening: Happening = "left"
        with self._waiting.admission.hold(context.owner):
            try:
                async for happening in follow(self._generation, receive, until, timeouts.heartbeat or BEAT_S):
                    describe(context, self._generation)
                    if happening == "changed":
                        await self._changed(stream)
                    elif happening == "beat":
                        await stream.write(self._beat())
            finally:
                self._close()
                engine.generations.leave(self._joined, delivered=happening == "done")
        engine.metrics.hold_seconds.labels("stream").observe(engine.clock.monotonic() - context.started)
        if happening == "left":
            context.left = True
            raise CallerLeft
        failure = pending(engine, self._generation) if happening == "late" else self._generation.failure
        await self._say_end(stream, receive, context, failure)

    async def _say_end(
        self, stream: Stream, receive: Receive, context: RequestContext, failure: Failure | None
    ) -> None:
        if failure is not None and not stream.started:
            raise failure.unraised()
        if failure is not None:
            context.failed(failure)
        with departure(receive) as gone:
            for piece in self._finished() if failure is None else self._failed(failure):
                await stream.write(piece)
            if gone():
                self._waiting.engine.generations.lose(self._joined)
        await stream.end()


class Previews:
    """The unfinished pictures that a provider really shows, at most as many as were asked for.

    They are fetched beside the job: one that is slow in coming must not hold up the finished picture.
    """

    def __init__(self, generation: Generation, kind: str) -> None:
        self._generation = generation
        self._kind = kind
        self._sent = 0
        self._last: str | None = ""
        self._fetching: asyncio.Task[tuple[Path, Facts] | None] | None = None

    async def __call__(self, stream: Stream) -> None:
        """Send the preview that has been fetched, and fetch the next one if there is one."""
        if self._fetching is not None and self._fetching.done():
            fetched, self._fetching = self._fetching.result(), None
            if fetched is not None:
                await self._show(stream, *fetched)
        progress = self._generation.progress[0]
        wanted = self._sent < self._generation.resolved.request.partial_images and progress.preview not in (
            None,
            self._last,
        )
        if wanted and self._fetching is None and progress.runtime is not None:
            self._last = progress.preview
            work = self._fetch(progress.runtime.upstream, str(progress.preview))
            self._fetching = asyncio.get_running_loop().create_task(work)
            self._fetching.add_done_callback(lambda _: self._generation.changed())

    def close(self) -> None:
        """Give up what is still being fetched, and what came too late to be shown."""
        task = self._fetching
        if task is None or task.cancel() or task.cancelled() or task.exception() is not None:
            return
        if fetched := task.result():
            remove(fetched[0])

    async def _fetch(self, upstream: Upstream, address: str) -> tuple[Path, Facts] | None:
        """Return the picture at ``address`` and what it is; None when it can't be had."""
        with contextlib.suppress(Failure, NotAPicture, OSError):
            path = await upstream.fetch(address)
            if isinstance(path, bytes):  # no file can be written, and a preview is not worth more
                return None
            try:
                return path, inspect_file(path)
            except BaseException:
                remove(path)
                raise
        return None

    async def _show(self, stream: Stream, path: Path, seen: Facts) -> None:
        """Send a fetched picture and remove its file."""
        values = {
            "type": f"{self._kind}.partial_image",
            "created_at": self._generation.created,
            "partial_image_index": self._sent,
            "background": "opaque",
            "quality": self._generation.resolved.candidates[0].translation.quality,
            "size": f"{seen.width}x{seen.height}",
            "output_format": seen.format,
        }
        with _removed(path), contextlib.suppress(Failure):  # which can come before the first byte alone
            for piece in _picture_event(values, [path]):
                await stream.write(piece)
            self._sent += 1


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        remove(path)


def completed(generation: Generation, kind: str) -> Iterator[bytes]:
    """Return the event that carries the finished picture, in pieces."""
    counts = usage(generation.resolved, generation.pictures)
    del counts["output_tokens_details"]
    values = {
        "type": f"{kind}.completed",
        "created_at": generation.created,
        **facts(generation.pictures),
        "usage": counts,
    }
    return _picture_event(values, files_of(generation.pictures[:1]))


def error_event(failure: Failure) -> Iterator[bytes]:
    """Yield the event for a failure after the first byte; nested under ``error``, where the SDKs look for it."""
    yield event("error", {"type": "error", **failure.body()})


def _picture_event(values: dict[str, Any], files: Sequence[Path]) -> Iterator[bytes]:
    before = f"event: {values['type']}\ndata: "
    return PicturesBody({**values, "b64_json": MARK}, files, before=before, after="\n\n").pieces()


def image_stream(waiting: Waiting, request: Request, joined: Joined, kind: str) -> HeldStream:
    """Return the response that streams one picture; ``kind`` is image_generation or image_edit."""
    generation = joined.generation
    previews = Previews(generation, kind)
    return HeldStream(
        waiting,
        request,
        joined,
        changed=previews,
        close=previews.close,
        finished=lambda: completed(generation, kind),
        failed=error_event,
    )
