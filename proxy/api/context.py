"""What is known of one request from its arrival to its log line."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.api.headers import RequestHeaders
from proxy.errors import Failure

_log = logging.getLogger("proxy.requests")


@dataclass(slots=True, eq=False, weakref_slot=True)
class RequestContext:
    """One request: ``asked`` are its headers, ``headers`` those that its answer gets beside the usual ones.

    ``has_left``: whether its caller has hung up, even if nobody has read that from the connection yet.
    ``owner`` tells callers apart without naming their key; ``origin`` is our base as they see it.
    """

    request_id: str
    started: float
    asked: RequestHeaders
    has_left: Callable[[], bool] = lambda: False
    owner: str = ""
    origin: str = ""
    deployment: str = ""
    route: str = ""
    status: int = 0
    code: str = ""
    model: str = ""
    provider: str = ""
    attempts: int = 0
    reattached: bool = False
    left: bool = False
    closed: bool = False
    cause: BaseException | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def name_model(self, values: dict[str, Any]) -> None:
        """Put the model that the path names into a request's values, unless they name one themselves."""
        if self.deployment and values.get("model") in (None, ""):
            values["model"] = self.deployment

    def failed(self, failure: Failure) -> None:
        """Note why the request failed."""
        self.code = failure.code or failure.type
        self.cause = failure.__cause__ if failure.status == 500 else None


_QUIET = frozenset({"healthz", "readyz", "asset", "icon"})
_POLL = "job"


def _level(context: RequestContext, method: str, status: int) -> int:
    """Return how loud a request's line is: what comes every second and went well is for debugging only."""
    if context.cause is not None:
        return logging.ERROR
    quiet = context.route in _QUIET or (context.route == _POLL and method != "DELETE")
    return logging.DEBUG if quiet and status < 400 else logging.INFO


def log_request(context: RequestContext, method: str, status: int, milliseconds: int) -> None:
    """Write a request's line; 499 stands for a caller who left."""
    level = _level(context, method, status)
    if not _log.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "id": context.request_id,
        "method": method,
        "route": context.route,
        "status": status,
        "ms": milliseconds,
    }
    optional = {
        "code": context.code,
        "model": context.model,
        "provider": context.provider,
        "key": context.owner,
        "submits": context.attempts,
        "reattached": context.reattached,
    }
    fields.update((name, value) for name, value in optional.items() if value)
    write_line(_log, level, "request", fields, context.cause)


def write_line(
    log: logging.Logger, level: int, message: str, fields: dict[str, object], cause: BaseException | None
) -> None:
    """Write one line; with a ``cause`` it is an error."""
    level = logging.ERROR if cause is not None else level
    exception = (type(cause), cause, cause.__traceback__) if cause is not None else None
    # Made and handled here: Logger.log would walk the stack for a place in the code that nobody is told.
    log.handle(log.makeRecord(log.name, level, "", 0, message, (), exception, extra={"fields": fields}))
