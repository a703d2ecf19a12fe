"""Calendar periods of budgets, in UTC. A reservation keeps its day, so nothing ever has to be reset."""

from datetime import date, timedelta
from functools import lru_cache
from typing import Final, Literal

Period = Literal["day", "week", "month", "total"]
"""Of a limit. Weeks begin on Monday; total never ends."""

PERIODS: Final[tuple[Period, ...]] = ("day", "week", "month", "total")
_EPOCH: Final = date(1970, 1, 1)
_DAY_MS: Final = 86_400_000


def day_of(at_ms: int) -> int:
    """Return the day of a moment, in whole UTC days since 1970-01-01. ``at_ms``: Unix time in milliseconds."""
    return at_ms // _DAY_MS


@lru_cache(maxsize=256)
def period_start(period: Period, day: int) -> int:
    """Return the first day of the period that holds ``day``; 0 for total."""
    if period == "total":
        return 0
    if period == "day":
        return day
    moment = _EPOCH + timedelta(days=day)
    first = moment.replace(day=1) if period == "month" else moment - timedelta(days=moment.weekday())
    return (first - _EPOCH).days


@lru_cache(maxsize=256)
def period_end(period: Period, day: int) -> int | None:
    """Return the first day after the period that holds ``day``; None for total."""
    if period == "total":
        return None
    start = period_start(period, day)
    if period == "month":
        first = _EPOCH + timedelta(days=start)
        return ((first + timedelta(days=31)).replace(day=1) - _EPOCH).days
    return start + (7 if period == "week" else 1)
