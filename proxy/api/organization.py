"""/v1/organization/costs and /usage/images: the ledger in OpenAI's shapes, for tools that read OpenAI's bills.

https://platform.openai.com/docs/api-reference/usage. Buckets are UTC days. What OpenAI calls a project is an owner
here, a line item is a model, and a key goes by its name.
"""

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.api.accounts import state_of, unavailable
from proxy.engine import Engine
from proxy.errors import InvalidRequest
from proxy.state import operations
from proxy.state.money import Balance
from proxy.state.operations import By
from proxy.state.periods import day_of

_DAY_S: Final = 86_400
_COSTS: Final[dict[str, By]] = {"project_id": "owner", "line_item": "model", "api_key_id": "key", "user_id": "user"}
_IMAGES: Final[dict[str, By]] = {"project_id": "owner", "model": "model", "api_key_id": "key", "user_id": "user"}
_FILTERS: Final = ("api_key_ids", "project_ids", "user_ids", "models", "sizes", "sources", "line_items")
_USUAL_DAYS, _MOST_DAYS = 7, 180
Result = Callable[[Balance], dict[str, Any]]


async def costs(request: Request) -> Response:
    """Return the dollars of each day."""
    return await _buckets(request, _COSTS, _cost)


async def images(request: Request) -> Response:
    """Return the pictures of each day."""
    return await _buckets(request, _IMAGES, _pictures)


def _cost(balance: Balance) -> dict[str, Any]:
    amount = {"value": float(Decimal(balance.spent).scaleb(-9)), "currency": "usd"}
    return {"object": "organization.costs.result", "amount": amount}


def _pictures(balance: Balance) -> dict[str, Any]:
    # A job at a provider makes one picture.
    count = balance.spent_pictures
    return {"object": "organization.usage.images.result", "images": count, "num_model_requests": count}


async def _buckets(request: Request, groups: dict[str, By], result: Result) -> Response:
    engine: Engine = request.app.state.waiting.engine
    _refuse_unknown(request)
    group = _group(request, groups)
    now = engine.accounts.keys.now
    first = _moment(request, "start_time", None) // _DAY_S
    last = min(-(-_moment(request, "end_time", now // 1000 + 1) // _DAY_S), day_of(now) + 1)
    limit = _moment(request, "limit", _USUAL_DAYS)
    begin = max(first, _moment(request, "page", first))
    end = min(last, begin + max(1, min(limit, _MOST_DAYS)))
    try:
        rows = await state_of(engine).usage("day", begin, None, groups[group] if group else None)
    except operations.StateUnavailable as error:
        raise unavailable(error) from error
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    names = dict.fromkeys(groups)
    for row in rows:
        found[int(row.name)].append({**result(row.balance), **names, **({group: row.split} if group else {})})
    data = [
        {"object": "bucket", "start_time": day * _DAY_S, "end_time": (day + 1) * _DAY_S, "results": found.get(day, [])}
        for day in range(begin, end)
    ]
    more = end < last
    return JSONResponse({"object": "page", "data": data, "has_more": more, "next_page": str(end) if more else None})


def _refuse_unknown(request: Request) -> None:
    """Refuse what would change the figures and isn't understood. Raises InvalidRequest."""
    query = request.query_params
    if query.get("bucket_width", "1d") != "1d":
        raise InvalidRequest("'bucket_width' must be 1d.", param="bucket_width")
    for name in _FILTERS:
        if name in query or f"{name}[]" in query:
            raise InvalidRequest(f"'{name}' is not understood; use 'group_by'.", param=name)


def _group(request: Request, groups: dict[str, By]) -> str | None:
    query = request.query_params
    given = [name for each in (*query.getlist("group_by"), *query.getlist("group_by[]")) for name in each.split(",")]
    if not given:
        return None
    if len(given) > 1 or given[0] not in groups:
        raise InvalidRequest(f"'group_by' must be one of {', '.join(groups)}.", param="group_by")
    return given[0]


def _moment(request: Request, name: str, default: int | None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        raise InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if not (text.isascii() and text.isdigit() and len(text) < 15):
        raise InvalidRequest(f"'{name}' must be a whole number.", param=name)
    return int(text)
