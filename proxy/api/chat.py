"""POST /v1/chat/completions: the last user message becomes a picture, for frontends that only chat.

The picture goes into the text as Markdown with an absolute address, which nearly every frontend draws, or as base64
into ``images`` if ``modalities`` contains "image", unless the configuration decides. Never both: some frontends would
draw it twice.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from proxy.api import housekeeping
from proxy.api.context import RequestContext
from proxy.api.pictured import Pictured, is_reference, read_pictured
from proxy.api.renderings import MARK, PicturesBody, cost, image_address, open_pictures, usage
from proxy.api.streaming import HeldStream, WholeStream, each
from proxy.api.uploads import MAX_PICTURES, picture_of
from proxy.api.waiting import Waiting
from proxy.engine import Engine
from proxy.errors import Failure, InvalidRequest
from proxy.generations.record import Generation
from proxy.generations.results import Picture
from proxy.pictures.store import Opened, PictureStore
from proxy.providers.boundary import InputPicture
from proxy.requests.image_request import ALIASES, ImageRequest
from proxy.requests.summary import estimated_tokens

# Without those that chat gives another meaning: its response_format describes JSON, and the prompt is a message.
_OURS = (frozenset(ImageRequest.model_fields) | frozenset(ALIASES)) - {
    "prompt",
    "stream",
    "partial_images",
    "response_format",
}

_FREE = frozenset({None, "", "auto", "none"})
_FREE_KINDS = frozenset({"auto", "none", "image_generation"})
"""Tool choices that allow a picture: those that don't force a function call."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What matters in a chat request: its last user message, and how to answer it."""

    text: str
    images: tuple[InputPicture, ...]
    talk: housekeeping.Talk
    values: dict[str, Any]
    stream: bool
    include_usage: bool
    wants_images: bool


async def complete_chat(request: Request) -> ASGIApp:
    """Answer the last user message with a picture; a frontend's housekeeping with text."""
    waiting: Waiting = request.app.state.waiting
    context: RequestContext = request.state.context
    server = waiting.engine.settings.server
    await waiting.admit(request)
    with waiting.admission.hold(context.owner):
        body = await read_pictured(request, server.max_body, server.max_upload)
    context.name_model(body.values)
    # In a thread, for the pictures' digests.
    talk, text = await asyncio.to_thread(_read, body)
    if text is not None:
        return _Text(talk, text).response(waiting, request)
    _refuse_forced_tool(body.values)
    talk = replace(talk, wants_images=_wants_images(waiting.engine, talk))
    resolved = waiting.engine.resolve(
        {**talk.values, "prompt": talk.text, "response_format": "b64_json" if talk.wants_images else "url"},
        "edit" if talk.images else "generate",
        caller=context.caller,
        pictures_param="messages",
        images=talk.images,
    )
    joined = await waiting.join(request, resolved)
    generation = joined.generation
    reply = _Reply(talk, generation, context, waiting.engine.store)
    if talk.stream:
        return HeldStream(waiting, request, joined, "chat", finished=reply.pictures, failed=reply.failure)
    await waiting.hold(request, joined, "chat")
    return await waiting.answer(joined, reply.answer)


def _wants_images(engine: Engine, talk: Conversation) -> bool:
    """Whether the answer carries base64, as the model's table says, or the service's, or the request itself."""
    settings = engine.settings
    form = engine.routing.chat_form(talk.values.get("model") or settings.server.default_model) or settings.chat.form
    return talk.wants_images if form == "auto" else form == "images"


def _read(body: Pictured) -> tuple[Conversation, str | None]:
    """Return the conversation, and the text that answers a frontend's housekeeping. Raises InvalidRequest."""
    talk = read_conversation(body)
    return talk, housekeeping.answer(talk.talk)


def read_conversation(body: Pictured) -> Conversation:
    """Read a chat request. Raises InvalidRequest when it holds no user text."""
    values = body.values
    messages = values.get("messages")
    if messages is None:
        code = "missing_required_parameter"
        raise InvalidRequest("Missing required parameter: 'messages'.", param="messages", code=code)
    if not isinstance(messages, list):
        raise InvalidRequest("'messages' must be an array.", param="messages", code="invalid_type")
    messages = [message for message in messages if isinstance(message, dict)]
    # "developer" is what OpenAI's newer models call the system's role.
    systems = tuple(_text_of(m.get("content")) for m in messages if m.get("role") in ("system", "developer"))
    users = [message for message in messages if message.get("role") == "user"]
    said = tuple(_text_of(message.get("content")).strip() for message in users)
    text = housekeeping.checked(said[-1]).strip() if said else ""
    if not text:
        message = "The conversation holds no text of a user to make a picture from."
        raise InvalidRequest(message, param="messages", code="invalid_value")
    options = values.get("stream_options")
    modalities = values.get("modalities")
    return Conversation(
        text=text,
        images=_images_of(users[-1].get("content"), body),
        talk=housekeeping.Talk(systems, said, _demanded_schema(values)),
        values={name: value for name, value in values.items() if name in _OURS},
        stream=values.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        wants_images=isinstance(modalities, list) and "image" in modalities,
    )


def _demanded_schema(values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema that the answer must follow; nobody who wants a picture sends one."""
    form = values.get("response_format")
    if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
        return None
    wrapper = form.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    return schema if isinstance(schema, dict) else {}


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return "" if is_reference(content) else content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") in (None, "text"))
    return "\n".join(part for part in parts if isinstance(part, str) and not is_reference(part))


def _images_of(content: Any, body: Pictured) -> tuple[InputPicture, ...]:
    """Return the pictures attached to a message. Raises InvalidRequest."""
    parts = content if isinstance(content, list) else ()
    given = [part.get("image_url") for part in parts if isinstance(part, dict) and part.get("type") == "image_url"]
    if len(given) > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures.", param="messages")
    urls = (str(image.get("url") if isinstance(image, dict) else image) for image in given)
    return tuple(picture_of(body.data(url, "messages"), "messages") for url in urls)


def _refuse_forced_tool(values: dict[str, Any]) -> None:
    """Raise InvalidRequest for a forced function call: its sender could not use the picture, and would try again."""
    # "function_call" is the older name of "tool_choice".
    for name in ("tool_choice", "function_call"):
        if _forces(values.get(name)):
            raise forced_function(name)


def forced_function(name: str) -> InvalidRequest:
    """Return the refusal of a request whose parameter ``name`` forces a function call."""
    message = f"'{name}' demands the call of a function, and this model only makes pictures; leave it 'auto'."
    return InvalidRequest(message, param=name, code="invalid_value")


def _forces(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return not isinstance(choice, str | None) or choice not in _FREE
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        return _forces(allowed.get("mode") if isinstance(allowed, dict) else None)
    return choice.get("type") not in _FREE_KINDS


class _Completion:
    """The JSON of one chat completion with ``count`` choices: whole, or in chunks."""

    def __init__(self, talk: Conversation, model: str, created: int, count: int = 1) -> None:
        self.talk = talk
        self._count = count
        self._envelope = {"id": f"chatcmpl-{secrets.token_hex(16)}", "created": created, "model": model}
        self._begun = False

    def chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """Return one chunk of the choice ``index``."""
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return {**self._envelope, "object": "chat.completion.chunk", "choices": [choice]}

    def opening(self) -> Iterator[bytes]:
        """Yield each choice's chunk with the role, once."""
        if not self._begun:
            self._begun = True
            for index in range(self._count):
                yield _event(self.chunk(index, {"role": "assistant", "content": ""}))

    def closing(self, counts: dict[str, Any]) -> Iterator[bytes]:
        """Yield what ends the stream."""
        for index in range(self._count):
            yield _event(self.chunk(index, {}, "stop"))
        if self.talk.include_usage:  # OpenAI's form: a last chunk without choices
            yield _event({**self._envelope, "object": "chat.completion.chunk", "choices": [], "usage": counts})
        yield b"data: [DONE]\n\n"

    def whole(self, messages: Iterable[dict[str, Any]], counts: dict[str, Any]) -> dict[str, Any]:
        """Return the whole completion, a choice for each message."""
        choices = [
            {"index": index, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
            for index, message in enumerate(messages)
        ]
        return {**self._envelope, "object": "chat.completion", "choices": choices, "usage": counts}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


class _Reply(_Completion):
    """Pictures as chat messages, a choice for each."""

    def __init__(
        self,
        talk: Conversation,
        generation: Generation,
        context: RequestContext,
        store: PictureStore,
    ) -> None:
        super().__init__(talk, generation.request.model, generation.created, generation.request.n)
        self._store = store
        self._generation, self._context = generation, context

    async def pictures(self) -> AsyncGenerator[bytes, None]:
        """Yield the finished pictures as chunks; the Markdown of each is never split.

        Raises ProviderBadResult when one is gone.
        """
        for text in self.opening():
            yield text
        for index, picture in enumerate(self._generation.pictures):
            chunk = self.chunk(index, self._content(picture))
            body = PicturesBody(chunk, await self._opened([picture]), before="data: ", after="\n\n")
            async with aclosing(body.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        for text in self.closing(self._usage()):
            yield text

    async def failure(self, failure: Failure) -> AsyncGenerator[bytes, None]:
        """Yield a failure after the first byte as text, the one thing that every frontend shows."""
        for text in self.opening():
            yield text
        for index in range(self._count):
            yield _event(self.chunk(index, {"content": f"No picture: {failure.message}"}))
        for text in self.closing(self._usage()):
            yield text

    async def answer(self) -> PicturesBody:
        """Return the finished pictures as one completion."""
        pictures = self._generation.pictures
        messages = ({"content": "", **self._content(picture)} for picture in pictures)
        return PicturesBody(self.whole(messages, self._usage()), await self._opened(pictures))

    async def _opened(self, pictures: Sequence[Picture]) -> Sequence[Opened]:
        return await open_pictures(self._store, pictures) if self.talk.wants_images else ()

    def _content(self, picture: Picture) -> dict[str, Any]:
        if not self.talk.wants_images:
            return {"content": f"![image]({image_address(self._context.origin, picture)})"}
        assert picture.stored is not None  # noqa: S101 (base64 was ordered, so there is a file)
        url = f"data:image/{picture.stored.facts.format};base64,{MARK}"
        return {"images": [{"type": "image_url", "index": 0, "image_url": {"url": url}}]}

    def _usage(self) -> dict[str, Any]:
        counts = usage(self._generation.request, self._generation.pictures)
        return {
            "prompt_tokens": counts["input_tokens"],
            "completion_tokens": counts["output_tokens"],
            "total_tokens": counts["total_tokens"],
            **cost(self._generation.pictures),
        }


class _Text(_Completion):
    """A text as a chat message; it costs nothing."""

    def __init__(self, talk: Conversation, text: str) -> None:
        # The model's name goes back as it came: nothing was resolved. ``response`` sets the time.
        super().__init__(talk, str(talk.values.get("model", "")), 0)
        self._text = text
        given, made = estimated_tokens(talk.text), estimated_tokens(text)
        self._counts = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}

    def response(self, waiting: Waiting, request: Request) -> ASGIApp:
        """Return the answer, as a stream if the request wants one."""
        self._envelope["created"] = int(waiting.engine.clock.wall())
        request.state.context.route = "housekeeping"
        if not self.talk.stream:
            return JSONResponse(self.whole([{"content": self._text}], self._counts))
        return WholeStream(
            each([*self.opening(), _event(self.chunk(0, {"content": self._text})), *self.closing(self._counts)])
        )
