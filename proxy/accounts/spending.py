"""The metrics of money: what this process has reserved, spent and lost sight of, by key, provider and model.

The state's figures are the right ones; these are for plots and alerts, and begin anew with the process.
"""

from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from proxy.metrics import MoneyFigures
from proxy.state.records import Account

_NANO: Final = 1e9
_MOST: Final = 2_000
"""Combinations of key, provider and model: each is several series, which stay as long as the process."""
_OTHER: Final = ("other", "other", "other")
_NOBODY: Final = "-"
_SCOPES: Final = {"all": "service"}

Place = tuple[str, str, str]


class _Series(NamedTuple):
    spent: Counter
    reserved: Gauge
    unknown: Counter
    pictures: Counter


class Spending:
    """Counts money as it moves."""

    def __init__(self, figures: MoneyFigures) -> None:
        self._figures = figures
        self._series: dict[Place, _Series] = {}

    def hold(self, account: Account, provider: str, model: str, amount: int) -> "Holding":
        """Count ``amount`` nano-dollars as reserved for a job."""
        return Holding(self, (account.key_name or _NOBODY, provider, model), amount)

    def refused(self, scope: str) -> None:
        """Count a refusal. ``scope``: of the limit, as the state names it; or ``pace``."""
        kind = scope.partition(":")[0]
        self._figures.refusals.labels(_SCOPES.get(kind, kind)).inc()

    def of(self, place: Place) -> _Series:
        """Return the series of a key, a provider and a model."""
        found = self._series.get(place)
        if found is None:
            if len(self._series) >= _MOST and place != _OTHER:
                return self.of(_OTHER)
            figures = self._figures
            found = self._series[place] = _Series(
                figures.spent.labels(*place),
                figures.reserved.labels(*place),
                figures.unknown.labels(*place),
                figures.pictures.labels(*place),
            )
        return found


class Holding:
    """What is reserved for one job, until it is settled, released or unknown; what comes after is not counted."""

    __slots__ = ("_amount", "_key", "_open", "_series", "_spending")

    def __init__(self, spending: Spending, place: Place, amount: int) -> None:
        self._spending = spending
        self._key = place[0]
        self._amount = amount
        self._series = spending.of(place)
        self._open = True
        self._series.reserved.inc(amount / _NANO)

    def move(self, provider: str, model: str, price: int | None) -> None:
        """Count it for another route, with more if that is dearer."""
        self._series.reserved.dec(self._amount / _NANO)
        self._amount = max(self._amount, price or 0)
        self._series = self._spending.of((self._key, provider, model))
        self._series.reserved.inc(self._amount / _NANO)

    def settle(self, cost: int | None) -> None:
        """Count it as spent. ``cost``: nano-dollars, None for all that was held."""
        if self._close():
            self._series.spent.inc((self._amount if cost is None else cost) / _NANO)
            self._series.pictures.inc()

    def doubt(self) -> None:
        """Count it as unknown."""
        if self._close():
            self._series.unknown.inc(self._amount / _NANO)

    def release(self) -> None:
        """Count it no more."""
        self._close()

    def _close(self) -> bool:
        was, self._open = self._open, False
        if was:
            self._series.reserved.dec(self._amount / _NANO)
        return was
