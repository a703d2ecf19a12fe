"""POST /v1/images/generations, /edits and /variations, and the jobs that were handed over."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from proxy.api.body import read_json
from proxy.api.context import RequestContext
from proxy.api.streaming import image_stream
from proxy.api.uploads import read_upload
from proxy.api.waiting import Waiting, job_status
from proxy.errors import InvalidRequest, NotFound
from proxy.generations.record import Generation
from proxy.generations.runner import Joined
from proxy.pictures.codec import NotAPicture
from proxy.pictures.masks import luminance
from proxy.providers.boundary import InputPicture
from proxy.requests.resolve import ResolvedRequest

_VARIATION_PROMPT = "A variation of this picture."


async def create_image(request: Request) -> ASGIApp:
    """Make pictures from a prompt."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    waiting.admit(request)
    values = await read_json(request, waiting.engine.settings.server.max_body)
    context.name_model(values)
    resolved = waiting.engine.resolved(values, owner=context.owner)
    return await _serve(waiting, request, resolved, "image_generation")


async def edit_image(request: Request) -> ASGIApp:
    """Make pictures from pictures and a prompt, within a mask if there is one."""
    return await _edit(request)


async def vary_image(request: Request) -> ASGIApp:
    """Make pictures from a picture alone."""
    waiting: Waiting = request.app.state.waiting
    # Named here: an edit without a model is answered as a GPT model does, and those never made variations.
    return await _edit(request, prompt=_VARIATION_PROMPT, model=waiting.engine.settings.server.default_model)


async def job(request: Request) -> ASGIApp:
    """Tell how a job is doing, or abandon it."""
    return await (_abandon_job(request) if request.method == "DELETE" else _get_job(request))


async def _get_job(request: Request) -> ASGIApp:
    """Tell how a job is doing; in the end, its answer."""
    waiting: Waiting = request.app.state.waiting
    generation = _generation(request)
    if not generation.done:
        return job_status(generation, request)
    try:
        return waiting.answer(request, Joined(generation, claim=generation.claim))
    finally:  # a failure is an end, too
        if request.method == "GET":
            waiting.engine.generations.deliver(generation)


async def _abandon_job(request: Request) -> Response:
    """Stop following a job and forget it; the provider may finish it all the same."""
    waiting: Waiting = request.app.state.waiting
    waiting.engine.generations.abandon(_generation(request))
    return Response(status_code=204)


async def _edit(request: Request, **defaults: str) -> ASGIApp:
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    waiting.admit(request)
    server = waiting.engine.settings.server
    with waiting.admission.hold(context.owner):
        upload = await read_upload(request, server.max_upload, server.max_body)
        values = dict(upload.fields)
        context.name_model(values)
        values.update((name, value) for name, value in defaults.items() if values.get(name) in (None, ""))
        resolved = waiting.engine.resolved(
            values,
            "inpaint" if upload.mask else "edit",
            owner=context.owner,
            pictures_param=upload.param,
            images=upload.images,
            mask=upload.mask,
        )
        if upload.mask is not None:  # decoded only now: the model is known and can use it
            resolved = resolved.with_mask(await _readable(waiting, upload.mask))
    return await _serve(waiting, request, resolved, "image_edit")


async def _readable(waiting: Waiting, given: InputPicture) -> InputPicture:
    """Return the mask as the providers read it, decoded away from the event loop. Raises InvalidRequest."""
    try:
        data = await waiting.engine.converter.run(lambda: luminance(given.data))
    except NotAPicture as problem:
        message = f"The file in 'mask' cannot be used: {problem}."
        raise InvalidRequest(message, param="mask", code="invalid_image_file") from None
    return InputPicture(data, "png", given.width, given.height, given.digest)


async def _serve(waiting: Waiting, request: Request, resolved: ResolvedRequest, kind: str) -> ASGIApp:
    if not resolved.request.stream:
        return await waiting.serve(request, resolved)
    if resolved.request.n > 1:
        raise InvalidRequest("Streaming is only supported with n=1.", param="n")
    return image_stream(waiting, request, await waiting.join(request, resolved), kind)


def _generation(request: Request) -> Generation:
    waiting: Waiting = request.app.state.waiting
    generation = waiting.engine.generations.find(request.path_params["id"], request.state.context.owner)
    if generation is None:
        raise NotFound("There is no such job, or no longer.")
    return generation
