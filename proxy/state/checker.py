"""Whether the state agrees with itself: every balance and every step recomputed from the rows."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from proxy.state.money import Balance, Entry, SpendRow
from proxy.state.periods import period_end, period_start
from proxy.state.records import Everything, GenerationRow, JobId, JobRow
from proxy.state.transitions import OPEN, Column, verdict

_NOTHING: Final = Balance()
_FOLLOWS: Final[dict[str, tuple[Column | None, ...]]] = {
    "reserve": (None, "reserved"),
    "settle": ("reserved",),
    "release": ("reserved",),
    "unknown": ("reserved",),
    "correct": ("unknown",),
}
"""Where the money of a job may lie before an entry of each kind."""


def _added(balance: Balance, entry: Entry) -> Balance:
    return Balance(
        balance.reserved + entry.reserved,
        balance.spent + entry.spent,
        balance.unknown + entry.unknown,
        balance.reserved_pictures + entry.reserved_pictures,
        balance.spent_pictures + entry.spent_pictures,
        balance.unknown_pictures + entry.unknown_pictures,
    )


def problems(everything: Everything) -> list[str]:
    """Return a line for everything that does not add up; none if the state is right."""
    return [
        *_ledger_of_jobs(everything),
        *_generations(everything),
        *_spend(everything),
        *_inherited(everything),
    ]


def _ledger_of_jobs(everything: Everything) -> Iterator[str]:
    """Each job's entries lead from nothing, step by step, to where its money lies now."""
    sums: defaultdict[JobId, Balance] = defaultdict(Balance)
    for entry in everything.ledger:
        if entry.kind == "sum":
            if entry.reserved_pictures or entry.unknown_pictures or entry.reserved or entry.unknown:
                yield f"entry {entry.id}: a sum of ended jobs holds money that is not spent"
            continue
        job = JobId(entry.generation, entry.number)
        if _place(sums[job]) not in _FOLLOWS[entry.kind]:
            yield f"entry {entry.id}: {entry.kind} of job {job}, whose money lay in {_place(sums[job])}"
        sums[job] = _added(sums[job], entry)
        if min(sums[job]) < 0:
            yield f"entry {entry.id}: the balance of job {job} is negative"
    jobs = {job.id: job for job in everything.jobs}
    for found, total in sums.items():
        if found not in jobs and _place(total) not in (None, "spent"):
            yield f"job {found}: its row is gone, but its money is still {_place(total)}"
    for job_id, row in jobs.items():
        if sums[job_id] != _expected(row):
            yield f"job {job_id} is {row.state}: the ledger says {sums[job_id]}, the row {_expected(row)}"


def _generations(everything: Everything) -> Iterator[str]:
    """A generation has all its jobs, and an end exactly if all of them have ended, or had before late evidence."""
    jobs: defaultdict[str, list[JobRow]] = defaultdict(list)
    for job in everything.jobs:
        jobs[job.generation].append(job)
    late = {entry.generation for entry in everything.ledger if entry.kind == "correct"}
    known = {row.id for row in everything.generations}
    for generation in jobs.keys() - known:
        yield f"generation {generation}: its row is gone, its jobs are here"
    for row in everything.generations:
        yield from _generation(row, jobs[row.id], late=row.id in late)


def _generation(row: GenerationRow, jobs: list[JobRow], *, late: bool) -> Iterator[str]:
    if [job.number for job in jobs] != list(range(row.n)):
        yield f"generation {row.id}: {row.n} jobs wanted, here are {[job.number for job in jobs]}"
        return
    end = verdict(job.state for job in jobs)
    if row.ended_as != end and not (late and row.ended_as is not None):
        yield f"generation {row.id} ended as {row.ended_as}, its jobs say {end}"
    if (end is None) != (row.ended is None):
        yield f"generation {row.id} is over at {row.ended}, its jobs say {end}"
    for job in jobs:
        if job.state not in ("intended", "released") and job.inherited is None and job.submits < 1:
            yield f"job {job.id} is {job.state}, but was never submitted"
        if job.state == "done" and not job.picture:
            yield f"job {job.id} is done without a picture"
        if job.state == "accepted" and not job.handle:
            yield f"job {job.id} is accepted without a handle"
        if (job.ended is None) != (job.state in OPEN):
            yield f"job {job.id} is {job.state}, ended at {job.ended}"


def _spend(everything: Everything) -> Iterator[str]:
    """Every balance that is kept is what the ledger sums up to."""
    by_scope: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in everything.ledger:
        by_scope["all"].append(entry)
        by_scope[f"key:{entry.key}"].append(entry)
        by_scope[f"owner:{entry.owner}"].append(entry)
        by_scope[f"user:{entry.key}:{entry.end_user}"].append(entry)
    for row in everything.spend:
        total = Balance()
        for entry in by_scope[row.scope]:
            if _within(row, entry.day):
                total = _added(total, entry)
        if total != row.balance:
            yield f"{row.scope}, {row.period} {row.start}: kept {row.balance}, the ledger says {total}"
        if min(row.balance) < 0:
            yield f"{row.scope}, {row.period} {row.start}: negative, {row.balance}"


def _inherited(everything: Everything) -> Iterator[str]:
    """A picture was inherited once at most, by the one who has it."""
    jobs = {job.id: job for job in everything.jobs}
    for job in everything.jobs:
        source = None if job.inherited is None else jobs.get(JobId(job.inherited, job.number))
        if source is not None and source.taken != job.generation:
            yield f"job {job.id} has the picture of {source.id}, which {source.taken} has taken"


def _within(row: SpendRow, day: int) -> bool:
    if row.start != period_start(row.period, row.start):
        return False
    end = period_end(row.period, row.start)
    return day >= row.start and (end is None or day < end)


def _place(balance: Balance) -> Column | None:
    if balance.reserved_pictures:
        return "reserved"
    if balance.spent_pictures:
        return "spent"
    return "unknown" if balance.unknown_pictures else None


def _expected(job: JobRow) -> Balance:
    if job.column is None:
        return _NOTHING
    return Balance(**{job.column: job.amount, f"{job.column}_pictures": 1})
