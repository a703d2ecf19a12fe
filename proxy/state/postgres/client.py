"""The client library, as far as it is used here, and its errors in the state's words."""

import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, cast

import asyncpg

from proxy.state.operations import StateUnavailable, StateUnusable

CONNECT_S: Final = 5.0
UNUSABLE: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedObjectError,
)


class Connection(Protocol):
    """A connection of asyncpg; its methods raise asyncpg.PostgresError, asyncpg.InterfaceError, OSError."""

    def execute(self, query: str, *args: Any, timeout: float | None = None) -> Awaitable[str]:
        """Return the command's tag, ``DELETE 3``."""
        ...

    async def executemany(self, command: str, args: Iterable[Any]) -> None:
        """Run it for each."""
        ...

    def fetch(self, query: str, *args: Any, timeout: float | None = None) -> Awaitable[list[Any]]:
        """Return all rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Return the first row, or None."""
        ...

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first column of the first row, or None."""
        ...

    def prepare(self, query: str, *, name: str | None = None, timeout: float | None = None) -> Awaitable[Any]:
        """Return a prepared statement."""
        ...

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, object], None]) -> None:
        """Have notifications told."""
        ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None:
        """Have its end told."""
        ...

    def is_closed(self) -> bool:
        """Return whether it is of no more use."""
        ...

    def close(self, *, timeout: float | None = None) -> Awaitable[None]:
        """Say goodbye."""
        ...

    def terminate(self) -> None:
        """Close it at once."""
        ...


async def connect(url: str) -> Connection:
    """Connect. Raises StateUnusable for what only a person can change, OSError."""
    try:
        return cast("Connection", await asyncpg.connect(url, statement_cache_size=0, timeout=CONNECT_S))
    except ssl.SSLCertVerificationError as error:
        raise StateUnusable(f"The database's certificate is not what sslmode asks for: {error.reason}.") from error
    except (ValueError, asyncpg.InterfaceError) as error:  # its text may hold the URL, and so the password
        raise StateUnusable(
            "The database URL can't be read. It looks like postgresql://user:password@host:5432/database?sslmode=…"
        ) from error
    except UNUSABLE as error:
        raise unusable(error) from error
    except asyncpg.PostgresError as error:  # it starts, stops, is full, or takes no connections for now
        raise ConnectionRefusedError(str(error)) from error


def unavailable(error: Exception) -> StateUnavailable:
    """Return our exception for one of the database's, or of the way to it."""
    return StateUnavailable(f"The database can't be used now: {str(error) or 'no answer'} ({type(error).__name__}).")


def unusable(error: Exception) -> StateUnusable:
    """Return our exception for what only a person can change."""
    return StateUnusable(
        f"The database can't be used as it is: {error} ({type(error).__name__}). The user of the database URL needs "
        "the database, and the right to make the schema images_proxy in it, or to own that schema."
    )
