"""Operations in groups: each group looks, decides and writes once, while the next one gathers.

What nobody waits for goes along with the next group. When an operation fails, or others change the rows of a group
again and again, the group is done once more, each operation by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg

from proxy.state.money import Limit
from proxy.state.operations import StateUnavailable
from proxy.state.postgres.client import unavailable
from proxy.state.postgres.connection import Held
from proxy.state.postgres.look import Looked, Wants, limits, look
from proxy.state.postgres.tables import Missing, PostgresTables
from proxy.state.postgres.write import write

_log = logging.getLogger(__name__)
T = TypeVar("T")
Expect = Callable[["Lane", Wants], None]
"""Notes what an operation will look at, as far as that is known."""
Observe = Callable[[int, float], None]
"""Is told the number of operations of a group and its seconds."""
_MOST: Final = 256
_SPACE_S: Final = 0.002
"""Between the beginnings of two groups, when the first had more than one operation."""
_LATER_S: Final = 0.05
"""The longest that an operation without hurry waits for others."""
_TRIES: Final = 50
"""Others were quicker so often: each time one of them has got on."""
_LOOKS: Final = 10
"""What is found may ask for more, but not for ever."""


class Task(NamedTuple):
    """One operation."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    expect: Expect
    future: "asyncio.Future[Any]"


class Mark(NamedTuple):
    """That somebody was told of a generation's end, or waits no longer, under a claim."""

    generation: str
    claim: int
    delivered: bool
    future: "asyncio.Future[bool]"


_MARK: Final = """
UPDATE images_proxy.generations g SET waiter = NULL, delivered = CASE WHEN m.delivered
  THEN coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) ELSE g.delivered END
FROM unnest($2::text[], $3::bigint[], $4::boolean[]) m(id, claim, delivered)
WHERE g.id = m.id AND g.claim = m.claim RETURNING g.id, g.claim
"""


class Lane:
    """One held connection on which groups follow each other. ``wall``: None for the database's clock."""

    def __init__(
        self, held: Held, wall: Callable[[], float] | None, lease_ms: int, observe: Observe | None = None
    ) -> None:
        self.held = held
        self.lease_ms = lease_ms
        self.limits: dict[str, list[Limit]] = {}
        self._wall = wall
        self._observe = observe
        self._revision: bytes | None = None
        self._prices: dict[str, int] = {}
        self._ahead_ms = 0
        self._tasks: list[Task] = []
        self._marks: list[Mark] = []
        self._nudge: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """How many operations wait."""
        return len(self._tasks) + len(self._marks)

    @property
    def told(self) -> int | None:
        """The moment in milliseconds, None where the database's clock tells it."""
        return None if self._wall is None else int(self._wall() * 1000)

    @property
    def about_now(self) -> int:
        """What the database's clock shows, but for what it has drifted since it was last read."""
        return int(time.time() * 1000) + self._ahead_ms if self._wall is None else int(self._wall() * 1000)

    def ask(self, work: Callable[..., T], expect: Expect, *arguments: Any) -> "asyncio.Future[T]":
        """Have ``work(tables, *arguments)`` done; what it returns or raises is told after the commit.

        Raises StateUnavailable when closed.
        """
        future = self._future()
        self._tasks.append(Task(work, arguments, expect, future))
        self._start()
        return future

    def mark(self, generation: str, claim: int, *, delivered: bool) -> "asyncio.Future[bool]":
        """Note what nobody waits for: soon, with the next that is asked for. Raises StateUnavailable when closed."""
        future = self._future()
        self._marks.append(Mark(generation, claim, delivered, future))
        if self._nudge is None:
            self._nudge = asyncio.get_running_loop().call_later(_LATER_S, self._start)
        return future

    async def close(self) -> None:
        """Take no more, and do what was asked for."""
        self._closed = True
        self._start()
        while self._running is not None:
            await asyncio.wait([self._running])
        await self.held.close()

    def _future(self) -> "asyncio.Future[Any]":
        if self._closed:
            raise StateUnavailable("The state is closed.")
        return asyncio.get_running_loop().create_future()

    def _start(self) -> None:
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None
        if self._running is None and (self._tasks or self._marks):
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Do one group after the other, as long as there are any."""
        try:
            while self._tasks:
                await asyncio.sleep(0)  # who was told of the last group may ask for the next step at once
                began = time.monotonic()
                group, self._tasks = self._tasks[:_MOST], self._tasks[_MOST:]
                await self._marked()
                await self._do(group)
                if len(group) > 1 and not self._closed:
                    await asyncio.sleep(began + _SPACE_S - time.monotonic())
            await self._marked()
        finally:
            self._running = None
            if self._tasks:
                self._start()

    async def _marked(self) -> None:
        """Write what could wait."""
        marks, self._marks = self._marks, []
        if not marks:
            return
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None
        wanted: dict[tuple[str, int], bool] = {}
        for mark in marks:
            wanted[mark[:2]] = wanted.get(mark[:2], False) or mark.delivered
        columns = [[*column] for column in zip(*((*key, told) for key, told in sorted(wanted.items())), strict=True)]
        try:
            found = await self.held.run(lambda held: held.fetch(_MARK, self.told, *columns))
        except (StateUnavailable, asyncpg.PostgresError) as error:
            _tell([(mark.future, error) for mark in marks])
        else:
            matched = {tuple(row) for row in found}
            _tell([(mark.future, mark[:2] in matched) for mark in marks])

    async def _do(self, group: Sequence[Task]) -> None:
        began = time.monotonic()
        outcomes = await self._outcomes(group)
        if outcomes is None:
            outcomes = [await self._alone(task) for task in group]
        _tell([(task.future, outcome) for task, outcome in zip(group, outcomes, strict=True)])
        if self._observe is not None:
            try:
                self._observe(len(group), time.monotonic() - began)
            except Exception:  # noqa: BLE001 (a metric must not end the state)
                _log.exception("The state's observer failed.")

    async def _outcomes(self, group: Sequence[Task]) -> list[Any] | None:
        """Do a group as one; None if each has to be done by itself."""
        try:
            return await self.held.run(lambda _: self._together(group))
        except StateUnavailable as error:
            return [error for _ in group]
        except Exception as error:  # noqa: BLE001 (told to whoever asked)
            return None if len(group) > 1 else [_explained(error)]

    async def _alone(self, task: Task) -> Any:
        outcomes = await self._outcomes([task])
        return outcomes[0] if outcomes else None

    async def _together(self, group: Sequence[Task]) -> list[Any]:
        """Look, decide and write, until nobody has come in between. Raises asyncpg.PostgresError, StateUnavailable."""
        for _ in range(_TRIES):
            tables, outcomes = await self._decide(group)
            if not tables.changed or await write(self.held, tables, self.told, self.lease_ms):
                self._prices.update(tables.prices)
                return outcomes
        if len(group) > 1:
            raise LookupError
        raise StateUnavailable("Others have changed the same rows of the database again and again.")

    async def _decide(self, group: Sequence[Task]) -> tuple[PostgresTables, list[Any]]:
        looked, wants = Looked(), Wants()
        for task in group:
            task.expect(self, wants)
        for _ in range(_LOOKS):
            await look(self.held, looked, wants, self.told, self.lease_ms)
            self._ahead_ms = looked.now - int(time.time() * 1000)
            if looked.revision != self._revision:
                self._revision, self.limits = await limits(self.held)
            wants = Wants()
            tables = PostgresTables(looked, wants, self.limits, self._prices)
            outcomes = []
            missing = False
            for task in group:
                try:
                    outcomes.append(task.work(tables, *task.arguments))
                except Missing:
                    missing = True
            if not missing:
                return tables, outcomes
        raise LookupError("What was looked for led to something else each time.")


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
