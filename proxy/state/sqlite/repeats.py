"""What a repeat finds, and how it takes a generation over."""

from typing import Final

from proxy.state.records import Generation, GenerationRow, JobRow
from proxy.state.sqlite import rows
from proxy.state.sqlite.session import Session

_NOT_TOLD: Final = """
SELECT * FROM generations WHERE key = ? AND fingerprint = ? AND delivered IS NULL
  AND idempotency_key IS NULL AND (ended_as IS NULL OR ended_as != 'again')
"""
_TOLD: Final = """
SELECT * FROM generations WHERE key = ? AND fingerprint = ? AND delivered >= ?
  AND idempotency_key IS NULL AND (ended_as IS NULL OR ended_as != 'again')
"""


_JOBS_REMEMBERED: Final = """
SELECT jobs.* FROM jobs JOIN generations ON id = generation WHERE fingerprint IS NOT NULL ORDER BY generation, number
"""


def by_id(session: Session, generation: str) -> Generation | None:
    """Return a generation that its caller has not given up."""
    found = rows.find(session, generation)
    return None if found is None or found.row.hidden else found


def by_idempotency_key(session: Session, key: str, idempotency_key: str) -> Generation | None:
    """Return what an Idempotency-Key of one key stands for."""
    row = rows.by_idempotency_key(session, key, idempotency_key)
    return None if row is None else rows.whole(session, row)


def repeatable(session: Session, key: str, fingerprint: bytes, delivered_since: int | None) -> tuple[Generation, ...]:
    """Return what an equal request may take over, the oldest first."""
    found = session.execute(_NOT_TOLD, (key, fingerprint)).fetchall()
    if delivered_since is not None:
        found += session.execute(_TOLD, (key, fingerprint, delivered_since)).fetchall()
    generations = sorted((GenerationRow(*row) for row in found), key=lambda row: (row.created, row.id))
    return tuple(rows.whole(session, row) for row in generations)


def remembered(session: Session) -> tuple[Generation, ...]:
    """Return all that a repeat may find, the oldest first."""
    jobs: dict[str, list[JobRow]] = {}
    for job in session.execute(_JOBS_REMEMBERED):
        jobs.setdefault(job[0], []).append(JobRow(*job))
    found = session.execute("SELECT * FROM generations WHERE fingerprint IS NOT NULL ORDER BY id")
    return tuple(Generation(GenerationRow(*row), tuple(jobs.get(row[0], ()))) for row in found)


def claim(session: Session, generation: str, seen: int, attempt: int, waiter: str) -> int | None:
    """Take a generation over if nobody has since it was looked at."""
    changed = session.execute(
        "UPDATE generations SET claim = claim + 1, attempt = ?, delivered = NULL, waiter = ? "
        "WHERE id = ? AND claim = ?",
        (attempt, waiter, generation, seen),
    ).rowcount
    return seen + 1 if changed else None


def deliver(session: Session, generation: str, claim: int) -> bool:
    """Note that the end was told under a claim."""
    return bool(
        session.execute(
            "UPDATE generations SET delivered = ?, waiter = NULL WHERE id = ? AND claim = ?",
            (session.now, generation, claim),
        ).rowcount
    )


def leave(session: Session, generation: str, claim: int) -> bool:
    """Note that nobody waits under a claim any more."""
    return bool(
        session.execute("UPDATE generations SET waiter = NULL WHERE id = ? AND claim = ?", (generation, claim)).rowcount
    )


def hide(session: Session, generation: str) -> bool:
    """Let nobody find a generation; its jobs and their money stay."""
    return bool(
        session.execute(
            "UPDATE generations SET idempotency_key = NULL, fingerprint = NULL, hidden = 1 WHERE id = ?", (generation,)
        ).rowcount
    )
