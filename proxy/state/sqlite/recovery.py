"""Holders and their jobs: who lives, and what becomes of the jobs of those who don't.

Start, adoption and reconciliation are one routine: an open job is recovered when its holder is dead, or is the caller
itself without a task for it. What was never submitted is released, what may have been submitted is unknown and never
submitted again, what was accepted is followed on.
"""

from collections.abc import Collection
from typing import Final

from proxy.state.operations import LEASE_MS
from proxy.state.outcomes import Recovered
from proxy.state.records import Generation, JobId, JobRow
from proxy.state.sqlite import rows, steps
from proxy.state.sqlite.session import Session

_OPEN: Final = """
SELECT generation, number, holder = ? FROM generations CROSS JOIN jobs ON generation = id
WHERE (delivered IS NULL OR generations.ended IS NULL) AND generations.ended IS NULL
  AND state IN ('intended', 'submitting', 'accepted')
  AND (holder = ? OR holder NOT IN (SELECT id FROM holders WHERE exclusive = 1 OR beat > ?))
"""
"""In the order of its tables: those in the making are few."""


def register(session: Session, holder: str, exclusive: bool) -> None:
    """Announce a process; an exclusive one is the only one of its kind, since it has the lock."""
    if exclusive:
        session.execute("DELETE FROM holders WHERE exclusive = 1 AND id != ?", (holder,))
    session.execute(
        "INSERT INTO holders VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET beat = excluded.beat",
        (holder, session.now, session.now, int(exclusive)),
    )
    session.serving = holder if exclusive else session.serving


def beat(session: Session, holder: str) -> bool:
    """Tell that a process lives."""
    if not rows.lives(session, holder):
        return False
    session.execute("UPDATE holders SET beat = ? WHERE id = ?", (session.now, holder))
    return True


def retire(session: Session, holder: str) -> None:
    """Take a process away."""
    session.serving = None
    session.execute("DELETE FROM holders WHERE id = ?", (holder,))


def recover(session: Session, holder: str, tasks: Collection[JobId], limit: int, adopt: bool) -> Recovered:
    """Recover up to ``limit`` jobs; without ``adopt`` only the holder's own."""
    fresh = session.now - LEASE_MS
    if adopt:  # who wakes up after its jobs were taken must see that it was given up
        session.execute("DELETE FROM holders WHERE exclusive = 0 AND beat <= ? AND id != ?", (fresh, holder))
    found = sorted(
        JobId(generation, number)
        for generation, number, own in session.execute(_OPEN, (holder, holder, fresh))
        if (own or adopt) and not (own and (generation, number) in tasks)
    )
    follow: dict[str, Generation] = {}
    jobs: list[JobId] = []
    unknown: list[JobRow] = []
    released = 0
    for job in found[:limit]:
        state = _recover(session, holder, job)
        if state == "accepted":
            jobs.append(job)
        elif state == "released":
            released += 1
        elif (row := rows.job(session, job)) is not None:
            unknown.append(row)
    for generation in dict.fromkeys(job.generation for job in jobs):
        whole = rows.find(session, generation)
        if whole is not None:
            follow[generation] = whole
    return Recovered(tuple(follow.values()), tuple(jobs), released, tuple(unknown), len(found) > limit)


def _recover(session: Session, holder: str, job: JobId) -> str:
    present = steps.find(session, job)
    if present is None:  # its generation is in the same transaction, always
        raise LookupError(f"The job {job} has no generation.")
    failure = "submit_outcome_unknown" if present.state == "submitting" else ""
    return steps.step(session, job, present, "recover", failure=failure, holder=holder).state
