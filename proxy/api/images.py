"""POST /v1/images/generations, /edits and /variations, and each generation's own resource."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api.body import read_json
from proxy.api.context import RequestContext
from proxy.api.previews import preview_address
from proxy.api.renderings import AnswerBroken, Blanks, ImagesResponse, images_body
from proxy.api.streaming import image_stream
from proxy.api.uploads import read_upload, readable_mask
from proxy.api.waiting import Waiting, address, describe, fractions
from proxy.errors import Failure, GenerationPending, InvalidRequest, NotFound
from proxy.generations.record import Generation, Joined
from proxy.requests.resolve import ResolvedRequest

_VARIATION_PROMPT = "A variation of this picture."


async def create_image(request: Request) -> ASGIApp:
    """Make pictures from a prompt."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    await waiting.admit(request)
    values = await read_json(request, waiting.engine.settings.server.max_body)
    context.name_model(values)
    resolved = waiting.engine.resolve(values, caller=context.caller)
    return await _serve(waiting, request, resolved, "image_generation")


async def edit_image(request: Request) -> ASGIApp:
    """Make pictures from pictures and a prompt, within a mask if there is one."""
    return await _edit(request)


async def vary_image(request: Request) -> ASGIApp:
    """Make pictures from a picture alone."""
    waiting: Waiting = request.app.state.waiting
    # An edit without a model counts as one for a GPT model, which answers in base64; variations were DALL-E 2's only.
    return await _edit(request, prompt=_VARIATION_PROMPT, model=waiting.engine.settings.server.default_model)


async def generation(request: Request) -> ASGIApp:
    """Report how a generation is doing, or abandon it."""
    return await (_abandon_generation(request) if request.method == "DELETE" else _get_generation(request))


async def _get_generation(request: Request) -> ASGIApp:
    """Report how a generation is doing; once it has ended, return its answer."""
    waiting: Waiting = request.app.state.waiting
    generation = await _generation(request)
    if not generation.done:
        return _state(generation, request.state.context)
    describe(request.state.context, generation)
    try:
        return await _answer(waiting, request, Joined(generation, claim=generation.claim))
    finally:  # a failure is an end, too; HEAD delivers no body, so the picture must stay for a GET
        if request.method == "GET":
            waiting.engine.generations.deliver(generation)


async def _abandon_generation(request: Request) -> Response:
    """Stop following a generation and forget it; the provider may finish its jobs all the same."""
    waiting: Waiting = request.app.state.waiting
    await waiting.engine.generations.abandon(await _generation(request))
    return Response(status_code=204)


async def _edit(request: Request, **defaults: str) -> ASGIApp:
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    await waiting.admit(request)
    server = waiting.engine.settings.server
    with waiting.admission.hold(context.owner):
        upload = await read_upload(request, server.max_upload, server.max_body)
        values = dict(upload.fields)
        context.name_model(values)
        values.update((name, value) for name, value in defaults.items() if values.get(name) in (None, ""))
        resolved = waiting.engine.resolve(
            values,
            "inpaint" if upload.mask else "edit",
            caller=context.caller,
            pictures_param=upload.param,
            images=upload.images,
            mask=upload.mask,
        )
        if upload.mask is not None:  # decoding is costly, so only now that a model is known to take a mask
            resolved = resolved.with_mask(await readable_mask(waiting.engine.converter, upload.mask))
    return await _serve(waiting, request, resolved, "image_edit")


async def _serve(waiting: Waiting, request: Request, resolved: ResolvedRequest, kind: str) -> ASGIApp:
    """Answer ``resolved`` as the caller prefers: held, streamed, or as 202 with an address to ask. Raises Failure."""
    # The events carry no index that could distinguish several pictures; OpenAI's API refuses it too.
    if resolved.request.stream and resolved.request.n > 1:
        raise InvalidRequest("Streaming is only supported with n=1.", param="n")
    joined = await waiting.join(request, resolved)
    if resolved.request.stream:
        return image_stream(waiting, request, joined, kind)
    generation, generations = joined.generation, waiting.engine.generations
    context: RequestContext = request.state.context
    wait = "wait" in context.preferences
    # "respond-async, wait=10": wait so long for the picture, then 202 (RFC 7240, 4.3).
    if "respond-async" in context.preferences and not wait and not generation.done:
        generations.leave(joined, delivered=False)
        generations.hand_over(generation)
        return _state(generation, context)
    if waiting.engine.settings.timeouts.heartbeat and not wait:
        return BeatingAnswer(waiting, request, joined)
    try:
        await waiting.hold(request, joined, "images")
    except GenerationPending:
        if not wait:
            raise
        generations.hand_over(generation)
        return _state(generation, context)
    return await _answer(waiting, request, joined)


async def _answer(waiting: Waiting, request: Request, joined: Joined) -> ImagesResponse:
    """Return OpenAI's answer for an ended generation. Raises Failure."""
    generation, origin = joined.generation, request.state.context.origin
    store = waiting.engine.store
    return await waiting.answer(
        joined, lambda: images_body(generation.request, generation.pictures, generation.created, origin, store)
    )


class BeatingAnswer:
    """An answer that begins with blanks while it isn't ready, for balancers that cut silent connections.

    A blank commits it to status 200. A failure after that cuts the connection; the retry gets the true status.
    """

    def __init__(self, waiting: Waiting, request: Request, joined: Joined) -> None:
        self._waiting, self._request, self._joined = waiting, request, joined

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the request and answer it. Raises Failure as long as nothing was sent, then AnswerBroken; CallerLeft."""
        blanks = Blanks(send)
        every_s = self._waiting.engine.settings.timeouts.heartbeat
        try:
            await self._waiting.hold(self._request, self._joined, "images", beat=blanks.send, beat_s=every_s)
            answer = await _answer(self._waiting, self._request, self._joined)
        except Failure as failure:
            if not blanks.begun:
                raise
            # The caller has not learnt of the failure: it stays undelivered, and a repeat gets it instead of a new job.
            self._waiting.engine.generations.lose(self._joined)
            raise AnswerBroken(failure) from failure
        await (answer.send_body(receive, send) if blanks.begun else answer(scope, receive, send))


def _state(generation: Generation, context: RequestContext) -> Response:
    """Return 202 with the state of the generation."""
    describe(context, generation)
    states = [progress.state for progress in generation.progress]
    parts = fractions(generation)
    running = any(state in ("generating", "done") for state in states)
    body: dict[str, Any] = {
        "id": generation.id,
        "object": "image.generation",
        "created_at": generation.created,
        "status": "in_progress" if running else "queued",
        "progress": round(sum(parts) / len(parts), 3),
        "n": generation.request.n,
        "finished": states.count("done"),
        "url": f"{context.origin}{address(generation)}",
    }
    if preview := preview_address(generation, context):
        body["preview"] = preview
    return JSONResponse(body, 202, {"location": address(generation), "retry-after": "1"})


async def _generation(request: Request) -> Generation:
    waiting: Waiting = request.app.state.waiting
    generation = await waiting.engine.generations.find(request.path_params["id"], request.state.context.owner)
    if generation is None:
        raise NotFound("There is no such generation, or no longer.")
    return generation
