"""One statement that reads what a group of operations decides on: only the parts that are wanted are in it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from proxy.state.money import Balance, Limit, SpendRow
from proxy.state.periods import Period, period_end
from proxy.state.postgres.connection import Held
from proxy.state.records import Account, GenerationRow, JobId, JobRow
from proxy.state.tables import Counted, counted

_MOST_ACCOUNTS: Final = 10_000
Place = tuple[str, Period, int]
"""Of a balance: its scope, its period, and the period's first day."""
NOW: Final = "coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
"""The database's clock, or a moment that is told."""
DURABLE: Final = (
    "CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') "
    "THEN set_config('synchronous_commit', 'on', true) END"
)
"""For one transaction, whatever the server or the user is set to."""
_GENERATION: Final = ", ".join(f"g.{column}" for column in GenerationRow._fields)
_JOB: Final = ", ".join(f"j.{column}" for column in JobRow._fields)
_SPEND: Final = ", ".join(f"s.{column}" for column in SpendRow._fields)
_FRESH: Final = f"{NOW} - $2::bigint"
_SUMS: Final = """
SELECT coalesce(sum(reserved), 0)::bigint, coalesce(sum(spent), 0)::bigint, coalesce(sum(unknown), 0)::bigint,
       coalesce(sum(reserved_pictures), 0)::bigint, coalesce(sum(spent_pictures), 0)::bigint,
       coalesce(sum(unknown_pictures), 0)::bigint
FROM images_proxy.ledger WHERE day >= $1 AND ($2::bigint IS NULL OR day < $2) AND """
_OF_SCOPE: Final = {
    "all": "$3 = ''",
    "key": "key = $3",
    "owner": "owner = $3",
    "user": "key = $3 AND end_user = $4",
}
_EVERY_LIMIT: Final = """
SELECT value, ARRAY(SELECT ROW(scope, unit, period, amount, extra, extra_until) FROM images_proxy.limits
                    ORDER BY scope, period, unit)
FROM images_proxy.meta WHERE name = 'limits'
"""


class Limits:
    """Every limit there is, as of a revision; what they mean for an account is worked out once."""

    def __init__(self, revision: bytes | None, by_scope: dict[str, list[Limit]]) -> None:
        self.revision = revision
        self._by_scope = by_scope
        self._counted: dict[Account, tuple[Counted, ...]] = {}

    def counted(self, account: Account) -> tuple[Counted, ...]:
        """Return the balances that an account's money moves."""
        if not self._by_scope:
            return ()
        found = self._counted.get(account)
        if found is None:
            if len(self._counted) >= _MOST_ACCOUNTS:
                self._counted.clear()
            found = self._counted[account] = counted(self._by_scope, account)
        return found


class Unfollowed(NamedTuple):
    """Which open jobs are looked for; see ``Tables.unfollowed``."""

    holder: str
    tasks: frozenset[JobId]
    limit: int
    adopt: bool


@dataclass(slots=True)
class Wants:
    """What has to be read. ``equals``, ``told``: keys and fingerprints, the latter with a moment of delivery."""

    generations: set[str] = field(default_factory=set)
    keyed: set[tuple[str, str]] = field(default_factory=set)
    failed: set[tuple[str, bytes]] = field(default_factory=set)
    equals: set[tuple[str, bytes]] = field(default_factory=set)
    told: set[tuple[str, bytes, int]] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    places: set[Place] = field(default_factory=set)
    pace: set[tuple[str, int]] = field(default_factory=set)
    open: set[tuple[str, str | None]] = field(default_factory=set)
    unfollowed: Unfollowed | None = None
    sums: set[tuple[Place, int]] = field(default_factory=set)
    limits: bool = False


class Found(NamedTuple):
    """A generation and its jobs by their numbers, each with its version."""

    row: GenerationRow
    version: int
    waited_for: bool
    jobs: list[tuple[JobRow, int]]


@dataclass(slots=True)
class Looked:
    """What was read, and what was looked for (``wants``), so that what isn't there is known not to be."""

    now: int = 0
    revision: bytes = b""
    wants: Wants = field(default_factory=Wants)
    generations: dict[str, Found] = field(default_factory=dict)
    keyed: dict[tuple[str, str], str] = field(default_factory=dict)
    equal: dict[tuple[str, bytes], set[str]] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    spend: dict[Place, Balance] = field(default_factory=dict)
    pace: dict[tuple[str, int], int] = field(default_factory=dict)
    open: dict[tuple[str, str | None], int] = field(default_factory=dict)
    unfollowed: list[JobId] = field(default_factory=list)
    sums: dict[Place, Balance] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """Add a generation that may also be looked for by its key or fingerprint."""
        row = found.row
        self.generations[row.id] = found
        self.wants.generations.add(row.id)
        if row.idempotency_key is not None:
            self.keyed[row.key, row.idempotency_key] = row.id
        if row.fingerprint is not None:
            self.equal.setdefault((row.key, row.fingerprint), set()).add(row.id)


_FINDS: Final = {
    "generations": "SELECT unnest(string_to_array({0}::text, ' ')) AS id",
    "keyed": (
        "SELECT g.id AS id FROM unnest({0}::text[], {1}::text[]) w(key, name) "
        "JOIN images_proxy.generations g ON g.key = w.key AND g.idempotency_key = w.name"
    ),
    "failed": (
        "SELECT g.id AS id FROM unnest({0}::text[], {1}::bytea[]) w(key, fingerprint) "
        "JOIN images_proxy.generations g ON g.fingerprint = w.fingerprint AND g.key = w.key "
        "WHERE g.ended_as IN ('again', 'lost', 'unknown') AND EXISTS (SELECT FROM images_proxy.jobs j "
        "WHERE j.generation = g.id AND j.state = 'done' AND j.taken IS NULL)"
    ),
    "equals": (
        "SELECT g.id AS id FROM unnest({0}::text[], {1}::bytea[]) w(key, fingerprint) "
        "JOIN images_proxy.generations g ON g.key = w.key AND g.fingerprint = w.fingerprint "
        "WHERE g.delivered IS NULL AND g.idempotency_key IS NULL AND g.ended_as IS DISTINCT FROM 'again'"
    ),
    "told": (
        "SELECT g.id AS id FROM unnest({0}::text[], {1}::bytea[], {2}::bigint[]) w(key, fingerprint, since) "
        "JOIN images_proxy.generations g ON g.fingerprint = w.fingerprint AND g.delivered >= w.since "
        "AND g.key = w.key WHERE g.idempotency_key IS NULL AND g.ended_as IS DISTINCT FROM 'again'"
    ),
    "unfollowed": "SELECT generation AS id FROM loose",
}
_LOOSE: Final = f"""loose AS MATERIALIZED (
  SELECT j.generation, j.number FROM images_proxy.generations g JOIN images_proxy.jobs j ON j.generation = g.id
  WHERE g.ended IS NULL AND j.state IN ('intended', 'submitting', 'accepted') AND (
    j.holder = {{0}}::text
      AND NOT EXISTS (SELECT FROM unnest({{1}}::text[], {{2}}::bigint[]) t(generation, number)
                      WHERE t.generation = j.generation AND t.number = j.number)
    OR {{3}}::boolean AND j.holder <> {{0}}::text
      AND NOT EXISTS (SELECT FROM images_proxy.holders h WHERE h.id = j.holder AND h.beat > {_FRESH}))
  ORDER BY j.generation, j.number LIMIT {{4}}::bigint)"""
_ROWS: Final = (
    (
        f"ARRAY(SELECT ROW({_GENERATION}, g.xmin, EXISTS (SELECT FROM images_proxy.holders h WHERE h.id = g.waiter "
        f"AND h.beat > {_FRESH})) FROM wanted w JOIN images_proxy.generations g ON g.id = w.id)"
    ),
    (
        f"ARRAY(SELECT ROW({_JOB}, j.xmin) FROM wanted w JOIN images_proxy.jobs j ON j.generation = w.id "
        "ORDER BY j.generation, j.number)"
    ),
)
_ARRAYS: Final = {
    "holders": f"ARRAY(SELECT h.id FROM images_proxy.holders h "
    f"WHERE h.id = ANY(string_to_array({{0}}::text, ' ')) AND h.beat > {_FRESH})",
    "places": (
        f"ARRAY(SELECT ROW({_SPEND}) FROM unnest({{0}}::text[], {{1}}::text[], {{2}}::bigint[]) "
        "w(scope, period, start) JOIN images_proxy.spend s USING (scope, period, start))"
    ),
    "pace": (
        "ARRAY(SELECT ROW(p.scope, p.minute, p.requests) FROM unnest({0}::text[], {1}::bigint[]) w(scope, minute) "
        "JOIN images_proxy.pace p ON p.scope = w.scope AND p.minute = w.minute)"
    ),
    "open": (
        "ARRAY(SELECT ROW(w.key, w.name, (SELECT count(*) FROM images_proxy.generations g WHERE g.key = w.key "
        "AND g.ended IS NULL AND g.ended_as IS NULL AND (w.name IS NULL OR g.end_user = w.name))) "
        "FROM unnest({0}::text[], {1}::text[]) w(key, name))"
    ),
    "unfollowed": "ARRAY(SELECT ROW(generation, number) FROM loose)",
}
_NAMES: Final = ("generations", "holders")
"""Names without spaces go in one text, which costs the client a third of what an array does."""
_WIDTHS: Final = {"generations": 1, "holders": 1, "told": 3, "places": 3, "unfollowed": 5}
_ORDER: Final = ("generations", "keyed", "failed", "equals", "told", "unfollowed", "holders", "places", "pace", "open")


@lru_cache(maxsize=256)
def _statement(parts: tuple[str, ...]) -> str:
    number, names = 3, {}
    for part in parts:
        width = _WIDTHS.get(part, 2)
        names[part] = [f"${each}" for each in range(number, number + width)]
        number += width
    finds = [_FINDS[part].format(*names[part]) for part in parts if part in _FINDS]
    with_parts = [_LOOSE.format(*names["unfollowed"])] if "unfollowed" in parts else []
    if finds:
        with_parts.append(f"wanted AS MATERIALIZED (SELECT DISTINCT id FROM ({' UNION ALL '.join(finds)}) w)")
    arrays = [*(_ROWS if finds else ()), *(_ARRAYS[part].format(*names[part]) for part in parts if part in _ARRAYS)]
    listed = ", ".join([NOW, "$2::bigint", "(SELECT value FROM images_proxy.meta WHERE name = 'limits')", *arrays])
    return f"{'WITH ' + ', '.join(with_parts) if with_parts else ''} SELECT {listed}"


def _columns(part: str, wanted: Any) -> Sequence[Any]:
    if part == "unfollowed":
        tasks = sorted(wanted.tasks)
        names, numbers = [task.generation for task in tasks], [task.number for task in tasks]
        return (wanted.holder, names, numbers, wanted.adopt, wanted.limit)
    if part in _NAMES:
        return (" ".join(wanted),)
    return tuple(map(list, zip(*wanted, strict=True)))


async def look(held: Held, looked: Looked, wants: Wants, told: int | None, lease_ms: int) -> None:
    """Read what is wanted and put it to what was looked at before. ``told``: the moment, None for the database's."""
    parts = tuple(part for part in _ORDER if getattr(wants, part))
    arguments = [column for part in parts for column in _columns(part, getattr(wants, part))]
    row = iter(await held.row(_statement(parts), told, lease_ms, *arguments))
    looked.now, _, looked.revision = next(row), next(row), next(row)
    if any(part in _FINDS for part in parts):
        _generations(looked, next(row), next(row))
    for part in parts:
        if part in _ARRAYS:
            _take(looked, part, next(row))
        if part != "unfollowed":
            getattr(looked.wants, part).update(getattr(wants, part))
    looked.wants.unfollowed = wants.unfollowed or looked.wants.unfollowed
    for place, day in wants.sums:
        looked.sums[place] = await _sum(held, place, day)


def _generations(looked: Looked, generations: Collection[Any], jobs: Collection[Any]) -> None:
    jobs_of: dict[str, list[tuple[JobRow, int]]] = {}
    for found in jobs:
        jobs_of.setdefault(found[0], []).append((JobRow._make(found[:-1]), found[-1]))
    for found in generations:
        looked.add(Found(GenerationRow._make(found[:-2]), found[-2], found[-1], jobs_of.get(found[0], [])))


def _take(looked: Looked, part: str, found: Collection[Any]) -> None:
    if part == "holders":
        looked.holders.update(found)
    elif part == "places":
        looked.spend.update({(row[0], row[1], row[2]): Balance(*row[3:]) for row in map(tuple, found)})
    elif part == "pace":
        looked.pace.update({(scope, minute): requests for scope, minute, requests in found})
    elif part == "open":
        looked.open.update({(key, user): number for key, user, number in found})
    else:
        looked.unfollowed = [JobId(generation, number) for generation, number in found]


async def _sum(held: Held, place: Place, day: int) -> Balance:
    """Return what the ledger says of a scope in the period that holds ``day``."""
    scope, period, start = place
    what, _, name = scope.partition(":")
    named = name.split(":", 1) if what == "user" else [name]
    return Balance(*await held.row(_SUMS + _OF_SCOPE[what], start, period_end(period, day), *named))


async def limits(held: Held) -> Limits:
    """Return every limit, and the revision of them all."""
    revision, rows = await held.row(_EVERY_LIMIT)
    by_scope: dict[str, list[Limit]] = {}
    for row in rows:
        by_scope.setdefault(row[0], []).append(Limit(*row))
    return Limits(bytes(revision), by_scope)
