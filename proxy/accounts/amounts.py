"""Budgets, numbers of pictures and durations as people write them: ``5/month``, ``100/day``, ``90d``."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from proxy.dollars import decimal_text, nano_dollars
from proxy.state.money import Limit, Unit
from proxy.state.periods import PERIODS

_LIMIT: Final = re.compile(r"\$?(?P<amount>\d{1,9}(?:\.\d{1,12})?)(?:\s*/\s*(?P<period>[a-z]+))?\Z", re.ASCII)
_DURATION: Final = re.compile(r"(?P<count>\d{1,6})(?P<unit>[smhdw]|mo)\Z", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "mo": 2_592_000}
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?\Z", re.ASCII)


def read_limit(text: str, unit: Unit, scope: str) -> Limit:
    """Read ``5/month``; without a period the limit is for ever (total). Raises ValueError."""
    found = _LIMIT.match(text.strip())
    period = (found["period"] or "total") if found else ""
    named = next((each for each in PERIODS if each == period), None)
    if found is None or named is None:
        raise ValueError(f"'{text[:40]}' is no limit such as 5/month; the periods are {', '.join(PERIODS)}")
    return Limit(scope, unit, named, read_amount(found["amount"], unit))


def read_amount(text: str, unit: Unit) -> int:
    """Read dollars as nano-dollars, or a number of pictures. Raises ValueError."""
    number = Decimal(text)
    if unit == "dollars":
        return nano_dollars(number)
    if number != int(number):
        raise ValueError(f"'{text}' is no whole number of pictures")
    return int(number)


def read_limits(dollars: Iterable[str], pictures: Iterable[str], scope: str) -> tuple[Limit, ...]:
    """Read the limits of one scope. Raises ValueError, also for two of the same unit and period."""
    limits = [read_limit(text, "dollars", scope) for text in dollars]
    limits += [read_limit(text, "pictures", scope) for text in pictures]
    seen = [(limit.unit, limit.period) for limit in limits]
    twice = next((place for place in seen if seen.count(place) > 1), None)
    if twice is not None:
        raise ValueError(f"two limits in {twice[0]} for the same period ({twice[1]})")
    return tuple(limits)


def shown_amount(amount: int, unit: Unit) -> str:
    """Return an amount as text for scripts: dollars as a decimal number, or a number of pictures."""
    return decimal_text(amount) if unit == "dollars" else str(amount)


def in_words(amount: int, unit: Unit) -> str:
    """Return an amount as text for people: ``$0.0025``, ``3 pictures``."""
    if unit == "dollars":
        return f"${decimal_text(amount)}"
    return f"{amount} picture{'' if amount == 1 else 's'}"


def read_seconds(text: str) -> int:
    """Read a duration such as ``90d`` or ``24h``. Raises ValueError."""
    found = _DURATION.match(text.strip())
    if found is None:
        raise ValueError(f"'{text[:40]}' is no duration such as 90d, 24h or 30m")
    return int(found["count"]) * _SECONDS[found["unit"]]


def read_moment(text: str, now: int) -> int:
    """Read a duration from ``now``, or a date, whose UTC midnight is meant. In Unix milliseconds. Raises ValueError."""
    if not _DATE.match(text.strip()):
        return now + read_seconds(text) * 1000
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"'{text[:40]}' is no date such as 2027-01-31") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def shown_moment(at: int | None) -> str | None:
    """Return a moment as text in UTC, None for none. ``at``: Unix milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_day(day: int | None) -> str | None:
    """Return the beginning of a UTC day as text, None for none."""
    return None if day is None else shown_moment(day * 86_400_000)
