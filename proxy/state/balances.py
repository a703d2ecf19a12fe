"""Money: room under the limits, entries in the ledger, and the balances that follow from them."""

from collections.abc import Iterable
from typing import Final

from proxy.state.money import Balance, Limit
from proxy.state.outcomes import OverLimit
from proxy.state.periods import period_end
from proxy.state.records import Account
from proxy.state.tables import Charge, Six, Tables
from proxy.state.transitions import Column, Kind

_PLACES: Final[dict[Column, int]] = {"reserved": 0, "spent": 1, "unknown": 2}


def room(tables: Tables, account: Account, day: int, amount: int, pictures: int) -> OverLimit | None:
    """Return the limit that ``amount`` nano-dollars and so many pictures would pass, None if there is room for them."""
    for counted in tables.counted(account):
        balance = tables.balance(counted, day)
        for limit in counted.limits:
            allowed, used = limit.allowed(tables.now), balance.used(limit.unit)
            more = amount if limit.unit == "dollars" else pictures
            if more and used + more > allowed:
                resets = period_end(counted.period, day)
                return OverLimit(counted.scope, limit.unit, counted.period, allowed, used, resets)
            if more:
                tables.rely(counted, day, limit, used + more)
    return None


def reserve(tables: Tables, charges: Iterable[Charge], amount: int, *, pictures: int = 1) -> int | None:
    """Hold ``amount`` nano-dollars for each of one account's jobs, and return what then remains under its tightest
    dollar limit; ``pictures``: 0 to hold more for the same picture."""
    charges = list(charges)
    entry = (amount, 0, 0, pictures, 0, 0)
    count = len(charges)
    left = _add(tables, charges[0].account, charges[0].day, (amount * count, 0, 0, pictures * count, 0, 0))
    for charge in charges:
        tables.enter("reserve", charge, entry, "")
    return left


def move(
    tables: Tables,
    kind: Kind,
    charge: Charge,
    before: tuple[Column | None, int],
    after: tuple[Column | None, int],
    who: str = "",
) -> int | None:
    """Move one job's money from a column to another, and return what then remains under the tightest dollar limit."""
    six = [0, 0, 0, 0, 0, 0]
    for (place, amount), sign in ((before, -1), (after, 1)):
        if place is not None:
            six[_PLACES[place]] += sign * amount
            six[_PLACES[place] + 3] += sign
    change: Six = (six[0], six[1], six[2], six[3], six[4], six[5])
    left = _add(tables, charge.account, charge.day, change)
    tables.enter(kind, charge, change, who)
    return left


def remaining(limit: Limit, balance: Balance, now: int) -> int:
    """Return what a limit leaves, never negative."""
    return max(0, limit.allowed(now) - balance.used(limit.unit))


def _add(tables: Tables, account: Account, day: int, change: Six) -> int | None:
    """Add an entry, before it is written, to the balances in which it counts."""
    least: int | None = None
    for counted in tables.counted(account):
        old = tables.balance(counted, day)
        balance = Balance(*[before + more for before, more in zip(old, change, strict=True)])
        tables.keep(counted, day, balance)
        for limit in counted.limits:
            if limit.unit == "dollars":
                left = remaining(limit, balance, tables.now)
                least = left if least is None else min(least, left)
    return least
