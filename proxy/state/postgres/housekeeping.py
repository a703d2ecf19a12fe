"""What is no longer needed goes, in small steps, one replica at a time."""

from typing import Final

from proxy.state.outcomes import Swept
from proxy.state.periods import day_of
from proxy.state.postgres.client import Connection
from proxy.state.postgres.connection import Held
from proxy.state.postgres.look import NOW
from proxy.state.records import id_prefix

_DAY_MS: Final = 86_400_000
_ALONE: Final = f"SELECT {NOW} FROM images_proxy.meta WHERE name = 'sweep' FOR UPDATE SKIP LOCKED"
_UNRESOLVED: Final = """
EXISTS (SELECT FROM images_proxy.jobs j WHERE j.generation = g.id AND j.state = 'unknown' AND j.resolved = '')
"""
_OLD: Final = f"""
SELECT g.id, {_UNRESOLVED} FROM images_proxy.generations g
WHERE g.id < $1 AND g.ended <= $2 AND (g.fingerprint IS NOT NULL OR NOT {_UNRESOLVED})
LIMIT $3 FOR UPDATE OF g SKIP LOCKED
"""
_OVER: Final = """
e.day < $1 AND e.kind <> 'sum' AND NOT EXISTS (
  SELECT FROM images_proxy.jobs j WHERE j.generation = e.generation AND j.number = e.number)
"""
"""Of jobs that are gone: nothing can happen to their money any more."""
_OLDEST: Final = f"SELECT e.day FROM images_proxy.ledger e WHERE {_OVER} ORDER BY e.day LIMIT 1"
_SUM_UP: Final = f"""
WITH gone AS (DELETE FROM images_proxy.ledger e WHERE e.day = $2 AND {_OVER} RETURNING *),
sums AS (
  INSERT INTO images_proxy.ledger (at, kind, generation, number, key, key_name, owner, end_user, provider, model, day,
    reserved, spent, unknown, reserved_pictures, spent_pictures, unknown_pictures, price_source, who)
  SELECT $3, 'sum', '', 0, key, key_name, owner, end_user, provider, model, day, sum(reserved), sum(spent),
    sum(unknown), sum(reserved_pictures), sum(spent_pictures), sum(unknown_pictures), '', ''
  FROM gone GROUP BY key, key_name, owner, end_user, provider, model, day)
SELECT count(*) FROM gone
"""


async def sweep(held: Held, told: int | None, result_ms: int, keep_ledger_days: int, limit: int) -> Swept:
    """Remove what is over. A generation with an outcome that nobody knows stays until that is settled, but no repeat
    finds it."""

    async def remove(connection: Connection) -> Swept:
        now = await connection.fetchval(_ALONE, told)
        if now is None:  # another replica is at it
            return Swept(0, 0, False)
        before = now - result_ms
        # What ended by then was started by then, and so has an id below the first of the next millisecond.
        old = await connection.fetch(_OLD, id_prefix(before + 1), before, limit)
        gone = [name for name, unresolved in old if not unresolved]
        kept = [name for name, unresolved in old if unresolved]
        await connection.execute(
            "UPDATE images_proxy.generations SET idempotency_key = NULL, fingerprint = NULL WHERE id = ANY($1::text[])",
            kept,
        )
        await connection.execute("DELETE FROM images_proxy.jobs WHERE generation = ANY($1::text[])", gone)
        await connection.execute("DELETE FROM images_proxy.generations WHERE id = ANY($1::text[])", gone)
        await connection.execute("DELETE FROM images_proxy.pace WHERE minute < $1", now // 60_000 - 1)
        await connection.execute("DELETE FROM images_proxy.holders WHERE beat < $1", now - _DAY_MS)
        entries = await _sum_up(connection, now, day_of(now) - keep_ledger_days) if keep_ledger_days else 0
        return Swept(len(gone), entries, len(old) == limit or entries > 0)

    return await held.transaction(remove)


async def _sum_up(connection: Connection, now: int, before_day: int) -> int:
    """Put a sum for each account and route in the place of one old day's entries, so that no balance changes."""
    day = await connection.fetchval(_OLDEST, before_day)
    return 0 if day is None else int(await connection.fetchval(_SUM_UP, before_day, day, now))
