"""What a request to the Responses API asks for, as far as its picture goes.

https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from proxy.api import housekeeping
from proxy.api.chat import forced_function
from proxy.api.pictured import Pictured, is_reference
from proxy.errors import InvalidRequest
from proxy.requests.image_request import ALIASES, ImageRequest

Choice = Literal["auto", "none", "forced"]
"""Whether a picture may be made, must not, or must."""

TOOL = "image_generation"
CALL = "image_generation_call"
# Besides those of the tool: what the providers have, and OpenAI's image parameters that mean nothing else here.
_OURS = (frozenset(ImageRequest.model_fields) | frozenset(ALIASES)) - {
    "prompt",
    "model",
    "n",
    "stream",
    "partial_images",
    "response_format",
    "background",
    "moderation",
}
_NOT_HERE = ("conversation", "prompt")
"""What would change the picture, and is kept at OpenAI: conversations and prompts."""
_NOT_OPTIONS = frozenset({"type", "model", "action", "input_image_mask", "n", "stream", "prompt", "response_format"})
_TEXTS = (None, "input_text", "text", "output_text")
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512
_LONGEST_MODEL = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``tool``: the options of its image tool, None without one.

    ``attached``: the addresses of the pictures that came with its last words. ``call``: the latest picture that was
    made before, as the item that stands for it. ``texts``: what its words are part of. ``unknown``: what was given and
    means nothing here.
    """

    prompt: str
    model: str | None
    tool: Mapping[str, Any] | None
    choice: Choice
    attached: Sequence[str]
    call: Mapping[str, Any] | None
    previous: str | None
    texts: housekeeping.Talk
    extras: Mapping[str, Any]
    metadata: Mapping[str, str]
    unknown: Sequence[str]
    stream: bool
    background: bool
    store: bool

    @property
    def text(self) -> str | None:
        """The text that is due instead of a picture, None for a picture."""
        if self.choice == "none":
            return housekeeping.ONLY_PICTURES
        # Nobody who forces a picture has a title in mind.
        return housekeeping.answer(self.texts) if self.choice == "auto" else None

    @property
    def message(self) -> str | None:
        """The text that goes with the picture; None for its address, which whoever names no image tool reads."""
        # Without a message OpenAI's Agents SDKs call the model again, and again buy a picture.
        if self.texts.schema is not None:
            return housekeeping.answer(self.texts)
        return None if self.tool is None else ""

    def values(self) -> dict[str, Any]:
        """Return the parameters of the picture, without its model."""
        options = {name: value for name, value in (self.tool or {}).items() if name not in _NOT_OPTIONS}
        given = {**self.extras, **{name: value for name, value in options.items() if value is not None}}
        return {**given, "prompt": self.prompt, "response_format": "b64_json"}

    def ignored(self) -> list[str]:
        """Return the names of what can't be honoured by any model."""
        return [*self.unknown, *(["n"] if (self.tool or {}).get("n") not in (None, 1) else [])]

    def tool_model(self) -> str | None:
        """Return the model that the tool names. Raises InvalidRequest."""
        return _name(self.tool or {}, "model", _LONGEST_MODEL)

    def action(self) -> str:
        """Return what the tool shall do: generate, edit, or auto. Raises InvalidRequest."""
        action = (self.tool or {}).get("action") or "auto"
        if action not in ("generate", "edit", "auto"):
            message = "Invalid value for 'action'. Supported values are: 'generate', 'edit' or 'auto'."
            raise InvalidRequest(message, param="action")
        return str(action)

    def mask(self) -> str | None:
        """Return the address of the mask. Raises InvalidRequest."""
        given = (self.tool or {}).get("input_image_mask")
        url = given.get("image_url") if isinstance(given, dict) else given
        if given is None or isinstance(url, str):
            return url
        message = '\'input_image_mask\' must be {"image_url": "data:image/png;base64,…"}: file ids are not known here.'
        raise InvalidRequest(message, param="input_image_mask")


def read(body: Pictured) -> Asked:
    """Read a request. Raises InvalidRequest."""
    values = body.values
    items = _items(values.get("input"))
    tool = _tool(values.get("tools"))
    said = [(item, _text(item.get("content")).strip()) for item in items if _role(item) == "user"]
    prompt = next((housekeeping.checked(text).strip() for _, text in reversed(said) if text), "")
    if not prompt:
        raise InvalidRequest("The input holds no text of a user to make a picture from.", param="input")
    systems = [_text(item.get("content")) for item in items if _role(item) in ("system", "developer")]
    schema = _schema(values.get("text"))
    background = values.get("background") is True
    if background and values.get("store") is False:
        raise InvalidRequest("Background mode needs 'store', so that the response can be asked for.", param="store")
    return Asked(
        prompt=prompt,
        model=_name(values, "model", _LONGEST_MODEL),
        tool=tool,
        choice=_choice(values.get("tool_choice"), tool is not None),
        attached=_attached(items),
        call=next((item for item in reversed(items) if _is_call(item)), None),
        previous=_name(values, "previous_response_id", _LONGEST_VALUE),
        texts=housekeeping.Talk(
            tuple(filter(None, (_text(values.get("instructions")), *systems))),
            tuple(text for _, text in said if text),
            schema,
        ),
        extras={name: value for name, value in values.items() if name in _OURS},
        metadata=_metadata(values.get("metadata")),
        unknown=[name for name in _NOT_HERE if values.get(name) is not None],
        stream=values.get("stream") is True,
        background=background,
        store=values.get("store") is not False,
    )


def _items(given: Any) -> list[dict[str, Any]]:
    if given is None:
        code = "missing_required_parameter"
        raise InvalidRequest("Missing required parameter: 'input'.", param="input", code=code)
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise InvalidRequest("'input' must be a string or an array of items.", param="input", code="invalid_type")
    return [item for item in given if isinstance(item, dict)]


def _role(item: Mapping[str, Any]) -> Any:
    return item.get("role") if item.get("type") in (None, "message") else None


def _is_call(item: Mapping[str, Any]) -> bool:
    kind, name = item.get("type"), item.get("id")
    # Of a reference only the id tells what it stands for.
    return kind == CALL or (kind == "item_reference" and isinstance(name, str) and name.startswith("ig_"))


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        yield from (part for part in content if isinstance(part, dict))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return "" if is_reference(content) else content
    texts = (part.get("text") for part in _parts(content) if part.get("type") in _TEXTS)
    return "\n".join(text for text in texts if isinstance(text, str) and not is_reference(text))


def _attached(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return the pictures of the last messages that are the user's: frontends put each in one of its own."""
    found: list[list[str]] = []
    for item in reversed(items):
        if _role(item) in ("system", "developer"):
            continue
        if _role(item) != "user":
            break
        found.append([_address(part) for part in _parts(item.get("content")) if part.get("type") == "input_image"])
    return [address for message in reversed(found) for address in message]


def _address(part: Mapping[str, Any]) -> str:
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        message = "'input_image' needs an 'image_url', a base64 data URL: file ids are not known here."
        raise InvalidRequest(message, param="input")
    return url


def _tool(given: Any) -> Mapping[str, Any] | None:
    """Return the image tool's options, None without one. Raises InvalidRequest."""
    if given is None:
        return None
    if not isinstance(given, list):
        raise InvalidRequest("'tools' must be an array.", param="tools", code="invalid_type")
    return next((tool for tool in given if isinstance(tool, dict) and tool.get("type") == TOOL), None)


def _choice(given: Any, has_tool: bool) -> Choice:
    """Return what a tool choice means for the picture.

    Raises InvalidRequest when it forces another tool: its sender could not use the picture, and would try again.
    """
    if isinstance(given, dict):
        kind = given.get("type")
        if kind == TOOL:
            return "forced"
        if kind == "allowed_tools":
            allowed = given.get("tools")
            tools = allowed if isinstance(allowed, list) else []
            permitted = any(isinstance(tool, dict) and tool.get("type") == TOOL for tool in tools)
            mode = _choice(given.get("mode"), permitted)
            return "none" if has_tool and not permitted else mode
        given = kind if kind in ("auto", "none") else given
    if given in (None, "", "auto"):
        return "auto"
    if given == "none":  # without the tool it is about functions, which are never called here
        return "none" if has_tool else "auto"
    if given == "required" and has_tool:
        return "forced"
    raise forced_function("tool_choice")


def _schema(given: Any) -> dict[str, Any] | None:
    """Return the schema that the answer's text must follow."""
    form = given.get("format") if isinstance(given, dict) else None
    if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
        return None
    schema = form.get("schema")
    return schema if isinstance(schema, dict) else {}


def _name(values: Mapping[str, Any], key: str, longest: int) -> str | None:
    value = values.get(key)
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"'{key}' must be a string.", param=key, code="invalid_type")
    if len(value) > longest or is_reference(value):
        message = f"'{key}' is too long: at most {longest} characters."
        raise InvalidRequest(message, param=key, code="string_above_max_length")
    return value


def _metadata(given: Any) -> Mapping[str, str]:
    """Return the metadata. Raises InvalidRequest when it isn't as small as OpenAI wants it."""
    if given is None:
        return {}
    small = isinstance(given, dict) and len(given) <= _MOST_PAIRS
    if small and all(
        len(key) <= _LONGEST_KEY and isinstance(value, str) and len(value) <= _LONGEST_VALUE and not is_reference(value)
        for key, value in given.items()
    ):
        return dict(given)
    message = (
        f"'metadata' must be an object of at most {_MOST_PAIRS} strings, {_LONGEST_VALUE} characters each, under names "
        f"of at most {_LONGEST_KEY}."
    )
    raise InvalidRequest(message, param="metadata")
