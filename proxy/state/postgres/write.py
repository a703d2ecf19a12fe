"""One statement that writes what a group of operations has decided, if all it was decided on is still so.

It is a transaction of its own: nobody waits for a process that stops in the middle of one. Rows that others have
changed since they were looked at (their ``xmin`` says so) make it take itself back, by dividing by zero; a holder that
is taken for dead, another set of limits, or a limit that others have used up, make it write nothing. Balances are
locked in the order of their keys, since every replica writes the same ones.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import asyncpg

from proxy.state.money import Entry, SpendRow
from proxy.state.operations import LEASE_MS
from proxy.state.postgres.connection import Held
from proxy.state.postgres.look import NOW
from proxy.state.postgres.schema import row_type
from proxy.state.postgres.tables import PostgresTables
from proxy.state.records import GenerationRow, JobRow

CHANNEL: Final = "images_proxy_ended"
"""Ids of generations that have ended, separated by spaces."""
_PAYLOAD: Final = 150
"""Ids in a notification: less than 8,000 bytes."""
_CONFLICTS: Final = (
    asyncpg.DivisionByZeroError,
    asyncpg.UniqueViolationError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)
_OK: Final = "(SELECT ok FROM guard)"
_GENERATION: Final = ", ".join(GenerationRow._fields)
_JOB: Final = ", ".join(JobRow._fields)
_SPEND: Final = ", ".join(SpendRow._fields)
_ENTRY: Final = ", ".join(Entry._fields[1:])
_SIX: Final = SpendRow._fields[3:]
_DURABLE: Final = (
    "CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') "
    "THEN set_config('synchronous_commit', 'on', true) END"
)
"""For this transaction, whatever the server or the user is set to."""


def _set(fields: Iterable[str]) -> str:
    return ", ".join(f"{column} = n.{column}" for column in fields)


_PARTS: Final = {
    "balances": (
        "delta AS MATERIALIZED (SELECT * FROM unnest({0}::" + row_type("spend") + "[], {1}::bigint[], {2}::bigint[], "
        f"{{3}}::bigint[], {{4}}::bigint[]) d({_SPEND}, more, most, more_pictures, most_pictures)), "
        "room AS MATERIALIZED (SELECT 1 FROM images_proxy.spend s JOIN delta d USING (scope, period, start) "
        "WHERE (d.most IS NULL OR s.reserved + s.spent + s.unknown + d.more <= d.most) AND (d.most_pictures IS NULL "
        "OR s.reserved_pictures + s.spent_pictures + s.unknown_pictures + d.more_pictures <= d.most_pictures) "
        "ORDER BY s.scope, s.period, s.start FOR UPDATE OF s)",
        "balances AS (UPDATE images_proxy.spend s SET "
        + ", ".join(f"{column} = s.{column} + d.{column}" for column in _SIX)
        + f" FROM delta d WHERE (s.scope, s.period, s.start) = (d.scope, d.period, d.start) AND {_OK})",
    ),
    "first_balances": (
        "",
        f"first_balances AS (INSERT INTO images_proxy.spend ({_SPEND}) "
        "SELECT * FROM unnest({0}::" + row_type("spend") + f"[]) n WHERE {_OK})",
    ),
    "generations": (
        "",
        f"generations AS (UPDATE images_proxy.generations g SET {_set(GenerationRow._fields[1:])} FROM unnest("
        "{0}::" + row_type("generations") + f"[], {{1}}::xid[]) n({_GENERATION}, version) "
        f"WHERE g.id = n.id AND g.xmin = n.version AND {_OK} RETURNING 1)",
    ),
    "jobs": (
        "",
        f"jobs AS (UPDATE images_proxy.jobs j SET {_set(JobRow._fields[2:])} FROM unnest("
        "{0}::" + row_type("jobs") + f"[], {{1}}::xid[]) n({_JOB}, version) "
        f"WHERE j.generation = n.generation AND j.number = n.number AND j.xmin = n.version AND {_OK} RETURNING 1)",
    ),
    "new": (
        "",
        f"new_generations AS (INSERT INTO images_proxy.generations ({_GENERATION}) "
        "SELECT * FROM unnest({0}::" + row_type("generations") + f"[]) n WHERE {_OK}{{after}}), "
        f"new_jobs AS (INSERT INTO images_proxy.jobs ({_JOB}) "
        "SELECT * FROM unnest({1}::" + row_type("jobs") + f"[]) n WHERE {_OK})",
    ),
    "entries": (
        "",
        f"entries AS (INSERT INTO images_proxy.ledger ({_ENTRY}) "
        f"SELECT {_ENTRY} FROM unnest({{0}}::" + row_type("ledger") + f"[]) n WHERE {_OK})",
    ),
    "pace": (
        "",
        (
            "pace AS (INSERT INTO images_proxy.pace AS p (scope, minute, requests) "
            f"SELECT * FROM unnest({{0}}::text[], {{1}}::bigint[], {{2}}::bigint[]) n WHERE {_OK} "
            "ON CONFLICT (scope, minute) DO UPDATE SET requests = p.requests + excluded.requests)"
        ),
    ),
    "prices": (
        "",
        (
            "prices AS (INSERT INTO images_proxy.prices AS p (name, amount, at) "
            f"SELECT n.name, n.amount, {NOW} FROM unnest({{0}}::text[], {{1}}::bigint[]) n(name, amount) WHERE {_OK} "
            "ON CONFLICT (name) DO UPDATE SET amount = excluded.amount, at = excluded.at)"
        ),
    ),
    "buries": (
        "",
        f"buries AS (DELETE FROM images_proxy.holders WHERE beat <= {NOW} - $2 AND id <> {{0}} AND {_OK})",
    ),
}
"""By the name of what is written: what the guard needs, and the write."""
_TELL: Final = (
    f"(SELECT count(pg_notify('{CHANNEL}', t)) FROM unnest({{0}}::text[]) t WHERE {_OK} "
    f"AND (SELECT count(*) FROM images_proxy.holders WHERE beat > {NOW} - $2) > 1)"
)
"""Nobody else is there to be told where there is one holder."""
_LIVING: Final = (
    f"(SELECT count(*) FROM images_proxy.holders WHERE id = ANY({{0}}::text[]) AND beat > {NOW} - $2) "
    "= cardinality({0}::text[])"
)
_WIDTHS: Final = {"balances": 5, "generations": 2, "jobs": 2, "new": 2, "pace": 3, "prices": 2}


@lru_cache(maxsize=256)
def _statement(parts: tuple[str, ...]) -> str:
    number, names = 4, {}
    for part in parts:
        width = _WIDTHS.get(part, 1)
        names[part] = [f"${each}" for each in range(number, number + width)]
        number += width
    # An Idempotency-Key is given up before it is taken.
    after = " AND (SELECT count(*) FROM generations) >= 0" if "generations" in parts else ""
    conditions = ["(SELECT value FROM images_proxy.meta WHERE name = 'limits') = $3::bytea"]
    checks = ["ok"]
    if "living" in parts:
        conditions.append(_LIVING.format(*names["living"]))
    if "balances" in parts:
        conditions.append(f"(SELECT count(*) FROM room) = cardinality({names['balances'][1]}::bigint[])")
    checks += (
        f"(SELECT count(*) FROM {part}) = cardinality({names[part][1]}::xid[])"
        for part in ("generations", "jobs")
        if part in parts
    )
    before = [_PARTS[part][0].format(*names[part]) for part in parts if part in _PARTS and _PARTS[part][0]]
    writes = [_PARTS[part][1].format(*names[part], after=after) for part in parts if part in _PARTS]
    guard = f"guard AS MATERIALIZED (SELECT {' AND '.join(conditions)} AS ok)"
    told = _TELL.format(*names["ended"]) if "ended" in parts else "0"
    check = f"CASE WHEN ok THEN 1 / CASE WHEN {' AND '.join(checks)} THEN 1 ELSE 0 END = 1 ELSE false END"
    return (
        f"WITH {', '.join([*before, guard, *writes])} SELECT {check}, {_DURABLE}, {told}, {NOW}, $2::bigint FROM guard"
    )


def _balances(tables: PostgresTables) -> dict[str, tuple[Any, ...]]:
    changes, firsts, guards = [], [], []
    for place, balance in tables.balances.items():
        base = tables.looked.spend.get(place)
        if base is None:
            firsts.append(SpendRow(*place, *balance))
        else:
            changes.append(SpendRow(*place, *[now - was for now, was in zip(balance, base, strict=True)]))
            none = (None, None)
            guards.append(
                (*tables.granted.get((place, "dollars"), none), *tables.granted.get((place, "pictures"), none))
            )
    found: dict[str, tuple[Any, ...]] = {}
    if changes:
        found["balances"] = (changes, *map(list, zip(*guards, strict=True)))
    if firsts:
        found["first_balances"] = (firsts,)
    return found


def _changes(tables: PostgresTables) -> dict[str, tuple[Any, ...]]:
    """Return what is to be written, by the names of the statement's parts."""
    looked, added = tables.looked, tables.added
    found = _balances(tables)
    generations = [row for name, row in tables.generations.items() if name not in added]
    if generations:
        found["generations"] = (generations, [looked.generations[row.id][1] for row in generations])
    jobs = [row for row in tables.jobs.values() if row.generation not in added]
    if jobs:
        found["jobs"] = (jobs, [looked.versions[row.id] for row in jobs])
    if added:
        new = [tables.generations[name] for name in added]
        found["new"] = (new, [row for row in tables.jobs.values() if row.generation in added])
    if tables.entries:
        found["entries"] = (tables.entries,)
    if tables.pace:
        counted = [(scope, minute, number) for (scope, minute), number in sorted(tables.pace.items())]
        found["pace"] = tuple(map(list, zip(*counted, strict=True)))
    if tables.prices:
        found["prices"] = tuple(map(list, zip(*sorted(tables.prices.items()), strict=True)))
    if tables.buries is not None:
        found["buries"] = (tables.buries,)
    if tables.living:
        found["living"] = (list(tables.living),)
    if tables.ended:
        ended = tables.ended
        found["ended"] = ([" ".join(ended[at : at + _PAYLOAD]) for at in range(0, len(ended), _PAYLOAD)],)
    return found


async def write(held: Held, tables: PostgresTables, told: int | None, lease_ms: int = LEASE_MS) -> bool:
    """Write the group's changes; False: something has changed in the meantime, and nothing was written."""
    changes = _changes(tables)
    arguments = [column for columns in changes.values() for column in columns]
    try:
        row = await held.row(_statement(tuple(changes)), told, lease_ms, tables.looked.revision, *arguments)
    except _CONFLICTS:
        return False
    return bool(row[0])
