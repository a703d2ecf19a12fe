"""Log lines: one for each request, and one for a generation that ends while nobody waits for it."""

import logging

from proxy.api.context import RequestContext
from proxy.engine import Engine
from proxy.generations.record import Generation

_requests = logging.getLogger("proxy.requests")
_generations = logging.getLogger("proxy.generations")
_SHOWN_OF_ID = len("imggen_") + 12
"""Characters of a generation's id: enough to find its lines by, too few to ask for it or to abandon it."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


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
        "key": context.caller.key.name,
        "submits": context.attempts,
        "generation": context.generation[:_SHOWN_OF_ID],
        "reattached": context.reattached,
        "dry_run": context.dry_run,
    }
    fields.update((name, value) for name, value in optional.items() if value)
    _requests.log(level, "request", exc_info=context.cause, extra={"fields": fields})


def _level(context: RequestContext, method: str, status: int) -> int:
    """Return the level of a request's line: what only reads and goes well, or is given up, is for debugging only.

    So a line at info is a request for pictures, a change, or a refusal.
    """
    if context.cause is not None:
        return logging.ERROR
    return logging.DEBUG if method in _READING and (status < 400 or status == 499) else logging.INFO


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
            "key": generation.account.key_name,
            "submits": generation.submits,
            "generation": generation.id[:_SHOWN_OF_ID],
        }
        fields = {name: value for name, value in fields.items() if value}
        level = logging.INFO if cause is None else logging.ERROR
        _generations.log(level, "generation", exc_info=cause, extra={"fields": fields})

    unwatch = generation.watch(look)


def _provider(generation: Generation) -> str:
    if generation.pictures:
        return generation.pictures[0].origin.provider
    return next((progress.provider for progress in generation.progress if progress.provider), "")
