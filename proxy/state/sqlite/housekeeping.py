"""What is no longer needed goes, in small steps; and copies of the file."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from proxy.state.outcomes import Swept
from proxy.state.periods import day_of
from proxy.state.sqlite.session import Session

_PAGES: Final = 64
"""Given back to the disk at a time."""
_DAY_MS: Final = 86_400_000
_UNRESOLVED: Final = "EXISTS (SELECT 1 FROM jobs WHERE generation = id AND state = 'unknown' AND resolved = '')"
_OLD: Final = f"""
SELECT id, {_UNRESOLVED} FROM generations
WHERE ended IS NOT NULL AND ended <= ?
  AND (fingerprint IS NOT NULL OR NOT {_UNRESOLVED})
ORDER BY ended LIMIT ?
"""  # noqa: S608 (nothing of it comes from outside)
_CLOSED: Final = """
day < ? AND kind != 'sum' AND NOT EXISTS (
    SELECT 1 FROM jobs WHERE jobs.generation = ledger.generation AND jobs.number = ledger.number)
"""


def sweep(session: Session, result_ms: int, keep_ledger_days: int, limit: int) -> Swept:
    """Remove what is over. A generation with an outcome that nobody knows stays until that is settled, but no repeat
    finds it."""
    old = session.execute(_OLD, (session.now - result_ms, limit)).fetchall()
    for generation, unresolved in old:
        if unresolved:
            session.execute(
                "UPDATE generations SET idempotency_key = NULL, fingerprint = NULL WHERE id = ?", (generation,)
            )
        else:
            session.execute("DELETE FROM jobs WHERE generation = ?", (generation,))
            session.execute("DELETE FROM generations WHERE id = ?", (generation,))
    session.execute("DELETE FROM pace WHERE minute < ?", (session.now // 60_000 - 1,))
    session.execute("DELETE FROM holders WHERE exclusive = 0 AND beat < ?", (session.now - _DAY_MS,))
    entries = _sum_up(session, day_of(session.now) - keep_ledger_days) if keep_ledger_days else 0
    _give_back(session)
    return Swept(sum(not unresolved for _, unresolved in old), entries, len(old) == limit)


def _give_back(session: Session) -> None:
    """Give free pages back to the disk, one by one: the module steps a statement without columns only once."""
    (free,) = session.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, _PAGES)):
        session.execute("PRAGMA incremental_vacuum(1)")


def _sum_up(session: Session, before_day: int) -> int:
    """Put a sum for each day, account and route in the place of old entries, so that no balance changes."""
    found = session.execute(f"SELECT EXISTS (SELECT 1 FROM ledger WHERE {_CLOSED})", (before_day,)).fetchone()  # noqa: S608
    if not found[0]:
        return 0
    (last,) = session.execute("SELECT max(id) FROM ledger").fetchone()
    session.execute(
        "INSERT INTO ledger SELECT NULL, ?, 'sum', '', 0, key, key_name, owner, end_user, provider, model, day, "  # noqa: S608
        "sum(reserved), sum(spent), sum(unknown), sum(reserved_pictures), sum(spent_pictures), sum(unknown_pictures), "
        f"'', '' FROM ledger WHERE {_CLOSED} "
        "GROUP BY key, key_name, owner, end_user, provider, model, day",
        (session.now, before_day),
    )
    return session.execute(f"DELETE FROM ledger WHERE id <= ? AND {_CLOSED}", (last, before_day)).rowcount  # noqa: S608


def copy(source: sqlite3.Connection, file: Path) -> None:
    """Write a consistent copy to ``file`` (mode 600), complete or not at all. Raises sqlite3.Error, OSError."""
    draft = file.with_name(file.name + ".part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        target = sqlite3.connect(draft, isolation_level=None)
        try:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        finally:
            target.close()
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
