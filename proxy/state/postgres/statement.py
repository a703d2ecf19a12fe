"""The text of the one statement that writes a group: only the parts that are needed are in it.

It is a transaction of its own, so nobody waits for a process that stops in the middle of one. Rows that others have
changed since they were looked at (their ``xmin`` says so) make it take itself back, by dividing by zero; a holder that
is taken for dead, another set of limits, or a limit that others have used up, make it write nothing. Balances are
locked in the order of their keys, since every replica writes the same ones.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from proxy.state.money import Entry, SpendRow
from proxy.state.postgres.look import DURABLE, NOW
from proxy.state.postgres.schema import row_type
from proxy.state.records import GenerationRow, JobRow

CHANNEL: Final = "images_proxy_ended"
"""Ids of generations that have ended, separated by spaces."""
_OK: Final = "(SELECT ok FROM guard)"
_GENERATION: Final = ", ".join(GenerationRow._fields)
_JOB: Final = ", ".join(JobRow._fields)
_SPEND: Final = ", ".join(SpendRow._fields)
_ENTRY: Final = ", ".join(Entry._fields[1:])
_SIX: Final = SpendRow._fields[3:]


def _set(fields: Iterable[str]) -> str:
    return ", ".join(f"{column} = n.{column}" for column in fields)


_MARKED: Final = f"""SET waiter = NULL, delivered = CASE WHEN m.delivered THEN {NOW} ELSE g.delivered END
FROM unnest(string_to_array({{0}}::text, ' '), string_to_array({{1}}::text, ' ')::bigint[],
            string_to_array({{2}}::text, ' ')::boolean[]) m(id, claim, delivered)"""
_SAME: Final = "g.id = m.id AND g.claim = m.claim"
MARK: Final = (
    f"UPDATE images_proxy.generations g {_MARKED.format('$2', '$3', '$4')} WHERE {_SAME} RETURNING g.id, g.claim"
)
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
        "{0}::" + row_type("generations") + f"[], string_to_array({{1}}::text, ' ')::xid[]) n({_GENERATION}, version) "
        f"WHERE g.id = n.id AND g.xmin = n.version AND {_OK} RETURNING 1)",
    ),
    "jobs": (
        "",
        f"jobs AS (UPDATE images_proxy.jobs j SET {_set(JobRow._fields[2:])} FROM unnest("
        "{0}::" + row_type("jobs") + f"[], string_to_array({{1}}::text, ' ')::xid[]) n({_JOB}, version) "
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
    "marks": (
        "",
        f"marks AS (UPDATE images_proxy.generations g {_MARKED} WHERE {_SAME} AND {_OK} RETURNING g.id, g.claim)",
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
    "(SELECT count(*) FROM images_proxy.holders WHERE id = ANY(string_to_array({0}::text, ' ')) "
    f"AND beat > {NOW} - $2) = cardinality(string_to_array({{0}}::text, ' '))"
)
_WIDTHS: Final = {"balances": 5, "generations": 2, "jobs": 2, "new": 2, "pace": 3, "prices": 2, "marks": 3}


@lru_cache(maxsize=256)
def statement(parts: tuple[str, ...]) -> str:
    """Return the statement for these parts; $1 to $3: the moment that is told, the lease, the limits' revision."""
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
        f"(SELECT count(*) FROM {part}) = cardinality(string_to_array({names[part][1]}::text, ' '))"
        for part in ("generations", "jobs")
        if part in parts
    )
    before = [_PARTS[part][0].format(*names[part]) for part in parts if part in _PARTS and _PARTS[part][0]]
    writes = [_PARTS[part][1].format(*names[part], after=after) for part in parts if part in _PARTS]
    guard = f"guard AS MATERIALIZED (SELECT {' AND '.join(conditions)} AS ok)"
    told = _TELL.format(*names["ended"]) if "ended" in parts else "0"
    check = f"CASE WHEN ok THEN 1 / CASE WHEN {' AND '.join(checks)} THEN 1 ELSE 0 END = 1 ELSE false END"
    found = "ARRAY(SELECT ROW(id, claim) FROM marks)" if "marks" in parts else "NULL::record[]"
    results = f"{check}, pg_current_xact_id()::xid, {found}, {DURABLE}, {told}, {NOW}, $2::bigint"
    every = ", ".join([*before, guard, *writes])
    return f"WITH {every} SELECT {results} FROM guard"
