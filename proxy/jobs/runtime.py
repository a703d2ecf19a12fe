"""What a job needs while it runs: the provider in operation, and its time limits."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.jobs.breaker import Breaker
from proxy.metrics import ProviderFigures
from proxy.pictures.drafts import remove
from proxy.providers.boundary import Finished, Handle, Pending, Provider, Reply
from proxy.upstream.client import Upstream


@dataclass(slots=True)
class ProviderRuntime:
    """A configured provider in operation: its dialect, connections, slots, breakers and figures.

    ``prices``: as configured, in nano-dollars by model. ``only_at_once``: names of models whose jobs turned out to have
    no handle.
    """

    name: str
    provider: Provider
    upstream: Upstream
    max_jobs: int
    submit_breaker: Breaker
    poll_breaker: Breaker
    figures: ProviderFigures
    polls_per_second: float = 0.0
    prices: Mapping[str, int] = field(default_factory=dict)
    only_at_once: set[str] = field(default_factory=set)
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.max_jobs)

    def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
        """Read a 2xx reply. Raises ProviderFailure, after removing any picture that came with it."""
        try:
            return self.provider.read(asked, reply)
        except BaseException:
            if isinstance(reply.picture, Path):
                remove(reply.picture)
            raise


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the phases of a job may take: ``[timeouts]`` in docs/configuration.md."""

    submit_s: float
    poll_s: float
    lifetime_s: float
