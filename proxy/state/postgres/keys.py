"""Keys and limits.

Who changes limits waits for the groups that are being written, and those that come wait for him: every group knows
which balances have to be kept, and a balance that is made later is made from the ledger.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from proxy.state.money import KeyChange, KeyRow, Limit
from proxy.state.operations import NameTaken
from proxy.state.outcomes import KeySet
from proxy.state.postgres.client import Connection
from proxy.state.postgres.connection import Held
from proxy.state.postgres.look import NOW

_COLUMNS: Final = ", ".join(KeyRow._fields)
_PLACES: Final = ", ".join(f"${number}" for number in range(1, len(KeyRow._fields) + 1))
_INSERT: Final = f"INSERT INTO images_proxy.keys ({_COLUMNS}) VALUES ({_PLACES})"
_LIMIT: Final = ", ".join(Limit._fields)
_UNLIMITED: Final = """
DELETE FROM images_proxy.spend s WHERE NOT EXISTS (SELECT FROM images_proxy.limits l WHERE l.period = s.period AND (
  l.scope = s.scope OR starts_with(s.scope, 'user:') AND l.scope = 'users:' || split_part(s.scope, ':', 2)))
"""
"""Balances that no limit needs: they would no longer be kept."""


async def keys(held: Held) -> KeySet:
    """Return all keys that are not deleted, with their limits."""

    async def read(connection: Connection) -> KeySet:
        rows = await connection.fetch(f"SELECT {_COLUMNS} FROM images_proxy.keys WHERE deleted IS NULL ORDER BY name")
        limits = await connection.fetch(
            f"SELECT {_LIMIT} FROM images_proxy.limits WHERE starts_with(scope, 'key:') OR starts_with(scope, 'users:')"
        )
        revision = await connection.fetchval("SELECT coalesce(max(id), 0) FROM images_proxy.key_changes")
        ever = await connection.fetchval("SELECT EXISTS (SELECT FROM images_proxy.keys)")
        return KeySet(revision, tuple(KeyRow(*row) for row in rows), tuple(Limit(*row) for row in limits), ever)

    return await held.snapshot(read)


async def key_changes(held: Held, key: str) -> tuple[KeyChange, ...]:
    """Return what was done to a key."""
    found = await held.fetch(
        "SELECT id, at, key, who, change FROM images_proxy.key_changes WHERE key = $1 ORDER BY id", key
    )
    return tuple(KeyChange(*row) for row in found)


async def create_key(held: Held, told: int | None, key: KeyRow, limits: Sequence[Limit], who: str) -> None:
    """Keep a new key. Raises NameTaken."""

    async def create(connection: Connection) -> None:
        own = await connection.fetchval("SELECT digest FROM images_proxy.keys WHERE id = $1", key.id)
        if own == key.digest:
            return  # written by an earlier try whose outcome nobody was told
        await _named(connection, key, _INSERT, *key)
        await _replace_limits(connection, _of_key(key.id), limits)
        await _note(connection, told, key.id, who, '{"created": true}')

    await held.transaction(create)


async def change_key(
    held: Held, told: int | None, key: KeyRow, limits: Sequence[Limit] | None, who: str, change: str
) -> bool:
    """Replace a key's row, and its limits unless None. Raises NameTaken."""

    async def replace(connection: Connection) -> bool:
        if await connection.execute("DELETE FROM images_proxy.keys WHERE id = $1", key.id) == "DELETE 0":
            return False
        await _named(connection, key, _INSERT, *key)
        if limits is not None:
            await _replace_limits(connection, _of_key(key.id), limits)
        await _note(connection, told, key.id, who, change)
        return True

    return await held.transaction(replace)


async def set_limits(held: Held, limits: Sequence[Limit]) -> None:
    """Replace the limits of the whole service and of owners."""
    await held.transaction(
        lambda connection: _replace_limits(connection, "scope = 'all' OR starts_with(scope, 'owner:')", limits)
    )


async def forget_user(held: Held, user: str) -> int:
    """Remove an end user's name from all rows."""

    async def forget(connection: Connection) -> int:
        await _stop_writers(connection)
        named = await connection.fetch("SELECT DISTINCT key FROM images_proxy.ledger WHERE end_user = $1", user)
        scopes = [f"user:{key}:{user}" for (key,) in named]
        await connection.execute("DELETE FROM images_proxy.spend WHERE scope = ANY($1::text[])", scopes)
        await connection.execute("DELETE FROM images_proxy.pace WHERE scope = ANY($1::text[])", scopes)
        await connection.execute("UPDATE images_proxy.generations SET end_user = '' WHERE end_user = $1", user)
        done = await connection.execute("UPDATE images_proxy.ledger SET end_user = '' WHERE end_user = $1", user)
        return int(done.split()[-1])

    return await held.transaction(forget)


async def _stop_writers(connection: Connection) -> None:
    """Wait for the groups that are being written; those that come see another revision, and look anew."""
    await connection.execute("LOCK TABLE images_proxy.ledger IN SHARE MODE")
    await connection.execute("UPDATE images_proxy.meta SET value = $1 WHERE name = 'limits'", secrets.token_bytes(8))


async def _named(connection: Connection, key: KeyRow, sql: str, *arguments: Any) -> None:
    try:
        await connection.execute(sql, *arguments)
    except asyncpg.UniqueViolationError as error:
        raise NameTaken(f"There is a key named {key.name} already.") from error


async def _note(connection: Connection, told: int | None, key: str, who: str, change: str) -> None:
    await connection.execute(
        f"INSERT INTO images_proxy.key_changes (at, key, who, change) VALUES ({NOW}, $2, $3, $4)",
        told,
        key,
        who,
        change,
    )


def _of_key(key: str) -> tuple[str, str]:
    return (f"key:{key}", f"users:{key}")


async def _replace_limits(connection: Connection, which: str | tuple[str, str], limits: Sequence[Limit]) -> None:
    await _stop_writers(connection)
    if isinstance(which, str):
        await connection.execute(f"DELETE FROM images_proxy.limits WHERE {which}")
    else:
        await connection.execute("DELETE FROM images_proxy.limits WHERE scope = ANY($1::text[])", list(which))
    await connection.executemany(f"INSERT INTO images_proxy.limits ({_LIMIT}) VALUES ($1, $2, $3, $4, $5, $6)", limits)
    await connection.execute(_UNLIMITED)
