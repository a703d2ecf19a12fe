"""A connection with what the operations on it share: the moment of their transaction, and what is read often."""

import sqlite3
from collections.abc import Callable
from typing import Final

from proxy.state.money import Balance, Limit
from proxy.state.periods import Period
from proxy.state.records import Account
from proxy.state.tables import Counted, counted

Place = tuple[str, Period, int]
"""Of a balance: its scope, its period, and the period's first day."""
_MOST_BALANCES: Final = 10_000


class Session:
    """What one thread works with. ``now``: Unix milliseconds, the same for all operations of a transaction.

    ``serving``: the holder that has the lock, as far as this session has registered it. ``days``: those of which it is
    known where their entries begin. ``balances``: as they are, those not yet written included.
    """

    def __init__(self, connection: sqlite3.Connection, wall: Callable[[], float]) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.now = 0
        self._wall = wall
        self.serving: str | None = None
        self.days: set[int] = set()
        self.balances: dict[Place, Balance] = {}
        self._changed: set[Place] = set()
        self._limits: dict[str, list[Limit]] | None = None
        self._counted: dict[Account, tuple[Counted, ...]] = {}
        self._prices: dict[str, int] | None = None
        self._data_version = -1

    def begin(self, statement: str) -> None:
        """Begin a transaction. Raises sqlite3.Error."""
        self.execute(statement)
        self.now = int(self._wall() * 1000)
        (version,) = self.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:  # another connection has written
            self._data_version = version
            self.forget()

    def forget(self) -> None:
        """Read all anew when it is needed next: it was changed, or a change was taken back."""
        self._limits = self._prices = self.serving = None
        self.balances.clear()
        self._changed.clear()
        self._counted.clear()
        self.days.clear()

    def keep_balance(self, place: Place, balance: Balance) -> None:
        """Change a balance; it is written with the others of the same transaction."""
        self.balances[place] = balance
        self._changed.add(place)

    def write_balances(self) -> None:
        """Write the balances that have changed. Raises sqlite3.Error."""
        if self._changed:
            rows = [(*place, *self.balances[place]) for place in self._changed]
            self.connection.executemany("INSERT OR REPLACE INTO spend VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._changed.clear()
            if len(self.balances) > _MOST_BALANCES:
                self.balances.clear()

    @property
    def prices(self) -> dict[str, int]:
        """The costs last told, in nano-dollars; who changes a row changes this too."""
        if self._prices is None:
            self._prices = dict(self.execute("SELECT name, amount FROM prices").fetchall())
        return self._prices

    def counted(self, account: Account) -> tuple[Counted, ...]:
        """Return the balances that an account's money moves."""
        known = self._counted.get(account)
        if known is None:
            if len(self._counted) >= _MOST_BALANCES:
                self._counted.clear()
            known = self._counted[account] = self._find_counted(account)
        return known

    def _find_counted(self, account: Account) -> tuple[Counted, ...]:
        limits = self._limits
        if limits is None:
            limits = self._limits = {}
            for row in self.execute("SELECT * FROM limits ORDER BY scope, period, unit"):
                limits.setdefault(row[0], []).append(Limit(*row))
        return counted(limits, account)
