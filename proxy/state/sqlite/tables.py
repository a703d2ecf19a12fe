"""The rows and changes that operations are made of, in SQL, on the connection of a thread."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from proxy.state.money import Balance, Limit, SpendRow
from proxy.state.operations import LEASE_MS
from proxy.state.outcomes import Change
from proxy.state.periods import period_end, period_start
from proxy.state.records import Generation, GenerationRow, JobId, JobRow
from proxy.state.sqlite import rows
from proxy.state.sqlite.session import Session
from proxy.state.steps import accept as accept_anyhow
from proxy.state.tables import Charge, Counted, Present, Six
from proxy.state.transitions import End, JobState, Kind

_PRESENT: Final = """
SELECT state, epoch, holder, handle, picture, price, price_source, submits, day, reserved, inherited, resolved,
       provider, model, n, ended_as, key, key_name, owner, end_user
FROM jobs JOIN generations ON id = generation WHERE generation = ? AND number = ?
"""
_ACCEPT: Final = """
UPDATE jobs SET state = 'accepted', handle = ?, expires = ?
WHERE generation = ? AND number = ? AND state = 'submitting' AND epoch = ? AND holder = ?
"""
_INSERT_GENERATION: Final = """
INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
_FAILED_EQUALS: Final = """
SELECT id, seed, created FROM generations
WHERE fingerprint = ? AND ended_as IN ('again', 'lost', 'unknown') AND key = ?
"""
_OPEN_NOW: Final = """
SELECT count(*) FROM generations
WHERE key = ? AND (delivered IS NULL OR ended IS NULL) AND ended IS NULL AND ended_as IS NULL
  AND (? OR end_user = ?)
"""
_UNFOLLOWED: Final = """
SELECT generation, number, holder = ? FROM generations CROSS JOIN jobs ON generation = id
WHERE (delivered IS NULL OR generations.ended IS NULL) AND generations.ended IS NULL
  AND state IN ('intended', 'submitting', 'accepted')
  AND (holder = ? OR holder NOT IN (SELECT id FROM holders WHERE exclusive = 1 OR beat > ?))
"""
"""In the order of its tables: those in the making are few."""
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


class SqliteTables(Session):
    """Implements ``proxy.state.tables.Tables``.

    A balance is kept only where there is a limit, and made from the ledger's sums when it is first needed in its
    period.
    """

    def lives(self, holder: str) -> bool:
        """See Tables; who has the file's lock lives."""
        return rows.lives(self, holder)

    def present(self, job: JobId) -> Present | None:
        """See Tables."""
        row = self.execute(_PRESENT, job).fetchone()
        return None if row is None else Present._make(row)

    def states(self, generation: str) -> list[JobState]:
        """See Tables."""
        return [state for (state,) in self.execute("SELECT state FROM jobs WHERE generation = ?", (generation,))]

    def find(self, generation: str) -> Generation | None:
        """See Tables."""
        return rows.find(self, generation)

    def job(self, wanted: JobId) -> JobRow | None:
        """See Tables."""
        row = self.execute("SELECT * FROM jobs WHERE generation = ? AND number = ?", wanted).fetchone()
        return None if row is None else JobRow(*row)

    def keyed(self, key: str, idempotency_key: str) -> GenerationRow | None:
        """See Tables."""
        return rows.by_idempotency_key(self, key, idempotency_key)

    def whole(self, row: GenerationRow) -> Generation:
        """See Tables."""
        return rows.whole(self, row)

    def failed_equals(self, key: str, fingerprint: bytes) -> list[tuple[str, int, int]]:
        """See Tables."""
        return self.execute(_FAILED_EQUALS, (fingerprint, key)).fetchall()

    def left(self, generation: str, below: int) -> list[JobRow]:
        """See Tables."""
        query = "SELECT * FROM jobs WHERE generation = ? AND number < ? AND state = 'done' AND taken IS NULL"
        return [JobRow(*row) for row in self.execute(query, (generation, below))]

    def open_now(self, key: str, user: str | None) -> int:
        """See Tables."""
        (number,) = self.execute(_OPEN_NOW, (key, user is None, user)).fetchone()
        return int(number)

    def requests(self, scope: str, minute: int) -> int:
        """See Tables."""
        row = self.execute("SELECT requests FROM pace WHERE scope = ? AND minute = ?", (scope, minute)).fetchone()
        return 0 if row is None else row[0]

    def balance(self, counted: Counted, day: int) -> Balance:
        """See Tables."""
        place = (counted.scope, counted.period, period_start(counted.period, day))
        balance = self.balances.get(place)
        if balance is None:
            row = self.execute("SELECT * FROM spend WHERE scope = ? AND period = ? AND start = ?", place).fetchone()
            balance = self.summed(counted, day) if row is None else SpendRow(*row).balance
            self.balances[place] = balance
        return balance

    def summed(self, counted: Counted, day: int) -> Balance:
        """Return what the ledger says of a scope in the period that holds ``day``."""
        start, end = period_start(counted.period, day), period_end(counted.period, day)
        what, _, name = counted.scope.partition(":")
        named = tuple(name.split(":", 1)) if what == "user" else (name,)
        within = "" if end is None else _WITHIN
        days = () if end is None else (start, start, end)
        return Balance(*self.execute(_SUMS + _OF_SCOPE[what] + within, (*named, *days)).fetchone())

    def unfollowed(self, holder: str, tasks: Collection[JobId], limit: int, *, adopt: bool) -> list[JobId]:
        """See Tables."""
        found = self.execute(_UNFOLLOWED, (holder, holder, self.now - LEASE_MS))
        return sorted(
            JobId(generation, number)
            for generation, number, own in found
            if (own or adopt) and not (own and (generation, number) in tasks)
        )[:limit]

    def insert(self, row: GenerationRow) -> bool:
        """See Tables."""
        return bool(self.execute(_INSERT_GENERATION, row).rowcount)

    def insert_job(self, row: JobRow) -> None:
        """See Tables."""
        self.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
        )

    def change(self, job: JobId, present: Present, **values: Any) -> None:
        """See Tables."""
        self.execute(_update(tuple(values)), (*values.values(), *job, present.state))

    def take(self, job: JobRow, by: str) -> None:
        """See Tables."""
        self.execute(
            "UPDATE jobs SET taken = ? WHERE generation = ? AND number = ? AND state = 'done' AND taken IS NULL",
            (by, *job.id),
        )

    def give_up_key(self, generation: str) -> None:
        """See Tables."""
        self.execute("UPDATE generations SET idempotency_key = NULL WHERE id = ?", (generation,))

    def close(self, generation: str, ended_as: End) -> None:
        """See Tables."""
        self.execute(
            "UPDATE generations SET ended_as = coalesce(ended_as, ?), ended = ? WHERE id = ? AND ended IS NULL",
            (ended_as, self.now, generation),
        )

    def reopen(self, generation: str) -> None:
        """See Tables."""
        self.execute("UPDATE generations SET ended = NULL WHERE id = ?", (generation,))

    def count(self, scope: str, minute: int) -> None:
        """See Tables."""
        self.execute(
            "INSERT INTO pace VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1", (scope, minute)
        )

    def rely(self, counted: Counted, day: int, limit: Limit, used: int) -> None:
        """See Tables; nobody else writes in the meantime."""

    def keep(self, counted: Counted, day: int, balance: Balance) -> None:
        """See Tables; it is written with the others of the same transaction."""
        self.keep_balance((counted.scope, counted.period, period_start(counted.period, day)), balance)

    def enter(self, kind: Kind, charge: Charge, change: Six, who: str) -> None:
        """See Tables."""
        account = charge.account
        written = self.execute(
            "INSERT INTO ledger VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.now,
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
        if charge.day not in self.days:
            self.execute(
                "INSERT INTO ledger_days VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET summed = 0",
                (charge.day, written.lastrowid),
            )
            self.days.add(charge.day)

    def remember(self, price_name: str, cost: int) -> None:
        """See Tables."""
        if self.prices.get(price_name) != cost:
            self.execute("INSERT OR REPLACE INTO prices VALUES (?, ?, ?)", (price_name, cost, self.now))
            self.prices[price_name] = cost

    def bury(self, holder: str) -> None:
        """See Tables."""
        self.execute("DELETE FROM holders WHERE exclusive = 0 AND beat <= ? AND id != ?", (self.now - LEASE_MS, holder))


@lru_cache(maxsize=32)
def _update(columns: tuple[str, ...]) -> str:
    # The columns are the names of arguments in the code, never a caller's.
    assignments = ", ".join(f"{column} = ?" for column in columns)
    return f"UPDATE jobs SET {assignments} WHERE generation = ? AND number = ? AND state = ?"  # noqa: S608


def accept(
    tables: SqliteTables, job: JobId, epoch: int, holder: str, handle: str, expires: int | None = None
) -> Change:
    """Keep the provider's handle; in one statement when nothing has happened in between, as nearly always."""
    if tables.execute(_ACCEPT, (handle, expires, *job, epoch, holder)).rowcount:
        return Change(True, "accepted", epoch, None)
    return accept_anyhow(tables, job, epoch, holder, handle, expires)
