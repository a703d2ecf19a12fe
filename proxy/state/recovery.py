"""Holders and their jobs: who lives, and what becomes of the jobs of those who don't.

Start, adoption and reconciliation are one routine: an open job is recovered when its holder is dead, or is the caller
itself without a task for it. What was never submitted is released, what may have been submitted is unknown and never
submitted again, what was accepted is followed on.
"""

from collections.abc import Collection

from proxy.state import steps
from proxy.state.outcomes import Recovered
from proxy.state.records import Generation, JobId, JobRow
from proxy.state.tables import Tables


def recover(tables: Tables, holder: str, tasks: Collection[JobId], limit: int, adopt: bool) -> Recovered:
    """Recover up to ``limit`` jobs, all of a generation at once; without ``adopt`` only the holder's own."""
    if adopt:
        tables.bury(holder)
    found = tables.unfollowed(holder, tasks, limit + 1, adopt=adopt)
    follow: dict[str, Generation] = {}
    jobs: list[JobId] = []
    unknown: list[JobRow] = []
    released = 0
    for job in _of_whole_generations(found, limit):
        state = _recover(tables, holder, job)
        if state == "accepted":
            jobs.append(job)
        elif state == "released":
            released += 1
        elif (row := tables.job(job)) is not None:
            unknown.append(row)
    for generation in dict.fromkeys(job.generation for job in jobs):
        whole = tables.find(generation)
        if whole is not None:
            follow[generation] = whole
    return Recovered(tuple(follow.values()), tuple(jobs), released, tuple(unknown), len(found) > limit)


def _of_whole_generations(found: list[JobId], limit: int) -> list[JobId]:
    """Return up to ``limit`` jobs: whoever is to follow a generation must have all of its jobs."""
    taken = found[:limit]
    if found[limit:] and found[limit].generation == taken[-1].generation:
        return [job for job in taken if job.generation != taken[-1].generation] or taken
    return taken


def _recover(tables: Tables, holder: str, job: JobId) -> str:
    present = tables.present(job)
    if present is None:  # its generation is in the same transaction, always
        raise LookupError(f"The job {job} has no generation.")
    failure = "submit_outcome_unknown" if present.state == "submitting" else ""
    return steps.step(tables, job, present, "recover", failure=failure, holder=holder).state
