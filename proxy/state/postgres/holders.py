"""Single statements: who lives, and who takes a generation over."""

from proxy.state.postgres.connection import Held
from proxy.state.postgres.look import DURABLE, NOW

_REGISTER = f"""
INSERT INTO images_proxy.holders (id, started, beat, exclusive) VALUES ($2, {NOW}, {NOW}, 0)
ON CONFLICT (id) DO UPDATE SET beat = excluded.beat RETURNING {DURABLE}
"""
_BEAT = f"UPDATE images_proxy.holders SET beat = {NOW} WHERE id = $2 AND beat > {NOW} - $3::bigint RETURNING 1"
_LIVING = f"SELECT id FROM images_proxy.holders WHERE beat > {NOW} - $2::bigint ORDER BY started, id"
_CLAIM = f"""
UPDATE images_proxy.generations SET claim = claim + 1, attempt = $3, delivered = NULL, waiter = $4
WHERE id = $1 AND claim = $2 RETURNING claim, {DURABLE}
"""
_HIDE = f"""
UPDATE images_proxy.generations SET idempotency_key = NULL, fingerprint = NULL, hidden = 1 WHERE id = $1
RETURNING {DURABLE}
"""


async def register(held: Held, told: int | None, holder: str) -> None:
    """Announce a process."""
    await held.fetch(_REGISTER, told, holder)


async def beat(held: Held, told: int | None, holder: str, lease_ms: int) -> bool:
    """Tell that a process lives; False: its last beat is too old, or others have taken it for dead."""
    return bool(await held.fetch(_BEAT, told, holder, lease_ms))


async def living(held: Held, told: int | None, lease_ms: int) -> tuple[str, ...]:
    """Return who lives, the oldest first."""
    return tuple(row[0] for row in await held.fetch(_LIVING, told, lease_ms))


async def retire(held: Held, holder: str) -> None:
    """Take a process away."""
    await held.fetch("DELETE FROM images_proxy.holders WHERE id = $1", holder)


async def claim(held: Held, generation: str, seen: int, attempt: int, waiter: str) -> int | None:
    """Take a generation over if nobody has since it was looked at."""
    found = await held.fetch(_CLAIM, generation, seen, attempt, waiter)
    return found[0][0] if found else None


async def hide(held: Held, generation: str) -> bool:
    """Let nobody find a generation; its jobs and their money stay."""
    return bool(await held.fetch(_HIDE, generation))
