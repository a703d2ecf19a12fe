"""Public names to routes: configured, native, by pattern, with OpenAI's prefix, or refused with a suggestion."""

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.config import compose
from proxy.engine import Engine
from proxy.errors import NotConfigured, UnknownModel
from proxy.providers.boundary import Model
from proxy.providers.shapes import FixedShapes, Shape
from proxy.requests.routing import ModelCatalogue, ModelSettings, Routing

_SQUARE = FixedShapes([Shape(512, 512)])

PUBLIC_NAMES = [  # every picture model that OpenAI has named
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "gpt-image-2-2026-04-21",
    "chatgpt-image-latest",
    "gpt-image-2.5-sunburst",
    "gpt-image-2.5-flare",
    "gpt-image-2.5-sunburst-2026-09-08",
    "gpt-image-2.5-flare-2026-09-08",
    "gpt-image-2.6-sunburst",
    "gpt-image-2.6-flare",
    "gpt-image-9-of-the-future",
    "stablediffusion",
]


def _catalogue(name: str, *models: Model, why_not: str = "") -> ModelCatalogue:
    catalogue = ModelCatalogue(name, why_not)
    catalogue.offer(models)
    return catalogue


def _model(name: str, *aliases: str) -> Model:
    return Model(name, _SQUARE, aliases=aliases)


def _settings(*routes: str, **settings: Any) -> ModelSettings:
    return ModelSettings(routes=routes, **settings)


_CATALOGUES = [
    _catalogue("fast", _model("turbo", "t"), _model("both"), _model("org/nested [1a]", "nested")),
    _catalogue("slow", _model("both"), _model("careful")),
    _catalogue("off", _model("gone"), _model("turbo"), why_not="OFF_KEY is not set"),
]


def _routing(models: Mapping[str, ModelSettings] | None = None) -> Routing:
    return Routing(models or {"dall-e-3": _settings("fast/turbo", "slow/careful")}, _CATALOGUES)


def _routes(name: str, models: Mapping[str, ModelSettings] | None = None) -> list[str]:
    return [str(route) for route in _routing(models).resolve(name).routes]


@pytest.mark.parametrize(
    ("name", "routes"),
    [
        ("dall-e-3", ["fast/turbo", "slow/careful"]),
        ("openai/dall-e-3", ["fast/turbo", "slow/careful"]),
        ("fast/turbo", ["fast/turbo"]),
        ("fast/t", ["fast/turbo"]),
        ("fast/both", ["fast/both"]),
        ("slow/both", ["slow/both"]),
        ("fast/org/nested [1a]", ["fast/org/nested [1a]"]),
        ("org/nested [1a]", ["fast/org/nested [1a]"]),
        ("turbo", ["fast/turbo"]),
        ("t", ["fast/turbo"]),
        ("careful", ["slow/careful"]),
        ("openai/careful", ["slow/careful"]),
    ],
)
def test_names_lead_to_routes(name: str, routes: list[str]) -> None:
    assert _routes(name) == routes


def test_an_ambiguous_bare_name_is_refused_with_both_full_names() -> None:
    with pytest.raises(UnknownModel) as refusal:
        _routes("both")
    assert "'fast/both' or 'slow/both'" in refusal.value.message


def test_a_configured_name_wins_over_a_native_one() -> None:
    assert _routes("turbo", {"turbo": _settings("slow/careful")}) == ["slow/careful"]


def test_a_native_name_wins_over_a_pattern() -> None:
    assert _routes("turbo", {"*": _settings("slow/careful")}) == ["fast/turbo"]


@pytest.mark.parametrize(
    ("name", "routes"),
    [
        ("gpt-image-1", ["fast/turbo"]),
        ("gpt-image-2", ["slow/both"]),
        ("gpt-image-2-mini", ["slow/careful"]),
        ("gpt-image-", ["fast/turbo"]),
        ("gpt-imag", ["fast/both"]),
        ("whatever", ["fast/both"]),
    ],
)
def test_the_longest_pattern_wins(name: str, routes: list[str]) -> None:
    models = {
        "*": _settings("fast/both"),
        "gpt-image-*": _settings("fast/turbo"),
        "gpt-image-2*": _settings("slow/careful"),
        "gpt-image-2": _settings("slow/both"),
    }
    assert _routes(name, models) == routes
    assert _routes(name, dict(reversed(models.items()))) == routes


@pytest.mark.parametrize("name", ["nope", "fast/nope", "nowhere/turbo", "openai/nope", "openai/openai/nope", "*", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownModel) as refusal:
        _routes(name)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (404, "model_not_found", "model")
    assert refusal.value.should_retry is False


def test_a_near_miss_is_told() -> None:
    with pytest.raises(UnknownModel, match=r"The model 'dal-e-3' does not exist\. Did you mean 'dall-e-3'\?"):
        _routes("dal-e-3")


def test_a_refusal_shows_no_control_characters_and_not_everything() -> None:
    with pytest.raises(UnknownModel) as refusal:
        _routes("a\r\nb" + "x" * 300)
    assert "a??b" in refusal.value.message
    assert len(refusal.value.message) < 250


@pytest.mark.parametrize("name", ["off/gone", "gone", "mine"])
def test_a_name_without_a_usable_route_is_not_configured(name: str) -> None:
    with pytest.raises(NotConfigured) as refusal:
        _routes(name, {"mine": _settings("off/turbo", "off/gone")})
    assert (refusal.value.status, refusal.value.code) == (503, "provider_not_configured")
    assert "off: OFF_KEY is not set" in refusal.value.message


def test_unusable_and_unknown_routes_are_left_out() -> None:
    assert _routes("mine", {"mine": _settings("off/turbo", "fast/never-heard-of", "slow/both")}) == ["slow/both"]


@pytest.mark.parametrize(
    ("name", "chosen", "form"),
    [
        ("dall-e-3", "", "url"),
        ("gpt-image-1", "", "b64_json"),
        ("my-gpt-image-thing", "", "b64_json"),
        ("chatgpt-image-latest", "", "b64_json"),
        ("gpt-image-1", "url", "url"),
        ("dall-e-3", "b64_json", "b64_json"),
    ],
)
def test_the_form_of_answers_goes_by_the_name_unless_configured(name: str, chosen: str, form: str) -> None:
    routing = _routing({name: _settings("fast/turbo", response_format=chosen)})
    assert routing.resolve(name).form() == form


def test_the_listing_has_configured_names_then_native_ones_of_usable_providers() -> None:
    models = {"b": _settings("fast/turbo"), "a*": _settings("fast/turbo"), "a": _settings("off/gone")}
    assert list(_routing(models).listed()) == [
        ("b", "images-proxy"),
        ("a", "images-proxy"),
        ("fast/turbo", "fast"),
        ("fast/both", "fast"),
        ("fast/org/nested [1a]", "fast"),
        ("slow/both", "slow"),
        ("slow/careful", "slow"),
    ]


def test_a_shorter_listing_hides_names_and_keeps_them_callable() -> None:
    models = {"b": _settings("fast/turbo"), "a": _settings("slow/careful")}
    routing = Routing(models, _CATALOGUES, ("a",))
    assert list(routing.listed()) == [("a", "images-proxy")]
    assert list(routing.known()) == list(_routing(models).listed())
    assert [str(route) for route in routing.resolve("b").routes] == ["fast/turbo"]
    assert [str(route) for route in routing.resolve("fast/turbo").routes] == ["fast/turbo"]
    with pytest.raises(UnknownModel, match="Did you mean 'b'"):
        routing.resolve("bb")


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("fast/turbo", ""),
        ("fast/t", ""),
        ("off/turbo", "OFF_KEY is not set"),
        ("fast/nope", "the provider has no such model"),
        ("nowhere/turbo", "no such provider"),
    ],
)
def test_why_a_route_cannot_be_used(route: str, reason: str) -> None:
    assert _routing().why_unusable(route) == reason


def test_a_provider_may_change_what_it_offers() -> None:
    catalogue = _catalogue("fast", _model("old"))
    routing = Routing({}, [catalogue])
    catalogue.offer([_model("new")])
    assert [str(route) for route in routing.resolve("new").routes] == ["fast/new"]
    with pytest.raises(UnknownModel):
        routing.resolve("old")


def test_a_models_own_name_wins_over_an_alias_of_another() -> None:
    catalogue = _catalogue("fast", _model("a", "b"), _model("b"))
    assert catalogue.by_name["b"].name == "b"


@pytest.mark.parametrize("environment", [{"PRODIA_TOKEN": "t"}, {}], ids=["with a token", "without any key"])
@pytest.mark.parametrize("name", [*PUBLIC_NAMES, *(f"openai/{name}" for name in PUBLIC_NAMES)])
def test_every_name_of_openai_works_out_of_the_box(name: str, environment: dict[str, str]) -> None:
    public = Engine(compose({}, environment)).routing.resolve(name)
    assert str(public.routes[0]).startswith("prodia/inference.flux-fast" if environment else "imagelabs/")
    assert public.form() == ("b64_json" if "gpt" in name else "url")


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("imagelabs/sdxl-turbo", "imagelabs/sdxl-turbo"),
        ("sdxl-turbo", "imagelabs/sdxl-turbo"),
        (
            "prodia-legacy/dreamshaper_8.safetensors [9d40847d]",
            "prodia-legacy/dreamshaper_8.safetensors [9d40847d]",
        ),
        ("prodia-legacy/default", "prodia-legacy/absolutereality_v181.safetensors [3d9d4d2b]"),
        ("flux-schnell", "prodia/inference.flux-fast.schnell.txt2img.v2"),
        ("prodia/flux-fast.schnell.txt2img.v2", "prodia/inference.flux-fast.schnell.txt2img.v2"),
        ("sd_xl_base_1.0", "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"),
    ],
)
def test_native_names_of_the_built_in_providers(name: str, route: str) -> None:
    keys = {"PRODIA_TOKEN": "t", "PRODIA_API_KEY": "k"}
    values = {"providers": {"prodia-legacy": {"enabled": True}}}
    assert [str(r) for r in Engine(compose(values, keys)).routing.resolve(name).routes] == [route]
