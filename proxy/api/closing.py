"""The closing line of a generation that ends while nobody waits: handed over, left, or past its caller's hold."""

import logging

from proxy.api.context import RequestContext, write_line
from proxy.engine import Engine
from proxy.generations.record import Generation

_log = logging.getLogger("proxy.generations")


def log_unattended_end(engine: Engine, generation: Generation, context: RequestContext) -> None:
    """See to it that the end of ``generation`` gets a line of its own if no request is there to tell it.

    ``context``: the request that starts it; the line bears its id and counts from its arrival.
    """
    request_id, started, model = context.request_id, context.started, context.model

    def tell() -> None:
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
        write_line(_log, logging.INFO, "generation", fields, cause)

    unwatch = generation.watch(tell)


def _provider(generation: Generation) -> str:
    if generation.pictures:
        return generation.pictures[0].origin.provider
    return next((progress.provider for progress in generation.progress if progress.provider), "")
