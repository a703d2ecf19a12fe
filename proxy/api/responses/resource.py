"""POST /v1/responses, and each response's own resource."""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from proxy.api.context import RequestContext
from proxy.api.pictured import Pictured, read_pictured
from proxy.api.renderings import ImagesResponse
from proxy.api.responses.asked import TOOL, Asked, read
from proxy.api.responses.kept import Head, Kept, Responses, Said
from proxy.api.responses.output import Answer, Events, finished_body, written
from proxy.api.responses.pictures import resolve
from proxy.api.streaming import HeldStream, Previews, Stream, WholeStream, each
from proxy.api.waiting import Waiting, describe
from proxy.errors import Failure, InvalidRequest, JobLost, NotFound
from proxy.generations.record import Joined
from proxy.requests.resolve import ResolvedRequest
from proxy.requests.summary import estimated_tokens

_SHOWN_OPTIONS = (
    "size",
    "quality",
    "background",
    "output_format",
    "output_compression",
    "moderation",
    "input_fidelity",
    "partial_images",
)
"""The tool's options that an answer repeats: checked ones, and no picture."""


async def create_response(request: Request) -> ASGIApp:
    """Make or edit a picture as the input's last words say; answer a frontend's housekeeping with text."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    responses: Responses = request.app.state.responses
    server = waiting.engine.settings.server
    await waiting.admit(request)
    with waiting.admission.hold(context.owner):
        body = await read_pictured(request, server.max_body, server.max_upload, bare=True)
        context.name_model(body.values)
        # In a thread: a conversation can be long.
        asked, text = await asyncio.to_thread(_read, body)
        if text is None:
            resolved = await resolve(asked, body, responses, waiting.engine, context.caller)
    if text is not None:
        return _written(request, asked, text)
    said = _said(asked, resolved)
    if asked.store:
        resolved = resolved.with_note(said.dump())
    joined = await waiting.join(request, resolved)
    kept = responses.keep(said, joined.generation) if asked.store else None
    if kept is not None and asked.background and not _refused(joined):
        waiting.engine.generations.hand_over(joined.generation)
        if not asked.stream:
            waiting.engine.generations.leave(joined, delivered=False)
            return await _told(request, kept)
    answer = Answer(Head.of(joined.generation), said, context.origin)
    if asked.stream:
        return _stream(request, joined, Events(answer), background=asked.background, previews=True)
    await waiting.hold(request, joined, "responses")
    store, pictures = waiting.engine.store, joined.generation.pictures
    return await waiting.answer(joined, lambda: finished_body(answer, pictures, store))


def _refused(joined: Joined) -> bool:
    """Whether the generation could not begin: that has a status of its own, also for what runs in the background."""
    return joined.generation.failure is not None and not joined.generation.submitted


def _read(body: Pictured) -> tuple[Asked, str | None]:
    """Return the request, and the text that is due instead of a picture. Raises InvalidRequest."""
    asked = read(body)
    return asked, asked.text


async def response(request: Request) -> ASGIApp:
    """Return a kept response, or forget it and abandon what is still being made."""
    responses: Responses = request.app.state.responses
    kept = await _kept(request)
    if request.method != "DELETE":
        replayed = request.method == "GET" and request.query_params.get("stream") == "true"
        return _replayed(request, kept) if replayed else await _told(request, kept)
    await responses.forget(kept)
    return JSONResponse({"id": kept.head.id, "object": "response", "deleted": True})


async def cancel_response(request: Request) -> ASGIApp:
    """Abandon the picture of a background response. Cancelling what has ended changes nothing."""
    responses: Responses = request.app.state.responses
    kept = await _kept(request)
    if not kept.said.background:
        raise InvalidRequest("Only a response created with 'background' can be cancelled.", param="id")
    await responses.cancel(kept)
    return await _told(request, kept)


async def _kept(request: Request) -> Kept:
    responses: Responses = request.app.state.responses
    name = request.path_params["id"]
    kept = await responses.find(name, request.state.context.owner)
    if kept is None or kept.head.id != name:
        raise NotFound("There is no such response, or no longer.")
    return kept


async def _told(request: Request, kept: Kept) -> ASGIApp:
    """Return a kept response as it is now. Raises ProviderBadResult when its picture is gone."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    responses: Responses = request.app.state.responses
    answer = Answer(kept.head, kept.said, context.origin)
    generation = await responses.remembered(kept)
    if generation is not None:
        describe(context, generation)
    told: ASGIApp
    if kept.status == "completed":
        body = await finished_body(answer, kept.pictures, waiting.engine.store)
        told = ImagesResponse(body, lambda: None)
    else:
        told = JSONResponse(answer.whole(kept.status, failure=None if kept.cancelled else kept.failure))
    if generation is not None and generation.done and request.method != "HEAD":
        waiting.engine.generations.deliver(generation)
    return told


def _replayed(request: Request, kept: Kept) -> ASGIApp:
    """Return a kept response as its events, from the one after ``starting_after`` on. Raises InvalidRequest."""
    waiting: Waiting = request.app.state.waiting
    after = request.query_params.get("starting_after", "-1")
    if not re.fullmatch(r"-1|\d{1,9}", after, re.ASCII):
        raise InvalidRequest("'starting_after' must be a sequence number.", param="starting_after")
    events = Events(Answer(kept.head, kept.said, request.state.context.origin), after=int(after))
    if kept.generation is not None and not kept.cancelled:
        joined = waiting.engine.generations.attend(kept.generation)
        return _stream(request, joined, events, background=True, previews=False)
    if kept.status == "completed":
        return WholeStream(events.finished(kept.pictures, waiting.engine.store))
    return WholeStream(each(events.failed(kept.failure or JobLost("The response was cancelled."))))


def _written(request: Request, asked: Asked, text: str) -> ASGIApp:
    """Return a text as the whole response; it costs nothing, and nothing is kept."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    context.route = "housekeeping"
    # The model's name goes back as it came: nothing was resolved.
    said = Said(asked.model or "", metadata=asked.metadata, store=False, text=text)
    head = Head(secrets.token_hex(16), int(waiting.engine.clock.wall()), estimated_tokens(asked.prompt))
    answer = Answer(head, said, context.origin)
    if asked.stream:
        return WholeStream(each(Events(answer).written(text)))
    return JSONResponse(written(answer, text))


def _said(asked: Asked, resolved: ResolvedRequest) -> Said:
    shown = resolved.request.model_dump(include=set(_SHOWN_OPTIONS), exclude_unset=True, exclude_none=True)
    if shown.get("quality") == "hd":  # dall-e-3's word, which this tool never had
        del shown["quality"]
    tool = {"type": TOOL, "action": asked.action(), **shown}
    if asked.tool_model() is not None:
        tool["model"] = asked.tool_model()
    return Said(
        asked.model or resolved.public.name,
        tools=[tool] if asked.tool is not None else (),
        tool_choice={"type": TOOL} if asked.choice == "forced" else "auto",
        metadata=asked.metadata,
        previous=asked.previous,
        background=asked.background,
        store=asked.store,
        edited=resolved.checked.operation != "generate",
        text=asked.message,
    )


def _stream(request: Request, joined: Joined, events: Events, *, background: bool, previews: bool) -> HeldStream:
    """Return the response that follows a generation as events."""
    waiting: Waiting = request.app.state.waiting
    generation, store = joined.generation, waiting.engine.store
    shown = Previews(generation, waiting.engine.runtimes, events.preview) if previews else None

    queued = False

    async def changed(stream: Stream) -> None:
        nonlocal queued
        if background:
            for text in events.opening():
                await stream.write(text)
        # Not before the provider has accepted the job: until then a failure can still have its own status. A submit
        # that is only queued begins so, and one that is the whole job reports "generating" at once.
        progress = generation.progress[0]
        accepted = progress.fraction is not None or (queued and progress.state == "generating")
        queued = queued or progress.state == "queued"
        if accepted or progress.preview is not None:
            for text in events.generating():
                await stream.write(text)
            if shown is not None:
                await shown(stream)

    async def failed(failure: Failure) -> AsyncGenerator[bytes, None]:
        for text in events.failed(failure) if generation.done else events.broken_off(failure):
            yield text

    return HeldStream(
        waiting,
        request,
        joined,
        "responses",
        changed=changed,
        close=shown.close if shown is not None else lambda: None,
        finished=lambda: events.finished(generation.pictures, store),
        failed=failed,
    )
