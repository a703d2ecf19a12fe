"""What is no longer needed goes, in small steps; and copies of the file."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from proxy.state.outcomes import Swept
from proxy.state.periods import day_of
from proxy.state.records import id_prefix
from proxy.state.sqlite.session import Session

_PAGES: Final = 64
"""Given back to the disk at a time."""
_DAY_MS: Final = 86_400_000
_OLD: Final = """
SELECT id, EXISTS (SELECT 1 FROM jobs WHERE generation = id AND state = 'unknown' AND resolved = '') AS unresolved
FROM generations WHERE id < ? AND ended <= ? AND (fingerprint IS NOT NULL OR NOT unresolved) LIMIT ?
"""
_OLDEST_DAY: Final = "SELECT day FROM ledger_days WHERE day < ? AND NOT summed ORDER BY day LIMIT 1"
_ENTRIES: Final = """
FROM ledger WHERE id >= (SELECT first FROM ledger_days WHERE day = :day)
  AND id < coalesce((SELECT min(first) FROM ledger_days WHERE day > :day + 7), :end)
  AND day = :day AND kind != 'sum' AND NOT EXISTS (
    SELECT 1 FROM jobs WHERE jobs.generation = ledger.generation AND jobs.number = ledger.number)
"""
"""Of one day and of jobs that are gone: nothing can happen to their money any more."""


def sweep(session: Session, result_ms: int, keep_ledger_days: int, limit: int) -> Swept:
    """Remove what is over. A generation with an outcome that nobody knows stays until that is settled, but no repeat
    finds it."""
    before = session.now - result_ms
    # What ended by then was started by then, and so has an id below the first of the next millisecond.
    old = session.execute(_OLD, (id_prefix(before + 1), before, limit)).fetchall()
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
    return Swept(sum(not unresolved for _, unresolved in old), entries, len(old) == limit or entries > 0)


def _give_back(session: Session) -> None:
    """Give free pages back to the disk, one by one: the module steps a statement without columns only once."""
    (free,) = session.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, _PAGES)):
        session.execute("PRAGMA incremental_vacuum(1)")


def _sum_up(session: Session, before_day: int) -> int:
    """Put a sum for each account and route in the place of one old day's entries, so that no balance changes."""
    found = session.execute(_OLDEST_DAY, (before_day,)).fetchone()
    if found is None:
        return 0
    (last,) = session.execute("SELECT max(id) FROM ledger").fetchone()
    which = {"day": found[0], "end": last + 1, "now": session.now}
    session.execute(
        "INSERT INTO ledger SELECT NULL, :now, 'sum', '', 0, key, key_name, owner, end_user, provider, model, day, "
        "sum(reserved), sum(spent), sum(unknown), sum(reserved_pictures), sum(spent_pictures), sum(unknown_pictures), "
        f"'', '' {_ENTRIES} GROUP BY key, key_name, owner, end_user, provider, model",
        which,
    )
    removed = session.execute(f"DELETE {_ENTRIES}", which).rowcount
    session.execute("UPDATE ledger_days SET summed = 1 WHERE day = ?", found)
    session.days.discard(found[0])
    return removed


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
