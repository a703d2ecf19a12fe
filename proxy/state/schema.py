"""The tables, their versions, and the way from each version to the next."""

from collections.abc import Sequence
from typing import Final

TABLES: Final = """
CREATE TABLE meta(
    name TEXT PRIMARY KEY, value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE holders(
    id TEXT PRIMARY KEY, started INTEGER NOT NULL, beat INTEGER NOT NULL, exclusive INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE generations(
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL, key_name TEXT NOT NULL, owner TEXT NOT NULL, end_user TEXT NOT NULL,
    idempotency_key TEXT, fingerprint BLOB, request TEXT NOT NULL, seed INTEGER NOT NULL, n INTEGER NOT NULL,
    attempt INTEGER NOT NULL, claim INTEGER NOT NULL, waiter TEXT,
    created INTEGER NOT NULL, ended INTEGER, delivered INTEGER, ended_as TEXT, hidden INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX generations_by_idempotency_key ON generations(key, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX generations_current ON generations(key, fingerprint) WHERE delivered IS NULL OR ended IS NULL;
CREATE INDEX generations_told ON generations(delivered, fingerprint) WHERE delivered IS NOT NULL;
CREATE INDEX generations_with_salvage ON generations(fingerprint) WHERE ended_as IN ('again', 'lost', 'unknown');
CREATE TABLE jobs(
    generation TEXT NOT NULL, number INTEGER NOT NULL,
    state TEXT NOT NULL, holder TEXT NOT NULL, epoch INTEGER NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, base_url TEXT NOT NULL, key_env TEXT NOT NULL,
    price INTEGER, price_source TEXT NOT NULL, seed INTEGER NOT NULL, submits INTEGER NOT NULL, submitted INTEGER,
    handle TEXT, expires INTEGER, picture TEXT, failure TEXT NOT NULL,
    day INTEGER NOT NULL, reserved INTEGER NOT NULL, cost INTEGER, ended INTEGER,
    inherited TEXT, taken TEXT, resolved TEXT NOT NULL,
    PRIMARY KEY (generation, number)
) WITHOUT ROWID;
CREATE INDEX jobs_unknown ON jobs(generation) WHERE state = 'unknown' AND resolved = '';
CREATE TABLE limits(
    scope TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL,
    amount INTEGER NOT NULL, extra INTEGER NOT NULL, extra_until INTEGER NOT NULL,
    PRIMARY KEY (scope, unit, period)
) WITHOUT ROWID;
CREATE TABLE spend(
    scope TEXT NOT NULL, period TEXT NOT NULL, start INTEGER NOT NULL,
    reserved INTEGER NOT NULL, spent INTEGER NOT NULL, unknown INTEGER NOT NULL,
    reserved_pictures INTEGER NOT NULL, spent_pictures INTEGER NOT NULL, unknown_pictures INTEGER NOT NULL,
    PRIMARY KEY (scope, period, start)
) WITHOUT ROWID;
CREATE TABLE ledger(
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, generation TEXT NOT NULL, number INTEGER NOT NULL,
    key TEXT NOT NULL, key_name TEXT NOT NULL, owner TEXT NOT NULL, end_user TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, day INTEGER NOT NULL,
    reserved INTEGER NOT NULL, spent INTEGER NOT NULL, unknown INTEGER NOT NULL,
    reserved_pictures INTEGER NOT NULL, spent_pictures INTEGER NOT NULL, unknown_pictures INTEGER NOT NULL,
    price_source TEXT NOT NULL, who TEXT NOT NULL
);
CREATE TABLE ledger_days(
    day INTEGER PRIMARY KEY, first INTEGER NOT NULL, summed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX ledger_by_user ON ledger(key, end_user) WHERE end_user != '';
CREATE TABLE pace(
    scope TEXT NOT NULL, minute INTEGER NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (scope, minute)
) WITHOUT ROWID;
CREATE TABLE prices(
    name TEXT PRIMARY KEY, amount INTEGER NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE keys(
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, tail TEXT NOT NULL, owner TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER, disabled INTEGER, deleted INTEGER, models TEXT NOT NULL,
    per_minute INTEGER NOT NULL, at_once INTEGER NOT NULL, count_by TEXT NOT NULL, show_users INTEGER NOT NULL,
    old_digest BLOB, old_until INTEGER, note TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX keys_by_name ON keys(name) WHERE deleted IS NULL;
CREATE TABLE key_changes(
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, key TEXT NOT NULL, who TEXT NOT NULL, change TEXT NOT NULL
);
"""
"""Version 1.

Each index is paid for with every picture, so there are few. Those of generations hold what is in the making or was told
lately, and stay in few pages; ids are ordered by time, and ``ledger_days`` says where a day's entries begin.
"""

PACE_OF_USERS: Final = """
ALTER TABLE keys ADD COLUMN user_per_minute INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN user_at_once INTEGER NOT NULL DEFAULT 0;
"""
"""Version 2."""

MIGRATIONS: Final[Sequence[str]] = (TABLES, PACE_OF_USERS)
"""Each script leads from the version of its index to the next. Written once, never changed: a file in the field may
be of any version. A new column goes to the end of its table, and of the record that mirrors it."""

VERSION: Final = len(MIGRATIONS)


def statements(script: str) -> list[str]:
    """Return the statements of a script, which has no semicolon but at their ends."""
    return [statement.strip() for statement in script.split(";") if statement.strip()]
