"""What runs beside the requests: sweeps, the providers' lists of models, the event loop's lag, what was learned."""

import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from proxy.clock import Clock
from proxy.errors import ProviderFailure
from proxy.jobs.runtime import ProviderRuntime
from proxy.jobs.schedule import Schedule
from proxy.providers.boundary import ListsModels
from proxy.requests.routing import ModelCatalogue
from proxy.upstream.client import MAX_CATALOGUE, Interrupted, NotSent

_SWEEP_S = 5.0
_CATALOGUE_S = 3600.0
_LAG_EVERY_S, _LAG_SAMPLES = 0.5, 20
_LEARNED_FILE = "poll-schedule.json"
_log = logging.getLogger("proxy")


async def sweep(clock: Clock, generations: Callable[[], None], pictures: Callable[[], Awaitable[None]]) -> None:
    """Forget outdated generations and pictures, every few seconds."""
    while True:
        await clock.sleep(_SWEEP_S)
        generations()
        await pictures()


async def watch_loop(clock: Clock, report: Callable[[float], None]) -> None:
    """Measure how late the event loop wakes this task; ``report`` gets the longest seconds of the last ten."""
    late_s: deque[float] = deque(maxlen=_LAG_SAMPLES)
    while True:
        due = clock.monotonic() + _LAG_EVERY_S
        await clock.sleep(_LAG_EVERY_S)
        late_s.append(max(0.0, clock.monotonic() - due))
        report(max(late_s))


async def refresh_catalogues(
    clock: Clock,
    runtimes: Mapping[str, ProviderRuntime],
    catalogues: Mapping[str, ModelCatalogue],
    *,
    timeout_s: float,
) -> None:
    """Ask the providers that can tell for their models, now and every hour; the built-in lists serve until then."""
    while True:
        for name, runtime in runtimes.items():
            await _refresh(runtime, catalogues[name], timeout_s)
        await clock.sleep(_CATALOGUE_S)


async def _refresh(runtime: ProviderRuntime, catalogue: ModelCatalogue, timeout_s: float) -> None:
    provider = runtime.provider
    if not isinstance(provider, ListsModels):
        return
    try:
        replies = [await runtime.upstream.send(call, timeout_s, MAX_CATALOGUE) for call in provider.catalogue()]
        if all(reply.status == 200 for reply in replies):
            catalogue.offer(provider.read_catalogue(replies))
    except (NotSent, Interrupted, ProviderFailure, ValueError):
        _log.warning("the models of %s could not be listed; the built-in list serves", runtime.name)


def load_learned(schedule: Schedule, directory: Path) -> None:
    """Give the poll schedule what it had learned before, as far as that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        schedule.load(json.loads((directory / _LEARNED_FILE).read_text()))


def save_learned(schedule: Schedule, directory: Path) -> None:
    """Keep what the poll schedule has learned for the next start."""
    path = directory / _LEARNED_FILE
    draft = path.with_suffix(".new")
    try:
        draft.write_text(json.dumps(schedule.dump()))
        draft.rename(path)
    except OSError as error:
        _log.warning("what the poll schedule has learned could not be saved: %s", error.strerror)
