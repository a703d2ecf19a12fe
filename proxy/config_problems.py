"""Everything that is wrong with a configuration, at once: what is right is still read, so that it is checked too."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Kind = TypeVar("Kind", bound=BaseModel)


def read_what_is_right(
    kind: type[Kind], values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[Kind, list[ErrorDetails]]:
    """Return ``values`` as a ``kind`` without what is wrong in them, and what that was.

    ``defaults``: tables to use in place of those that are wrong as a whole.
    """
    wrong: list[ErrorDetails] = []
    while True:
        try:
            return kind.model_validate(values), wrong
        except ValidationError as error:
            found = error.errors()
            # Only the first look counts: what is missing later was taken out here. Of a list with a wrong value that
            # leaves it too short, only the value is reported.
            wrong = wrong or [details for details in found if not _leads_to_another(details["loc"], found)]
            before = values
            for details in found:
                place = details["loc"][:-1] if details["type"] == "missing" else details["loc"]
                values = _without(values, place, defaults)
            if values == before:  # nothing left to take out: never loop for ever
                raise


def _leads_to_another(place: Sequence[int | str], found: Sequence[ErrorDetails]) -> bool:
    length = len(place)
    return any(len(details["loc"]) > length and details["loc"][:length] == place for details in found)


def _without(values: Mapping[str, Any], place: Sequence[int | str], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take out the value at ``place``; inside a list, the whole list."""
    if not place or place[0] not in values:
        return values
    key, rest = str(place[0]), place[1:]
    inner = values[key]
    if rest and isinstance(inner, Mapping):
        return {**values, key: _without(inner, rest, {})}
    kept = {name: value for name, value in values.items() if name != key}
    return {**kept, key: defaults[key]} if key in defaults else kept


def describe(details: ErrorDetails, known_keys: Callable[[list[str]], Mapping[str, str]]) -> str:
    """Return a line for one wrong value.

    ``known_keys`` gives the keys of the table at a path; those for other tables come with what they are for.
    """
    location = [str(part) for part in details["loc"]]
    where = ".".join(location)
    if details["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_hint(location[-1], known_keys(location[:-1]))}"
    message = details["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the known word nearest to ``word`` as a question, or else all of them."""
    known = list(known)
    near = _nearest(word, known)
    return f"did you mean '{near}'?" if near else f"known are {', '.join(known)}"


def _hint(key: str, known: Mapping[str, str]) -> str:
    """Return what to write instead of ``key``, or where it belongs if it is a key of another table."""
    here = [name for name, only_for in known.items() if not only_for]
    if known.get(key):
        return f"only for {known[key]}; {suggestion(key, here)}"
    near = _nearest(key, here) or _nearest(key, known)
    return f"did you mean '{near}' (only for {known[near]})?" if known.get(near) else suggestion(key, here)


def _nearest(word: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), "")
