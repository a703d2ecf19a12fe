"""Starting a generation: who may, what it inherits, what it reserves."""

from dataclasses import dataclass
from typing import Final

from proxy.state import balances
from proxy.state.outcomes import Exists, NotLiving, OverLimit, OverPace, Pace, Start, Started
from proxy.state.periods import day_of
from proxy.state.records import Generation, GenerationRow, JobRow
from proxy.state.tables import Charge, Tables
from proxy.state.transitions import End, JobState

Outcome = Started | Exists | OverLimit | OverPace | NotLiving
_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class _Salvage:
    """Pictures of failed equal generations by their number, and the seed of the first of these."""

    pictures: dict[int, JobRow]
    seed: int


def start(tables: Tables, wanted: Start) -> Outcome:
    """Write a generation, its jobs and their reservations, or say why not."""
    outcome = _start(tables, wanted)
    if not isinstance(outcome, Started):
        own = tables.find(wanted.id)
        if own is not None:  # written by an earlier try whose outcome nobody was told
            return Started(own)
    if outcome is None:
        raise LookupError(f"The generation {wanted.id} is there and is not.")
    return outcome


def _start(tables: Tables, wanted: Start) -> Outcome | None:
    """Return None when there is a generation with this id already."""
    if not tables.lives(wanted.holder):
        return NotLiving(wanted.holder)
    given_up: str | None = None
    if wanted.idempotency_key is not None:
        held = tables.keyed(wanted.account.key, wanted.idempotency_key)
        if held is not None and held.ended_as != "again":
            return Exists(tables.whole(held))
        given_up = held.id if held is not None else None
    salvage = _salvage(tables, wanted)
    missing = [number for number in range(wanted.n) if number not in salvage.pictures]
    refusal = _refusal(tables, wanted, len(missing)) if missing else None
    if refusal is not None:
        return refusal
    if given_up is not None:
        tables.give_up_key(given_up)
    return _write(tables, wanted, salvage, missing)


def _salvage(tables: Tables, wanted: Start) -> _Salvage:
    pictures: dict[int, JobRow] = {}
    seed = wanted.seed
    failed = tables.failed_equals(wanted.account.key, wanted.fingerprint)
    for generation, first_seed, _ in sorted(failed, key=lambda row: (row[2], row[0])):
        for job in tables.left(generation, wanted.n):
            if job.number not in pictures:
                seed = seed if pictures else first_seed
                pictures[job.number] = job
    return _Salvage(pictures, seed)


def _refusal(tables: Tables, wanted: Start, missing: int) -> OverLimit | OverPace | None:
    for pace in wanted.pace:
        refused = _over_pace(tables, wanted, pace)
        if refused is not None:
            return refused
    day = day_of(tables.now)
    return balances.room(tables, wanted.account, day, wanted.reserve * missing, missing)


def _over_pace(tables: Tables, wanted: Start, pace: Pace) -> OverPace | None:
    if pace.at_once:
        user = wanted.account.user if pace.scope.startswith("user:") else None
        if tables.open_now(wanted.account.key, user) >= pace.at_once:
            return OverPace(pace.scope, pace.at_once, None)
    if pace.per_minute and tables.requests(pace.scope, tables.now // _MINUTE_MS) >= pace.per_minute:
        return OverPace(pace.scope, pace.per_minute, _MINUTE_MS - tables.now % _MINUTE_MS)
    return None


def _write(tables: Tables, wanted: Start, salvage: _Salvage, missing: list[int]) -> Started | None:
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
        created=tables.now,
        ended=None if missing else tables.now,
        delivered=None,
        ended_as=ended_as,
    )
    if not tables.insert(row):
        return None
    submitting = set(missing[: wanted.submit])
    jobs = tuple(
        _inherited(tables, wanted, salvage.pictures[number])
        if number in salvage.pictures
        else _new(tables, wanted, salvage.seed, number, "submitting" if number in submitting else "intended")
        for number in range(wanted.n)
    )
    for job in jobs:
        tables.insert_job(job)
    left = _reserve(tables, wanted, missing) if missing else None
    return Started(Generation(row, jobs, row.waiter is not None), left)


def _reserve(tables: Tables, wanted: Start, missing: list[int]) -> int | None:
    route, day = wanted.route, day_of(tables.now)
    for pace in wanted.pace:
        if pace.per_minute:
            tables.count(pace.scope, tables.now // _MINUTE_MS)
    charges = (
        Charge(wanted.id, number, wanted.account, route.provider, route.model, day, route.price_source)
        for number in missing
    )
    return balances.reserve(tables, charges, wanted.reserve)


def _new(tables: Tables, wanted: Start, seed: int, number: int, state: JobState) -> JobRow:
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
        submitted=tables.now if submitting else None,
        handle=None,
        expires=None,
        picture=None,
        failure="",
        day=day_of(tables.now),
        reserved=wanted.reserve,
        cost=None,
        ended=None,
        inherited=None,
        taken=None,
        resolved="",
    )


def _inherited(tables: Tables, wanted: Start, left: JobRow) -> JobRow:
    tables.take(left, wanted.id)
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
        ended=tables.now,
        inherited=left.generation,
        taken=None,
        resolved="",
    )
