"""POST /sdapi/v1/txt2img and /img2img, and how the caller's pictures are doing."""

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from proxy.api.body import read_json
from proxy.api.context import RequestContext
from proxy.api.pictured import Pictured, read_pictured
from proxy.api.renderings import MARK, PicturesBody, open_pictures
from proxy.api.sdapi.callers import Callers, caller
from proxy.api.sdapi.fields import SHOWN, ignored, translate
from proxy.api.uploads import Upload, complete, picture_of, readable_mask
from proxy.api.waiting import Waiting, fractions
from proxy.errors import InvalidRequest
from proxy.generations.record import Generation
from proxy.pictures.codec import luminance
from proxy.providers.boundary import InputPicture
from proxy.requests.resolve import ResolvedRequest


async def txt2img(request: Request) -> ASGIApp:
    """Make pictures and return them as base64 in ``images``."""
    waiting: Waiting = request.app.state.waiting
    await waiting.admit(request)
    server = waiting.engine.settings.server
    asked = await read_json(request, server.max_body)
    resolved = waiting.engine.resolve(
        translate(asked, _chosen(request)),
        caller=request.state.context.caller,
        ignored=ignored(asked, strict=server.strict_params),
        strict=False,
    )
    return await _serve(waiting, request, resolved, asked)


async def img2img(request: Request) -> ASGIApp:
    """Make pictures from ``init_images``, within ``mask`` if there is one."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    await waiting.admit(request)
    server = waiting.engine.settings.server
    with waiting.admission.hold(context.owner):
        body = await read_pictured(request, server.max_body, server.max_upload, bare=True)
        asked = body.values
        given = await asyncio.to_thread(_pictures_of, body)
        resolved = waiting.engine.resolve(
            translate(asked, _chosen(request), edit=True),
            "inpaint" if given.mask else "edit",
            caller=context.caller,
            ignored=ignored(asked, strict=server.strict_params, edit=True),
            pictures_param=given.param,
            images=given.images,
            mask=given.mask,
            strict=False,
        )
        if given.mask is not None:
            read = partial(luminance, opaque=True, inverted=_is_inverted(asked))
            resolved = resolved.with_mask(await readable_mask(waiting.engine.converter, given.mask, read))
    return await _serve(waiting, request, resolved, asked)


def _chosen(request: Request) -> str | None:
    callers: Callers = request.app.state.sdapi
    return callers.chosen(caller(request))


async def _serve(waiting: Waiting, request: Request, resolved: ResolvedRequest, asked: dict[str, Any]) -> ASGIApp:
    """Hold the request until its pictures are there, and answer it. Raises Failure, CallerLeft."""
    callers: Callers = request.app.state.sdapi
    joined = await waiting.join(request, resolved)
    callers.follow(caller(request), joined.generation)
    await waiting.hold(request, joined, "sdapi")
    parameters = {name: value for name, value in asked.items() if name in SHOWN}
    return await waiting.answer(joined, lambda: _answer(waiting, joined.generation, parameters))


async def _answer(waiting: Waiting, generation: Generation, parameters: dict[str, Any]) -> PicturesBody:
    pictures = generation.pictures
    info = {"sd_model_name": generation.request.model, "width": pictures[0].width, "height": pictures[0].height}
    seeds = [picture.origin.seed for picture in pictures]
    if seeds[0] is not None:
        info |= {"seed": seeds[0], "all_seeds": seeds}
    answer = {"images": [MARK] * len(pictures), "parameters": parameters, "info": json.dumps(info)}
    return PicturesBody(answer, await open_pictures(waiting.engine.store, pictures))


def _pictures_of(body: Pictured) -> Upload:
    """Return the pictures of an img2img request; blocks for their digests. Raises InvalidRequest, RequestTooLarge."""
    given = body.values.get("init_images")
    if given is not None and not isinstance(given, list):
        raise InvalidRequest("'init_images' must be an array.", param="init_images", code="invalid_type")
    images = [_picture(body, each, "init_images") for each in given or () if each is not None]
    mask = body.values.get("mask")
    seen = _picture(body, mask, "mask") if mask else None
    if seen is not None:
        # Another meaning than the same bytes have in an edit of OpenAI's, or inverted: not the same request.
        meaning = b"inverted" if _is_inverted(body.values) else b"white"
        seen = replace(seen, digest=hashlib.blake2b(seen.digest, key=meaning).digest())
    return complete({}, images, seen, "init_images")


def _picture(body: Pictured, value: Any, param: str) -> InputPicture:
    if not isinstance(value, str):
        raise InvalidRequest(f"'{param}' must hold base64 text.", param=param, code="invalid_type")
    has_head = value.startswith(("data:", "http:", "https:"))
    return picture_of(body.data(value if has_head else f"data:;base64,{value}", param), param)


def _is_inverted(asked: dict[str, Any]) -> bool:
    """Whether a mask's black is to change and not its white."""
    return asked.get("inpainting_mask_invert") in (1, True, "1")


async def progress(request: Request) -> Response:
    """Report how the caller's pictures are doing, all that run taken together; zeros if none does."""
    waiting: Waiting = request.app.state.waiting
    callers: Callers = request.app.state.sdapi
    standing = _Standing.of(callers.running(caller(request)), waiting.engine.clock.wall())
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": standing.job,
        "job_count": standing.count,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(standing.since)) if standing.count else "0",
        "job_no": standing.done,
        "sampling_step": 0,
        "sampling_steps": 0,
    }
    answer = {"progress": standing.fraction, "eta_relative": standing.left_s, "state": state}
    return JSONResponse({**answer, "current_image": None, "textinfo": None})


@dataclass(frozen=True, slots=True)
class _Standing:
    """How several generations are doing, taken together.

    ``count`` and ``done`` are jobs, ``fraction`` is 0 to 1, ``since`` is Unix time. ``left_s``: seconds that are left
    at the pace so far, 0 if nothing is known.
    """

    job: str = ""
    count: int = 0
    done: int = 0
    fraction: float = 0.0
    since: float = 0.0
    left_s: float = 0.0

    @classmethod
    def of(cls, generations: Sequence[Generation], now: float) -> "_Standing":
        if not generations:
            return cls()
        parts = [fraction for generation in generations for fraction in fractions(generation)]
        done = sum(progress.state == "done" for generation in generations for progress in generation.progress)
        fraction, since = round(sum(parts) / len(parts), 3), generations[0].created
        left_s = max(0.0, now - since) * (1 / fraction - 1) if fraction else 0.0
        return cls(generations[0].id, len(parts), done, fraction, since, round(left_s, 3))


async def interrupt(request: Request) -> Response:
    """Abandon the caller's running generations, but none that was asked for through another of our surfaces."""
    waiting: Waiting = request.app.state.waiting
    callers: Callers = request.app.state.sdapi
    for generation in callers.running(caller(request)):
        await waiting.engine.generations.abandon(generation)
    return JSONResponse({})
