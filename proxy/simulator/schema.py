"""Checks configurations against JSON Schema, as far as Prodia's schemas use it, with its validator's messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

_BOUNDS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What one setting may be; ``least`` and ``most`` bound a number, or the length of a string or list."""

    kind: str
    least: float | None = None
    most: float | None = None
    step: int = 1
    values: Sequence[str] = ()
    default: Any = None
    required: bool = False

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with a value; None when nothing is."""
        # To JSON Schema 1.0 is an integer (https://json-schema.org/understanding-json-schema/reference/numeric).
        kind = "integer" if isinstance(value, float) and value.is_integer() else _KINDS.get(type(value), "null")
        items = value if isinstance(value, list) else [value]
        if kind != self.kind and (kind, self.kind) != ("integer", "number"):
            return f"got {kind}, want {self.kind}"
        if kind == "array" and not all(isinstance(item, str) for item in items):
            return "got array, want array of strings"
        if self.values and not set(items) <= set(self.values):
            return f"value must be one of {', '.join(map(repr, self.values))}"
        low, high = _BOUNDS.get(kind, ("minimum", "maximum"))
        got = value if isinstance(value, int | float) else len(value)
        if self.least is not None and got < self.least:
            return f"{low}: got {got:,}, want {self.least:,}"
        if self.most is not None and got > self.most:
            return f"{high}: got {got:,}, want {self.most:,}"
        return f"multipleOf: got {got:,}, want {self.step}" if kind == "integer" and got % self.step else None


Schema = Mapping[str, Rule]
"""The settings of a configuration; no others are allowed."""

string = partial(Rule, "string")
strings = partial(Rule, "array")
whole = partial(Rule, "integer")
number = partial(Rule, "number")
flag = partial(Rule, "boolean")


def sides(least: int, most: int, **more: Any) -> Schema:
    """Return the rules for a width and a height."""
    return dict.fromkeys(("width", "height"), whole(least, most, **more))


def problem(schema: Schema, config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a configuration; None when nothing is."""
    for name in config:
        if name not in schema:
            return f"at '': additional properties '{name}' not allowed"
    for name, rule in schema.items():
        if name not in config and rule.required:
            return f"at '': missing property '{name}'"
        if name in config and (complaint := rule.complaint(config[name])):
            return f"at '/{name}': {complaint}"
    return None


def defaults(schema: Schema) -> dict[str, Any]:
    """Return the values that are used, and returned, for what a configuration leaves out."""
    return {name: rule.default for name, rule in schema.items() if rule.default is not None}
