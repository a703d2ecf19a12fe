"""Server-sent events: pictures as OpenAI streams them, with comments as heartbeats while nothing happens.

Nothing is sent before the first event or heartbeat, so an early failure still has its own status. Each event ends in
a blank line, the last one too: until that line comes, OpenAI's SDK for Python keeps the event back
(https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from proxy.api.context import RequestContext
from proxy.api.previews import fetch_preview
from proxy.api.renderings import MARK, PicturesBody, departure, facts, open_pictures, usage
from proxy.api.waiting import Surface, Waiting
from proxy.errors import Failure
from proxy.generations.record import Generation, Joined
from proxy.jobs.runtime import ProviderRuntime
from proxy.pictures.codec import Facts
from proxy.pictures.drafts import remove
from proxy.pictures.store import PIECE_BYTES, Opened, PictureStore, open_file

BEAT_S = 10.0
"""Well below the 60 s of silence after which nginx and many balancers cut a connection."""
BEAT = b": waiting\n\n"


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
            # nginx would collect the events: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
            headers.append((b"x-accel-buffering", b"no"))
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        if len(data) >= PIECE_BYTES:
            await asyncio.sleep(0)  # one piece of many: other requests get a turn in between

    async def end(self) -> None:
        """End the response."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class HeldStream:
    """An ASGI response that follows a generation as a stream; functions supply what is sent."""

    def __init__(
        self,
        waiting: Waiting,
        request: Request,
        joined: Joined,
        surface: Surface,
        *,
        finished: Callable[[], AsyncGenerator[bytes, None]],
        failed: Callable[[Failure], AsyncGenerator[bytes, None]],
        changed: Callable[[Stream], Awaitable[None]] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._waiting, self._request, self._joined, self._surface = waiting, request, joined, surface
        self._finished, self._failed, self._changed, self._close = finished, failed, changed, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Follow the generation to its end. Raises Failure as long as nothing was sent, CallerLeft."""
        stream = Stream(send)
        changed = partial(self._changed, stream) if self._changed else None
        beat_s = self._waiting.engine.settings.timeouts.heartbeat or BEAT_S
        try:
            await self._waiting.hold(
                self._request,
                self._joined,
                self._surface,
                changed=changed,
                beat=partial(stream.write, BEAT),
                beat_s=beat_s,
            )
            failure = self._joined.generation.failure
        except Failure as pending:
            failure = pending
        finally:
            self._close()
        await self._say_end(stream, receive, self._request.state.context, failure)

    async def _say_end(
        self, stream: Stream, receive: Receive, context: RequestContext, failure: Failure | None
    ) -> None:
        if failure is not None and not stream.started:
            raise failure.unraised()
        if failure is not None:
            context.failed(failure)
        # uvicorn drops what goes to a caller who left, and raises nothing, so somebody has to watch.
        with departure(receive) as gone:
            async with aclosing(self._finished() if failure is None else self._failed(failure)) as pieces:
                async for piece in pieces:
                    await stream.write(piece)
            if gone():
                self._waiting.engine.generations.lose(self._joined)
        await stream.end()


class WholeStream:
    """An event stream for which there is nothing to wait."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Send it. Raises Failure as long as nothing was sent."""
        stream = Stream(send)
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await stream.write(piece)
        await stream.end()


async def each(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield pieces that are all there."""
    for piece in pieces:
        yield piece


class Previews:
    """The unfinished pictures that a provider really shows, at most ``partial_images`` of them.

    They are fetched beside the job, with the provider's connections from ``runtimes``: a slow one must not hold up
    the finished picture. ``event``: makes one's event from its number and what is known of it, ``MARK`` for its base64.
    """

    def __init__(
        self,
        generation: Generation,
        runtimes: Mapping[str, ProviderRuntime],
        event: Callable[[int, dict[str, Any]], dict[str, Any]],
    ) -> None:
        self._runtimes = runtimes
        self._generation = generation
        self._event = event
        self._sent = 0
        self._last: str | None = ""
        self._fetching: asyncio.Task[tuple[Path, Facts] | None] | None = None

    async def __call__(self, stream: Stream) -> None:
        """Send the preview that has been fetched, and fetch the next one if there is one."""
        if self._fetching is not None and self._fetching.done():
            fetched, self._fetching = self._fetching.result(), None
            if fetched is not None:
                await self._show(stream, *fetched)
        progress = self._generation.progress[0]  # only requests for one picture are streamed
        wanted = self._sent < self._generation.request.partial_images and progress.preview not in (
            None,
            self._last,
        )
        # A job of before a restart may be at a provider that the configuration no longer names.
        if wanted and self._fetching is None and progress.provider in self._runtimes:
            self._last = progress.preview
            work = fetch_preview(self._runtimes[progress.provider].upstream, str(progress.preview))
            self._fetching = asyncio.get_running_loop().create_task(work)
            # Wakes the wait, which calls this again, and then the preview is sent.
            self._fetching.add_done_callback(lambda _: self._generation.changed())

    def close(self) -> None:
        """Give up what is still being fetched, and what came too late to be shown."""
        task = self._fetching
        # cancel() is true for a task that still runs; fetch_preview then removes its own file.
        if task is None or task.cancel() or task.cancelled() or task.exception() is not None:
            return
        if fetched := task.result():
            remove(fetched[0])

    async def _show(self, stream: Stream, path: Path, seen: Facts) -> None:
        """Send a fetched picture and remove its file."""
        said = {
            "background": "opaque",
            "quality": self._generation.request.origins[0].quality,
            "size": f"{seen.width}x{seen.height}",
            "output_format": seen.format,
        }
        # Either can only be raised before the event's first byte, so no event is left half sent.
        with _removed(path), contextlib.suppress(Failure, FileNotFoundError):
            async with aclosing(picture_event(self._event(self._sent, said), [open_file(path)])) as pieces:
                async for piece in pieces:
                    await stream.write(piece)
            self._sent += 1


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        remove(path)


async def completed(store: PictureStore, generation: Generation, kind: str) -> AsyncGenerator[bytes, None]:
    """Yield the event that carries the finished picture, in pieces. Raises ProviderBadResult when it is gone."""
    counts = usage(generation.request, generation.pictures)
    del counts["output_tokens_details"]  # OpenAI's events don't have it
    values = {
        "type": f"{kind}.completed",
        "created_at": generation.created,
        **facts(generation.pictures),
        "usage": counts,
        "b64_json": MARK,
    }
    async with aclosing(picture_event(values, await open_pictures(store, generation.pictures[:1]))) as pieces:
        async for piece in pieces:
            yield piece


async def error_event(failure: Failure) -> AsyncGenerator[bytes, None]:
    """Yield the event for a failure after the first byte; under ``error``, where OpenAI's SDKs look for it."""
    yield event("error", {"type": "error", **failure.body()})


def picture_event(values: dict[str, Any], pictures: Sequence[Opened]) -> AsyncGenerator[bytes, None]:
    """Return an event in pieces, with a picture's base64 for each ``MARK`` in its values."""
    return PicturesBody(values, pictures, before=f"event: {values['type']}\ndata: ", after="\n\n").pieces()


def image_stream(waiting: Waiting, request: Request, joined: Joined, kind: str) -> HeldStream:
    """Return the response that streams one picture; ``kind`` is image_generation or image_edit."""
    generation = joined.generation

    def preview(number: int, said: dict[str, Any]) -> dict[str, Any]:
        told = {"type": f"{kind}.partial_image", "created_at": generation.created, "partial_image_index": number}
        return {**told, **said, "b64_json": MARK}

    previews = Previews(generation, waiting.engine.runtimes, preview)
    return HeldStream(
        waiting,
        request,
        joined,
        "stream",
        changed=previews,
        close=previews.close,
        finished=lambda: completed(waiting.engine.store, generation, kind),
        failed=error_event,
    )
