"""Tools in a chat request: a picture is made although some are on offer, never where one of them has to be called."""

from typing import Any

from proxy.errors import InvalidRequest

_FREE = frozenset({None, "", "auto", "none"})
_FREE_KINDS = frozenset({"auto", "none", "image_generation"})


def refuse_forced_tool(values: dict[str, Any]) -> None:
    """Refuse a chat request whose answer must be the call of a function: a picture would be bought for nothing.

    Raises InvalidRequest.
    """
    for name in ("tool_choice", "function_call"):
        if _forces(values.get(name)):
            message = f"'{name}' demands the call of a function, and this model only makes pictures; leave it 'auto'."
            raise InvalidRequest(message, param=name, code="invalid_value")


def _forces(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return not isinstance(choice, str | None) or choice not in _FREE
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        return _forces(allowed.get("mode") if isinstance(allowed, dict) else None)
    return choice.get("type") not in _FREE_KINDS
