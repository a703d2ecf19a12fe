"""Log lines: one for each request, and one for a generation that ends while nobody waits for it."""

import logging

from proxy.api.context import RequestContext
from proxy.engine import Engine
from proxy.generations.record import Generation

_requests = logging.getLogger("proxy.requests")
_generations = logging.getLogger("proxy.generations")
_QUIET = frozenset({"healthz", "readyz", "asset", "icon"})
_POLLS = frozenset({"generation", "response"})


def log_request(context: RequestContext, method: str, status: int, milliseconds: int) -> None:
    """Write a request's line; 499 stands for a caller who left."""
    level = _level(context, method, status)
    if not _requests.isEnabledFor(level):
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
    _requests.log(level, "request", exc_info=context.cause, extra={"fields": fields})


def _level(context: RequestContext, method: str, status: int) -> int:
    """Return the level of a request's line: what comes every second and went well is for debugging only."""
    if context.cause is not None:
        return logging.ERROR
    quiet = context.route in _QUIET or (context.route in _POLLS and method != "DELETE")
    return logging.DEBUG if quiet and status < 400 else logging.INFO


def log_unattended_end(engine: Engine, generation: Generation, context: RequestContext) -> None:
    """Log the end of ``generation`` in a line of its own if no request waits that would report it.

    ``context``: the request that starts it; the line has its id and counts from its arrival.
    """
    # Only these, for ``look`` lives as long as the generation: the context would keep the request's headers with it.
    request_id, started, model = context.request_id, context.started, context.model

    def look() -> None:
        if not generation.done:
            return
        unwatch()
        if generation.waiters:
            return
        failure = generation.failure
        cause = failure.__cause__ if failure is not None and failure.status == 500 else None
        fields = {
            "id": request_id,
            "outcome": (failure.code or failure.type) if failure else "done",
            "ms": round((engine.clock.monotonic() - started) * 1000),
            "model": model,
            "provider": _provider(generation),
            "key": generation.owner,
            "submits": generation.submits,
        }
        fields = {name: value for name, value in fields.items() if value}
        level = logging.INFO if cause is None else logging.ERROR
        _generations.log(level, "generation", exc_info=cause, extra={"fields": fields})

    unwatch = generation.watch(look)


def _provider(generation: Generation) -> str:
    if generation.pictures:
        return generation.pictures[0].origin.provider
    return next((progress.provider for progress in generation.progress if progress.provider), "")
