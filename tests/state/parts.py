"""What the tests of the state share: a clock that stands, and generations of one account."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from proxy.state.money import NANO, Balance, Limit
from proxy.state.operations import State
from proxy.state.outcomes import Change, Start, Started
from proxy.state.records import Account, JobId, JobRow, Route, generation_id
from proxy.state.transitions import JobState

NOON = 1_763_726_400.0
"""Friday, 2025-11-21, 12:00 UTC."""
PRICE = NANO // 400
ROUTE = Route("prodia", "flux", "https://upstream.test/v2", "TOKEN", PRICE, "table")
DEARER = Route("other", "big", "https://other.test", "OTHER", 4 * PRICE, "config")
ANN = Account("k1", "ann", "family")
BOB = Account("k2", "bob", "family")
ME = "holder-1"


@dataclass
class Wall:
    """A wall clock that stands still until told."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now

    @property
    def ms(self) -> int:
        return int(self.now * 1000)


def fingerprint(text: str) -> bytes:
    """Return what stands for a request."""
    return hashlib.sha256(text.encode()).digest()[:16]


def wanted(account: Account = ANN, what: str = "a fox", **values: Any) -> Start:
    """Return the start of a new generation."""
    defaults: dict[str, Any] = {
        "id": generation_id(int(NOON * 1000)),
        "holder": ME,
        "account": account,
        "route": ROUTE,
        "reserve": PRICE,
        "fingerprint": fingerprint(f"{account.key} {what}"),
    }
    return Start(**{**defaults, **values})


@dataclass
class Life:
    """Leads one job through its states."""

    state: State
    job: JobId = field(init=False)
    epoch: int = 0

    async def start(self, **values: Any) -> Started:
        started = await self.state.start(wanted(**values))
        assert isinstance(started, Started), started
        self.job = JobId(started.generation.row.id, 0)
        return started

    async def submit(self, route: Route = ROUTE) -> Change:
        change = await self.state.submit(self.job, self.epoch, ME, route)
        assert isinstance(change, Change), change
        return change

    async def accept(self, handle: str = '{"id": "h"}') -> Change:
        return await self.state.accept(self.job, self.epoch, ME, handle, 1)

    async def finish(self, picture: str = "p.png", **values: Any) -> Change:
        return await self.state.finish(self.job, self.epoch, picture, **values)

    async def to(self, goal: JobState, **values: Any) -> "Life":
        """Start a job and bring it to a state."""
        await self.start(**values)
        if goal == "released":
            await self.state.end(self.job, 0, "release")
        if goal not in ("intended", "released"):
            await self.submit()
        if goal == "unknown":
            await self.state.end(self.job, 0, "doubt")
        if goal in ("accepted", "done", "lost"):
            await self.accept()
        if goal == "done":
            await self.finish()
        if goal == "failed":
            await self.state.end(self.job, 0, "failed", "image_generation_failed")
        if goal == "lost":
            await self.state.end(self.job, 0, "lose", "job_lost")
        assert (await self.row()).state == goal
        return self

    async def row(self) -> JobRow:
        found = await self.state.everything()
        return next(job for job in found.jobs if job.id == self.job)


async def total(state: State, account: Account | None = None) -> Balance:
    """Return what the ledger sums up to."""
    rows = [usage.balance for usage in await state.usage("key", 0, None if account is None else account.key)]
    return Balance(*(sum(figures) for figures in zip(*rows, strict=True))) if rows else Balance()


def dollars(scope: str, amount: int, period: Any = "month") -> Limit:
    """Return a limit in nano-dollars."""
    return Limit(scope, "dollars", period, amount)


def pictures(scope: str, amount: int, period: Any = "month") -> Limit:
    """Return a limit in pictures."""
    return Limit(scope, "pictures", period, amount)
