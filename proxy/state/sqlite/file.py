"""The file of the state: made, locked, opened, brought to the present version."""

import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from proxy.state.operations import StateInUse, StateUnavailable, StateUnusable
from proxy.state.schema import MIGRATIONS, statements

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

Synchronous = Literal["full", "normal"]
_APPLICATION_ID: Final = 0x696D6770
"""Marks our files (``imgp``)."""
_BUSY_S: Final = 5.0
"""A command beside the service writes for milliseconds."""
_LEAST_SQLITE: Final = (3, 35, 0)
_UNUSABLE: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class Lock:
    """Held by the one process that serves from a file; let go of by the system when the process ends, however."""

    def __init__(self, path: Path) -> None:
        """Take it; ``path`` is the state's. Raises StateInUse if another process has it."""
        name = path.with_name(path.name + ".lock")
        self._file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "win32":
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            text = f"Another images-proxy serves from {path} already. Replicas need PostgreSQL, or a state.path each."
            raise StateInUse(text) from None

    def release(self) -> None:
        """Let another process serve."""
        os.close(self._file)


def explain(error: Exception, path: Path | None) -> StateUnavailable:
    """Return our exception for SQLite's, or for whatever else befell a transaction."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if name.startswith(_UNUSABLE):
        return StateUnusable(
            f"The state {path} is damaged ({error}). Move it away and put a backup in its place; without one, the "
            "service starts with an empty state when the file is gone, and knows nothing of what was bought before."
        )
    return StateUnavailable(f"The state {path or ':memory:'} can't be used now: {error} ({name}).")


def prepare(path: Path) -> None:
    """Make the folder (mode 700) and the file (mode 600) where they are missing. Raises StateUnusable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        text = f"The state {path} can't be made or written: {error.strerror}. Set state.path, or to ':memory:'."
        raise StateUnusable(text) from error


def connect(path: Path | None, synchronous: Synchronous) -> sqlite3.Connection:
    """Open the file, or a state in memory. Raises sqlite3.Error, StateUnusable."""
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise StateUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed.")
    connection = sqlite3.connect(
        path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only counts before the first table
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if path is not None and mode != "wal":
            raise StateUnusable(f"The folder of {path} can't hold a database that several use: choose a local disk.")
        connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the tables to the present version, in one transaction. Raises sqlite3.Error, StateUnusable."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _check_ours(connection, version, len(migrations))
        for script in migrations[version:]:
            for statement in statements(script):
                connection.execute(statement)
        if version < len(migrations):
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_ours(connection: sqlite3.Connection, version: int, known: int) -> None:
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and mark != _APPLICATION_ID:
        raise StateUnusable("The file at state.path is another program's database. Choose another path.")
    if version > known:
        text = f"The state was written by a newer version (its tables: {version}, known here: up to {known})."
        raise StateUnusable(text + " Install that version again, or restore the backup made before.")
