"""Rows read as records."""

from typing import Final

from proxy.state.operations import LEASE_MS
from proxy.state.records import Generation, GenerationRow, JobRow
from proxy.state.sqlite.session import Session

BY_IDEMPOTENCY_KEY: Final = "SELECT * FROM generations WHERE key = ? AND idempotency_key = ?"


def find(session: Session, generation: str) -> Generation | None:
    """Return a generation with its jobs."""
    row = session.execute("SELECT * FROM generations WHERE id = ?", (generation,)).fetchone()
    return None if row is None else whole(session, GenerationRow(*row))


def whole(session: Session, row: GenerationRow) -> Generation:
    """Return a generation's row with its jobs, and whether somebody waits for it."""
    jobs = session.execute("SELECT * FROM jobs WHERE generation = ? ORDER BY number", (row.id,)).fetchall()
    waited_for = row.waiter is not None and lives(session, row.waiter)
    return Generation(row, tuple(JobRow(*job) for job in jobs), waited_for)


def by_idempotency_key(session: Session, key: str, idempotency_key: str) -> GenerationRow | None:
    """Return the generation that an Idempotency-Key of one key stands for."""
    row = session.execute(BY_IDEMPOTENCY_KEY, (key, idempotency_key)).fetchone()
    return None if row is None else GenerationRow(*row)


def lives(session: Session, holder: str) -> bool:
    """Return whether a holder is registered, and has the file's lock or has told lately that it lives."""
    if holder == session.serving:
        return True
    row = session.execute("SELECT beat, exclusive FROM holders WHERE id = ?", (holder,)).fetchone()
    return row is not None and bool(row[1] or row[0] > session.now - LEASE_MS)
