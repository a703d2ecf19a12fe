"""Dollars as whole nano-dollars, so that no sum is ever off by a fraction; as decimal text where people read them."""

from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

_NANO = Decimal(10**9)
_MOST = 10**15
"""A million dollars. A picture that costs more is a mistake, and its sums would not fit into a database's numbers."""


def nano_dollars(value: object, *, exact: bool = True) -> int:
    """Return dollars as nano-dollars; a float counts as its shortest decimal text, so 0.0025 is exactly 2,500,000.

    ``exact`` false: digits beyond the ninth decimal are rounded. Raises ValueError for what is no number, negative,
    above a million or, if ``exact``, finer than nine decimals.
    """
    # A boolean is an int to isinstance().
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number of dollars")
    return _nano(value, exact)


@lru_cache(maxsize=256)  # prices are few, and each picture has one
def _nano(value: float | Decimal, exact: bool) -> int:
    amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not amount.is_finite() or amount < 0 or amount * _NANO > _MOST:
        raise ValueError("must be between 0 and 1000000 dollars")
    nano = (amount * _NANO).quantize(Decimal(1), ROUND_HALF_UP)
    if exact and nano != amount * _NANO:
        raise ValueError("must be dollars with at most nine decimals")
    return int(nano)


def decimal_text(nano: int) -> str:
    """Return nano-dollars as dollars in plain decimals, without trailing zeros: ``0.0025``."""
    return format(Decimal(nano).scaleb(-9).normalize(), "f")
