"""Keys and limits."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from proxy.state.money import KeyChange, KeyRow, Limit
from proxy.state.operations import NameTaken
from proxy.state.outcomes import KeySet
from proxy.state.sqlite.session import Session

_INSERT: Final = "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def keys(session: Session) -> KeySet:
    """Return all keys that are not deleted, with their limits."""
    rows = tuple(KeyRow(*row) for row in session.execute("SELECT * FROM keys WHERE deleted IS NULL ORDER BY name"))
    limits = tuple(
        Limit(*row) for row in session.execute("SELECT * FROM limits WHERE scope GLOB 'key:*' OR scope GLOB 'users:*'")
    )
    (revision,) = session.execute("SELECT coalesce(max(id), 0) FROM key_changes").fetchone()
    (ever,) = session.execute("SELECT EXISTS (SELECT 1 FROM keys)").fetchone()
    return KeySet(revision, rows, limits, bool(ever))


def key_changes(session: Session, key: str) -> tuple[KeyChange, ...]:
    """Return what was done to a key."""
    found = session.execute("SELECT * FROM key_changes WHERE key = ? ORDER BY id", (key,))
    return tuple(KeyChange(*row) for row in found)


def create_key(session: Session, key: KeyRow, limits: Sequence[Limit], who: str) -> None:
    """Keep a new key. Raises NameTaken."""
    _insert(session, key)
    _replace_limits(session, key.id, limits)
    _note(session, key.id, who, '{"created": true}')


def change_key(session: Session, key: KeyRow, limits: Sequence[Limit] | None, who: str, change: str) -> bool:
    """Replace a key's row, and its limits unless None. Raises NameTaken."""
    if not session.execute("DELETE FROM keys WHERE id = ?", (key.id,)).rowcount:
        return False
    _insert(session, key)
    if limits is not None:
        _replace_limits(session, key.id, limits)
    _note(session, key.id, who, change)
    return True


def set_limits(session: Session, limits: Sequence[Limit]) -> None:
    """Replace the limits of the whole service and of owners."""
    session.execute("DELETE FROM limits WHERE scope = 'all' OR scope GLOB 'owner:*'")
    _write_limits(session, limits)


def forget_user(session: Session, user: str) -> int:
    """Remove an end user's name from all rows."""
    session.write_balances()
    named = session.execute("SELECT DISTINCT key FROM ledger WHERE end_user = ?", (user,)).fetchall()
    for (key,) in named:
        session.execute("DELETE FROM spend WHERE scope = ?", (f"user:{key}:{user}",))
        session.execute("DELETE FROM pace WHERE scope = ?", (f"user:{key}:{user}",))
    session.execute("UPDATE generations SET end_user = '' WHERE end_user = ?", (user,))
    session.forget()
    return session.execute("UPDATE ledger SET end_user = '' WHERE end_user = ?", (user,)).rowcount


def _insert(session: Session, key: KeyRow) -> None:
    try:
        session.execute(_INSERT, key)
    except sqlite3.IntegrityError as error:
        raise NameTaken(f"There is a key named {key.name} already.") from error


def _note(session: Session, key: str, who: str, change: str) -> None:
    session.execute("INSERT INTO key_changes VALUES (NULL, ?, ?, ?, ?)", (session.now, key, who, change))


def _replace_limits(session: Session, key: str, limits: Sequence[Limit]) -> None:
    session.execute("DELETE FROM limits WHERE scope IN (?, ?)", (f"key:{key}", f"users:{key}"))
    _write_limits(session, limits)


def _write_limits(session: Session, limits: Sequence[Limit]) -> None:
    """Write limits, and let go of the balances that none of them needs: they would no longer be kept."""
    session.write_balances()
    session.connection.executemany(
        "INSERT INTO limits VALUES (?, ?, ?, ?, ?, ?)",
        limits,
    )
    session.execute(
        "DELETE FROM spend WHERE NOT EXISTS (SELECT 1 FROM limits WHERE limits.period = spend.period AND ("
        "limits.scope = spend.scope OR spend.scope GLOB 'user:*' "
        "AND limits.scope = 'users:' || substr(spend.scope, 6, instr(substr(spend.scope, 6), ':') - 1)))"
    )
    session.forget()
