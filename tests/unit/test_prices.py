"""What a picture costs, as far as it is known before it is made."""

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.accounts.prices import UNKNOWN, Price, known_price, price_name, price_of, total
from proxy.config import compose
from proxy.engine import Engine
from proxy.providers.registry import KINDS, build
from proxy.requests.resolve import Candidate

_KEYS = {own.key_env: "k" for own in KINDS.values() if own.key_env}
_ENGINE = Engine(compose({"providers": {"prodia-legacy": {"enabled": True}}}, _KEYS))
_FAST = "inference.flux-fast.schnell.txt2img.v2"
_KLEIN = "inference.flux-2.klein.4b.txt2img.v1"
_FLEX = "inference.flux-2.flex.txt2img.v1"


def _candidate(model: str, **values: Any) -> Candidate:
    (candidate,) = _ENGINE.resolve({"prompt": "a fox", "model": f"prodia/{model}", **values}).candidates
    return candidate


def test_the_operators_word_counts_most_then_what_is_published_then_what_was_told() -> None:
    candidate = _candidate(_FAST)
    name = price_name(candidate)
    assert known_price(candidate, {_FAST: 5}, {name: 7}) == Price(5, "config", name)
    assert known_price(candidate, {}, {name: 7}) == Price(2_500_000, "table", name)
    unpublished = _candidate(_KLEIN)
    other = price_name(unpublished)
    assert known_price(unpublished, {}, {other: 7}) == Price(7, "table", other)
    assert known_price(unpublished, {}, {name: 7}) == Price(None, "unknown", other)


@pytest.mark.parametrize("name", [_FAST, "flux-fast.schnell.txt2img.v2", "flux-schnell"])
def test_a_price_is_configured_by_any_name_of_the_model(name: str) -> None:
    assert known_price(_candidate("flux-schnell"), {name: 0}, {}) == Price(0, "config", f"prodia/{_FAST}|1048576|4")


@pytest.mark.parametrize(
    ("model", "values", "end"),
    [
        (_FAST, {}, "|1048576|4"),
        (_FAST, {"size": "1792x1024"}, "|2097152|4"),
        (_FAST, {"size": "1024x1024", "steps": 2}, "|1048576|2"),
        (_FAST, {"size": "512x512", "quality": "low"}, "|262144|2"),
        (_FLEX, {"steps": 9}, "|1048576|9"),
        (_KLEIN, {"steps": 9}, "|1048576|-"),
    ],
)
def test_jobs_of_one_type_size_and_steps_have_one_price(model: str, values: Mapping[str, Any], end: str) -> None:
    assert price_name(_candidate(model, **values)) == f"prodia/{model}{end}"
    assert price_name(_candidate(model, **values, seed=3)) == f"prodia/{model}{end}"


def test_what_the_provider_tells_of_the_job_itself_wins() -> None:
    known = Price(5, "config", "x")
    assert known.settled(None) is known
    assert known.settled(0) == Price(0, "provider", "x")
    assert Price().settled(7) == Price(7, "provider")


def test_pictures_together_cost_what_is_known_of_each_by_the_weakest_word() -> None:
    told, published = Price(5, "provider"), Price(0, "table")
    assert total([told, told]) == Price(10, "provider")
    assert total([told, published, told]) == Price(10, "table")
    assert total([told, UNKNOWN]) == total([]) == UNKNOWN


@pytest.mark.parametrize(
    ("amount", "source", "price"),
    [
        (0, "config", Price(0, "config")),
        (7, "provider", Price(7, "provider")),
        (None, "table", UNKNOWN),
        (7, "unknown", UNKNOWN),
        (7, "a later version's word", UNKNOWN),
    ],
)
def test_a_price_that_was_written_down_is_read_back(amount: int | None, source: str, price: Price) -> None:
    assert price_of(amount, source) == price


def test_only_prodias_v2_asks_money_for_each_picture() -> None:
    settings = _ENGINE.settings.providers
    prices = {kind: {m.price_dollars for m in build(settings[kind], "k").models()} for kind in KINDS}
    assert {kind for kind, each in prices.items() if each == {0}} == set(KINDS) - {"prodia"}
    assert 0 not in prices["prodia"]
