"""GET /v1/key, /v1/usage, /v1/ledger, and POST /v1/ledger/{job}: what was used, by oneself; for the admin, by all."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.accounts import reports
from proxy.accounts.changes import KeyAdmin
from proxy.api.body import read_json
from proxy.api.context import RequestContext
from proxy.engine import Engine
from proxy.errors import InvalidRequest, NotFound, StateUnavailable
from proxy.state import operations
from proxy.state.operations import By, State
from proxy.state.records import JobId

_MOST_ENTRIES, _MOST_BODY = 1000, 65_536
_ENTRIES_OF_A_JOB = 4
"""Read so many entries for each job that is wanted: most have two."""


def state_of(engine: Engine) -> State:
    """Return the state, for reading."""
    return engine.journal.state


def unavailable(error: operations.StateUnavailable) -> StateUnavailable:
    """Return the failure for a state that can't be read or written now."""
    failure = StateUnavailable("The state cannot be read or written now.", retry_after=2.0)
    failure.__cause__ = error
    return failure


async def own_key(request: Request) -> Response:
    """Tell a key what it may do and has used."""
    engine, context = _parts(request)
    caller = context.caller
    if caller.role == "admin":
        raise NotFound("The admin key is no key for pictures. GET /key/list lists those.")
    try:
        body = await reports.own_body(state_of(engine), caller.key, engine.accounts.keys.now)
    except operations.StateUnavailable as error:
        raise unavailable(error) from error
    return JSONResponse(body)


async def usage(request: Request) -> Response:
    """Sum what was used: ``by`` a name, ``split`` by another, ``since`` a day, of one ``key``.

    Of all keys together with the limits of the service and of owners.
    """
    engine, context = _parts(request)
    by, split = _by(request, "by", "key"), _by(request, "split", None)
    since = _since(request, engine.accounts.keys.now)
    key = _whose(request, engine, context)
    try:
        rows = await state_of(engine).usage(by or "key", since, key, split)
        limits = await engine.accounts.overall() if key is None else ()
    except operations.StateUnavailable as error:
        raise unavailable(error) from error
    now = engine.accounts.keys.now
    told = {"limits": [reports.standing_body(each, now) for each in limits]} if key is None else {}
    return JSONResponse({**reports.usage_body(rows, by or "key", since, split), **told})


async def ledger(request: Request) -> Response:
    """List entries, the newest first; ``unknown``: the jobs whose outcome nobody knows; ``jobs``: the last jobs."""
    engine, context = _parts(request)
    key = _whose(request, engine, context)
    state = state_of(engine)
    limit = _number(request, "limit", 100, 1, _MOST_ENTRIES)
    before = _number(request, "before", 0, 0, 2**62) or None
    try:
        if _is_set(request, "unknown"):
            return _list(await reports.unknown_body(state, key))
        if _is_set(request, "jobs"):
            entries = await state.ledger(before=before, limit=limit * _ENTRIES_OF_A_JOB, key=key)
            return _list(reports.jobs_of(entries, limit))
        entries = await state.ledger(before=before, limit=limit + 1, key=key)
    except operations.StateUnavailable as error:
        raise unavailable(error) from error
    whole = context.caller.role == "admin"
    bodies = [reports.entry_body(entry, whole=whole) for entry in entries[:limit]]
    return _list(bodies, more=len(entries) > limit)


async def resolve(request: Request) -> Response:
    """Settle an unknown outcome by the admin's word: ``{"outcome": "paid"}`` or ``"free"``."""
    engine, context = _parts(request)
    outcome = (await read_json(request, _MOST_BODY)).get("outcome")
    if outcome not in ("paid", "free"):
        raise InvalidRequest("'outcome' must be paid or free.", param="outcome")
    try:
        job = JobId.parse(request.path_params["job"])
        settled = await state_of(engine).resolve(job, outcome, context.who)
    except ValueError:
        settled = False
    except operations.StateUnavailable as error:
        raise unavailable(error) from error
    if not settled:
        raise NotFound("There is no such job whose outcome is unknown.")
    return JSONResponse({"object": "ledger.job", "job": str(job), "outcome": outcome})


def key_admin(engine: Engine, context: RequestContext) -> KeyAdmin:
    """Return what changes keys in the name of whoever sent a request."""
    keys = engine.accounts.keys
    return KeyAdmin(state_of(engine), context.who, lambda: keys.now, keys.named)


def _parts(request: Request) -> tuple[Engine, RequestContext]:
    return request.app.state.waiting.engine, request.state.context


def _whose(request: Request, engine: Engine, context: RequestContext) -> str | None:
    """Return the id of the key that is asked about, None for all; a plain key sees its own. Raises NotFound."""
    if context.caller.role != "admin":
        return context.owner
    name = request.query_params.get("key")
    return None if name is None else engine.accounts.id_of(name)


def _list(rows: list[dict[str, Any]], *, more: bool = False) -> Response:
    return JSONResponse({"object": "list", "data": rows, "has_more": more})


def _by(request: Request, param: str, default: By | None) -> By | None:
    given = request.query_params.get(param)
    if given is None:
        return default
    named = next((by for by in reports.BY if by == given), None)
    if named is None:
        raise InvalidRequest(f"'{param}' must be one of {', '.join(reports.BY)}.", param=param)
    return named


def _since(request: Request, now: int) -> int:
    """Return the UTC day from which on is counted: ``7d`` back, a date, or the first of this month."""
    try:
        return reports.since_day(request.query_params.get("since"), now)
    except ValueError:
        raise InvalidRequest("'since' must be a date such as 2026-11-21, or 7d.", param="since") from None


def _number(request: Request, param: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(param)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20) or not least <= int(text) <= most:
        raise InvalidRequest(f"'{param}' must be a whole number from {least} to {most}.", param=param)
    return int(text)


def _is_set(request: Request, param: str) -> bool:
    return request.query_params.get(param, "").lower() in ("1", "true", "yes")
