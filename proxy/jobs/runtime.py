"""What a job needs while it runs: the provider in operation, its limits of time, and somewhere to tell how it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proxy.jobs.breaker import Breaker
from proxy.metrics import ProviderFigures
from proxy.pictures.store import remove
from proxy.providers.boundary import Finished, Pending, Provider, Reply
from proxy.upstream.client import Upstream


@dataclass(slots=True)
class ProviderRuntime:
    """A configured provider in operation: its dialect, connections, slots, breakers and figures."""

    name: str
    provider: Provider
    upstream: Upstream
    max_jobs: int
    submit_breaker: Breaker
    poll_breaker: Breaker
    figures: ProviderFigures
    polls_per_second: float = 0.0
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.max_jobs)

    def read(self, reply: Reply) -> Pending | Finished:
        """Read a good reply; a picture that came with a failure is removed. Raises ProviderFailure."""
        try:
            return self.provider.read(reply)
        except BaseException:
            if isinstance(reply.picture, Path):
                remove(reply.picture)
            raise


@dataclass(slots=True)
class Progress:
    """How one job is doing, for whoever watches. ``submitted``: a picture is, or may have been, bought.

    ``wanted``: whether anybody is there for whom it should still be submitted.
    ``passed_over``: for each route that was tried before, its provider and the code of the failure there.
    """

    tell: Callable[[], None]
    wanted: Callable[[], bool] = lambda: True
    state: Literal["waiting", "queued", "generating", "done", "failed"] = "waiting"
    fraction: float | None = None
    preview: str | None = None
    submits: int = 0
    submitted: bool = False
    runtime: "ProviderRuntime | None" = None
    passed_over: dict[str, tuple[str, str]] = field(default_factory=dict)

    def pass_over(self, route: str, provider: str, code: str | None) -> None:
        """Record why ``route`` did not make the picture, so that another one is tried."""
        self.passed_over[route] = (provider, code or "")

    def set(
        self,
        state: Literal["waiting", "queued", "generating", "done", "failed"],
        fraction: float | None = None,
        preview: str | None = None,
    ) -> None:
        """Record a change and tell those who watch."""
        if (state, fraction, preview) != (self.state, self.fraction, self.preview):
            self.state, self.fraction, self.preview = state, fraction, preview
            self.tell()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the phases of a job may take; see the configuration's ``[timeouts]``."""

    submit_s: float
    poll_s: float
    lifetime_s: float
