"""What a request's headers say: looked up by name, and what they ask for."""

import re
from collections.abc import Iterable, Sequence

from proxy.errors import InvalidRequest

_SHORTEST_HOLD_S, _BEFORE_CALLER_S = 1.0, 2.0
_MAX_KEY = 255
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?")


class RequestHeaders:
    """A request's headers, sorted by name once: a request is asked a dozen times, and Starlette's look at all of them.

    ``raw``: pairs as ASGI gives them, names in lower case; values are read as Latin-1.
    """

    __slots__ = ("_values",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def first(self, name: str) -> str:
        """Return the first header of this name (in lower case), empty where there is none."""
        values = self._values.get(name)
        return values[0] if values else ""

    def every(self, name: str) -> Sequence[str]:
        """Return all headers of this name (in lower case), in their order."""
        return self._values.get(name, ())


def idempotency_key(headers: RequestHeaders) -> str | None:
    """Return the Idempotency-Key, quoted or not. Raises InvalidRequest."""
    if "idempotency-key" not in headers:
        return None
    key = headers.first("idempotency-key").strip().strip('"')
    if not key or len(key) > _MAX_KEY:
        message = f"The Idempotency-Key must have 1 to {_MAX_KEY} characters."
        raise InvalidRequest(message, param="Idempotency-Key")
    return key


def attempt_of(headers: RequestHeaders) -> int:
    """Return the SDK's retry counter; 0 when there is none that can be read."""
    value = headers.first("x-stainless-retry-count")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 0


def hold_s(headers: RequestHeaders, longest_s: float) -> float:
    """Return the seconds to hold: two less than the caller announces to wait, at least one, at most ``longest_s``."""
    announced = [headers.first(name) for name in ("x-stainless-read-timeout", "x-stainless-timeout")]
    seconds = [float(value) for value in announced if _SECONDS.fullmatch(value.strip())]
    wait = preferences(headers).get("wait", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 6:
        seconds.append(float(wait) + _BEFORE_CALLER_S)
    return min([longest_s, *(max(_SHORTEST_HOLD_S, value - _BEFORE_CALLER_S) for value in seconds)])


def preferences(headers: RequestHeaders) -> dict[str, str]:
    """Return the preferences of ``Prefer`` (RFC 7240), names in lower case."""
    found: dict[str, str] = {}
    for value in headers.every("prefer"):
        for part in value.split(","):
            name, _, setting = part.partition(";")[0].partition("=")
            found.setdefault(name.strip().lower(), setting.strip().strip('"'))
    return found
