"""What was spent, and by whom: readings that change nothing."""

from typing import Any, Final

from proxy.state.money import Balance, Entry, SpendRow
from proxy.state.operations import By
from proxy.state.outcomes import Usage
from proxy.state.postgres.client import Connection
from proxy.state.postgres.connection import Held
from proxy.state.records import Everything, GenerationRow, JobId, JobRow

_COLUMNS: Final[dict[By, str]] = {
    "key": "key_name",
    "owner": "owner",
    "user": "end_user",
    "model": "model",
    "provider": "provider",
    "day": "day",
}
_USAGE: Final = """
SELECT {}, {}, sum(reserved)::bigint, sum(spent)::bigint, sum(unknown)::bigint, sum(reserved_pictures)::bigint,
       sum(spent_pictures)::bigint, sum(unknown_pictures)::bigint
FROM images_proxy.ledger WHERE day >= $1 AND ($2::text IS NULL OR key = $2) GROUP BY 1, 2 ORDER BY 1, 2
"""
_LEDGER: Final = f"""
SELECT {", ".join(Entry._fields)} FROM images_proxy.ledger
WHERE ($1::bigint IS NULL OR id < $1) AND ($2::text IS NULL OR key = $2)
  AND ($3::text IS NULL OR (generation = $3 AND number = $4::bigint)) ORDER BY id DESC LIMIT $5
"""


async def usage(held: Held, by: By, since_day: int, key: str | None, split: By | None = None) -> tuple[Usage, ...]:
    """Sum the ledger from a day on."""
    # The columns come from the table above, never from a caller.
    found = await held.fetch(_USAGE.format(_COLUMNS[by], _COLUMNS[split] if split else "''"), since_day, key)
    return tuple(Usage(str(row[0]), Balance(*row[2:]), str(row[1])) for row in map(tuple, found))


async def ledger(held: Held, before: int | None, limit: int, key: str | None, job: JobId | None) -> tuple[Entry, ...]:
    """Return entries, the newest first."""
    found = await held.fetch(_LEDGER, before, key, *(job or (None, None)), limit)
    return tuple(Entry(*row) for row in found)


async def unknown_jobs(held: Held) -> tuple[JobRow, ...]:
    """Return the jobs whose outcome nobody knows and nobody has settled."""
    found = await held.fetch(_every(JobRow, "jobs", "generation, number", "state = 'unknown' AND resolved = ''"))
    return tuple(JobRow(*row) for row in found)


async def prices(held: Held) -> dict[str, int]:
    """Return the costs last told."""
    return dict(await held.fetch("SELECT name, amount FROM images_proxy.prices"))


async def everything(held: Held) -> Everything:
    """Return all rows, as of one moment."""

    async def read(connection: Connection) -> Everything:
        generations = await connection.fetch(_every(GenerationRow, "generations", "created, id"))
        jobs = await connection.fetch(_every(JobRow, "jobs", "generation, number"))
        spend = await connection.fetch(_every(SpendRow, "spend", "scope, period, start"))
        entries = await connection.fetch(_every(Entry, "ledger", "id"))
        return Everything(
            tuple(GenerationRow(*row) for row in generations),
            tuple(JobRow(*row) for row in jobs),
            tuple(SpendRow(*row) for row in spend),
            tuple(Entry(*row) for row in entries),
        )

    return await held.snapshot(read)


async def fingerprint_key(held: Held) -> bytes:
    """Return the secret of this state's fingerprints."""
    row = await held.row("SELECT value FROM images_proxy.meta WHERE name = 'fingerprint_key'")
    return bytes(row[0])


def _every(record: Any, table: str, order: str, where: str = "true") -> str:
    return f"SELECT {', '.join(record._fields)} FROM images_proxy.{table} WHERE {where} ORDER BY {order}"
