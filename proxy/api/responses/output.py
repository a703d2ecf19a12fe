"""A response of OpenAI's Responses API: whole, and as its stream of events.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from proxy.api.renderings import MARK, PicturesBody, cost, facts, image_address, open_pictures
from proxy.api.responses.asked import CALL
from proxy.api.responses.kept import Head, Said, Status
from proxy.api.streaming import event, picture_event
from proxy.errors import Failure
from proxy.generations.results import Picture
from proxy.pictures.store import PictureStore
from proxy.requests.summary import estimated_tokens, pixel_tokens

_CODES = {
    "content_policy_violation": "image_content_policy_violation",
    "provider_busy": "rate_limit_exceeded",
    "rate_limit_exceeded": "rate_limit_exceeded",
}
"""Ours that have a code of their own in OpenAI's closed list."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as its caller sees it. ``origin``: our base URL."""

    head: Head
    said: Said
    origin: str

    def whole(self, status: Status, pictures: Sequence[Picture] = (), failure: Failure | None = None) -> dict[str, Any]:
        """Return the whole response, with ``MARK`` for the picture's base64."""
        said = self.said
        ended = bool(pictures) or (status == "completed")
        return {
            "id": self.head.id,
            "object": "response",
            "created_at": self.head.created,
            "status": status,
            "background": said.background,
            "error": None if failure is None else _error(failure),
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "metadata": dict(said.metadata),
            "model": said.model,
            "output": self._output(pictures, failure),
            "parallel_tool_calls": True,
            "previous_response_id": said.previous,
            "store": said.store,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": said.tool_choice,
            "tools": list(said.tools),
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self._usage(pictures) if ended else None,
        }

    def call(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        """Return the item of the picture, with ``MARK`` for its base64."""
        action = "edit" if self.said.edited else "generate"
        return {**self.item("completed"), "result": MARK, "action": action, **facts(pictures)}

    def item(self, status: str) -> dict[str, Any]:
        """Return the item of a picture that isn't there."""
        return {"id": f"ig_{self.head.number}", "type": CALL, "status": status, "result": None}

    def message(self, text: str | None) -> dict[str, Any]:
        """Return the message; without a text, as it begins."""
        return {
            "id": f"msg_{self.head.number}",
            "type": "message",
            "role": "assistant",
            "status": "in_progress" if text is None else "completed",
            "content": [] if text is None else [part(text)],
        }

    def text(self, pictures: Sequence[Picture]) -> str:
        """Return the message's text."""
        if self.said.text is not None:
            return self.said.text
        return f"![image]({image_address(self.origin, pictures[0])})"

    def _output(self, pictures: Sequence[Picture], failure: Failure | None) -> list[dict[str, Any]]:
        if pictures:
            return [self.call(pictures), self.message(self.text(pictures))]
        if failure is not None:
            return [{**self.item("failed"), "error": failure.body()["error"]}]
        return []

    def _usage(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        """Return token counts, all of OpenAI's fields; estimates, as in ``renderings.usage``."""
        given = self.head.tokens
        text = 0 if pictures else estimated_tokens(self.said.text or "")
        made = text + sum(pixel_tokens(picture.width, picture.height) for picture in pictures)
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
            **(cost(pictures) if pictures else {}),
        }


def part(text: str) -> dict[str, Any]:
    """Return a text as a message's part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _error(failure: Failure) -> dict[str, Any]:
    given = failure.body()["error"]
    code = _CODES.get(str(given["code"])) or ("server_error" if failure.status >= 500 else "invalid_prompt")
    return {**given, "code": code}


class Events:
    """The events of one response, in OpenAI's order. ``after``: the last one that the caller has already had."""

    def __init__(self, answer: Answer, *, after: int = -1) -> None:
        self._answer = answer
        self._after = after
        self._next = 0
        self._begun = self._generating = False

    def numbered(self, kind: str, **values: Any) -> dict[str, Any]:
        """Return the values of the next event."""
        self._next += 1
        return {"type": kind, "sequence_number": self._next - 1, **values}

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the work, once."""
        if not self._begun:
            self._begun = True
            status: Status = "queued" if self._answer.said.background else "in_progress"
            begun = self._answer.whole(status)
            yield from self._told("response.created", response=begun)
            yield from self._told(f"response.{status}", response=begun)

    def generating(self) -> Iterator[bytes]:
        """Yield what tells that the picture is being made, once."""
        yield from self.opening()
        if not self._generating:
            self._generating = True
            if self._answer.said.background:
                yield from self._told("response.in_progress", response=self._answer.whole("in_progress"))
            item = self._answer.item("in_progress")
            yield from self._told("response.output_item.added", output_index=0, item=item)
            for step in ("in_progress", "generating"):
                yield from self._told(f"response.{CALL}.{step}", output_index=0, item_id=item["id"])

    def preview(self, number: int, said: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a preview's event, with ``MARK`` for its base64."""
        where = {"output_index": 0, "item_id": self._answer.item("")["id"], "partial_image_index": number}
        return self.numbered(f"response.{CALL}.partial_image", **where, partial_image_b64=MARK, **said)

    async def finished(self, pictures: Sequence[Picture], store: PictureStore) -> AsyncGenerator[bytes, None]:
        """Yield what comes with the finished picture. Raises ProviderBadResult when it is gone, before any event."""
        # Both before the first event: an answer that cannot be given should still have its own status.
        item, last = [await open_pictures(store, pictures) for _ in range(2)]
        for text in self.generating():
            yield text
        self._next = max(self._next, self._after + 1)  # previews were shown that aren't any more
        call = self._answer.call(pictures)
        for text in self._told(f"response.{CALL}.completed", output_index=0, item_id=call["id"]):
            yield text
        done = self.numbered("response.output_item.done", output_index=0, item=call)
        async with aclosing(picture_event(done, item)) as pieces:
            async for piece in pieces:
                yield piece
        for text in self._message(1, self._answer.text(pictures)):
            yield text
        completed = self.numbered("response.completed", response=self._answer.whole("completed", pictures))
        async with aclosing(picture_event(completed, last)) as pieces:
            async for piece in pieces:
                yield piece

    def failed(self, failure: Failure) -> Iterator[bytes]:
        """Yield what tells that there will be no picture."""
        yield from self.opening()
        self._next = max(self._next, self._after + 1)
        yield from self._told("response.failed", response=self._answer.whole("failed", failure=failure))

    def broken_off(self, failure: Failure) -> Iterator[bytes]:
        """Yield what tells that the stream ends here, though the response may still come."""
        self._next = max(self._next, self._after + 1)
        error = failure.body()["error"]
        yield from self._told("error", code=error["code"], message=error["message"], param=error["param"])

    def written(self, text: str) -> Iterator[bytes]:
        """Yield all events of a response that is only a text."""
        yield from self.opening()
        yield from self._message(0, text)
        yield from self._told("response.completed", response=written(self._answer, text))

    def _message(self, index: int, text: str) -> Iterator[bytes]:
        begun, done = self._answer.message(None), self._answer.message(text)
        at = {"output_index": index, "item_id": done["id"], "content_index": 0}
        yield from self._told("response.output_item.added", output_index=index, item=begun)
        yield from self._told("response.content_part.added", **at, part=part(""))
        if text:
            yield from self._told("response.output_text.delta", **at, delta=text, logprobs=[])
        yield from self._told("response.output_text.done", **at, text=text, logprobs=[])
        yield from self._told("response.content_part.done", **at, part=part(text))
        yield from self._told("response.output_item.done", output_index=index, item=done)

    def _told(self, kind: str, **values: Any) -> Iterator[bytes]:
        numbered = self.numbered(kind, **values)
        if numbered["sequence_number"] > self._after:
            yield event(kind, numbered)


def written(answer: Answer, text: str) -> dict[str, Any]:
    """Return a whole response that is only a text."""
    return {**answer.whole("completed"), "output": [answer.message(text)]}


async def finished_body(answer: Answer, pictures: Sequence[Picture], store: PictureStore) -> PicturesBody:
    """Return the whole response with its finished picture. Raises ProviderBadResult when it is gone."""
    return PicturesBody(answer.whole("completed", pictures), await open_pictures(store, pictures))
