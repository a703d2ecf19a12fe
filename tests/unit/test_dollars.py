"""Dollars in and out of whole nano-dollars."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dollars import decimal_text, nano_dollars


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [
        (0, 0),
        (0.0, 0),
        (-0.0, 0),
        (1, 10**9),
        (0.0025, 2_500_000),
        (0.1, 100_000_000),
        (1e-9, 1),
        (2.675, 2_675_000_000),
        (1_000_000, 10**15),
        (Decimal("0.039"), 39_000_000),
    ],
)
def test_dollars_are_read_to_the_last_digit(dollars: object, nano: int) -> None:
    assert nano_dollars(dollars) == nano


_NO_NUMBERS: list[object] = ["0.5", None, True, [], {}]
_TOO_FINE = [1e-10, 0.0000000015, 5e-324]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((value, "number of dollars") for value in _NO_NUMBERS),
        *((value, "between 0 and 1000000") for value in (-1, -1e-9, 1_000_001, 1e300, float("nan"), float("inf"))),
        (10**400, "between 0 and 1000000"),
        *((value, "nine decimals") for value in _TOO_FINE),
    ],
)
def test_what_is_no_price_is_refused(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nano_dollars(value)


def test_what_a_float_has_lost_is_rounded_where_that_may_be() -> None:
    assert nano_dollars(0.00054999999999995, exact=False) == 550_000
    assert nano_dollars(0.1 + 0.2, exact=False) == 300_000_000
    with pytest.raises(ValueError, match="between"):
        nano_dollars(-1, exact=False)


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0"), (1, "0.000000001"), (2_500_000, "0.0025"), (10**9, "1"), (10**10, "10"), (12_300_000_000, "12.3")],
)
def test_dollars_are_written_in_plain_decimals(nano: int, text: str) -> None:
    assert decimal_text(nano) == text


@given(st.integers(0, 10**15))
def test_what_is_written_is_read_back(nano: int) -> None:
    assert nano_dollars(Decimal(decimal_text(nano))) == nano
