"""GET /v1/images/generations/{id}/preview, and how an unfinished picture is fetched from its provider."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from proxy.api.context import RequestContext
from proxy.api.waiting import Waiting, address
from proxy.errors import Failure, NotFound
from proxy.generations.record import Generation
from proxy.pictures.codec import Facts, NotAPicture, inspect_file
from proxy.pictures.drafts import remove
from proxy.upstream.client import Upstream

# Nothing in it may run under our origin, and nobody else may keep it.
_HEADERS = {
    "cache-control": "private, no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}


async def get_preview(request: Request) -> Response:
    """Send the unfinished picture that the provider shows now; its own address may be one that only we can reach.

    Raises NotFound where there is none.
    """
    waiting: Waiting = request.app.state.waiting
    generation = await waiting.engine.generations.find(request.path_params["id"], request.state.context.owner)
    shown = next(_shown(generation), None) if generation else None
    # A job of before a restart may be at a provider that the configuration no longer names.
    runtime = waiting.engine.runtimes.get(shown[0]) if shown else None
    fetched = await fetch_preview(runtime.upstream, shown[1]) if shown and runtime else None
    if fetched is None:
        raise NotFound("There is no preview of this generation now.")
    path, facts = fetched
    try:
        data = await asyncio.to_thread(path.read_bytes)
    finally:
        remove(path)
    return Response(data, media_type=f"image/{facts.format}", headers=_HEADERS)


def preview_address(generation: Generation, context: RequestContext) -> str | None:
    """Return where the caller finds the preview, None where there is none; another address when it has changed."""
    return next((f"{context.origin}{address(generation)}/preview?at={at:g}" for *_, at in _shown(generation)), None)


def _shown(generation: Generation) -> Iterator[tuple[str, str, float]]:
    """Yield the provider, the address there and the progress of each preview that is shown now."""
    for progress in generation.progress:
        if progress.preview and progress.provider and progress.state != "done":
            yield progress.provider, progress.preview, progress.fraction or 0.0


async def fetch_preview(upstream: Upstream, address: str) -> tuple[Path, Facts] | None:
    """Return the picture at ``address`` and its facts; None when it can't be fetched or read."""
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
