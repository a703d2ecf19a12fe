"""What runs beside the requests: sweeps, the providers' lists of models, the event loop's delay, what was learned."""

import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from proxy.clock import Clock
from proxy.errors import ProviderFailure
from proxy.generations.journal import Journal
from proxy.jobs.runtime import ProviderRuntime
from proxy.jobs.schedule import Schedule
from proxy.providers.boundary import ListsModels
from proxy.requests.routing import ModelCatalogue
from proxy.state.operations import StateUnavailable
from proxy.upstream.client import MAX_CATALOGUE, Interrupted, NotSent

_SWEEP_S = 5.0
_BEAT_S = 5.0
_KEYS_S = 2.0
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


async def beat(clock: Clock, beat: Callable[[], Awaitable[None]]) -> None:
    """Tell that this process lives, and carry on with jobs that nobody follows, every few seconds."""
    while True:
        await clock.sleep(_BEAT_S)
        try:
            await beat()
        except StateUnavailable as error:
            _log.error("the state cannot be written: %s", error)


async def read_keys(clock: Clock, refresh: Callable[[], Awaitable[None]]) -> None:
    """Notice keys that another process has made or changed, every few seconds."""
    while True:
        await clock.sleep(_KEYS_S)
        try:
            await refresh()
        except StateUnavailable as error:
            _log.error("the keys cannot be read: %s", error)


async def sweep_state(clock: Clock, journal: Journal, *, result_s: float, keep_ledger_days: int) -> None:
    """Remove from the state what is over, in small steps; not before what an earlier process left can be asked for."""
    await clock.sleep(result_s)
    while True:
        more = True
        while more:
            try:
                swept = await journal.state.sweep(result_ms=int(result_s * 1000), keep_ledger_days=keep_ledger_days)
            except StateUnavailable:  # those who write say so
                break
            more = swept.more
        await clock.sleep(_SWEEP_S)


async def watch_loop(clock: Clock, report: Callable[[float], None]) -> None:
    """Measure how late the event loop wakes this task; ``report`` gets the longest delay of the last ten seconds."""
    late_s: deque[float] = deque(maxlen=_LAG_SAMPLES)
    while True:
        due = clock.monotonic() + _LAG_EVERY_S
        await clock.sleep(_LAG_EVERY_S)
        # The longest, not the mean: a single blocking call is what this is to show.
        late_s.append(max(0.0, clock.monotonic() - due))
        report(max(late_s))


async def refresh_catalogues(
    clock: Clock,
    runtimes: Mapping[str, ProviderRuntime],
    catalogues: Mapping[str, ModelCatalogue],
    *,
    timeout_s: float,
) -> None:
    """Ask the providers that have a list of models for it, now and every hour; until then the built-in one serves."""
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
        # All or nothing: with half a list, models that still exist would be unknown for an hour.
        if all(reply.status == 200 for reply in replies):
            catalogue.offer(provider.read_catalogue(replies))
    except (NotSent, Interrupted, ProviderFailure, ValueError):
        _log.warning("the models of %s could not be listed; the built-in list serves", runtime.name)


def load_learned(schedule: Schedule, directory: Path) -> None:
    """Load what the poll schedule had learned before, as far as that can be read."""
    # It only makes polls better, so no damage to it may keep the service from starting. RecursionError: nested JSON.
    with contextlib.suppress(OSError, ValueError, RecursionError):
        schedule.load(json.loads((directory / _LEARNED_FILE).read_text()))


def save_learned(schedule: Schedule, directory: Path) -> None:
    """Save what the poll schedule has learned for the next start."""
    path = directory / _LEARNED_FILE
    draft = path.with_suffix(".new")
    try:
        draft.write_text(json.dumps(schedule.dump()))
        draft.rename(path)  # atomic: a crash half-way leaves the old file as it was
    except OSError as error:
        _log.warning("what the poll schedule has learned could not be saved: %s", error.strerror)
