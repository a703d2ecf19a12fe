"""A request becomes an order: routes that can't serve it are skipped, and equal requests have equal fingerprints."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.errors import InvalidRequest
from proxy.providers.boundary import InputPicture, Model, Range
from proxy.providers.shapes import FreeShapes
from proxy.requests.image_request import parse
from proxy.requests.resolve import CheckedRequest, ResolvedRequest, resolve
from proxy.requests.routing import PublicModel, Route
from proxy.state.records import Account

_SHAPES = FreeShapes(low=64, high=1024)
_SHORT = Model("short", _SHAPES, prompt=(3, 10), numbers={"seed": Range(0, 9), "steps": Range(1, 4)})
_LONG = Model("long", _SHAPES, prompt=(1, 100), operations=frozenset({"generate", "edit"}), max_images=2)
_GPT_ONLY = {
    "background": "auto",
    "moderation": "low",
    "output_format": "png",
    "output_compression": 80,
    "partial_images": 0,
    "input_fidelity": "high",
    "frame_count": 2,
}
_PUBLIC = PublicModel("dall-e-3", (Route("one", _SHORT), Route("two", _LONG)), "")
_SECRET = b"secret"
_RED = InputPicture(b"red", "png", 8, 8)
_BLUE = InputPicture(b"blue", "png", 8, 8)


def _checked(owner: str = "", **values: Any) -> CheckedRequest:
    request, unknown = parse({"prompt": "a boat", **values})
    return CheckedRequest(request, unknown, account=Account(owner))


def _resolved(**values: Any) -> ResolvedRequest:
    return resolve(_checked(**values), _PUBLIC, _SECRET, strict=False)


def _routes(resolved: ResolvedRequest) -> list[str]:
    return [str(candidate.route) for candidate in resolved.candidates]


@pytest.mark.parametrize(
    ("prompt", "routes"),
    [("a boat", ["one/short", "two/long"]), ("ab", ["two/long"]), ("a" * 11, ["two/long"])],
)
def test_routes_whose_limits_the_prompt_breaks_are_skipped(prompt: str, routes: list[str]) -> None:
    assert _routes(_resolved(prompt=prompt)) == routes


def test_a_prompt_too_long_for_every_route_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        _resolved(prompt="a" * 101)
    assert (refusal.value.code, refusal.value.param) == ("string_above_max_length", "prompt")


def test_a_prompt_too_short_for_every_route_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        resolve(_checked(prompt="ab"), PublicModel("x", (Route("one", _SHORT),), "url"), _SECRET, strict=False)
    assert (refusal.value.code, refusal.value.param) == ("string_below_min_length", "prompt")


def test_strict_refuses_unknown_fields_by_name() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        resolve(_checked(frames=3), _PUBLIC, _SECRET, strict=True)
    assert (refusal.value.code, refusal.value.param) == ("unknown_parameter", "frames")
    assert "frames" in refusal.value.message


def test_strict_skips_routes_that_would_drop_a_parameter() -> None:
    assert _routes(resolve(_checked(steps=3), _PUBLIC, _SECRET, strict=True)) == ["one/short"]
    with pytest.raises(InvalidRequest) as refusal:
        resolve(_checked(cfg=3), _PUBLIC, _SECRET, strict=True)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, "unknown_parameter", "cfg")


def test_not_strict_takes_everything() -> None:
    resolved = _resolved(frames=3, cfg=3)
    assert resolved.checked.unknown == ("frames",)
    assert resolved.candidates[0].translation.dropped == ("cfg",)


def test_only_routes_that_can_do_the_operation_are_left() -> None:
    request, _ = parse({"prompt": "a boat"})
    resolved = resolve(CheckedRequest(request, operation="edit", images=(_RED,)), _PUBLIC, _SECRET, strict=False)
    assert _routes(resolved) == ["two/long"]


def test_an_operation_that_no_route_can_do_recommends_models() -> None:
    request, _ = parse({"prompt": "a boat"})
    checked = CheckedRequest(request, operation="inpaint", images=(_RED,), mask=_RED)
    with pytest.raises(InvalidRequest) as refusal:
        resolve(checked, _PUBLIC, _SECRET, strict=False, able=["gpt-image-1", "dall-e-2"])
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, "invalid_value", "model")
    assert "'gpt-image-1', 'dall-e-2'" in refusal.value.message


def test_too_many_pictures_are_refused() -> None:
    request, _ = parse({"prompt": "a boat"})
    with pytest.raises(InvalidRequest) as refusal:
        resolve(CheckedRequest(request, operation="edit", images=(_RED, _BLUE, _RED)), _PUBLIC, _SECRET, strict=False)
    assert refusal.value.param == "image"


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ({}, "url"),
        ({"response_format": "b64_json"}, "b64_json"),
        ({"response_format": "url"}, "url"),
        ({"style": "vivid", "quality": "hd", "stream": False, "background": None, "model": ""}, "url"),
        *(({name: value}, "b64_json") for name, value in _GPT_ONLY.items()),
        *(({name: value, "response_format": "url"}, "url") for name, value in _GPT_ONLY.items()),
        *(({name: value, "model": "dall-e-3"}, "url") for name, value in _GPT_ONLY.items()),
    ],
)
def test_the_form_is_the_callers_or_the_models(values: dict[str, Any], form: str) -> None:
    assert _resolved(**values).form == form


@pytest.mark.parametrize(
    ("values", "form"),
    [({}, "b64_json"), ({"response_format": "url"}, "url"), ({"model": "dall-e-2"}, "url")],
)
def test_an_edit_without_a_model_is_a_gpt_models(values: dict[str, Any], form: str) -> None:
    request, unknown = parse({"prompt": "a boat", **values})
    assert resolve(CheckedRequest(request, unknown, "edit", (_RED,)), _PUBLIC, _SECRET, strict=False).form == form


def test_a_configured_form_wins_over_what_a_request_implies() -> None:
    request, unknown = parse({"prompt": "a boat", "background": "auto"})
    assert (
        resolve(CheckedRequest(request, unknown), replace(_PUBLIC, response_format="url"), _SECRET, strict=False).form
        == "url"
    )


def _fingerprint(owner: str = "", images: tuple[InputPicture, ...] = (), **values: Any) -> bytes:
    request, unknown = parse({"prompt": "a boat", **values})
    operation: Any = "edit" if images else "generate"
    return resolve(
        CheckedRequest(request, unknown, operation, images, account=Account(owner)), _PUBLIC, _SECRET, strict=False
    ).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"n": 1}),
        ({}, {"n": "1", "size": None}),
        ({"steps": 3}, {"num_inference_steps": "3"}),
        ({}, {"user": "someone", "safety_identifier": "x"}),
        ({}, {"response_format": "url"}),
        ({}, {"unheard_of": 1}),
        ({}, {"quality": "standard"}),
        ({"size": "64x64", "n": 2}, {"n": 2, "size": "64X64"}),
    ],
)
def test_equal_requests_have_equal_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert _fingerprint(**one) == _fingerprint(**other)


def test_different_requests_have_different_fingerprints() -> None:
    requests: list[dict[str, Any]] = [
        {},
        {"prompt": "a bat"},
        {"n": 2},
        {"size": "64x64"},
        {"seed": 1},
        {"response_format": "b64_json"},
        {"output_format": "webp"},
        {"owner": "someone"},
        {"images": (_RED,)},
        {"images": (_BLUE,)},
        {"images": (_RED, _BLUE)},
        {"images": (_BLUE, _RED)},
    ]
    assert len({_fingerprint(**checked) for checked in requests}) == len(requests)


def test_nothing_of_the_request_shows_in_its_repr() -> None:
    resolved = _resolved()
    assert resolved.fingerprint.hex() not in repr(resolved)
    assert "red" not in repr(_RED)
