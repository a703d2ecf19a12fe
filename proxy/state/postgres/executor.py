"""How a group of operations is done: look, decide, write; again when others came in between.

What this process has written of generations in the making is remembered, so that their next steps needn't look. It may
have been changed by others: then nothing is written, and the group looks.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from proxy.state.operations import StateUnavailable
from proxy.state.outcomes import Change
from proxy.state.postgres.connection import Held
from proxy.state.postgres.look import Found, Limits, Looked, Wants, limits, look
from proxy.state.postgres.tables import Missing, PostgresTables
from proxy.state.postgres.write import Marks, mark, write

Expect = Callable[["Executor", Wants], None]
"""Notes what an operation will look at, as far as that is known."""
_TRIES: Final = 50
"""Others were quicker so often: each time one of them has got on."""
_LOOKS: Final = 30
"""What is found may ask for more, but not for ever."""
_MOST_KNOWN: Final = 5000


class Operation(NamedTuple):
    """``work(tables, *arguments)``, what it is expected to look at, and who waits for it."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    expect: Expect
    future: "asyncio.Future[Any]"


class Executor:
    """Does groups on one held connection. ``wall``: None for the database's clock."""

    def __init__(self, held: Held, wall: Callable[[], float] | None, lease_ms: int) -> None:
        self.held = held
        self.lease_ms = lease_ms
        self.limits = Limits(None, {})
        self.known: dict[str, Found] = {}
        self._wall = wall
        self._prices: dict[str, int] = {}
        self._ahead_ms = 0
        self._uncertain: dict[asyncio.Future[Any], Any] = {}

    @property
    def told(self) -> int | None:
        """The moment in milliseconds, None where the database's clock tells it."""
        return None if self._wall is None else int(self._wall() * 1000)

    @property
    def about_now(self) -> int:
        """What the database's clock shows, but for what it has drifted since it was last read."""
        return int(time.time() * 1000) + self._ahead_ms if self._wall is None else int(self._wall() * 1000)

    async def do(
        self, group: Sequence[Operation], marks: Marks | None = None
    ) -> tuple[list[Any], set[tuple[str, int]] | None]:
        """Return what the operations return, and which marks have found their generation; None: they were not written.

        Raises StateUnavailable, asyncpg.PostgresError, and what an operation raises.
        """
        for tries in range(_TRIES):
            try:
                tables, outcomes = await self._decide(group, trusting=tries == 0)
                marked = marks.without(tables.generations) if marks is not None else None
                if self._uncertain:
                    outcomes = [self._own(operation, now) for operation, now in zip(group, outcomes, strict=True)]
                    self._uncertain = {}
                if not tables.changed:
                    return outcomes, None
                self._uncertain = dict(zip((operation.future for operation in group), outcomes, strict=True))
                written = await write(self.held, tables, marked, self.told, self.lease_ms)
                self._uncertain = {}
            except BaseException:
                self.known.clear()
                raise
            if written is not None:
                self._learn(tables, written.version)
                return outcomes, written.marked
            self.known.clear()
        raise StateUnavailable("Others have changed the same rows of the database again and again.")

    def _own(self, operation: Operation, now: Any) -> Any:
        """Return what an operation has done before its answer was lost, if that is what it finds."""
        before = self._uncertain.get(operation.future)
        if isinstance(before, Change) and isinstance(now, Change) and before.applied and before[1:3] == now[1:3]:
            return before
        return now

    async def mark(self, marks: Marks) -> set[tuple[str, int]]:
        """Write marks by themselves; returns which have found their generation."""
        return await mark(self.held, marks, self.told)

    async def _decide(self, group: Sequence[Operation], *, trusting: bool) -> tuple[PostgresTables, list[Any]]:
        looked, wants = Looked(), Wants()
        for operation in group:
            operation.expect(self, wants)
        looking = not trusting or self.limits.revision is None
        if not looking:
            self._recall(looked, wants)
            looking = any(getattr(wants, part) for part in Wants.__slots__)
        for _ in range(_LOOKS):
            if looking:
                await self._look(looked, wants)
            wants = Wants()
            tables = PostgresTables(looked, wants, self.limits, self._prices)
            outcomes = []
            missing = False
            for operation in group:
                try:
                    outcomes.append(operation.work(tables, *operation.arguments))
                except Missing:
                    missing = True
            if not missing:
                return tables, outcomes
            looking = True
        raise LookupError("What was looked for led to something else each time.")

    async def _look(self, looked: Looked, wants: Wants) -> None:
        await look(self.held, looked, wants, self.told, self.lease_ms)
        self._ahead_ms = looked.now - int(time.time() * 1000)
        if looked.revision != self.limits.revision:
            self.limits = await limits(self.held)

    def _recall(self, looked: Looked, wants: Wants) -> None:
        """Take what is known for looked at."""
        looked.now = self.about_now
        for name in wants.generations & self.known.keys():
            looked.generations[name] = self.known[name]
            wants.generations.discard(name)

    def _learn(self, tables: PostgresTables, version: int) -> None:
        """Remember what was written of generations in the making, and only those."""
        self._prices.update(tables.prices)
        for name in {*tables.generations, *(job.generation for job in tables.jobs)}:
            row = tables.row(name)
            if row is None or row.ended is not None:
                self.known.pop(name, None)
                continue
            before = None if name in tables.added else tables.looked.generations[name]
            jobs = [
                (job, version if before is None or job.id in tables.jobs else before.jobs[job.number][1])
                for job in tables.all(name)
            ]
            of_row = version if before is None or name in tables.generations else before.version
            self.known[name] = Found(row, of_row, True, jobs)
        if len(self.known) > _MOST_KNOWN:
            self.known.clear()
