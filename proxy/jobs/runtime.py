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
    no handle. ``share``: of the replicas that share the provider this one's number, and how many there are.
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
    share: tuple[int, int] = (0, 1)
    slots: asyncio.Semaphore = field(init=False)
    _too_many: int = 0

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.max_jobs)

    @property
    def own_slots(self) -> int:
        """How many of the provider's slots are this replica's: its part of ``max_jobs``, at least one."""
        rank, replicas = self.share
        whole, left = divmod(self.max_jobs, replicas)
        return max(1, whole + (rank < left))

    @property
    def own_polls_per_second(self) -> float:
        """This replica's part of the budget for polls; 0: none."""
        return self.polls_per_second / self.share[1]

    async def divide(self, rank: int, replicas: int) -> None:
        """Share the provider with others: this is the replica number ``rank``, from 0, of so many."""
        before = self.own_slots
        self.share = (rank, replicas)
        more = self.own_slots - before
        for _ in range(more):
            self.free_slot()
        self._too_many += max(0, -more)
        while self._too_many and not self.slots.locked():
            await self.slots.acquire()  # unlocked, so this returns at once
            self._too_many -= 1

    def free_slot(self) -> None:
        """Give a slot back: to whoever waits next, unless there are too many."""
        if self._too_many:
            self._too_many -= 1
        else:
            self.slots.release()

    async def places(self, count: int) -> "list[Place]":
        """Take up to ``count`` slots, as far as they are free now and the provider isn't failing. Does not wait."""
        places: list[Place] = []
        while len(places) < count and self.submit_breaker.state == "closed" and not self.slots.locked():
            await self.slots.acquire()  # unlocked, so this returns at once
            places.append(Place(self))
        return places

    def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
        """Read a 2xx reply. Raises ProviderFailure, after removing any picture that came with it."""
        try:
            return self.provider.read(asked, reply)
        except BaseException:
            if isinstance(reply.picture, Path):
                remove(reply.picture)
            raise


@dataclass(slots=True)
class Place:
    """One of a provider's slots, taken before its job runs."""

    runtime: ProviderRuntime
    free: bool = True

    def hand_over(self, runtime: ProviderRuntime) -> bool:
        """Give it to a job at ``runtime``, which then frees the slot. False if it isn't there, or given away."""
        if not self.free or self.runtime is not runtime:
            return False
        self.free = False
        return True

    def give_back(self) -> None:
        """Free the slot if no job has it."""
        if self.free:
            self.free = False
            self.runtime.free_slot()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the phases of a job may take: ``[timeouts]`` in docs/configuration.md."""

    submit_s: float
    poll_s: float
    lifetime_s: float
