"""What a request's headers say of it, read once."""

import math

import pytest

from proxy.api.context import RequestContext
from proxy.config import ServerSettings
from proxy.errors import InvalidRequest


def _context(*pairs: tuple[str, str]) -> RequestContext:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    return RequestContext.of({"type": "http", "headers": raw, "server": ("127.0.0.1", 80)}, 5.0, ServerSettings())


@pytest.mark.parametrize(
    ("pairs", "patience_s"),
    [
        ([], math.inf),
        ([("x-stainless-timeout", "60")], 58),
        ([("x-stainless-timeout", "60"), ("x-stainless-read-timeout", "10.5")], 8.5),
        ([("x-stainless-timeout", "0.5")], 1),
        ([("x-stainless-timeout", "NaN"), ("x-stainless-read-timeout", "-3")], math.inf),
        ([("prefer", "wait=7")], 7),
        ([("prefer", "wait=0")], 1),
        ([("prefer", "respond-async, Wait=7; x=1"), ("x-stainless-timeout", "6")], 4),
        ([("prefer", "wait=soon")], math.inf),
    ],
)
def test_how_long_a_caller_can_be_held(pairs: list[tuple[str, str]], patience_s: float) -> None:
    assert _context(*pairs).patience_s == patience_s


def test_preferences_come_from_every_header_and_the_first_of_a_name_counts() -> None:
    context = _context(("prefer", 'Respond-Async, wait="3"'), ("prefer", "wait=9, other"))
    assert context.preferences == {"respond-async": "", "wait": "3", "other": ""}


@pytest.mark.parametrize(("value", "attempt"), [("2", 2), ("999", 999), ("1000", 0), ("-1", 0), ("x", 0), ("²", 0)])
def test_the_retry_counter(value: str, attempt: int) -> None:
    assert _context(("x-stainless-retry-count", value)).attempt == attempt


@pytest.mark.parametrize(("value", "key"), [('"mine"', "mine"), (" mine ", "mine"), ("k" * 255, "k" * 255)])
def test_an_idempotency_key_may_be_quoted(value: str, key: str) -> None:
    assert _context(("idempotency-key", value)).idempotency_key == key
    assert _context().idempotency_key is None


@pytest.mark.parametrize("value", ["", '""', " ", "k" * 256])
def test_a_bad_idempotency_key_is_refused_when_it_is_needed(value: str) -> None:
    context = _context(("idempotency-key", value))
    with pytest.raises(InvalidRequest) as refusal:
        _ = context.idempotency_key
    assert refusal.value.param == "Idempotency-Key"
