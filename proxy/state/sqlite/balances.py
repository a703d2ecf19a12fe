"""Money: room under the limits, entries in the ledger, and the balances that follow from them.

A balance is kept only where there is a limit, and made from the ledger's sums when it is first needed in its period.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from proxy.state.money import Balance, Limit, SpendRow
from proxy.state.outcomes import OverLimit
from proxy.state.periods import Period, period_end, period_start
from proxy.state.records import Account
from proxy.state.sqlite.session import Counted, Session
from proxy.state.transitions import Column, Kind

_SUMS: Final = """
SELECT coalesce(sum(reserved), 0), coalesce(sum(spent), 0), coalesce(sum(unknown), 0),
       coalesce(sum(reserved_pictures), 0), coalesce(sum(spent_pictures), 0), coalesce(sum(unknown_pictures), 0)
FROM ledger WHERE """
_OF_SCOPE: Final = {
    "all": "? = ''",
    "key": "key = ?",
    "owner": "owner = ?",
    "user": "key = ? AND end_user = ?",
}
_WITHIN: Final = " AND id >= (SELECT min(first) FROM ledger_days WHERE ledger_days.day >= ?) AND day >= ? AND day < ?"
_PLACES: Final[dict[Column, int]] = {"reserved": 0, "spent": 1, "unknown": 2}

_Six = tuple[int, int, int, int, int, int]


class Charge(NamedTuple):
    """What an entry is about: one job, who pays for it, and where it is made."""

    generation: str
    number: int
    account: Account
    provider: str
    model: str
    day: int
    price_source: str


def room(session: Session, account: Account, day: int, amount: int, pictures: int) -> OverLimit | None:
    """Return the limit that ``amount`` nano-dollars and so many pictures would pass, None if there is room for them."""
    for counted in session.counted(account):
        balance = balance_of(session, counted, day)
        for limit in counted.limits:
            allowed, used = limit.allowed(session.now), balance.used(limit.unit)
            more = amount if limit.unit == "dollars" else pictures
            if more and used + more > allowed:
                resets = period_end(counted.period, day)
                return OverLimit(counted.scope, limit.unit, counted.period, allowed, used, resets)
    return None


def balance_of(session: Session, counted: Counted, day: int) -> Balance:
    """Return a balance, made from the ledger if it isn't kept yet."""
    place = (counted.scope, counted.period, period_start(counted.period, day))
    balance = session.balances.get(place)
    if balance is None:
        row = session.execute("SELECT * FROM spend WHERE scope = ? AND period = ? AND start = ?", place).fetchone()
        balance = summed(session, counted.scope, counted.period, day) if row is None else SpendRow(*row).balance
        session.keep(place, balance)
    return balance


def summed(session: Session, scope: str, period: Period, day: int) -> Balance:
    """Return what the ledger says of a scope in the period that holds ``day``."""
    start, end = period_start(period, day), period_end(period, day)
    what, _, name = scope.partition(":")
    named = tuple(name.split(":", 1)) if what == "user" else (name,)
    within = "" if end is None else _WITHIN
    days = () if end is None else (start, start, end)
    return Balance(*session.execute(_SUMS + _OF_SCOPE[what] + within, (*named, *days)).fetchone())


def reserve(session: Session, charges: Iterable[Charge], amount: int, *, pictures: int = 1) -> int | None:
    """Hold ``amount`` nano-dollars for each of one account's jobs, and return what then remains under its tightest
    dollar limit; ``pictures``: 0 to hold more for the same picture."""
    charges = list(charges)
    entry = (amount, 0, 0, pictures, 0, 0)
    count = len(charges)
    left = _add(session, charges[0].account, charges[0].day, (amount * count, 0, 0, pictures * count, 0, 0))
    for charge in charges:
        _write(session, "reserve", charge, entry, "")
    return left


def move(
    session: Session,
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
    change: _Six = (six[0], six[1], six[2], six[3], six[4], six[5])
    left = _add(session, charge.account, charge.day, change)
    _write(session, kind, charge, change, who)
    return left


def remaining(limit: Limit, balance: Balance, now: int) -> int:
    """Return what a limit leaves, never negative."""
    return max(0, limit.allowed(now) - balance.used(limit.unit))


def _write(session: Session, kind: Kind, charge: Charge, change: _Six, who: str) -> None:
    account = charge.account
    written = session.execute(
        "INSERT INTO ledger VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            session.now,
            kind,
            charge.generation,
            charge.number,
            account.key,
            account.key_name,
            account.owner,
            account.user,
            charge.provider,
            charge.model,
            charge.day,
            *change,
            charge.price_source,
            who,
        ),
    )
    if charge.day not in session.days:
        session.execute(
            "INSERT INTO ledger_days VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET summed = 0",
            (charge.day, written.lastrowid),
        )
        session.days.add(charge.day)


def _add(session: Session, account: Account, day: int, change: _Six) -> int | None:
    """Add an entry, before it is written, to the balances in which it counts."""
    least: int | None = None
    for counted in session.counted(account):
        old = balance_of(session, counted, day)
        balance = Balance(*[before + more for before, more in zip(old, change, strict=True)])
        session.keep((counted.scope, counted.period, period_start(counted.period, day)), balance)
        for limit in counted.limits:
            if limit.unit == "dollars":
                left = remaining(limit, balance, session.now)
                least = left if least is None else min(least, left)
    return least
