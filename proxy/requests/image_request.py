"""What a caller may ask for: OpenAI's image parameters and the providers' own, checked before anything is sent.

Clients are many and sloppy: so ``null`` and empty strings mean absent, numbers and booleans may be strings, and unknown
fields are collected instead of refused. Any other mistake is reported in OpenAI's words and codes.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from proxy.errors import InvalidJson, InvalidRequest

MAX_PROMPT = 32_000
"""Characters, as for OpenAI's GPT models: https://platform.openai.com/docs/api-reference/images/create"""
_MAX_SHOWN = 10**18
"""Python refuses to print a number of over 4300 digits, and JSON may hold one:
https://docs.python.org/3/library/stdtypes.html#integer-string-conversion-length-limitation
"""
MIN_SIDE, MAX_SIDE, MAX_RATIO = 64, 4096, 4.0
_SIZE = re.compile(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})\Z")
_RATIO = re.compile(r"(\d{1,4})[:/](\d{1,4})\Z")
_NAMED_RATIOS = {"square": (1, 1), "portrait": (2, 3), "landscape": (3, 2)}
_JSON_TYPES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    dict: "an object",
    list: "an array",
    type(None): "null",
}

ALIASES = {
    "num_inference_steps": "steps",
    "cfg_scale": "cfg",
    "guidance_scale": "cfg",
    "negativePrompt": "negative_prompt",
    "aspectRatio": "aspect_ratio",
    "samplerName": "sampler",
    "sampler_name": "sampler",
    "stylePreset": "style_preset",
    "denoising_strength": "strength",
}
"""Other names that clients use for the providers' parameters. A parameter's own name wins over its aliases."""


def _number(value: Any) -> Any:
    """Take numeric strings as numbers, but no boolean."""
    if isinstance(value, bool):  # which pydantic would take as 0 or 1
        raise PydanticCustomError("not_a_number", "not a number")
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?\d{1,20}(\.\d{1,20})?", text):
            raise PydanticCustomError("not_a_number", "not a number")
        return float(text) if "." in text else int(text)
    return value


def _size(value: Any) -> Any:
    if not isinstance(value, str) or value == "auto":
        return value
    match = _SIZE.match(value.strip())
    if match is None:
        raise PydanticCustomError("bad_size", "Invalid size: expected 'auto' or WIDTHxHEIGHT, such as '1024x1024'.")
    width, height = int(match[1]), int(match[2])
    _check_sides(width, height)
    return f"{width}x{height}"


def _check_sides(width: int, height: int) -> None:
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise PydanticCustomError("bad_size", f"Invalid size: each side must be {MIN_SIDE} to {MAX_SIDE} pixels.")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise PydanticCustomError("bad_size", "Invalid size: the sides' ratio must lie between 1:4 and 4:1.")


def _ratio(value: Any) -> Any:
    if not isinstance(value, str) or value in _NAMED_RATIOS or value == "auto":
        return value
    match = _RATIO.match(value.strip())
    across, down = (int(match[1]), int(match[2])) if match else (0, 0)
    if not across or not down or max(across, down) > MAX_RATIO * min(across, down):
        raise PydanticCustomError(
            "bad_ratio", "Invalid aspect ratio: expected one between '1:4' and '4:1', or square, portrait, landscape."
        )
    return f"{across}:{down}"


def _quality(value: str | None) -> str | None:
    """Take both names of the usual quality as not given: some clients always send dall-e-3's default, "standard"."""
    return None if value in ("standard", "auto") else value


Whole = Annotated[int, BeforeValidator(_number)]
Decimal = Annotated[float, BeforeValidator(_number)]
Side = Annotated[int, BeforeValidator(_number), Field(ge=MIN_SIDE, le=MAX_SIDE)]
Text = Annotated[str, Field(strict=True, max_length=MAX_PROMPT)]
Prompt = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_PROMPT)]


class ImageRequest(BaseModel):
    """One request for pictures, whatever its route. None means that the caller didn't say."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    prompt: Prompt = Field(repr=False)
    model: Annotated[str, Field(strict=True, max_length=256)] | None = None
    n: Annotated[Whole, Field(ge=1, le=10)] = 1
    size: Annotated[str, Field(strict=True), BeforeValidator(_size)] | None = None
    quality: Annotated[
        Literal["auto", "low", "standard", "medium", "high", "hd", "xhigh", "max"] | None, AfterValidator(_quality)
    ] = None
    style: Literal["vivid", "natural"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    moderation: Literal["low", "auto"] | None = None
    input_fidelity: Literal["high", "low"] | None = None
    user: Text | None = Field(default=None, repr=False)
    safety_identifier: Text | None = None
    stream: bool = False
    partial_images: Annotated[Whole, Field(ge=0, le=3)] = 0
    negative_prompt: Text | None = Field(default=None, repr=False)
    steps: Annotated[Whole, Field(ge=1, le=150)] | None = None
    cfg: Annotated[Decimal, Field(ge=0, le=30)] | None = None
    # Stable Diffusion's clients send -1 for a random seed; the upper limit is what JSON carries exactly (RFC 8259, 6).
    seed: Annotated[Whole, Field(ge=-1, le=9_007_199_254_740_991)] | None = None
    sampler: Annotated[str, Field(strict=True, max_length=128)] | None = None
    style_preset: Annotated[str, Field(strict=True, max_length=128)] | None = None
    strength: Annotated[Decimal, Field(ge=0, le=1)] | None = None
    aspect_ratio: Annotated[str, Field(strict=True), BeforeValidator(_ratio)] | None = None
    width: Side | None = None
    height: Side | None = None

    def wanted_pixels(self) -> tuple[int, int] | None:
        """Return the width and height in pixels that ``width`` and ``height``, or else ``size``, ask for."""
        if self.width or self.height:
            width = self.width or self.height
            height = self.height or self.width
            return (width, height) if width and height else None
        # Before ``size``: clients send that by default, and an aspect ratio only when somebody chose it.
        if self.aspect_ratio not in (None, "auto") or self.size in (None, "auto"):
            return None
        width_text, _, height_text = str(self.size).partition("x")
        return int(width_text), int(height_text)

    def wanted_ratio(self) -> float | None:
        """Return the aspect ratio asked for, or None where ``width`` or ``height`` override it."""
        if self.aspect_ratio in (None, "auto") or self.width or self.height:
            return None
        named = _NAMED_RATIOS.get(str(self.aspect_ratio))
        across, down = named or map(int, str(self.aspect_ratio).split(":"))
        return across / down


_FIELDS = frozenset(ImageRequest.model_fields)
PROVIDER_FIELDS = frozenset(
    {
        "negative_prompt",
        "steps",
        "cfg",
        "seed",
        "sampler",
        "strength",
        "aspect_ratio",
        "width",
        "height",
        "style_preset",
    }
)


def parse(values: Mapping[str, Any]) -> tuple[ImageRequest, tuple[str, ...]]:
    """Check ``values``; return the request and the names that nobody here knows. Raises InvalidRequest."""
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in values.items():
        own = ALIASES.get(name, name)
        if value is None:
            continue
        if own not in _FIELDS:
            unknown.append(name)
        # An empty prompt stays, to be refused as empty and not as missing.
        elif (value != "" or own == "prompt") and (own == name or values.get(own) in (None, "")):
            known[own] = value
    if isinstance(known.get("output_format"), str) and known["output_format"].lower() == "jpg":
        known["output_format"] = "jpeg"
    try:
        request = ImageRequest.model_validate(known)
        # Not a validator of the model: one side alone stands for both, which is known only after all fields.
        if request.width or request.height:
            width, height = request.wanted_pixels() or (0, 0)
            _check_sides(width, height)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)) from None
    except PydanticCustomError as error:
        raise InvalidRequest(error.message(), param="width") from None
    if request.background == "transparent" and request.output_format == "jpeg":
        raise InvalidRequest("A transparent background needs output_format png or webp.", param="background")
    return request, tuple(unknown)


def _invalid(errors: list[ErrorDetails]) -> InvalidRequest:
    """Report one problem in OpenAI's words: the prompt's before any other, as OpenAI does."""
    error = min(errors, key=lambda item: item["loc"][:1] != ("prompt",))
    name = str(error["loc"][0])
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if kind == "string_too_short":
        return InvalidRequest(f"'{name}' must not be empty.", param=name, code="empty_string")
    if kind == "string_too_long":
        message = f"'{name}' is too long: at most {context['max_length']} characters, got {len(value)}."
        return InvalidRequest(message, param=name, code="string_above_max_length")
    if kind in ("greater_than_equal", "less_than_equal"):
        return _out_of_range(name, kind, value, context)
    if kind == "literal_error":
        message = f"Invalid value for '{name}'. Supported values are: {context['expected']}."
        return InvalidRequest(message, param=name, code="invalid_value")
    if kind in ("bad_size", "bad_ratio"):
        return InvalidRequest(error["msg"], param=name, code="invalid_value")
    if kind == "string_unicode":
        return InvalidRequest(f"'{name}' is not valid Unicode text.", param=name, code="invalid_value")
    if kind == "finite_number":
        return InvalidRequest(f"Invalid '{name}': expected a finite number.", param=name, code="invalid_value")
    got = _JSON_TYPES.get(type(value), "something else")
    message = f"Invalid type for '{name}': expected {_expected(name)}, but got {got} instead."
    return InvalidRequest(message, param=name, code="invalid_type")


def _out_of_range(name: str, kind: str, value: Any, context: Mapping[str, Any]) -> InvalidRequest:
    noun = "decimal" if name in ("cfg", "strength") else "integer"
    value = value if isinstance(value, str) or abs(value) < _MAX_SHOWN else "a far larger one"
    if kind == "greater_than_equal":
        message = f"Invalid '{name}': {noun} below minimum value. Expected a value >= {context['ge']}, got {value}."
        return InvalidRequest(message, param=name, code=f"{noun}_below_min_value")
    message = f"Invalid '{name}': {noun} above maximum value. Expected a value <= {context['le']}, got {value}."
    return InvalidRequest(message, param=name, code=f"{noun}_above_max_value")


def _expected(name: str) -> str:
    if name in ("n", "output_compression", "partial_images", "steps", "seed", "width", "height"):
        return "an integer"
    return {"cfg": "a number", "strength": "a number", "stream": "a boolean"}.get(name, "a string")


def json_object(decoded: Any) -> dict[str, Any]:
    """Return a decoded body if it is a JSON object. Raises InvalidJson."""
    if not isinstance(decoded, dict):
        raise InvalidJson("The request's body must be a JSON object.")
    return decoded
