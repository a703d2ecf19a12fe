"""What a group of operations has decided, written in one statement, if all it was decided on is still so."""

from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple, Self

import asyncpg

from proxy.state.money import SpendRow
from proxy.state.postgres.connection import Held
from proxy.state.postgres.statement import MARK, statement
from proxy.state.postgres.tables import PostgresTables

_PAYLOAD: Final = 150
"""Ids in a notification: less than 8,000 bytes."""
_CONFLICTS: Final = (
    asyncpg.DivisionByZeroError,
    asyncpg.UniqueViolationError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)


class Marks:
    """That somebody was told of generations' ends, or waits no longer, under claims. ``left``: what didn't go along."""

    def __init__(self, wanted: dict[tuple[str, int], bool]) -> None:
        self._wanted = wanted
        self.left: Marks | None = None

    @classmethod
    def of(cls, marks: Iterable[tuple[str, int, bool, Any]]) -> Self:
        """Take them together: who was told waits no longer."""
        wanted: dict[tuple[str, int], bool] = {}
        for generation, claim, delivered, _ in marks:
            wanted[generation, claim] = wanted.get((generation, claim), False) or delivered
        return cls(wanted)

    def without(self, generations: Collection[str]) -> "Marks":
        """Return those of other generations; the rest is left, since a row is written once in a statement."""
        left = {mark: delivered for mark, delivered in self._wanted.items() if mark[0] in generations}
        self.left = Marks(left) if left else None
        return Marks({mark: delivered for mark, delivered in self._wanted.items() if mark not in left})

    @property
    def columns(self) -> tuple[str, ...]:
        """Ids, claims, and whether they were told, each in one text."""
        ids, claims = zip(*self._wanted, strict=True) if self._wanted else ((), ())
        return " ".join(ids), " ".join(map(str, claims)), " ".join(map(str, self._wanted.values()))


class Written(NamedTuple):
    """``version``: of the rows that were written. ``marked``: ids and claims of the marks that matched."""

    version: int
    marked: set[tuple[str, int]] | None


def _balances(tables: PostgresTables) -> dict[str, tuple[Any, ...]]:
    changes, firsts, guards = [], [], []
    for place, balance in tables.balances.items():
        base = tables.looked.spend.get(place)
        if base is None:
            firsts.append(SpendRow(*place, *balance))
        else:
            changes.append(SpendRow(*place, *[now - was for now, was in zip(balance, base, strict=True)]))
            none = (None, None)
            guards.append(
                (*tables.granted.get((place, "dollars"), none), *tables.granted.get((place, "pictures"), none))
            )
    found: dict[str, tuple[Any, ...]] = {}
    if changes:
        found["balances"] = (changes, *map(list, zip(*guards, strict=True)))
    if firsts:
        found["first_balances"] = (firsts,)
    return found


def _changes(tables: PostgresTables) -> dict[str, tuple[Any, ...]]:
    """Return what is to be written, by the names of the statement's parts."""
    looked, added = tables.looked, tables.added
    found = _balances(tables)
    generations = [row for name, row in tables.generations.items() if name not in added]
    if generations:
        found["generations"] = (generations, " ".join([str(looked.generations[row.id].version) for row in generations]))
    jobs = [row for row in tables.jobs.values() if row.generation not in added]
    if jobs:
        found["jobs"] = (jobs, " ".join([str(looked.generations[row.generation].jobs[row.number][1]) for row in jobs]))
    if added:
        new = [tables.generations[name] for name in added]
        found["new"] = (new, [row for row in tables.jobs.values() if row.generation in added])
    if tables.entries:
        found["entries"] = (tables.entries,)
    if tables.pace:
        counted = [(scope, minute, number) for (scope, minute), number in sorted(tables.pace.items())]
        found["pace"] = tuple(map(list, zip(*counted, strict=True)))
    if tables.prices:
        found["prices"] = tuple(map(list, zip(*sorted(tables.prices.items()), strict=True)))
    if tables.buries is not None:
        found["buries"] = (tables.buries,)
    if tables.living:
        found["living"] = (" ".join(tables.living),)
    if tables.ended:
        ended = tables.ended
        found["ended"] = ([" ".join(ended[at : at + _PAYLOAD]) for at in range(0, len(ended), _PAYLOAD)],)
    return found


async def write(
    held: Held, tables: PostgresTables, marks: Marks | None, told: int | None, lease_ms: int
) -> Written | None:
    """Write the group's changes; None: something has changed in the meantime, and nothing was written."""
    changes = _changes(tables)
    if marks is not None:
        changes["marks"] = marks.columns
    arguments = [column for columns in changes.values() for column in columns]
    try:
        row = await held.row(statement(tuple(changes)), told, lease_ms, tables.limits.revision, *arguments)
    except _CONFLICTS:
        return None
    if not row[0]:
        return None
    return Written(row[1], None if row[2] is None else {(name, claim) for name, claim in row[2]})


async def mark(held: Held, marks: Marks, told: int | None) -> set[tuple[str, int]]:
    """Write marks by themselves; returns the ids and claims of those that matched."""
    return {(row[0], row[1]) for row in await held.fetch(MARK, told, *marks.columns)}
