"""/key/…: making and changing keys in the shapes of LiteLLM, which provisioning scripts speak; and with our own words.

https://docs.litellm.ai/docs/proxy/virtual_keys. What LiteLLM's words can't say (several budgets, numbers of pictures,
end users) has the names that ``images-proxy keys`` uses.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.accounts import reports
from proxy.accounts.amounts import read_seconds
from proxy.api.accounts import key_admin, state_of, unavailable
from proxy.api.body import decode, read
from proxy.api.context import RequestContext
from proxy.api.key_terms import READ, budgets, fields_of, needed, positive, read_with, text_of, texts_of
from proxy.engine import Engine
from proxy.errors import InvalidRequest
from proxy.state import operations
from proxy.state.money import KeyRow, Limit
from proxy.state.periods import Period, day_of, period_start
from proxy.state.records import Account

_MOST_BODY: Final = 65_536
_DURATIONS: Final[dict[Period, str | None]] = {"day": "1d", "week": "7d", "month": "30d", "total": None}
Work = Callable[[Request, Engine, RequestContext, dict[str, Any]], Awaitable[Any]]


def _route(work: Work) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler: reads a JSON object or nothing, has it worked on, and lets this process know the keys anew."""

    async def handle(request: Request) -> Response:
        engine: Engine = request.app.state.waiting.engine
        body = await read(request, _MOST_BODY)
        values = await decode(body) if body.strip() else {}
        try:
            answer = await work(request, engine, request.state.context, values)
            await engine.accounts.refresh()
        except operations.StateUnavailable as error:
            raise unavailable(error) from error
        return JSONResponse(answer)

    handle.__doc__ = work.__doc__
    return handle


async def _generate(
    _request: Request, engine: Engine, context: RequestContext, values: dict[str, Any]
) -> dict[str, Any]:
    """Make a key."""
    name = text_of(values, "name") or text_of(values, "key_alias") or f"key-{secrets.token_hex(3)}"
    fields = fields_of(values, engine.accounts.keys.now)
    fields.pop("name", None)
    row, limits, secret = await key_admin(engine, context).create(name, budgets(values, ()), **fields)
    return {"key": secret, **_shown(row, limits, 0), **_ignored(values)}


async def _update(_request: Request, engine: Engine, context: RequestContext, values: dict[str, Any]) -> dict[str, Any]:
    """Change a key; what is not named stays."""
    admin = key_admin(engine, context)
    row, limits = await admin.find(needed(values, "key"))
    fields = fields_of(values, engine.accounts.keys.now)
    told = {name: value for name, value in values.items() if name in READ and name not in ("key", "metadata")}
    row, limits = await admin.update(row, limits, budgets(values, limits), told, **fields)
    return {"key": row.digest.hex(), **_shown(row, limits, await _spent(engine, row)), **_ignored(values)}


async def _delete(_request: Request, engine: Engine, context: RequestContext, values: dict[str, Any]) -> dict[str, Any]:
    """Delete keys, all or none."""
    admin = key_admin(engine, context)
    named = [*texts_of(values, "keys"), *texts_of(values, "key_aliases")]
    if not named:
        raise InvalidRequest("Name the keys to delete in 'keys' or 'key_aliases'.", param="keys")
    rows = [row for row, _ in [await admin.find(each) for each in named]]
    for row in rows:
        await admin.delete(row)
    return {"deleted_keys": [row.digest.hex() for row in rows]}


async def _block(_request: Request, engine: Engine, context: RequestContext, values: dict[str, Any]) -> dict[str, Any]:
    """Disable a key."""
    return await _switched(engine, context, values, disabled=True)


async def _unblock(
    _request: Request, engine: Engine, context: RequestContext, values: dict[str, Any]
) -> dict[str, Any]:
    """Enable a key again."""
    return await _switched(engine, context, values, disabled=False)


async def _switched(
    engine: Engine, context: RequestContext, values: dict[str, Any], *, disabled: bool
) -> dict[str, Any]:
    admin = key_admin(engine, context)
    row, limits = await admin.find(needed(values, "key"))
    row = await admin.disable(row, disabled=disabled)
    return _shown(row, limits, await _spent(engine, row))


async def _regenerate(
    request: Request, engine: Engine, context: RequestContext, values: dict[str, Any]
) -> dict[str, Any]:
    """Give a key a new secret; with ``grace_period`` (``24h``) the old one works meanwhile."""
    admin = key_admin(engine, context)
    row, limits = await admin.find(request.path_params["key"])
    grace_s = read_with("grace_period", read_seconds, text_of(values, "grace_period") or "0s")
    row, secret = await admin.rotate(row, grace_s * 1000)
    return {"key": secret, **_shown(row, limits, await _spent(engine, row))}


async def _info(request: Request, engine: Engine, context: RequestContext, _values: dict[str, Any]) -> dict[str, Any]:
    """Tell one key, what it has used, and what was done to it."""
    row, limits = await key_admin(engine, context).find(request.query_params.get("key", ""))
    state = state_of(engine)
    info = {
        **_shown(row, limits, await _spent(engine, row)),
        "limits": await _standing(engine, row),
        "changes": reports.changes_body(await state.key_changes(row.id)),
    }
    return {"key": row.digest.hex(), "info": info}


async def _list(request: Request, engine: Engine, _context: RequestContext, _values: dict[str, Any]) -> dict[str, Any]:
    """List keys by page; whole ones with ``return_full_object=true``."""
    query = request.query_params
    kept = await state_of(engine).keys()
    rows = [
        row
        for row in kept.keys
        if query.get("key_alias", row.name) == row.name and query.get("user_id", row.owner) == row.owner
    ]
    page, size = (positive(query.get(name), default) for name, default in (("page", 1), ("size", 100)))
    shown = rows[(page - 1) * size : page * size]
    month = period_start("month", day_of(engine.accounts.keys.now))
    spent = {each.name: each.balance.spent for each in await state_of(engine).usage("key", month)}
    whole = query.get("return_full_object", "").lower() == "true"
    return {
        "keys": [
            {**_shown(row, kept.limits, spent.get(row.name, 0)), "limits": await _standing(engine, row)}
            if whole
            else row.digest.hex()
            for row in shown
        ],
        "total_count": len(rows),
        "current_page": page,
        "total_pages": -(-len(rows) // size),
    }


async def _standing(engine: Engine, row: KeyRow) -> list[dict[str, Any]]:
    """Return every limit that holds for a key, with what is used of it."""
    found = await state_of(engine).standing(Account(row.id, row.name, row.owner))
    return [reports.standing_body(each, engine.accounts.keys.now) for each in found]


generate_key, update_key, delete_keys = _route(_generate), _route(_update), _route(_delete)
block_key, unblock_key, regenerate_key = _route(_block), _route(_unblock), _route(_regenerate)
key_info, list_keys = _route(_info), _route(_list)


# --- what is answered -------------------------------------------------------------------------------------------------


def _shown(row: KeyRow, limits: tuple[Limit, ...], spent: int) -> dict[str, Any]:
    """Return a key in our words and in LiteLLM's, without its secret."""
    dollars = [limit for limit in limits if (limit.scope, limit.unit) == (f"key:{row.id}", "dollars")]
    only = dollars[0] if len(dollars) == 1 else None
    ours = reports.row_body(row, limits)
    return {
        **ours,
        "token": row.digest.hex(),
        "token_id": row.digest.hex(),
        "key_name": f"sk-...{row.tail}",
        "key_alias": row.name,
        "user_id": row.owner or None,
        "max_budget": float(Decimal(only.amount).scaleb(-9)) if only else None,
        "budget_duration": _DURATIONS[only.period] if only else None,
        "rpm_limit": row.per_minute or None,
        "max_parallel_requests": row.at_once or None,
        "tpm_limit": None,
        "blocked": row.disabled is not None,
        "spend": float(Decimal(spent).scaleb(-9)),
        "metadata": json.loads(row.note) if row.note else {},
        "created_at": ours["created"],
    }


async def _spent(engine: Engine, row: KeyRow) -> int:
    """Return what a key has spent this month, in nano-dollars."""
    month = period_start("month", day_of(engine.accounts.keys.now))
    return sum(each.balance.spent for each in await state_of(engine).usage("key", month, row.id))


def _ignored(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names that mean nothing here, so that nobody relies on them."""
    names = sorted(name for name, value in values.items() if name not in READ and value not in (None, [], {}, ""))
    return {"ignored": names} if names else {}
