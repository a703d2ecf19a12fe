"""What Automatic1111 keeps for the one person who uses it, kept for each caller: the chosen model, what is running."""

from collections import OrderedDict

from starlette.requests import Request

from proxy.api.context import RequestContext
from proxy.generations.record import Generation

_MAX_CALLERS = 10_000
"""Without keys a caller is an address, and there are more of those than memory."""


def caller(request: Request) -> str:
    """Return whose request this is: its key's, or its address's on a service without keys."""
    context: RequestContext = request.state.context
    return context.owner or f"@{request.client.host if request.client else ''}"


class Callers:
    """Everything of every caller, in this process's memory."""

    def __init__(self) -> None:
        self._chosen: OrderedDict[str, str] = OrderedDict()
        self._running: dict[str, dict[str, Generation]] = {}

    def chosen(self, caller: str) -> str | None:
        """Return the model that a caller has chosen for its calls that name none."""
        if caller in self._chosen:
            self._chosen.move_to_end(caller)
        return self._chosen.get(caller)

    def choose(self, caller: str, model: str) -> None:
        """Note a caller's choice; an empty one undoes the last."""
        self._chosen.pop(caller, None)
        if model:
            self._chosen[caller] = model
        if len(self._chosen) > _MAX_CALLERS:
            self._chosen.popitem(last=False)

    def running(self, caller: str) -> tuple[Generation, ...]:
        """Return a caller's generations that have not ended, as far as they were asked for here."""
        return tuple(self._running.get(caller, {}).values())

    def follow(self, caller: str, generation: Generation) -> None:
        """Count a generation among those of a caller until it ends."""
        if generation.done:
            return
        self._running.setdefault(caller, {})[generation.id] = generation

        def look() -> None:
            if not generation.done:
                return
            unwatch()
            theirs = self._running.get(caller, {})
            theirs.pop(generation.id, None)
            if not theirs:
                self._running.pop(caller, None)

        unwatch = generation.watch(look)
