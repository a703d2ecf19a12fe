"""The pictures that a request to the Responses API is about, and the routes that can do what it asks."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from proxy.accounts.accounts import Caller
from proxy.api.pictured import Pictured
from proxy.api.responses.asked import Asked
from proxy.api.responses.kept import Kept, Responses
from proxy.api.uploads import MAX_PICTURES, check_mask, picture_of, readable_mask
from proxy.engine import Engine
from proxy.errors import InvalidRequest, NotConfigured, NotFound, UnknownModel
from proxy.pictures.store import PictureStore
from proxy.providers.boundary import InputPicture
from proxy.requests.resolve import ResolvedRequest

_OWN_PICTURE = re.compile(
    r"https?://[^/?#\s]+/(?:[^?#\s]*/)?images/(?P<name>(?:[0-9a-f]{8})?[0-9a-f]{32}\.(?:png|jpg|webp))\Z"
)
_FARTHEST = 32
"""Responses that are followed back in search of a picture."""
_MAX_SHOWN = 64

_PEOPLE = ("user", "safety_identifier")
"""Whom a request is made for: a key may count by these."""


async def resolve(
    asked: Asked, body: Pictured, responses: Responses, engine: Engine, caller: Caller
) -> ResolvedRequest:
    """Find the pictures that are meant, and the routes. Raises Failure."""
    inputs = _Inputs(body, responses, engine.store, caller.key.id)
    model = _picture_model(asked, engine)
    action = asked.action()
    images, ignored = await inputs.attached(asked), asked.ignored()
    if not images and action != "generate":
        images = await inputs.earlier(asked)
        if images and action != "edit" and not _can_edit(engine, model):
            # A conversation goes on, even if this model can't see what it is about.
            images, ignored = (), [*ignored, "previous_response_id" if asked.call is None else "image_generation_call"]
    if action == "edit" and not images:
        raise InvalidRequest("The input holds no picture to edit.", param="input")
    url = asked.mask()
    if url and not images:
        raise InvalidRequest("The input holds no picture for the mask.", param="input_image_mask")
    mask = await inputs.given(url, "input_image_mask") if url else None
    if mask is not None:
        check_mask(mask, images[0])
    people = {name: body.values[name] for name in _PEOPLE if name in body.values}
    resolved = engine.resolve(
        {**asked.values(), **people, "model": model},
        "inpaint" if mask else "edit" if images else "generate",
        caller=caller,
        ignored=ignored,
        pictures_param="input",
        images=images,
        mask=mask,
    )
    return resolved.with_mask(await readable_mask(engine.converter, mask)) if mask else resolved


def _can_edit(engine: Engine, model: str | None) -> bool:
    routes = engine.routing.usable(model or engine.settings.server.default_model)
    return any("edit" in route.model.operations for route in routes)


def _picture_model(asked: Asked, engine: Engine) -> str | None:
    """Return the model that makes the picture; None for the default one. Raises InvalidRequest."""
    own = asked.tool_model()
    if own is not None or asked.tool is None or asked.model is None:
        return own or asked.model
    # OpenAI's own is one that talks, and makes pictures by the tool.
    try:
        engine.routing.resolve(asked.model)
    except UnknownModel:
        return None
    except NotConfigured:  # it is ours, and the caller should hear what is missing
        return asked.model
    return asked.model


class _Inputs:
    """Gets the pictures that a request is about: its own, those of earlier responses, and those in our store."""

    def __init__(self, body: Pictured, responses: Responses, store: PictureStore, owner: str) -> None:
        self._body, self._responses, self._store, self._owner = body, responses, store, owner

    async def attached(self, asked: Asked) -> tuple[InputPicture, ...]:
        """Return the pictures that came with the request's last words. Raises InvalidRequest, RequestTooLarge."""
        if len(asked.attached) > MAX_PICTURES:
            raise InvalidRequest(f"At most {MAX_PICTURES} pictures.", param="input")
        return tuple([await self.given(url, "input") for url in asked.attached])

    async def given(self, url: str, param: str) -> InputPicture:
        """Return a picture that is given as a data URL or by an address of ours.

        Raises InvalidRequest, RequestTooLarge.
        """
        own = _OWN_PICTURE.match(url)
        if own and await self._store.find(own["name"]):
            return await self._stored(own["name"], param)
        return await asyncio.to_thread(lambda: picture_of(self._body.data(url, param), param))

    async def earlier(self, asked: Asked) -> tuple[InputPicture, ...]:
        """Return the picture that was made last before, if there is one. Raises InvalidRequest, NotFound."""
        if asked.call is not None:
            return await self._of_call(asked.call)
        name = asked.previous
        for _ in range(_FARTHEST):
            if name is None:
                break
            kept = await self._responses.find(name, self._owner)
            if kept is None and name == asked.previous:
                message = f"The response '{name[:_MAX_SHOWN]}' is not known here, or no longer."
                raise NotFound(message, param="previous_response_id")
            if kept is None:
                break
            if kept.status in ("queued", "in_progress"):
                raise InvalidRequest("The previous response is not finished yet.", param="previous_response_id")
            if kept.pictures:
                return (await self._kept(kept, "previous_response_id"),)
            name = kept.said.previous
        return ()

    async def _of_call(self, call: Mapping[str, Any]) -> tuple[InputPicture, ...]:
        result = call.get("result")
        if isinstance(result, str) and result:
            url = result if result.startswith("data:") else f"data:;base64,{result}"
            return (await self.given(url, "input"),)
        name = str(call.get("id"))
        kept = await self._responses.find(name, self._owner)
        if kept is None or not kept.pictures:
            raise NotFound(f"The item '{name[:_MAX_SHOWN]}' has no picture here, or no longer.", param="input")
        return (await self._kept(kept, "input"),)

    async def _kept(self, kept: Kept, param: str) -> InputPicture:
        picture = kept.pictures[0]
        assert picture.stored is not None  # noqa: S101 (base64 was ordered, so there is a file)
        return await self._stored(picture.stored.name, param)

    async def _stored(self, name: str, param: str) -> InputPicture:
        try:
            opened = await self._store.open(name)
            data = b"".join([piece async for piece in opened.pieces])
        except OSError:
            raise NotFound("The earlier picture is no longer kept.", param=param) from None
        return await asyncio.to_thread(picture_of, data, param)
