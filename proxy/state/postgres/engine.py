"""The state in PostgreSQL: two lanes of groups, a connection for the rest, and one that listens."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import asyncpg

from proxy.state import recovery, starts, steps
from proxy.state.money import Entry, KeyChange, KeyRow, Limit
from proxy.state.operations import LEASE_MS, By, Ending, StateUnavailable
from proxy.state.outcomes import (
    Change,
    Exists,
    KeySet,
    NotLiving,
    OverLimit,
    OverPace,
    Recovered,
    Standing,
    Start,
    Started,
    Swept,
    Usage,
)
from proxy.state.postgres import holders, housekeeping, keys, repeats, reports
from proxy.state.postgres.client import unavailable
from proxy.state.postgres.connection import Held
from proxy.state.postgres.executor import Executor
from proxy.state.postgres.lane import Lane, Observe
from proxy.state.postgres.listener import Listener, Told
from proxy.state.postgres.schema import migrate
from proxy.state.records import Account, Everything, Generation, JobId, JobRow, Route

T = TypeVar("T")


async def open_postgres(
    url: str,
    *,
    wall: Callable[[], float] | None = None,
    adopt: bool = True,
    lease_ms: int = LEASE_MS,
    patience_s: float = 5.0,
    observe: Observe | None = None,
) -> "PostgresState":
    """Open the state in a database: ``postgresql://user:password@host:port/database?sslmode=verify-full&sslrootcert=…``.

    A pooler may stand in between, in any mode; what it doesn't know of prepared statements is found out. ``wall``: Unix
    time in seconds, in place of the database's clock. ``adopt``: whether jobs of dead holders are taken over; commands
    don't. ``lease_ms``: after which time without a beat a holder is dead, the same for all. ``patience_s``: how long
    operations wait for a database that doesn't answer. ``observe``: is told of each group of writes.

    Raises StateUnavailable, StateUnusable.
    """
    held = Held(url, patience_s, migrated=False)
    try:
        await held.run(lambda held: migrate(held.raw))
    except asyncpg.PostgresError as error:
        raise unavailable(error) from error
    finally:
        await held.close()
    return PostgresState(url, wall, adopt, lease_ms, patience_s, observe)


class PostgresState:
    """Implements ``proxy.state.operations.State``."""

    def __init__(
        self,
        url: str,
        wall: Callable[[], float] | None,
        adopt: bool,
        lease_ms: int,
        patience_s: float,
        observe: Observe | None,
    ) -> None:
        self._url = url
        self._adopt = adopt
        self._lease_ms = lease_ms
        self._executor = Executor(Held(url, patience_s), wall, lease_ms)
        self._writer = Lane(self._executor, observe)
        self._reader = Lane(Executor(Held(url, patience_s), wall, lease_ms))
        self._rest = Held(url, patience_s)
        self._listener: Listener | None = None

    @property
    def pending(self) -> int:
        """How many writes wait."""
        return self._writer.pending

    @property
    def shared(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Finish what was asked for, and close the connections."""
        if self._listener is not None:
            await self._listener.close()
        await self._reader.close()
        await self._writer.close()
        await self._rest.close()

    def on_ended(self, told: Told) -> None:
        """See State."""
        if self._listener is None:
            self._listener = Listener(self._url, told)

    def register(self, holder: str) -> Awaitable[None]:
        """See State."""
        return self._do(lambda held: holders.register(held, self._executor.told, holder))

    def beat(self, holder: str) -> Awaitable[bool]:
        """See State."""
        return self._do(lambda held: holders.beat(held, self._executor.told, holder, self._lease_ms))

    def living(self) -> Awaitable[tuple[str, ...]]:
        """See State."""
        return self._do(lambda held: holders.living(held, self._executor.told, self._lease_ms))

    def retire(self, holder: str) -> Awaitable[None]:
        """See State."""
        return self._do(lambda held: holders.retire(held, holder))

    def start(self, start: Start) -> Awaitable[Started | Exists | OverLimit | OverPace | NotLiving]:
        """See State."""
        return self._writer.ask(starts.start, repeats.expect_start(start), start)

    def submit(self, job: JobId, epoch: int, holder: str, route: Route) -> Awaitable[Change | OverLimit | NotLiving]:
        """See State."""
        return self._writer.ask(steps.submit, repeats.expect_job(job, holder), job, epoch, holder, route)

    def accept(self, job: JobId, epoch: int, holder: str, handle: str, expires: int | None = None) -> Awaitable[Change]:
        """See State."""
        return self._writer.ask(steps.accept, repeats.expect_job(job), job, epoch, holder, handle, expires)

    def finish(
        self,
        job: JobId,
        epoch: int,
        picture: str,
        *,
        cost: int | None = None,
        price_source: str = "",
        price_name: str = "",
    ) -> Awaitable[Change]:
        """See State."""
        return self._writer.ask(
            steps.finish, repeats.expect_job(job), job, epoch, picture, cost, price_source, price_name
        )

    def end(self, job: JobId, epoch: int, event: Ending, failure: str = "") -> Awaitable[Change]:
        """See State."""
        return self._writer.ask(steps.end, repeats.expect_job(job), job, epoch, event, failure)

    def recover(self, holder: str, tasks: Collection[JobId], limit: int = 500) -> Awaitable[Recovered]:
        """See State; who doesn't adopt recovers only its own jobs."""
        return self._writer.ask(recovery.recover, repeats.expect_nothing, holder, frozenset(tasks), limit, self._adopt)

    def claim(self, generation: str, seen: int, attempt: int, waiter: str) -> Awaitable[int | None]:
        """See State."""
        self._writer.forget(generation)
        return self._do(lambda held: holders.claim(held, generation, seen, attempt, waiter))

    def deliver(self, generation: str, claim: int) -> Awaitable[bool]:
        """See State."""
        return self._writer.mark(generation, claim, delivered=True)

    def leave(self, generation: str, claim: int) -> Awaitable[bool]:
        """See State."""
        return self._writer.mark(generation, claim, delivered=False)

    def hide(self, generation: str) -> Awaitable[bool]:
        """See State."""
        self._writer.forget(generation)
        return self._do(lambda held: holders.hide(held, generation))

    def generation(self, generation: str) -> Awaitable[Generation | None]:
        """See State."""
        return self._reader.ask(repeats.by_id, repeats.expect_generation(generation), generation)

    async def remembered(self) -> tuple[Generation, ...]:
        """See State."""
        return ()

    def by_idempotency_key(self, key: str, idempotency_key: str) -> Awaitable[Generation | None]:
        """See State."""
        return self._reader.ask(
            repeats.by_idempotency_key, repeats.expect_key(key, idempotency_key), key, idempotency_key
        )

    def repeatable(
        self, key: str, fingerprint: bytes, delivered_since: int | None = None
    ) -> Awaitable[tuple[Generation, ...]]:
        """See State."""
        return self._reader.ask(
            repeats.repeatable,
            repeats.expect_equals(key, fingerprint, delivered_since),
            key,
            fingerprint,
            delivered_since,
        )

    def unknown_jobs(self) -> Awaitable[tuple[JobRow, ...]]:
        """See State."""
        return self._do(reports.unknown_jobs)

    def resolve(self, job: JobId, outcome: Literal["paid", "free"], who: str) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask(steps.resolve, repeats.expect_job(job), job, outcome, who)

    def set_limits(self, limits: Sequence[Limit]) -> Awaitable[None]:
        """See State."""
        return self._do(lambda held: keys.set_limits(held, limits))

    def standing(self, account: Account) -> Awaitable[tuple[Standing, ...]]:
        """See State."""
        return self._reader.ask(repeats.standing, repeats.expect_account(account), account)

    def usage(
        self, by: By, since_day: int, key: str | None = None, split: By | None = None
    ) -> Awaitable[tuple[Usage, ...]]:
        """See State."""
        return self._do(lambda held: reports.usage(held, by, since_day, key, split))

    def ledger(
        self, *, before: int | None = None, limit: int = 100, key: str | None = None, job: JobId | None = None
    ) -> Awaitable[tuple[Entry, ...]]:
        """See State."""
        return self._do(lambda held: reports.ledger(held, before, limit, key, job))

    def prices(self) -> Awaitable[dict[str, int]]:
        """See State."""
        return self._do(reports.prices)

    def keys(self) -> Awaitable[KeySet]:
        """See State."""
        return self._do(keys.keys)

    def key_changes(self, key: str) -> Awaitable[tuple[KeyChange, ...]]:
        """See State."""
        return self._do(lambda held: keys.key_changes(held, key))

    def create_key(self, key: KeyRow, limits: Sequence[Limit], who: str) -> Awaitable[None]:
        """See State."""
        return self._do(lambda held: keys.create_key(held, self._executor.told, key, limits, who))

    def change_key(self, key: KeyRow, limits: Sequence[Limit] | None, who: str, change: str) -> Awaitable[bool]:
        """See State."""
        return self._do(lambda held: keys.change_key(held, self._executor.told, key, limits, who, change))

    def forget_user(self, user: str) -> Awaitable[int]:
        """See State."""
        return self._do(lambda held: keys.forget_user(held, user))

    def fingerprint_key(self) -> Awaitable[bytes]:
        """See State."""
        return self._do(reports.fingerprint_key)

    def sweep(self, *, result_ms: int, keep_ledger_days: int = 0, limit: int = 500) -> Awaitable[Swept]:
        """See State."""
        return self._do(lambda held: housekeeping.sweep(held, self._executor.told, result_ms, keep_ledger_days, limit))

    def everything(self) -> Awaitable[Everything]:
        """See State."""
        return self._do(reports.everything)

    async def backup(self, file: Path) -> None:
        """See State; a database has its own tools for that."""
        raise StateUnavailable(f"A database is copied with its own tools, here: pg_dump -n images_proxy -f {file}")

    async def _do(self, work: Callable[[Held], Awaitable[T]]) -> T:
        try:
            return await self._rest.run(work)
        except asyncpg.PostgresError as error:
            raise unavailable(error) from error
