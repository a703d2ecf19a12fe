"""What a job needs while it runs: the provider in operation, its limits of time, and somewhere to tell how it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from proxy.breaker import Breaker
from proxy.metrics import ProviderFigures
from proxy.provider import Finished, Pending, Provider, Reply
from proxy.upstream import Upstream


@dataclass(slots=True)
class Outlet:
    """A configured provider in operation: its dialect, connections, slots, breakers and figures."""

    name: str
    provider: Provider
    upstream: Upstream
    max_jobs: int
    submits: Breaker
    polls: Breaker
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
            if reply.picture is not None:
                reply.picture.unlink(missing_ok=True)
            raise


@dataclass(slots=True)
class Progress:
    """How one job is doing, for whoever watches. ``submitted``: a picture is, or may have been, bought."""

    tell: Callable[[], None]
    state: Literal["waiting", "queued", "generating", "done", "failed"] = "waiting"
    fraction: float | None = None
    preview: str | None = None
    submits: int = 0
    submitted: bool = False
    outlet: "Outlet | None" = None

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
