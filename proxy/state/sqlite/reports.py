"""What was spent, by whom, and what is left: readings that change nothing."""

from typing import Final

from proxy.state import balances
from proxy.state.money import Balance, Entry, SpendRow
from proxy.state.operations import By
from proxy.state.outcomes import Standing, Usage
from proxy.state.periods import day_of, period_end, period_start
from proxy.state.records import Account, Everything, GenerationRow, JobId, JobRow
from proxy.state.sqlite.session import Session
from proxy.state.sqlite.tables import SqliteTables

_COLUMNS: Final[dict[By, str]] = {
    "key": "key_name",
    "owner": "owner",
    "user": "end_user",
    "model": "model",
    "provider": "provider",
    "day": "day",
}


def standing(session: SqliteTables, account: Account) -> tuple[Standing, ...]:
    """Return every limit that holds for an account, with what is used of it."""
    session.write_balances()
    day = day_of(session.now)
    found: list[Standing] = []
    for counted in session.counted(account):
        kept = session.execute(
            "SELECT * FROM spend WHERE scope = ? AND period = ? AND start = ?",
            (counted.scope, counted.period, period_start(counted.period, day)),
        ).fetchone()
        balance = session.summed(counted, day) if kept is None else SpendRow(*kept).balance
        resets = period_end(counted.period, day)
        found += (
            Standing(limit, balance, balances.remaining(limit, balance, session.now), resets)
            for limit in counted.limits
        )
    return tuple(found)


def usage(session: Session, by: By, since_day: int, key: str | None, split: By | None) -> tuple[Usage, ...]:
    """Sum the ledger from a day on."""
    # The columns come from the table above, never from a caller.
    split_by = _COLUMNS[split] if split else "''"
    query = (
        f"SELECT {_COLUMNS[by]}, {split_by}, sum(reserved), sum(spent), sum(unknown), "  # noqa: S608
        "sum(reserved_pictures), sum(spent_pictures), sum(unknown_pictures) FROM ledger "
        "WHERE id >= (SELECT min(first) FROM ledger_days WHERE day >= ?1) AND day >= ?1 AND (?2 IS NULL OR key = ?2) "
        "GROUP BY 1, 2 ORDER BY 1, 2"
    )
    found = session.execute(query, (since_day, key)).fetchall()
    return tuple(Usage(str(name), Balance(*sums), str(part)) for name, part, *sums in found)


def ledger(session: Session, before: int | None, limit: int, key: str | None, job: JobId | None) -> tuple[Entry, ...]:
    """Return entries, the newest first."""
    generation, number = job or (None, None)
    found = session.execute(
        "SELECT * FROM ledger WHERE (? IS NULL OR id < ?) AND (? IS NULL OR key = ?) "
        "AND (? IS NULL OR (generation = ? AND number = ?)) ORDER BY id DESC LIMIT ?",
        (before, before, key, key, generation, generation, number, limit),
    )
    return tuple(Entry(*row) for row in found)


def unknown_jobs(session: Session) -> tuple[JobRow, ...]:
    """Return the jobs whose outcome nobody knows and nobody has settled."""
    found = session.execute("SELECT * FROM jobs WHERE state = 'unknown' AND resolved = '' ORDER BY generation, number")
    return tuple(JobRow(*row) for row in found)


def prices(session: Session) -> dict[str, int]:
    """Return the costs last told."""
    return dict(session.execute("SELECT name, amount FROM prices").fetchall())


def everything(session: Session) -> Everything:
    """Return all rows."""
    session.write_balances()
    return Everything(
        tuple(GenerationRow(*row) for row in session.execute("SELECT * FROM generations ORDER BY created, id")),
        tuple(JobRow(*row) for row in session.execute("SELECT * FROM jobs ORDER BY generation, number")),
        tuple(SpendRow(*row) for row in session.execute("SELECT * FROM spend ORDER BY scope, period, start")),
        tuple(Entry(*row) for row in session.execute("SELECT * FROM ledger ORDER BY id")),
    )


def fingerprint_key(session: Session) -> bytes:
    """Return the secret of this state's fingerprints."""
    (value,) = session.execute("SELECT value FROM meta WHERE name = 'fingerprint_key'").fetchone()
    return bytes(value)
