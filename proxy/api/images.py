"""POST /v1/images/generations, /edits and /variations, and the jobs that were handed over."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from proxy.api.body import read_json
from proxy.api.context import Visit
from proxy.api.streaming import image_stream
from proxy.api.uploads import read_upload
from proxy.api.waiting import Desk, job_status
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
    desk: Desk = request.app.state.desk
    visit: Visit = request.state.visit
    desk.admit(request)
    values = await read_json(request, desk.engine.settings.server.max_body)
    visit.name_model(values)
    resolved = desk.engine.resolved(values, owner=visit.owner)
    return await _serve(desk, request, resolved, "image_generation")


async def edit_image(request: Request) -> ASGIApp:
    """Make pictures from pictures and a prompt, within a mask if there is one."""
    return await _edit(request)


async def vary_image(request: Request) -> ASGIApp:
    """Make pictures from a picture alone."""
    desk: Desk = request.app.state.desk
    # Named here: an edit without a model is answered as a GPT model does, and those never made variations.
    return await _edit(request, prompt=_VARIATION_PROMPT, model=desk.engine.settings.server.default_model)


async def job(request: Request) -> ASGIApp:
    """Tell how a job is doing, or abandon it."""
    return await (_abandon_job(request) if request.method == "DELETE" else _get_job(request))


async def _get_job(request: Request) -> ASGIApp:
    """Tell how a job is doing; in the end, its answer."""
    desk: Desk = request.app.state.desk
    generation = _generation(request)
    if not generation.done:
        return job_status(generation, request)
    answer = desk.answer(request, Joined(generation, claim=generation.claim))
    if request.method == "GET":
        desk.engine.generations.deliver(generation)
    return answer


async def _abandon_job(request: Request) -> Response:
    """Stop following a job and forget it; the provider may finish it all the same."""
    desk: Desk = request.app.state.desk
    desk.engine.generations.abandon(_generation(request))
    return Response(status_code=204)


async def _edit(request: Request, **defaults: str) -> ASGIApp:
    desk: Desk = request.app.state.desk
    visit: Visit = request.state.visit
    desk.admit(request)
    server = desk.engine.settings.server
    with desk.admission.hold(visit.owner):
        upload = await read_upload(request, server.max_upload, server.max_body)
    values = dict(upload.fields)
    visit.name_model(values)
    values.update((name, value) for name, value in defaults.items() if values.get(name) in (None, ""))
    resolved = desk.engine.resolved(
        values,
        "inpaint" if upload.mask else "edit",
        owner=visit.owner,
        pictures_param=upload.param,
        images=upload.images,
        mask=upload.mask,
    )
    if upload.mask is not None:  # decoded only now: the model is known and can use it
        resolved = resolved.with_mask(await _readable(desk, upload.mask))
    return await _serve(desk, request, resolved, "image_edit")


async def _readable(desk: Desk, given: InputPicture) -> InputPicture:
    """Return the mask as the providers read it, decoded away from the event loop. Raises InvalidRequest."""
    try:
        data = await desk.engine.converter.run(lambda: luminance(given.data))
    except NotAPicture as problem:
        message = f"The file in 'mask' cannot be used: {problem}."
        raise InvalidRequest(message, param="mask", code="invalid_image_file") from None
    return InputPicture(data, "png", given.width, given.height, given.digest)


async def _serve(desk: Desk, request: Request, resolved: ResolvedRequest, kind: str) -> ASGIApp:
    if not resolved.request.stream:
        return await desk.serve(request, resolved)
    if resolved.request.n > 1:
        raise InvalidRequest("Streaming is only supported with n=1.", param="n")
    return image_stream(desk, request, await desk.join(request, resolved), kind)


def _generation(request: Request) -> Generation:
    desk: Desk = request.app.state.desk
    generation = desk.engine.generations.find(request.path_params["id"], request.state.visit.owner)
    if generation is None:
        raise NotFound("There is no such job, or no longer.")
    return generation
