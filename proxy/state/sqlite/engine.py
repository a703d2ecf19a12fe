"""The state in SQLite: a thread that writes, another that reads, and the operations handed to them."""

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from proxy.state import recovery, starts, steps
from proxy.state.money import Entry, KeyChange, KeyRow, Limit
from proxy.state.operations import By, Ending, StateUnavailable
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
from proxy.state.records import Account, Everything, Generation, JobId, JobRow, Route
from proxy.state.sqlite import holders, housekeeping, keys, repeats, reports, tables
from proxy.state.sqlite.file import Lock, Synchronous, connect, explain, migrate, prepare
from proxy.state.sqlite.tables import SqliteTables
from proxy.state.sqlite.writer import Inline, Observe, Transactions, Writer


def open_sqlite(
    path: Path | None,
    *,
    wall: Callable[[], float] = time.time,
    exclusive: bool = False,
    synchronous: Synchronous = "full",
    observe: Observe | None = None,
) -> "SqliteState":
    """Open the state in a file, or in memory for None. Touches the disk: not for an event loop that has work.

    ``wall``: Unix time in seconds. ``exclusive``: for the process that serves; commands work beside it without.
    ``observe``: is told of each group of writes. Raises StateUnavailable, StateUnusable.
    """
    lock = None
    try:
        if path is not None:
            prepare(path)
            lock = Lock(path) if exclusive else None
        connection = connect(path, synchronous)
        try:
            migrate(connection)
            _give_fingerprint_key(connection)
        except BaseException:
            connection.close()
            raise
        return SqliteState(path, connection, lock, wall, exclusive or path is None, observe)
    except BaseException as error:
        if lock is not None:
            lock.release()
        if isinstance(error, sqlite3.Error):
            raise explain(error, path) from error
        raise


def _give_fingerprint_key(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('fingerprint_key', ?)", (secrets.token_bytes(32),))


class SqliteState:
    """Implements ``proxy.state.operations.State``."""

    def __init__(
        self,
        path: Path | None,
        connection: sqlite3.Connection,
        lock: Lock | None,
        wall: Callable[[], float],
        exclusive: bool,
        observe: Observe | None,
    ) -> None:
        self._path = path
        self._lock = lock
        self._exclusive = exclusive
        work = Transactions(SqliteTables(connection, wall), path, "BEGIN IMMEDIATE", observe)
        self._writer: Writer | Inline
        self._reader: Writer | Inline
        if path is None:  # what is in memory is behind one connection, and waits for no disk
            self._reader = self._writer = Inline(work)
        else:
            self._writer = Writer(work)
            reading = connect(path, "normal")
            reading.execute("PRAGMA query_only = 1")
            self._reader = Writer(Transactions(SqliteTables(reading, wall), path, "BEGIN", None))

    @property
    def pending(self) -> int:
        """How many writes wait."""
        return self._writer.pending

    @property
    def shared(self) -> bool:
        """Never: the file has one process that serves from it."""
        return False

    async def close(self) -> None:
        """Finish what was asked for, close the file, let another process serve."""
        for thread in (self._reader.stop(), self._writer.stop()):
            if thread is not None:
                await asyncio.to_thread(thread.join)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def on_ended(self, told: Callable[[Collection[str]], None]) -> None:
        """See State; there are no others."""

    def register(self, holder: str) -> Awaitable[None]:
        """See State."""
        return self._writer.ask(holders.register, holder, self._exclusive)

    def beat(self, holder: str) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask(holders.beat, holder)

    def living(self) -> Awaitable[tuple[str, ...]]:
        """See State."""
        return self._writer.ask(holders.living)

    def retire(self, holder: str) -> Awaitable[None]:
        """See State."""
        return self._writer.ask(holders.retire, holder)

    def start(self, start: Start) -> Awaitable[Started | Exists | OverLimit | OverPace | NotLiving]:
        """See State."""
        return self._writer.ask(starts.start, start)

    def submit(self, job: JobId, epoch: int, holder: str, route: Route) -> Awaitable[Change | OverLimit | NotLiving]:
        """See State."""
        return self._writer.ask(steps.submit, job, epoch, holder, route)

    def accept(self, job: JobId, epoch: int, holder: str, handle: str, expires: int | None = None) -> Awaitable[Change]:
        """See State."""
        return self._writer.ask(tables.accept, job, epoch, holder, handle, expires)

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
        return self._writer.ask(steps.finish, job, epoch, picture, cost, price_source, price_name)

    def end(self, job: JobId, epoch: int, event: Ending, failure: str = "") -> Awaitable[Change]:
        """See State."""
        return self._writer.ask(steps.end, job, epoch, event, failure)

    def recover(self, holder: str, tasks: Collection[JobId], limit: int = 500) -> Awaitable[Recovered]:
        """See State; a process that doesn't serve recovers only its own jobs."""
        return self._writer.ask(recovery.recover, holder, frozenset(tasks), limit, self._exclusive)

    def claim(self, generation: str, seen: int, attempt: int, waiter: str) -> Awaitable[int | None]:
        """See State."""
        return self._writer.ask(repeats.claim, generation, seen, attempt, waiter)

    def deliver(self, generation: str, claim: int) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask_later(repeats.deliver, generation, claim)

    def leave(self, generation: str, claim: int) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask_later(repeats.leave, generation, claim)

    def hide(self, generation: str) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask(repeats.hide, generation)

    def generation(self, generation: str) -> Awaitable[Generation | None]:
        """See State."""
        return self._reader.ask(repeats.by_id, generation)

    def remembered(self) -> Awaitable[tuple[Generation, ...]]:
        """See State."""
        return self._reader.ask(repeats.remembered)

    def by_idempotency_key(self, key: str, idempotency_key: str) -> Awaitable[Generation | None]:
        """See State."""
        return self._reader.ask(repeats.by_idempotency_key, key, idempotency_key)

    def repeatable(
        self, key: str, fingerprint: bytes, delivered_since: int | None = None
    ) -> Awaitable[tuple[Generation, ...]]:
        """See State."""
        return self._reader.ask(repeats.repeatable, key, fingerprint, delivered_since)

    def unknown_jobs(self) -> Awaitable[tuple[JobRow, ...]]:
        """See State."""
        return self._reader.ask(reports.unknown_jobs)

    def resolve(self, job: JobId, outcome: Literal["paid", "free"], who: str) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask(steps.resolve, job, outcome, who)

    def set_limits(self, limits: Sequence[Limit]) -> Awaitable[None]:
        """See State."""
        return self._writer.ask(keys.set_limits, limits)

    def standing(self, account: Account) -> Awaitable[tuple[Standing, ...]]:
        """See State."""
        return self._reader.ask(reports.standing, account)

    def usage(
        self, by: By, since_day: int, key: str | None = None, split: By | None = None
    ) -> Awaitable[tuple[Usage, ...]]:
        """See State."""
        return self._reader.ask(reports.usage, by, since_day, key, split)

    def ledger(
        self, *, before: int | None = None, limit: int = 100, key: str | None = None, job: JobId | None = None
    ) -> Awaitable[tuple[Entry, ...]]:
        """See State."""
        return self._reader.ask(reports.ledger, before, limit, key, job)

    def prices(self) -> Awaitable[dict[str, int]]:
        """See State."""
        return self._reader.ask(reports.prices)

    def keys(self) -> Awaitable[KeySet]:
        """See State."""
        return self._reader.ask(keys.keys)

    def key_changes(self, key: str) -> Awaitable[tuple[KeyChange, ...]]:
        """See State."""
        return self._reader.ask(keys.key_changes, key)

    def create_key(self, key: KeyRow, limits: Sequence[Limit], who: str) -> Awaitable[None]:
        """See State."""
        return self._writer.ask(keys.create_key, key, limits, who)

    def change_key(self, key: KeyRow, limits: Sequence[Limit] | None, who: str, change: str) -> Awaitable[bool]:
        """See State."""
        return self._writer.ask(keys.change_key, key, limits, who, change)

    def forget_user(self, user: str) -> Awaitable[int]:
        """See State."""
        return self._writer.ask(keys.forget_user, user)

    def fingerprint_key(self) -> Awaitable[bytes]:
        """See State."""
        return self._reader.ask(reports.fingerprint_key)

    def sweep(self, *, result_ms: int, keep_ledger_days: int = 0, limit: int = 500) -> Awaitable[Swept]:
        """See State."""
        return self._writer.ask(housekeeping.sweep, result_ms, keep_ledger_days, limit)

    def everything(self) -> Awaitable[Everything]:
        """See State."""
        return self._reader.ask(reports.everything)

    async def backup(self, file: Path) -> None:
        """See State; a state in memory can't be copied while it is written, so its writes wait."""
        if self._path is None:
            raise StateUnavailable("A state in memory can't be backed up.")
        try:
            await asyncio.to_thread(_backup, self._path, file)
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        except OSError as error:
            raise StateUnavailable(f"The copy {file} can't be written: {error.strerror}.") from error


def _backup(path: Path, file: Path) -> None:
    with contextlib.closing(connect(path, "normal")) as source:
        housekeeping.copy(source, file)
