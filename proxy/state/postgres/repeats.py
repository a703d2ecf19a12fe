"""What a repeat finds, and how it takes a generation over; and what each operation will look at.

What is known beforehand is read at once: then an operation seldom has to look twice.
"""

from proxy.state import balances
from proxy.state.outcomes import Standing, Start
from proxy.state.periods import day_of, period_end, period_start
from proxy.state.postgres.executor import Executor, Expect
from proxy.state.postgres.look import Wants
from proxy.state.postgres.tables import PostgresTables
from proxy.state.records import Account, Generation, JobId

_MINUTE_MS = 60_000


def by_id(tables: PostgresTables, generation: str) -> Generation | None:
    """Return a generation that its caller has not given up."""
    found = tables.find(generation)
    return None if found is None or found.row.hidden else found


def by_idempotency_key(tables: PostgresTables, key: str, idempotency_key: str) -> Generation | None:
    """Return what an Idempotency-Key of one key stands for."""
    row = tables.keyed(key, idempotency_key)
    return None if row is None else tables.whole(row)


def repeatable(
    tables: PostgresTables, key: str, fingerprint: bytes, delivered_since: int | None
) -> tuple[Generation, ...]:
    """Return what an equal request may take over, the oldest first."""
    rows = [tables.row(name) for name in tables.looked.equal.get((key, fingerprint), ())]
    found = [
        row
        for row in rows
        if row is not None
        and row.idempotency_key is None
        and row.ended_as != "again"
        and (row.delivered is None or (delivered_since is not None and row.delivered >= delivered_since))
    ]
    return tuple(tables.whole(row) for row in sorted(found, key=lambda row: (row.created, row.id)))


def standing(tables: PostgresTables, account: Account) -> tuple[Standing, ...]:
    """Return every limit that holds for an account, with what is used of it."""
    day = day_of(tables.now)
    found = [(one, tables.balance(one, day)) for one in tables.counted(account)]
    return tuple(
        Standing(limit, balance, balances.remaining(limit, balance, tables.now), period_end(one.period, day))
        for one, balance in found
        for limit in one.limits
    )


def expect_nothing(_executor: Executor, _wants: Wants) -> None:
    """Expect what only the operation itself knows."""


def expect_generation(generation: str) -> Expect:
    """Expect a generation with its jobs."""
    return lambda _executor, wants: wants.generations.add(generation)


def expect_key(key: str, idempotency_key: str) -> Expect:
    """Expect what an Idempotency-Key stands for."""
    return lambda _executor, wants: wants.keyed.add((key, idempotency_key))


def expect_job(job: JobId, holder: str | None = None) -> Expect:
    """Expect a job's generation, and whether its holder lives."""

    def expect(executor: Executor, wants: Wants) -> None:
        wants.generations.add(job.generation)
        if holder is not None:
            wants.holders.add(holder)
        known = executor.known.get(job.generation)
        if known is not None:
            _expect_balances(executor, wants, known.row.account, known.jobs[0][0].day)

    return expect


def expect_equals(key: str, fingerprint: bytes, delivered_since: int | None) -> Expect:
    """Expect what ``repeatable`` looks through."""

    def expect(_executor: Executor, wants: Wants) -> None:
        wants.equals.add((key, fingerprint))
        if delivered_since is not None:
            wants.told.add((key, fingerprint, delivered_since))

    return expect


def expect_account(account: Account) -> Expect:
    """Expect an account's balances of today."""
    return lambda executor, wants: _expect_balances(executor, wants, account, day_of(executor.about_now))


def _expect_balances(executor: Executor, wants: Wants, account: Account, day: int) -> None:
    for one in executor.limits.counted(account):
        wants.places.add((one.scope, one.period, period_start(one.period, day)))


def expect_start(start: Start) -> Expect:
    """Expect all that decides on a start."""

    def expect(executor: Executor, wants: Wants) -> None:
        key = start.account.key
        wants.generations.add(start.id)
        wants.holders.add(start.holder)
        wants.failed.add((key, start.fingerprint))
        if start.idempotency_key is not None:
            wants.keyed.add((key, start.idempotency_key))
        for pace in start.pace:
            if pace.at_once:
                wants.open.add((key, start.account.user if pace.scope.startswith("user:") else None))
            if pace.per_minute:
                wants.pace.add((pace.scope, executor.about_now // _MINUTE_MS))
        expect_account(start.account)(executor, wants)

    return expect
