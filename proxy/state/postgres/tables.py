"""The rows that a group of operations has looked at, with the group's own changes laid over them."""

from collections.abc import Collection
from operator import attrgetter
from typing import Any, Final, TypeVar

from proxy.state.money import Balance, Entry, Limit
from proxy.state.periods import period_start
from proxy.state.postgres.look import Limits, Looked, Place, Unfollowed, Wants
from proxy.state.records import Account, Generation, GenerationRow, JobId, JobRow
from proxy.state.tables import Charge, Counted, Present, Six
from proxy.state.transitions import OPEN, End, JobState, Kind

R = TypeVar("R", GenerationRow, JobRow)
_PLACES: Final[dict[type, dict[str, int]]] = {
    record: {column: number for number, column in enumerate(record._fields)} for record in (GenerationRow, JobRow)
}


_AT: Final = Present._fields.index("n")
_OF_JOB: Final = attrgetter(*Present._fields[:_AT])
_OF_GENERATION: Final = attrgetter(*Present._fields[_AT:])
"""Where the columns of ``Present`` come from."""


def changed(row: R, values: dict[str, Any]) -> R:
    """Return a row with other values, in half the time of ``_replace``."""
    places, columns = _PLACES[type(row)], list(row)
    for column, value in values.items():
        columns[places[column]] = value
    return tuple.__new__(type(row), columns)


class Missing(Exception):
    """Something has to be read before this can be decided; it has been noted among the wants."""


class PostgresTables:
    """Implements ``proxy.state.tables.Tables`` without asking the database.

    What was not looked at yet is noted in ``wants`` and raises Missing. A balance is kept only where there is a limit,
    and made from the ledger's sums when it is first needed in its period.
    """

    def __init__(self, looked: Looked, wants: Wants, limits: Limits, prices: dict[str, int]) -> None:
        self.now = looked.now
        self.looked = looked
        self.wants = wants
        self.limits = limits
        self._told = prices
        self.generations: dict[str, GenerationRow] = {}
        self.jobs: dict[JobId, JobRow] = {}
        self.added: set[str] = set()
        self._keyed: dict[tuple[str, str], str] = {}
        self._counted: tuple[Counted, ...] = ()
        self.balances: dict[Place, Balance] = {}
        self.granted: dict[tuple[Place, str], tuple[int, int]] = {}
        self.entries: list[Entry] = []
        self.pace: dict[tuple[str, int], int] = {}
        self.prices: dict[str, int] = {}
        self.living: set[str] = set()
        self.ended: list[str] = []
        self.buries: str | None = None

    @property
    def changed(self) -> bool:
        """Whether there is anything to be written."""
        return bool(self.generations or self.jobs or self.entries or self.prices or self.buries)

    # --- as they are ---

    def lives(self, holder: str) -> bool:
        """See Tables."""
        if holder not in self.looked.wants.holders:
            self.wants.holders.add(holder)
            raise Missing
        if holder in self.looked.holders:
            self.living.add(holder)
        return holder in self.looked.holders

    def row(self, generation: str) -> GenerationRow | None:
        """Return a generation's row."""
        row = self.generations.get(generation)
        if row is None:
            found = self.looked.generations.get(generation)
            if found is None:
                if generation not in self.looked.wants.generations:
                    self.wants.generations.add(generation)
                    raise Missing
                return None
            row = found.row
        return row

    def present(self, job: JobId) -> Present | None:
        """See Tables."""
        row, found = self.row(job.generation), self.job(job)
        return None if row is None or found is None else Present._make((*_OF_JOB(found), *_OF_GENERATION(row)))

    def states(self, generation: str) -> list[JobState]:
        """See Tables."""
        return [job.state for job in self.all(generation)]

    def find(self, generation: str) -> Generation | None:
        """See Tables."""
        row = self.row(generation)
        return None if row is None else self.whole(row)

    def job(self, wanted: JobId) -> JobRow | None:
        """See Tables."""
        job = self.jobs.get(wanted)
        if job is None and self.row(wanted.generation) is not None and wanted.generation not in self.added:
            jobs = self.looked.generations[wanted.generation].jobs
            if 0 <= wanted.number < len(jobs):
                job = jobs[wanted.number][0]
        return job

    def keyed(self, key: str, idempotency_key: str) -> GenerationRow | None:
        """See Tables."""
        if (key, idempotency_key) not in self.looked.wants.keyed:
            self.wants.keyed.add((key, idempotency_key))
            raise Missing
        pair = (key, idempotency_key)
        name = self._keyed.get(pair) or self.looked.keyed.get(pair)
        row = None if name is None else self.row(name)
        return None if row is None or row.idempotency_key != idempotency_key else row

    def whole(self, row: GenerationRow) -> Generation:
        """See Tables."""
        waited_for = row.id in self.added or self.looked.generations[row.id].waited_for
        return Generation(row, tuple(self.all(row.id)), waited_for and row.waiter is not None)

    def failed_equals(self, key: str, fingerprint: bytes) -> list[tuple[str, int, int]]:
        """See Tables."""
        if (key, fingerprint) not in self.looked.wants.failed:
            self.wants.failed.add((key, fingerprint))
            raise Missing
        equal = [self.row(name) for name in self.looked.equal.get((key, fingerprint), ())]
        return [
            (row.id, row.seed, row.created)
            for row in equal
            if row is not None and row.ended_as in ("again", "lost", "unknown")
        ]

    def left(self, generation: str, below: int) -> list[JobRow]:
        """See Tables."""
        jobs = self.all(generation)
        return [job for job in jobs if job.number < below and job.state == "done" and job.taken is None]

    def open_now(self, key: str, user: str | None) -> int:
        """See Tables; of other replicas as far as it was written when the group looked."""
        if (key, user) not in self.looked.wants.open:
            self.wants.open.add((key, user))
            raise Missing
        own = (self.generations[name] for name in self.added)
        more = sum(row.key == key and row.ended is None and user in (None, row.end_user) for row in own)
        return self.looked.open[key, user] + more

    def requests(self, scope: str, minute: int) -> int:
        """See Tables; of other replicas as far as it was written when the group looked."""
        if (scope, minute) not in self.looked.wants.pace:
            self.wants.pace.add((scope, minute))
            raise Missing
        return self.looked.pace.get((scope, minute), 0) + self.pace.get((scope, minute), 0)

    def counted(self, account: Account) -> tuple[Counted, ...]:
        """See Tables."""
        self._counted = self.limits.counted(account)
        return self._counted

    def balance(self, counted: Counted, day: int) -> Balance:
        """See Tables; with one that is missing all of its account are looked for."""
        balance = self._balance(_place(counted, day))
        if balance is None:
            for one in {counted, *self._counted}:
                place = _place(one, day)
                if self._balance(place) is None:
                    if place in self.looked.wants.places:
                        self.wants.sums.add((place, day))
                    else:
                        self.wants.places.add(place)
            raise Missing
        return balance

    def _balance(self, place: Place) -> Balance | None:
        return self.balances.get(place) or self.looked.spend.get(place) or self.looked.sums.get(place)

    def unfollowed(self, holder: str, tasks: Collection[JobId], limit: int, *, adopt: bool) -> list[JobId]:
        """See Tables."""
        wanted = Unfollowed(holder, frozenset(tasks), limit, adopt)
        if self.looked.wants.unfollowed != wanted:
            self.wants.unfollowed = wanted
            raise Missing
        found = ((job, self.job(job)) for job in self.looked.unfollowed)
        return [job for job, row in found if row is not None and row.state in OPEN]

    def all(self, generation: str) -> list[JobRow]:
        """Return the jobs of a generation."""
        if generation in self.added:
            return sorted(job for job in self.jobs.values() if job.generation == generation)
        return [self.jobs.get(job.id, job) for job, _ in self.looked.generations[generation].jobs]

    # --- changes ---

    def insert(self, row: GenerationRow) -> bool:
        """See Tables."""
        if self.row(row.id) is not None:
            return False
        self.generations[row.id] = row
        self.added.add(row.id)
        if row.idempotency_key is not None:
            self._keyed[row.key, row.idempotency_key] = row.id
        if row.ended is not None:
            self.ended.append(row.id)
        return True

    def insert_job(self, row: JobRow) -> None:
        """See Tables."""
        self.jobs[row.id] = row

    def change(self, job: JobId, present: Present, **values: Any) -> None:
        """See Tables; where there are several jobs, their generation says that one of them has changed."""
        found = self.job(job)
        if found is not None:
            self.jobs[job] = changed(found, values)
        if present.n > 1:
            self._replace(job.generation)

    def take(self, job: JobRow, by: str) -> None:
        """See Tables."""
        self.jobs[job.id] = job._replace(taken=by)

    def give_up_key(self, generation: str) -> None:
        """See Tables."""
        self._replace(generation, idempotency_key=None)

    def close(self, generation: str, ended_as: End) -> None:
        """See Tables."""
        row = self.row(generation)
        if row is not None and row.ended is None:
            self._replace(generation, ended=self.now, ended_as=row.ended_as or ended_as)
            # Whoever waits at the replica that follows it knows. Telling all others each time is what they would feel
            # first if they were many: each notification goes to every one, and the commits that send one take turns.
            if row.waiter is not None and row.waiter not in {job.holder for job in self.all(generation)}:
                self.ended.append(generation)

    def reopen(self, generation: str) -> None:
        """See Tables."""
        self._replace(generation, ended=None)

    def _replace(self, generation: str, **values: Any) -> None:
        row = self.row(generation)
        if row is not None:
            self.generations[generation] = changed(row, values) if values else row

    def count(self, scope: str, minute: int) -> None:
        """See Tables."""
        self.pace[scope, minute] = self.pace.get((scope, minute), 0) + 1

    def rely(self, counted: Counted, day: int, limit: Limit, used: int) -> None:
        """See Tables; others may use up what was granted before it is written."""
        place = _place(counted, day)
        if place in self.looked.spend:
            more = used - self.looked.spend[place].used(limit.unit)
            before, _ = self.granted.get((place, limit.unit), (more, 0))
            self.granted[place, limit.unit] = (max(before, more), limit.allowed(self.now))

    def keep(self, counted: Counted, day: int, balance: Balance) -> None:
        """See Tables."""
        self.balances[_place(counted, day)] = balance

    def enter(self, kind: Kind, charge: Charge, change: Six, who: str) -> None:
        """See Tables."""
        account = charge.account
        self.entries.append(
            Entry(
                0,
                self.now,
                kind,
                charge.generation,
                charge.number,
                account.key,
                account.key_name,
                account.owner,
                account.user,
                charge.provider,
                charge.model,
                charge.day,
                *change,
                charge.price_source,
                who,
            )
        )

    def remember(self, price_name: str, cost: int) -> None:
        """See Tables; what this process was told before is written already."""
        if self._told.get(price_name) != cost:
            self.prices[price_name] = cost

    def bury(self, holder: str) -> None:
        """See Tables."""
        self.buries = holder


def _place(counted: Counted, day: int) -> Place:
    return (counted.scope, counted.period, period_start(counted.period, day))
