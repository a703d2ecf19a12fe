"""POST /v1/chat/completions: the last user message becomes a picture, for frontends that only chat.

The picture goes into the text as Markdown with an absolute address, which nearly every frontend draws; base64 in
``images`` instead when ``modalities`` asks for it. Never both: some would draw it twice (clients §5).
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from proxy.api import housekeeping
from proxy.api.body import read_json
from proxy.api.holding import Desk
from proxy.api.responses import image_address, usage
from proxy.api.streaming import HeldStream, Stream
from proxy.api.uploads import MAX_PICTURES, decode_data_url, picture_of
from proxy.api.visit import Visit
from proxy.errors import Failure, InvalidRequest
from proxy.flight import Flight
from proxy.image_request import ALIASES, ImageRequest
from proxy.orders import Order
from proxy.provider import InputPicture

_OURS = (frozenset(ImageRequest.model_fields) | frozenset(ALIASES)) - {
    "prompt",
    "stream",
    "partial_images",
    "response_format",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What matters of a chat request: its last user message, and how it is to be answered."""

    text: str
    images: tuple[InputPicture, ...]
    talk: housekeeping.Talk
    values: dict[str, Any]
    stream: bool
    include_usage: bool
    wants_images: bool


async def complete_chat(request: Request) -> ASGIApp:
    """Answer the last user message with a picture; a frontend's housekeeping with text."""
    desk: Desk = request.app.state.desk
    visit: Visit = request.state.visit
    server = desk.engine.settings.server
    desk.admit(request)
    with desk.admission.hold(visit.owner):
        values = await read_json(request, server.max_body + server.max_upload * 4 // 3)
    visit.name_model(values)
    talk = await asyncio.to_thread(read_conversation, values, server.max_upload)
    text = housekeeping.answer(talk.talk)
    if text is not None:
        return _Text(talk, text).response(desk, request)
    order = desk.engine.order(
        {**talk.values, "prompt": talk.text, "response_format": "b64_json" if talk.wants_images else "url"},
        "edit" if talk.images else "generate",
        owner=visit.owner,
        pictures_param="messages",
        images=talk.images,
    )
    flight = desk.board(request, order).flight
    reply = _Reply(talk, order, flight, visit)
    if talk.stream:
        return HeldStream(desk, request, flight, changed=reply.begin, finished=reply.pictures, failed=reply.failure)
    await desk.hold(request, flight)
    desk.body(request, flight)
    return JSONResponse(reply.whole())


def read_conversation(values: dict[str, Any], max_picture: int) -> Conversation:
    """Read a chat request. Raises InvalidRequest when it holds no user text."""
    messages = values.get("messages")
    if messages is None:
        code = "missing_required_parameter"
        raise InvalidRequest("Missing required parameter: 'messages'.", param="messages", code=code)
    if not isinstance(messages, list):
        raise InvalidRequest("'messages' must be an array.", param="messages", code="invalid_type")
    messages = [message for message in messages if isinstance(message, dict)]
    systems = tuple(_text_of(m.get("content")) for m in messages if m.get("role") in ("system", "developer"))
    users = [message for message in messages if message.get("role") == "user"]
    said = tuple(_text_of(message.get("content")).strip() for message in users)
    text = housekeeping.wish(said[-1]).strip() if said else ""
    if not text:
        message = "The conversation holds no text of a user to make a picture from."
        raise InvalidRequest(message, param="messages", code="invalid_value")
    options = values.get("stream_options")
    modalities = values.get("modalities")
    return Conversation(
        text=text,
        images=_images_of(users[-1].get("content"), max_picture),
        talk=housekeeping.Talk(systems, said, _demanded_schema(values)),
        values={name: value for name, value in values.items() if name in _OURS},
        stream=values.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        wants_images=isinstance(modalities, list) and "image" in modalities,
    )


def _demanded_schema(values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the JSON that the answer must be, as nobody asks who wants a picture."""
    form = values.get("response_format")
    if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
        return None
    wrapper = form.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    return schema if isinstance(schema, dict) else {}


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") in (None, "text"))
    return "\n".join(part for part in parts if isinstance(part, str))


def _images_of(content: Any, max_picture: int) -> tuple[InputPicture, ...]:
    """Return the pictures attached to a message. Raises InvalidRequest."""
    images = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            images.append(picture_of(decode_data_url(str(url), "messages", max_picture), "messages"))
    if len(images) > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures.", param="messages")
    return tuple(images)


class _Completion:
    """The shapes of one chat completion: whole, or in chunks."""

    def __init__(self, talk: Conversation, model: str, created: int) -> None:
        self.talk = talk
        self._envelope = {"id": f"chatcmpl-{secrets.token_hex(16)}", "created": created, "model": model}
        self._begun = False

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        """Return one chunk."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._data({**self._envelope, "object": "chat.completion.chunk", "choices": [choice]})

    def opening(self) -> Iterator[bytes]:
        """Yield the chunk with the role, once."""
        if not self._begun:
            self._begun = True
            yield self.chunk({"role": "assistant", "content": ""})

    def closing(self, counts: dict[str, Any]) -> Iterator[bytes]:
        """Yield what ends the stream."""
        yield self.chunk({}, "stop")
        if self.talk.include_usage:
            yield self._data({**self._envelope, "object": "chat.completion.chunk", "choices": [], "usage": counts})
        yield b"data: [DONE]\n\n"

    def message(self, message: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
        """Return the whole completion."""
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        return {**self._envelope, "object": "chat.completion", "choices": [choice], "usage": counts}

    @staticmethod
    def _data(value: dict[str, Any]) -> bytes:
        return f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


class _Reply(_Completion):
    """A picture as a chat message."""

    def __init__(self, talk: Conversation, order: Order, flight: Flight, visit: Visit) -> None:
        super().__init__(talk, order.public.name, flight.created)
        self._order, self._flight, self._visit = order, flight, visit

    async def begin(self, stream: Stream) -> None:
        """Say nothing before there is something to say: a failure then still has its own status."""

    def pictures(self) -> Iterator[bytes]:
        """Yield the finished picture as chunks; the Markdown goes whole into one."""
        yield from self.opening()
        yield self.chunk(self._content())
        yield from self.closing(self._usage())

    def failure(self, failure: Failure) -> Iterator[bytes]:
        """Yield a failure after the first byte as text, the only thing that every frontend shows."""
        yield from self.opening()
        yield self.chunk({"content": f"No picture: {failure.message}"})
        yield from self.closing(self._usage())

    def whole(self) -> dict[str, Any]:
        """Return the finished picture as one completion."""
        return self.message({"content": "", **self._content()}, self._usage())

    def _content(self) -> dict[str, Any]:
        if not self.talk.wants_images:
            links = (f"![image]({image_address(self._visit.origin, picture)})" for picture in self._flight.pictures)
            return {"content": "\n\n".join(links)}
        images = []
        for number, picture in enumerate(self._flight.pictures):
            assert picture.stored is not None  # noqa: S101 (base64 was ordered, so there is a file)
            data = base64.b64encode(picture.stored.path.read_bytes()).decode()
            url = f"data:image/{picture.stored.facts.format};base64,{data}"
            images.append({"type": "image_url", "index": number, "image_url": {"url": url}})
        return {"images": images}

    def _usage(self) -> dict[str, Any]:
        counts = usage(self._order, self._flight.pictures)
        return {
            "prompt_tokens": counts["input_tokens"],
            "completion_tokens": counts["output_tokens"],
            "total_tokens": counts["total_tokens"],
        }


class _Text(_Completion):
    """A text as a chat message; it buys nothing."""

    def __init__(self, talk: Conversation, text: str) -> None:
        super().__init__(talk, str(talk.values.get("model", "")), 0)
        self._text = text
        words = len(talk.text.split())
        made = len(text.split())
        self._counts = {"prompt_tokens": words, "completion_tokens": made, "total_tokens": words + made}

    def response(self, desk: Desk, request: Request) -> ASGIApp:
        """Return the answer, streamed if asked."""
        self._envelope["created"] = int(desk.engine.clock.wall())
        request.state.visit.route = "housekeeping"
        if not self.talk.stream:
            return JSONResponse(self.message({"content": self._text}, self._counts))
        return _Chunks([*self.opening(), self.chunk({"content": self._text}), *self.closing(self._counts)])


class _Chunks:
    """An event stream that is ready."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 (ASGI's signature)
        stream = Stream(send)
        for chunk in self._chunks:
            await stream.write(chunk)
        await stream.end()
