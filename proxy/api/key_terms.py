"""What is asked of a key on its routes: LiteLLM's words and our own, read into limits and the fields of a row."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from proxy.accounts.amounts import read_moment
from proxy.accounts.changes import Budgets, models_text
from proxy.dollars import decimal_text
from proxy.errors import InvalidRequest
from proxy.state.money import Limit
from proxy.state.periods import Period

_PERIODS: Final[dict[str, Period]] = {
    **dict.fromkeys(("1d", "24h", "daily"), "day"),
    **dict.fromkeys(("7d", "1w", "weekly"), "week"),
    **dict.fromkeys(("30d", "1mo", "monthly"), "month"),
}
_ALL_MODELS: Final = frozenset({"all-proxy-models", "all-team-models", "*"})
_NEVER: Final = ("-1", "permanent", "none")
_TEXTS: Final = (
    ("key_alias", "name"),
    ("name", "name"),
    ("team_id", "owner"),
    ("user_id", "owner"),
    ("owner", "owner"),
    ("count_by", "count_by"),
)
_NUMBERS: Final = (
    ("rpm_limit", "per_minute"),
    ("max_parallel_requests", "at_once"),
    ("per_minute", "per_minute"),
    ("at_once", "at_once"),
    ("per_user_per_minute", "user_per_minute"),
    ("per_user_at_once", "user_at_once"),
)
"""What is named, and the field of a row that it is; of two that mean the same the later counts."""
READ: Final = frozenset(
    {
        "key", "keys", "key_aliases", "models", "max_budget", "budget_duration", "duration", "expires", "metadata",
        "budget", "pictures", "per_user_budget", "per_user_pictures", "show_users", "blocked", "grace_period",
        *(given for given, _ in (*_TEXTS, *_NUMBERS)),
    }
)  # fmt: skip


def budgets(values: Mapping[str, Any], limits: tuple[Limit, ...]) -> Budgets:
    """Return the limits that were named. Raises InvalidRequest."""
    lists = {name: texts_of(values, name) if name in values else None for name in ("budget", "pictures")}
    users = {name: texts_of(values, f"per_user_{name}") if f"per_user_{name}" in values else None for name in lists}
    dollars = lists["budget"]
    if dollars is None and ("max_budget" in values or "budget_duration" in values):
        dollars = _litellm_budget(values, limits)
    return Budgets(dollars, lists["pictures"], users["budget"], users["pictures"])


def _litellm_budget(values: Mapping[str, Any], limits: tuple[Limit, ...]) -> list[str] | None:
    former = [limit for limit in limits if limit.scope.startswith("key:") and limit.unit == "dollars"]
    amount, duration = values.get("max_budget"), values.get("budget_duration")
    if "max_budget" in values and amount is None:
        return None if not limits else []
    if amount is None:
        if not former:
            return None
        if len(former) > 1:
            raise InvalidRequest("This key has several budgets; name them in 'budget'.", param="budget_duration")
        text = decimal_text(former[0].amount)
    elif isinstance(amount, int | float) and not isinstance(amount, bool) and amount >= 0:
        text = format(Decimal(repr(amount)), "f")
    else:
        raise InvalidRequest("'max_budget' must be a number of dollars.", param="max_budget")
    if duration is None:
        kept = former[0].period if len(former) == 1 and "budget_duration" not in values else "total"
        return [f"{text}/{kept}"]
    if duration not in _PERIODS:
        message = (
            f"'budget_duration' must be one of {', '.join(_PERIODS)}: budgets begin anew with the calendar, in UTC."
        )
        raise InvalidRequest(message, param="budget_duration")
    return [f"{text}/{_PERIODS[duration]}"]


def fields_of(values: Mapping[str, Any], now: int) -> dict[str, Any]:
    """Return the fields of a key's row that were named. ``now``: Unix milliseconds. Raises InvalidRequest."""
    fields: dict[str, Any] = {own: text_of(values, given) for given, own in _TEXTS if values.get(given) is not None}
    fields |= {own: _whole(values, given) for given, own in _NUMBERS if given in values}
    for given in ("duration", "expires"):
        if given in values:
            fields["expires"] = _end(given, text_of(values, given), now)
    if "models" in values:
        fields["models"] = models_text([each for each in texts_of(values, "models") if each not in _ALL_MODELS])
    if values.get("show_users") is not None:
        fields["show_users"] = int(bool(values["show_users"]))
    if values.get("metadata") is not None:
        fields["note"] = _note(values["metadata"])
    if values.get("blocked") is not None:
        fields["disabled"] = now if values["blocked"] else None
    return fields


def _end(param: str, text: str, now: int) -> int | None:
    """Return when a key expires, None for never."""
    if not text or text in _NEVER:
        return None
    return read_with(param, lambda text: read_moment(text, now), text)


def _note(metadata: Any) -> str:
    if not isinstance(metadata, dict):
        raise InvalidRequest("'metadata' must be an object.", param="metadata", code="invalid_type")
    return json.dumps(metadata) if metadata else ""


def needed(values: Mapping[str, Any], name: str) -> str:
    """Return a text that must be there. Raises InvalidRequest."""
    text = text_of(values, name)
    if not text:
        raise InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    return text


def text_of(values: Mapping[str, Any], name: str) -> str:
    """Return a text, empty where there is none. Raises InvalidRequest."""
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"'{name}' must be a string.", param=name, code="invalid_type")
    return value


def texts_of(values: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of texts. Raises InvalidRequest."""
    value = values.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidRequest(f"'{name}' must be an array of strings.", param=name, code="invalid_type")
    return value


def _whole(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be a whole number.", param=name, code="invalid_type")
    return value


def positive(text: str | None, default: int) -> int:
    """Return a number in an address, at least 1; the default for what is none."""
    return max(1, int(text)) if text and text.isascii() and text.isdigit() and len(text) < 10 else default


def read_with(param: str, read_text: Callable[[str], int], text: str) -> int:
    """Return what ``read_text`` makes of a parameter's text. Raises InvalidRequest for its ValueError."""
    try:
        return read_text(text)
    except ValueError as error:
        raise InvalidRequest(f"'{param}': {error}.", param=param) from None
