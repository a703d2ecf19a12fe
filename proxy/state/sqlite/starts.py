"""Starting a generation: who may, what it inherits, what it reserves."""

from dataclasses import dataclass
from typing import Final

from proxy.state.outcomes import Exists, NotLiving, OverLimit, OverPace, Pace, Start, Started
from proxy.state.periods import day_of
from proxy.state.records import Generation, GenerationRow, JobRow
from proxy.state.sqlite import balances, rows
from proxy.state.sqlite.balances import Charge
from proxy.state.sqlite.session import Session
from proxy.state.transitions import End, JobState

Outcome = Started | Exists | OverLimit | OverPace | NotLiving
_MINUTE_MS: Final = 60_000
_INSERT_GENERATION: Final = """
INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
_FAILED_EQUALS: Final = """
SELECT id, seed, created FROM generations
WHERE fingerprint = ? AND ended_as IN ('again', 'lost', 'unknown') AND key = ?
"""
_OPEN_NOW: Final = """
SELECT count(*) FROM generations
WHERE key = ? AND (delivered IS NULL OR ended IS NULL) AND ended IS NULL AND ended_as IS NULL AND (? OR end_user = ?)
"""
_NOT_TAKEN: Final = "SELECT * FROM jobs WHERE generation = ? AND number < ? AND state = 'done' AND taken IS NULL"


@dataclass(frozen=True, slots=True)
class _Salvage:
    """Pictures of failed equal generations by their number, and the seed of the first of these."""

    pictures: dict[int, JobRow]
    seed: int


def start(session: Session, wanted: Start) -> Outcome:
    """Write a generation, its jobs and their reservations, or say why not."""
    outcome = _start(session, wanted)
    if not isinstance(outcome, Started):
        own = rows.find(session, wanted.id)
        if own is not None:  # written by an earlier try whose outcome nobody was told
            return Started(own)
    if outcome is None:
        raise LookupError(f"The generation {wanted.id} is there and is not.")
    return outcome


def _start(session: Session, wanted: Start) -> Outcome | None:
    """Return None when there is a generation with this id already."""
    if not rows.lives(session, wanted.holder):
        return NotLiving(wanted.holder)
    given_up: str | None = None
    if wanted.idempotency_key is not None:
        held = rows.by_idempotency_key(session, wanted.account.key, wanted.idempotency_key)
        if held is not None and held.ended_as != "again":
            return Exists(rows.whole(session, held))
        given_up = held.id if held is not None else None
    salvage = _salvage(session, wanted)
    missing = [number for number in range(wanted.n) if number not in salvage.pictures]
    refusal = _refusal(session, wanted, len(missing)) if missing else None
    if refusal is not None:
        return refusal
    if given_up is not None:
        session.execute("UPDATE generations SET idempotency_key = NULL WHERE id = ?", (given_up,))
    return _write(session, wanted, salvage, missing)


def _salvage(session: Session, wanted: Start) -> _Salvage:
    pictures: dict[int, JobRow] = {}
    seed = wanted.seed
    failed = session.execute(_FAILED_EQUALS, (wanted.fingerprint, wanted.account.key)).fetchall()
    for generation, first_seed, _ in sorted(failed, key=lambda row: (row[2], row[0])):
        for row in session.execute(_NOT_TAKEN, (generation, wanted.n)).fetchall():
            job = JobRow(*row)
            if job.number not in pictures:
                seed = seed if pictures else first_seed
                pictures[job.number] = job
    return _Salvage(pictures, seed)


def _refusal(session: Session, wanted: Start, missing: int) -> OverLimit | OverPace | None:
    for pace in wanted.pace:
        refused = _over_pace(session, wanted, pace)
        if refused is not None:
            return refused
    day = day_of(session.now)
    return balances.room(session, wanted.account, day, wanted.reserve * missing, missing)


def _over_pace(session: Session, wanted: Start, pace: Pace) -> OverPace | None:
    if pace.at_once:
        (open_now,) = session.execute(
            _OPEN_NOW, (wanted.account.key, not pace.scope.startswith("user:"), wanted.account.user)
        ).fetchone()
        if open_now >= pace.at_once:
            return OverPace(pace.scope, pace.at_once, None)
    if pace.per_minute:
        counted = session.execute(
            "SELECT requests FROM pace WHERE scope = ? AND minute = ?", (pace.scope, session.now // _MINUTE_MS)
        ).fetchone()
        if counted is not None and counted[0] >= pace.per_minute:
            return OverPace(pace.scope, pace.per_minute, _MINUTE_MS - session.now % _MINUTE_MS)
    return None


def _write(session: Session, wanted: Start, salvage: _Salvage, missing: list[int]) -> Started | None:
    ended_as: End | None = None if missing else "ok"
    account = wanted.account
    row = GenerationRow(
        id=wanted.id,
        key=account.key,
        key_name=account.key_name,
        owner=account.owner,
        end_user=account.user,
        idempotency_key=wanted.idempotency_key,
        fingerprint=wanted.fingerprint,
        request=wanted.request,
        seed=salvage.seed,
        n=wanted.n,
        attempt=wanted.attempt,
        claim=0,
        waiter=wanted.holder if wanted.waiter else None,
        created=session.now,
        ended=None if missing else session.now,
        delivered=None,
        ended_as=ended_as,
    )
    if not session.execute(_INSERT_GENERATION, row).rowcount:
        return None
    submitting = set(missing[: wanted.submit])
    jobs = tuple(
        _inherited(session, wanted, salvage.pictures[number])
        if number in salvage.pictures
        else _new(session, wanted, salvage.seed, number, "submitting" if number in submitting else "intended")
        for number in range(wanted.n)
    )
    for job in jobs:
        session.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            job,
        )
    left = _reserve(session, wanted, missing) if missing else None
    return Started(Generation(row, jobs, row.waiter is not None), left)


def _reserve(session: Session, wanted: Start, missing: list[int]) -> int | None:
    route, day = wanted.route, day_of(session.now)
    for pace in wanted.pace:
        if pace.per_minute:
            session.execute(
                "INSERT INTO pace VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
                (pace.scope, session.now // _MINUTE_MS),
            )
    charges = (
        Charge(wanted.id, number, wanted.account, route.provider, route.model, day, route.price_source)
        for number in missing
    )
    return balances.reserve(session, charges, wanted.reserve)


def _new(session: Session, wanted: Start, seed: int, number: int, state: JobState) -> JobRow:
    route, submitting = wanted.route, state == "submitting"
    return JobRow(
        generation=wanted.id,
        number=number,
        state=state,
        holder=wanted.holder,
        epoch=0,
        provider=route.provider,
        model=route.model,
        base_url=route.base_url,
        key_env=route.key_env,
        price=route.price,
        price_source=route.price_source,
        seed=seed + number,
        submits=int(submitting),
        submitted=session.now if submitting else None,
        handle=None,
        expires=None,
        picture=None,
        failure="",
        day=day_of(session.now),
        reserved=wanted.reserve,
        cost=None,
        ended=None,
        inherited=None,
        taken=None,
        resolved="",
    )


def _inherited(session: Session, wanted: Start, left: JobRow) -> JobRow:
    session.execute(
        "UPDATE jobs SET taken = ? WHERE generation = ? AND number = ? AND state = 'done' AND taken IS NULL",
        (wanted.id, left.generation, left.number),
    )
    return JobRow(
        generation=wanted.id,
        number=left.number,
        state="done",
        holder=wanted.holder,
        epoch=0,
        provider=left.provider,
        model=left.model,
        base_url=left.base_url,
        key_env=left.key_env,
        price=left.price,
        price_source=left.price_source,
        seed=left.seed,
        submits=0,
        submitted=None,
        handle=None,
        expires=None,
        picture=left.picture,
        failure="",
        day=left.day,
        reserved=0,
        cost=0,
        ended=session.now,
        inherited=left.generation,
        taken=None,
        resolved="",
    )
