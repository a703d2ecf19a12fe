"""Operations in groups: while one is done the next one gathers, so the more come at once the less each costs.

What nobody waits for goes along with the next group. When an operation fails, its group is done once more, each
operation by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg

from proxy.state.operations import StateUnavailable
from proxy.state.postgres.client import unavailable
from proxy.state.postgres.executor import Executor, Expect, Operation
from proxy.state.postgres.write import Marks

_log = logging.getLogger(__name__)
T = TypeVar("T")
Observe = Callable[[int, float], None]
"""Is told the number of operations of a group and its seconds."""
_MOST: Final = 256
_SPACE_S: Final = 0.002
"""Between the beginnings of two groups, when the first had more than one operation."""
_LATER_S: Final = 0.05
"""The longest that an operation without hurry waits for others."""


class Mark(NamedTuple):
    """That somebody was told of a generation's end, or waits no longer, under a claim; and who asked."""

    generation: str
    claim: int
    delivered: bool
    future: "asyncio.Future[bool]"


class Lane:
    """Groups that follow each other."""

    def __init__(self, executor: Executor, observe: Observe | None = None) -> None:
        self._executor = executor
        self._observe = observe
        self._asked: list[Operation] = []
        self._marks: list[Mark] = []
        self._nudge: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """How many operations wait."""
        return len(self._asked) + len(self._marks)

    def ask(self, work: Callable[..., T], expect: Expect, *arguments: Any) -> "asyncio.Future[T]":
        """Have ``work(tables, *arguments)`` done; what it returns or raises is told after the commit.

        Raises StateUnavailable when closed.
        """
        future = self._future()
        self._asked.append(Operation(work, arguments, expect, future))
        if self._running is None:
            self._start()
        return future

    def mark(self, generation: str, claim: int, *, delivered: bool) -> "asyncio.Future[bool]":
        """Note what nobody waits for: soon, with the next that is asked for. Raises StateUnavailable when closed."""
        future = self._future()
        self._marks.append(Mark(generation, claim, delivered, future))
        self.forget(generation)
        if self._nudge is None:
            self._nudge = asyncio.get_running_loop().call_later(_LATER_S, self._start)
        return future

    def forget(self, generation: str) -> None:
        """Look at a generation anew the next time: it is changed otherwise."""
        self._executor.known.pop(generation, None)

    async def close(self) -> None:
        """Take no more, do what was asked for, and close the connection."""
        self._closed = True
        self._start()
        while self._running is not None:
            await asyncio.wait([self._running])
        await self._executor.held.close()

    def _future(self) -> "asyncio.Future[Any]":
        if self._closed:
            raise StateUnavailable("The state is closed.")
        return asyncio.get_running_loop().create_future()

    def _start(self) -> None:
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None
        if self._running is None and (self._asked or self._marks):
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Do one group after the other, as long as there are any."""
        try:
            while self._asked or self._marks:
                await asyncio.sleep(0)  # who was told of the last group may ask for the next step at once
                began = time.monotonic()
                group, self._asked = self._asked[:_MOST], self._asked[_MOST:]
                marks, self._marks = self._marks, []
                await self._do(group, marks)
                left_s = began + _SPACE_S - time.monotonic()
                if len(group) > 1 and left_s > 0 and not self._closed:
                    await asyncio.sleep(left_s)
        finally:
            self._running = None
            self._start()

    async def _do(self, group: Sequence[Operation], marks: Sequence[Mark]) -> None:
        began = time.monotonic()
        wanted = Marks.of(marks) if marks else None
        outcomes, marked = await self._together(group, wanted) if group else ([], None)
        if outcomes is None:
            outcomes = [await self._alone(asked) for asked in group]
        _tell([(asked.future, outcome) for asked, outcome in zip(group, outcomes, strict=True)])
        if group and self._observe is not None:
            try:
                self._observe(len(group), time.monotonic() - began)
            except Exception:  # noqa: BLE001 (a metric must not end the state)
                _log.exception("The state's observer failed.")
        if wanted is not None:
            await self._mark(marks, wanted, marked)

    async def _mark(self, marks: Sequence[Mark], wanted: Marks, marked: set[tuple[str, int]] | None) -> None:
        """Tell what became of marks; write those that didn't go along."""
        left = wanted if marked is None else wanted.left
        try:
            found = marked or set()
            if left is not None:
                found |= await self._executor.held.run(lambda _: self._executor.mark(left))
        except (StateUnavailable, asyncpg.PostgresError) as error:
            _tell([(mark.future, error) for mark in marks])
        else:
            _tell([(mark.future, mark[:2] in found) for mark in marks])

    async def _together(
        self, group: Sequence[Operation], marks: Marks | None
    ) -> tuple[list[Any] | None, set[tuple[str, int]] | None]:
        """Do a group as one; None if each operation has to be done by itself."""
        try:
            return await self._executor.held.run(lambda _: self._executor.do(group, marks))
        except StateUnavailable as error:
            return [error for _ in group], None
        except Exception as error:  # noqa: BLE001 (told to whoever asked)
            return (None, None) if len(group) > 1 else ([_explained(error)], None)

    async def _alone(self, asked: Operation) -> Any:
        outcomes, _ = await self._together([asked], None)
        return outcomes[0] if outcomes else None


def _explained(error: Exception) -> Exception:
    return unavailable(error) if isinstance(error, asyncpg.PostgresError) else error


def _tell(outcomes: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, outcome in outcomes:
        if future.done():  # who asked was cancelled
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
