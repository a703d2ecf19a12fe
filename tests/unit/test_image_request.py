"""What callers may send: good values as they are understood, bad ones with status, code and parameter."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidJson, InvalidRequest
from proxy.requests.image_request import ALIASES, MAX_PROMPT, ImageRequest, json_object, parse


def _parsed(**values: Any) -> ImageRequest:
    return parse({"prompt": "a boat", **values})[0]


def _refusal(values: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        parse(values)
    return refusal.value


@pytest.mark.parametrize(
    ("name", "given_value", "understood"),
    [
        ("n", 3, 3),
        ("n", "3", 3),
        ("n", 3.0, 3),
        ("n", "3.0", 3),
        ("n", " 10 ", 10),
        ("size", "1792x1024", "1792x1024"),
        ("size", "1024X768", "1024x768"),
        ("size", "1024 × 768", "1024x768"),
        ("size", "64x64", "64x64"),
        ("size", "4096x4096", "4096x4096"),
        ("size", "1024x256", "1024x256"),
        ("size", "auto", "auto"),
        ("quality", "hd", "hd"),
        ("quality", "xhigh", "xhigh"),
        ("style", "vivid", "vivid"),
        ("response_format", "b64_json", "b64_json"),
        ("output_format", "webp", "webp"),
        ("output_format", "jpg", "jpeg"),
        ("output_format", "JPG", "jpeg"),
        ("output_compression", "80", 80),
        ("output_compression", 0, 0),
        ("background", "auto", "auto"),
        ("moderation", "low", "low"),
        ("stream", "true", True),
        ("stream", "false", False),
        ("stream", True, True),
        ("partial_images", "2", 2),
        ("steps", 4.0, 4),
        ("cfg", "7.5", 7.5),
        ("cfg", 7, 7.0),
        ("seed", "42", 42),
        ("seed", -1, -1),
        ("seed", 9_007_199_254_740_991, 9_007_199_254_740_991),
        ("aspect_ratio", "16:9", "16:9"),
        ("aspect_ratio", "9/16", "9:16"),
        ("aspect_ratio", "1:4", "1:4"),
        ("aspect_ratio", "portrait", "portrait"),
        ("width", "512", 512),
        ("height", 64, 64),
        ("prompt", " ", " "),
        ("prompt", "a😀", "a😀"),
        ("prompt", "x" * MAX_PROMPT, "x" * MAX_PROMPT),
    ],
)
def test_good_values_are_understood(name: str, given_value: object, understood: object) -> None:
    assert getattr(_parsed(**{name: given_value}), name) == understood


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("prompt", "", "empty_string"),
        ("prompt", None, "missing_required_parameter"),
        ("prompt", 5, "invalid_type"),
        ("prompt", ["a"], "invalid_type"),
        ("prompt", {"text": "a"}, "invalid_type"),
        ("prompt", True, "invalid_type"),
        ("prompt", "x" * (MAX_PROMPT + 1), "string_above_max_length"),
        ("prompt", "a\ud800", "invalid_value"),
        ("model", 3, "invalid_type"),
        ("model", "\udc00", "invalid_value"),
        ("model", "m" * 257, "string_above_max_length"),
        ("n", 0, "integer_below_min_value"),
        ("n", 11, "integer_above_max_value"),
        ("n", "11", "integer_above_max_value"),
        ("n", 1.5, "invalid_type"),
        ("n", "1.5", "invalid_type"),
        ("n", True, "invalid_type"),
        ("n", "two", "invalid_type"),
        ("n", "1e1", "invalid_type"),
        ("n", [1], "invalid_type"),
        ("n", float("inf"), "invalid_value"),
        ("size", "big", "invalid_value"),
        ("size", "1024", "invalid_value"),
        ("size", "1024x", "invalid_value"),
        ("size", "1024x1024x3", "invalid_value"),
        ("size", "-64x64", "invalid_value"),
        ("size", "63x64", "invalid_value"),
        ("size", "4097x4096", "invalid_value"),
        ("size", "1025x256", "invalid_value"),
        ("size", "256x1025", "invalid_value"),
        ("size", 1024, "invalid_type"),
        ("size", {"width": 64}, "invalid_type"),
        ("quality", "best", "invalid_value"),
        ("style", "anime", "invalid_value"),
        ("response_format", "b64", "invalid_value"),
        ("output_format", "gif", "invalid_value"),
        ("output_format", "svg", "invalid_value"),
        ("output_compression", 101, "integer_above_max_value"),
        ("output_compression", -1, "integer_below_min_value"),
        ("background", "blue", "invalid_value"),
        ("moderation", "off", "invalid_value"),
        ("input_fidelity", "medium", "invalid_value"),
        ("stream", "perhaps", "invalid_type"),
        ("stream", 2, "invalid_type"),
        ("stream", [], "invalid_type"),
        ("partial_images", 4, "integer_above_max_value"),
        ("user", 5, "invalid_type"),
        ("steps", 0, "integer_below_min_value"),
        ("steps", 151, "integer_above_max_value"),
        ("cfg", 30.5, "decimal_above_max_value"),
        ("cfg", -0.5, "decimal_below_min_value"),
        ("cfg", float("inf"), "invalid_value"),
        ("cfg", False, "invalid_type"),
        ("seed", -2, "integer_below_min_value"),
        ("seed", 2**53, "integer_above_max_value"),
        ("sampler", 1, "invalid_type"),
        ("style_preset", "x" * 129, "string_above_max_length"),
        ("aspect_ratio", "5:1", "invalid_value"),
        ("aspect_ratio", "0:1", "invalid_value"),
        ("aspect_ratio", "wide", "invalid_value"),
        ("aspect_ratio", 1.5, "invalid_type"),
        ("width", 63, "integer_below_min_value"),
        ("height", 4097, "integer_above_max_value"),
        ("negative_prompt", ["fog"], "invalid_type"),
    ],
)
def test_bad_values_are_refused(name: str, value: object, code: str) -> None:
    refusal = _refusal({"prompt": "a boat", name: value})
    assert (refusal.status, refusal.type, refusal.code, refusal.param, refusal.should_retry) == (
        400,
        "invalid_request_error",
        code,
        name,
        False,
    )
    assert refusal.message.startswith(("'", "Invalid", "Missing"))
    assert refusal.body()["error"] == {
        "message": refusal.message,
        "type": "invalid_request_error",
        "param": name,
        "code": code,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Missing required parameter: 'prompt'."),
        ({"prompt": "a", "n": "x"}, "Invalid type for 'n': expected an integer, but got a string instead."),
        ({"prompt": "a", "n": 1.5}, "Invalid type for 'n': expected an integer, but got a decimal number instead."),
        ({"prompt": "a", "n": {}}, "Invalid type for 'n': expected an integer, but got an object instead."),
        ({"prompt": 1}, "Invalid type for 'prompt': expected a string, but got an integer instead."),
        ({"prompt": "a", "cfg": []}, "Invalid type for 'cfg': expected a number, but got an array instead."),
        ({"prompt": "a", "stream": "?"}, "Invalid type for 'stream': expected a boolean, but got a string instead."),
        ({"prompt": "a", "n": 11}, "Invalid 'n': integer above maximum value. Expected a value <= 10, got 11."),
        ({"prompt": "a", "cfg": -1}, "Invalid 'cfg': decimal below minimum value. Expected a value >= 0, got -1."),
        ({"prompt": "a", "style": "x"}, "Invalid value for 'style'. Supported values are: 'vivid' or 'natural'."),
    ],
)
def test_messages_say_what_was_expected(values: dict[str, Any], message: str) -> None:
    assert re.sub(r"\.0\b", "", _refusal(values).message) == message


def test_the_prompt_is_complained_of_first() -> None:
    assert _refusal({"n": 99, "size": "?"}).param == "prompt"


def test_a_long_prompt_is_not_repeated() -> None:
    refusal = _refusal({"prompt": "secret " * 5000})
    assert refusal.message == "'prompt' is too long: at most 32000 characters, got 35000."


@pytest.mark.parametrize("name", sorted(set(ImageRequest.model_fields) - {"prompt"}))
@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_empty_mean_absent(name: str, absent: object) -> None:
    request, unknown = parse({"prompt": "a boat", name: absent})
    assert request == _parsed()
    assert unknown == ()


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_aliases_stand_for_the_parameter(alias: str) -> None:
    name = ALIASES[alias]
    value = {"steps": 4, "cfg": 5.0, "strength": 0.5, "aspect_ratio": "3:2"}.get(name, "Euler")
    other = {"steps": 9, "cfg": 9.0, "strength": 0.9, "aspect_ratio": "1:1"}.get(name, "Heun")
    assert getattr(_parsed(**{alias: value}), name) == value
    assert getattr(_parsed(**{alias: value, name: None}), name) == value
    assert getattr(_parsed(**{alias: value, name: ""}), name) == value
    assert getattr(_parsed(**{alias: other, name: value}), name) == value
    assert getattr(_parsed(**{name: value, alias: other}), name) == value


def test_a_wrong_alias_is_told_by_the_parameters_own_name() -> None:
    assert _refusal({"prompt": "a", "num_inference_steps": "many"}).param == "steps"


def test_unknown_fields_are_collected_and_absent_ones_are_not() -> None:
    _, unknown = parse({"prompt": "a", "negativePrompt": "b", "fooBar": 1, "frame_count": 3, "svg": None})
    assert unknown == ("fooBar", "frame_count")


def test_a_transparent_jpeg_cannot_be() -> None:
    refusal = _refusal({"prompt": "a", "background": "transparent", "output_format": "jpg"})
    assert (refusal.code, refusal.param) == ("invalid_value", "background")
    assert _parsed(background="transparent", output_format="png").background == "transparent"


@pytest.mark.parametrize("sides", [{"width": 64, "height": 257}, {"width": 4096, "height": 1023}])
def test_width_and_height_keep_the_ratio(sides: dict[str, int]) -> None:
    refusal = _refusal({"prompt": "a", **sides})
    assert (refusal.code, refusal.param) == ("invalid_value", "width")


@pytest.mark.parametrize(
    ("values", "pixels", "ratio"),
    [
        ({}, None, None),
        ({"size": "auto"}, None, None),
        ({"size": "640x480"}, (640, 480), None),
        ({"size": "640x480", "aspect_ratio": "auto"}, (640, 480), None),
        ({"size": "640x480", "aspect_ratio": "1:1"}, None, 1.0),
        ({"aspect_ratio": "landscape"}, None, 1.5),
        ({"size": "640x480", "aspect_ratio": "1:1", "width": 512, "height": 256}, (512, 256), None),
        ({"width": 512}, (512, 512), None),
        ({"height": 256, "size": "640x480"}, (256, 256), None),
    ],
)
def test_width_and_height_win_over_the_ratio_and_the_ratio_over_the_size(
    values: dict[str, Any], pixels: tuple[int, int] | None, ratio: float | None
) -> None:
    request = _parsed(**values)
    assert request.wanted_pixels() == pixels
    assert request.wanted_ratio() == ratio


@pytest.mark.parametrize("decoded", [[], "x", 1, None, True])
def test_a_body_that_is_no_object_is_refused(decoded: object) -> None:
    with pytest.raises(InvalidJson):
        json_object(decoded)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_SIZES = st.from_regex(r"[0-9]{1,5}[xX:/][0-9]{1,5}", fullmatch=True)
_NAMES = st.sampled_from([*ImageRequest.model_fields, *ALIASES]) | st.text(max_size=8)


def _parse_or_refuse(values: dict[str, Any]) -> tuple[ImageRequest, tuple[str, ...]] | InvalidRequest:
    try:
        return parse(values)
    except InvalidRequest as refusal:
        return refusal


@given(st.dictionaries(_NAMES, _JSON | _SIZES, max_size=8))
def test_any_object_parses_or_is_refused(values: dict[str, Any]) -> None:
    outcome = _parse_or_refuse({"prompt": "a boat", **values})
    if isinstance(outcome, InvalidRequest):
        assert outcome.status == 400
        assert outcome.message
        assert outcome.code
        assert outcome.param in ImageRequest.model_fields
        return
    request, unknown = outcome
    assert set(unknown).isdisjoint(ImageRequest.model_fields)
    pixels = request.wanted_pixels()
    assert pixels is None or (max(pixels) <= 4096 and min(pixels) >= 64 and max(pixels) <= 4 * min(pixels))
    ratio = request.wanted_ratio()
    assert ratio is None or 0.25 <= ratio <= 4
