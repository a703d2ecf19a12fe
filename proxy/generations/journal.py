"""What this process writes into the state, and what becomes of a write that cannot be made now.

Before something is sent its write must hold, or it isn't sent. What has happened already is written as soon as the
state works again, in order; until then nothing new is bought.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from proxy.accounts.refusals import over_limit, over_pace
from proxy.accounts.spending import Spending
from proxy.clock import Backoff, Clock, Deadline
from proxy.errors import StateUnavailable
from proxy.metrics import StateFigures
from proxy.state import operations
from proxy.state.operations import State
from proxy.state.outcomes import Change, Exists, NotLiving, OverLimit, OverPace, Recovered, Start, Started
from proxy.state.records import Account, JobId, JobRow, Route

_log = logging.getLogger("proxy")
T = TypeVar("T")
Write = Callable[[], Awaitable[object]]

_START_S: Final = 5.0
"""The longest that a caller waits for the first write: an answer from a disk that stalls would come too late."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class Journal:
    """One process's writes. ``holder``: its name in the state, as long as it is taken for alive.

    ``living``: where there can be others, those that lived when this one last told that it does, the oldest first.
    """

    def __init__(self, clock: Clock, figures: StateFigures, spending: Spending) -> None:
        self.figures = figures
        self.spending = spending
        self._state: State | None = None
        self.holder = ""
        self.living: tuple[str, ...] = ()
        self._clock = clock
        self._late: deque[Write] = deque()
        self._troubled = False
        self._withdrawn: set[JobId] = set()
        self._tasks: set[asyncio.Future[None]] = set()

    def open(self, state: State) -> None:
        """Write into ``state`` from now on."""
        self._state = state

    @property
    def is_open(self) -> bool:
        """Whether there is a state to write into."""
        return self._state is not None

    @property
    def state(self) -> State:
        """The state, for what needs no care. Raises RuntimeError before ``open``."""
        if self._state is None:
            raise RuntimeError("The state is not open.")
        return self._state

    @property
    def shared(self) -> bool:
        """Whether other processes may write into the same state."""
        return self._state is not None and self._state.shared

    @property
    def behind(self) -> int:
        """How many things have happened and are not written yet."""
        return len(self._late)

    @property
    def pending(self) -> int:
        """How many writes wait, whatever for."""
        return len(self._late) + (self._state.pending if self._state is not None else 0)

    async def register(self) -> None:
        """Announce this process under a new name. Raises operations.StateUnavailable."""
        holder = secrets.token_hex(8)
        await self.state.register(holder)
        self.holder = holder
        await self._look_around()

    async def beat(self) -> None:
        """Tell that this process lives; under a new name if it was given up. Raises operations.StateUnavailable."""
        if await self.state.beat(self.holder):
            await self._look_around()
        else:
            _log.warning("this process was taken for dead by another; it goes on under a new name")
            await self.register()

    @property
    def is_oldest(self) -> bool:
        """Whether no other process that lives is older: one of them does what one is to do."""
        return self.living[:1] in ((), (self.holder,))

    async def _look_around(self) -> None:
        if self.state.shared:
            self.living = await self.state.living()

    async def recover(self, running: Callable[[], Iterator[JobId]]) -> Recovered:
        """Return the open jobs that are now this process's to follow. Raises operations.StateUnavailable.

        ``running``: those that it follows already.
        """
        recovered = await self.state.recover(self.holder, self._withdrawn.union(running()))
        if recovered.unknown:
            self.figures.unknown.labels("crash").inc(len(recovered.unknown))
            _log.warning("%d jobs may or may not have been bought when a process ended", len(recovered.unknown))
        return recovered

    async def start(self, start: Start) -> Started | Exists:
        """Write a generation before anything is sent for it.

        Raises StateUnavailable, SpendLimitReached, RateLimited.
        """
        if self._late:
            raise _unavailable()
        until = self._lease()
        asked = asyncio.ensure_future(self.state.start(start))
        try:
            if not asked.done():
                await asyncio.wait((asked,), timeout=_START_S)
        except asyncio.CancelledError:  # it may have been written all the same
            self._withdraw(start, asked)
            raise
        if not asked.done():
            self._withdraw(start, asked)
            raise self._told(f"it has not answered for {_START_S:g} s")
        try:
            outcome = asked.result()
        except operations.StateUnavailable as error:
            raise self._told(error) from error
        self._troubled = False
        if isinstance(outcome, OverLimit):
            self.spending.refused(outcome.scope)
            raise over_limit(outcome, start.account)
        if isinstance(outcome, OverPace):
            self.spending.refused("pace")
            raise over_pace(outcome, start.account)
        if isinstance(outcome, NotLiving):
            await self._register_anew()
            raise _unavailable()
        if isinstance(outcome, Started) and until.passed:
            self._withdraw(start, asked)
            raise _unavailable()
        return outcome

    async def submit(self, job: JobId, epoch: int, route: Route, account: Account) -> Change:
        """Write that a job of an account is about to be sent. Raises StateUnavailable, SpendLimitReached."""
        if self._late:
            raise _unavailable()
        until = self._lease()
        try:
            outcome = await self.state.submit(job, epoch, self.holder, route)
        except operations.StateUnavailable as error:
            raise self._told(error) from error
        if isinstance(outcome, OverLimit):
            self.spending.refused(outcome.scope)
            raise over_limit(outcome, account)
        if isinstance(outcome, NotLiving):
            await self._register_anew()
            raise _unavailable()
        if not outcome.applied:
            _log.error("the job %s is %s in the state; it is not sent", job, outcome.state)
            raise _unavailable()
        if until.passed:
            raise _unavailable()
        return outcome

    async def accept(self, job: JobId, epoch: int, handle: str, expires_s: float | None) -> Change:
        """Keep a handle. Raises operations.StateUnavailable."""
        expires = None if expires_s is None else int((self._clock.wall() + expires_s) * 1000)
        return await self.state.accept(job, epoch, self.holder, handle, expires)

    async def surely(self, write: Callable[[], Awaitable[T]]) -> T | None:
        """Write what has happened; None if that can't be done now, and then it is done as soon as it can."""
        if not self._late:
            try:
                return await write()
            except operations.StateUnavailable as error:
                self._told(error)
        self.later(write)
        return None

    def soon(self, write: Callable[[], Awaitable[object]]) -> None:
        """Write what may be lost, without waiting for it."""
        try:
            asyncio.ensure_future(write()).add_done_callback(_ignore)
        except operations.StateUnavailable:
            return

    def later(self, write: Write) -> None:
        """Write what has happened when its turn comes."""
        self._late.append(write)
        if len(self._late) == 1:
            self._spawn(self._catch_up())

    async def close(self) -> None:
        """Try once more to write what is late, take this process's name away, and close the state."""
        if self._state is None:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            while self._late:
                await self._late[0]()
                self._late.popleft()
            if self.holder:
                await self.state.retire(self.holder)
        except operations.StateUnavailable as error:
            _log.error("%d writes were lost with the state: %s", len(self._late), error)
        await self.state.close()

    def _lease(self) -> Deadline:
        """Return until when a write that begins now may be followed by a submit.

        A process that was frozen in between has been taken for dead: what it has written is another's to settle.
        """
        return Deadline.after(self._clock, operations.LEASE_MS / 1000)

    async def _catch_up(self) -> None:
        pause = Backoff(self._clock, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        for_ever = Deadline(self._clock, float("inf"))
        while self._late:
            try:
                await self._late[0]()
                self._late.popleft()
            except operations.StateUnavailable:
                await pause.pause(for_ever)
        self._troubled = False
        _log.warning("the state works again, and what had happened meanwhile is written")

    async def _register_anew(self) -> None:
        try:
            await self.register()
        except operations.StateUnavailable as error:
            self._told(error)

    def _withdraw(self, start: Start, asked: "asyncio.Future[Any]") -> None:
        """Release what a start writes for a caller who was sent away meanwhile: nothing was sent for it."""
        jobs = [JobId(start.id, number) for number in range(start.n)]
        self._withdrawn.update(jobs)  # else they would be found without anybody who follows them

        async def release() -> None:
            if not asked.cancelled() and asked.exception() is None and isinstance(asked.result(), Started):
                await self._release(asked.result().generation.jobs)
            self._withdrawn.difference_update(jobs)

        asked.add_done_callback(lambda _: self._spawn(release()))

    async def _release(self, jobs: tuple[JobRow, ...]) -> None:
        for row in jobs:
            await self.surely(partial(self._released, row))

    async def _released(self, row: JobRow) -> Change | None:
        if row.state == "intended":
            return await self.state.end(row.id, row.epoch, "release", "state_unavailable")
        if row.state == "submitting":
            return await self.state.end(row.id, row.epoch, "not_started", "state_unavailable")
        return None

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _told(self, error: operations.StateUnavailable | str) -> StateUnavailable:
        """Log why the state can't be used, once for each outage, and return the failure for a caller."""
        if not self._troubled:
            _log.error("the state cannot be written, so nothing new is bought: %s", error)
        self._troubled = True
        return _unavailable()


def _unavailable() -> StateUnavailable:
    return StateUnavailable("What is bought cannot be written down now, so nothing was sent.", retry_after=2.0)


def _ignore(done: "asyncio.Future[object]") -> None:
    if not done.cancelled():
        done.exception()
