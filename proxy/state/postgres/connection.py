"""One held connection: made anew when it is lost, patient for so long, with its statements prepared where possible.

Every statement is a transaction of its own, so that a process that is frozen holds no locks, and a pooler may give each
one another connection of its own. A pooler that loses prepared statements (PgBouncer before 1.21, or with
``max_prepared_statements = 0``, in transaction mode) is recognised by that, and from then on nothing is prepared: each
statement stands between BEGIN and COMMIT, which keeps a connection together. Names of statements are unique, so that
none can be taken for another's.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from proxy.state.operations import StateUnavailable
from proxy.state.postgres.client import CONNECT_S, UNUSABLE, Connection, connect, unavailable, unusable
from proxy.state.postgres.schema import ROWS, row_type

_log = logging.getLogger(__name__)
T = TypeVar("T")

BEGIN: Final = (
    "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL lock_timeout = '10s'; "
    "SET LOCAL synchronous_commit = on"
)
"""For the few operations of several statements: one whose process is frozen ends by itself."""
_STATEMENT_S: Final = 15.0
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
_PREPARED_FOR: Final = (16, 256, 4096, 65536)
"""How often a statement is used before it is prepared anew: plans made while the tables were small stay otherwise."""
LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what it makes of a connection that ends in the middle
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # the other server is the primary now
    asyncpg.IdleInTransactionSessionTimeoutError,
)
_UNPREPARED: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_PRIME: Final = (
    "SELECT NULL::text[], NULL::bigint[], NULL::bytea[], NULL::boolean[], NULL::xid[], ARRAY(SELECT ROW(1)), "
    + ", ".join(f"NULL::{row_type(table)}[]" for table in ROWS)
)
"""Every type that is used, so that the client learns of them at once, in one transaction."""


class Held:
    """The connection. One at a time uses it. ``patience_s``: how long operations wait for a database that is gone.
    ``migrated``: whether the tables are there."""

    def __init__(self, url: str, patience_s: float, *, migrated: bool = True) -> None:
        self._url = url
        self._migrated = migrated
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._free = asyncio.Lock()
        self._lost_at: float | None = None
        self._closed = False
        self._prepares = True
        self._prepared: dict[str, tuple[Any, int, int]] = {}

    async def run(self, work: Callable[["Held"], Awaitable[T]]) -> T:
        """Do ``work`` with the connection; once more from its beginning when the connection is lost on the way.

        Raises StateUnavailable, StateUnusable, asyncpg.PostgresError.
        """
        async with self._free:
            tries = 0
            while True:
                try:
                    if self._connection is None:
                        await self._connect()
                    result = await work(self)
                except LOST as error:
                    self._let_go()
                    await self._pause(error, tries)
                except _UNPREPARED as error:
                    self._let_go()
                    if not self._prepares:  # that wasn't it
                        raise
                    _log.info("A pooler loses prepared statements (%s): none are used.", type(error).__name__)
                    self._prepares = False
                except UNUSABLE as error:
                    self._let_go()
                    raise unusable(error) from error
                else:
                    self._lost_at = None
                    return result
                tries += 1

    async def close(self) -> None:
        """Let what runs end, then close; nothing runs afterwards."""
        async with self._free:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    await connection.close(timeout=CONNECT_S)
                except (*LOST, asyncpg.PostgresError):
                    connection.terminate()

    @property
    def raw(self) -> Connection:
        """The connection itself, for several statements in one transaction."""
        assert self._connection is not None  # inside of ``run`` only  # noqa: S101
        return self._connection

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement as a transaction of its own."""
        if not self._prepares:
            return await self._unprepared(sql, arguments)
        statement, uses, renewals = self._prepared.get(sql) or (None, 0, 0)
        if statement is None or uses == 0:
            statement = await self.raw.prepare(sql, name=f"imgp_{secrets.token_hex(8)}", timeout=_STATEMENT_S)
            uses = _PREPARED_FOR[min(renewals, len(_PREPARED_FOR) - 1)]
            renewals += 1
        self._prepared[sql] = (statement, uses - 1, renewals)
        found: list[asyncpg.Record] = await statement.fetch(*arguments, timeout=_STATEMENT_S)
        return found

    async def row(self, sql: str, *arguments: Any) -> asyncpg.Record:
        """Run a statement that returns one row."""
        return (await self.fetch(sql, *arguments))[0]

    async def snapshot(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do several readings of one moment."""
        return await self.transaction(work, BEGIN.replace("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", 1))

    async def transaction(self, work: Callable[[Connection], Awaitable[T]], begin: str = BEGIN) -> T:
        """Do several statements as one transaction."""
        connection = self.raw
        await connection.execute(begin, timeout=_STATEMENT_S)
        try:
            result = await work(connection)
            await connection.execute("COMMIT", timeout=_STATEMENT_S)
        except BaseException:
            if not connection.is_closed():
                await connection.execute("ROLLBACK", timeout=_STATEMENT_S)
            raise
        return result

    async def _unprepared(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        return await self.transaction(lambda connection: connection.fetch(sql, *arguments, timeout=_STATEMENT_S))

    async def _connect(self) -> None:
        if self._closed:
            raise StateUnavailable("The state is closed.")
        self._connection = await connect(self._url)
        if self._migrated:
            await self.transaction(lambda connection: connection.fetch(_PRIME))

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        self._prepared.clear()
        if connection is not None:
            connection.terminate()

    async def _pause(self, error: Exception, tries: int) -> None:
        """Wait before the next try. Raises StateUnavailable when the database has been gone for too long."""
        now = asyncio.get_running_loop().time()
        self._lost_at = now if self._lost_at is None else self._lost_at
        if self._closed or now - self._lost_at >= self._patience_s:
            raise unavailable(error) from error
        await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
