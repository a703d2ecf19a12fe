"""What an operation decides on, in every engine: rows as they are at one moment, and the changes it makes to them."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, Protocol

from proxy.state.money import Balance, Limit
from proxy.state.periods import Period
from proxy.state.records import Account, Generation, GenerationRow, JobId, JobRow
from proxy.state.transitions import TRANSITIONS, End, Event, JobState, Kind

Six = tuple[int, int, int, int, int, int]
"""How the figures of a balance change."""


class Counted(NamedTuple):
    """A balance that has to be kept: of which scope, in which kind of period, under which limits."""

    scope: str
    period: Period
    limits: tuple[Limit, ...]


class Charge(NamedTuple):
    """What a ledger entry is about: one job, who pays for it, and where it is made."""

    generation: str
    number: int
    account: Account
    provider: str
    model: str
    day: int
    price_source: str


class Present(NamedTuple):
    """A job as it stands, with what a step needs of its generation."""

    state: JobState
    epoch: int
    holder: str
    handle: str | None
    picture: str | None
    price: int | None
    price_source: str
    submits: int
    day: int
    reserved: int
    inherited: str | None
    resolved: str
    provider: str
    model: str
    n: int
    ended_as: End | None
    key: str
    key_name: str
    owner: str
    end_user: str

    @property
    def account(self) -> Account:
        """Who is charged."""
        return Account(self.key, self.key_name, self.owner, self.end_user)

    @property
    def expected(self) -> int:
        """What it costs if nobody tells: its route's price, else all that was held."""
        return self.reserved if self.price is None else self.price

    def allows(self, event: Event, epoch: int | None) -> bool:
        """Return whether ``event`` leads anywhere from here. ``epoch``: None for whoever recovers it."""
        step = TRANSITIONS.get((self.state, event))
        if step is None or self.resolved:
            return False
        return epoch is None or not step.needs_epoch or epoch == self.epoch


class Tables(Protocol):
    """Rows and changes, within one transaction. ``now``: its moment in Unix milliseconds."""

    now: int

    # --- as they are ---

    def lives(self, holder: str) -> bool:
        """Return whether a holder is registered, and has told lately that it lives."""
        ...

    def present(self, job: JobId) -> Present | None:
        """Return a job as it stands."""
        ...

    def states(self, generation: str) -> Collection[JobState]:
        """Return the states of all jobs of a generation."""
        ...

    def find(self, generation: str) -> Generation | None:
        """Return a generation with its jobs."""
        ...

    def job(self, wanted: JobId) -> JobRow | None:
        """Return one job."""
        ...

    def keyed(self, key: str, idempotency_key: str) -> GenerationRow | None:
        """Return what an Idempotency-Key of one key stands for."""
        ...

    def whole(self, row: GenerationRow) -> Generation:
        """Return a generation's row with its jobs, and whether somebody waits for it."""
        ...

    def failed_equals(self, key: str, fingerprint: bytes) -> Iterable[tuple[str, int, int]]:
        """Return the ids, first seeds and moments of equal generations that have not ended well."""
        ...

    def left(self, generation: str, below: int) -> Iterable[JobRow]:
        """Return its pictures with a number ``below`` that nobody has taken yet."""
        ...

    def open_now(self, key: str, user: str | None) -> int:
        """Count the open generations of a key, of one end user or of all."""
        ...

    def requests(self, scope: str, minute: int) -> int:
        """Return how many were counted in a UTC minute."""
        ...

    def counted(self, account: Account) -> tuple[Counted, ...]:
        """Return the balances that an account's money moves."""
        ...

    def balance(self, counted: Counted, day: int) -> Balance:
        """Return a balance in the period that holds ``day``."""
        ...

    def unfollowed(self, holder: str, tasks: Collection[JobId], limit: int, *, adopt: bool) -> list[JobId]:
        """Return up to ``limit`` open jobs of holders that are dead (if ``adopt``), or of ``holder`` and not among
        ``tasks``, in order."""
        ...

    # --- changes ---

    def insert(self, row: GenerationRow) -> bool:
        """Add a generation; False: its id is there already."""
        ...

    def insert_job(self, row: JobRow) -> None:
        """Add a job of a new generation."""
        ...

    def change(self, job: JobId, present: Present, **values: Any) -> None:
        """Write columns of a job."""
        ...

    def take(self, job: JobRow, by: str) -> None:
        """Let a generation have the picture of another."""
        ...

    def give_up_key(self, generation: str) -> None:
        """Take the Idempotency-Key from a generation."""
        ...

    def close(self, generation: str, ended_as: End) -> None:
        """Write that all jobs have ended; how is written only the first time."""
        ...

    def reopen(self, generation: str) -> None:
        """Write that there is something to be followed again."""
        ...

    def count(self, scope: str, minute: int) -> None:
        """Count one more in a UTC minute."""
        ...

    def rely(self, counted: Counted, day: int, limit: Limit, used: int) -> None:
        """Note that something was granted because so much is used of a limit with it, and not more."""
        ...

    def keep(self, counted: Counted, day: int, balance: Balance) -> None:
        """Change a balance; the entry that says why is to be written too."""
        ...

    def enter(self, kind: Kind, charge: Charge, change: Six, who: str) -> None:
        """Write a ledger entry."""
        ...

    def remember(self, price_name: str, cost: int) -> None:
        """Keep the cost last told."""
        ...

    def bury(self, holder: str) -> None:
        """Remove the holders that are dead, but not this one: who wakes up must see that it was given up."""
        ...


def scopes(account: Account) -> list[tuple[str, str]]:
    """Return the scopes in which an account's money counts, each with the scope that its limits are written under."""
    found = [(scope, scope) for scope in ("all", f"key:{account.key}")]
    if account.owner:
        found.append((f"owner:{account.owner}", f"owner:{account.owner}"))
    if account.user:
        found.append((f"user:{account.key}:{account.user}", f"users:{account.key}"))
    return found


def counted(limits: dict[str, list[Limit]], account: Account) -> tuple[Counted, ...]:
    """Return the balances that an account's money moves. ``limits``: all there are, by scope."""
    found: list[Counted] = []
    for scope, limited_by in scopes(account) if limits else ():
        by_period: dict[Period, list[Limit]] = {}
        for limit in limits.get(limited_by, ()):
            by_period.setdefault(limit.period, []).append(limit)
        found += (Counted(scope, period, tuple(several)) for period, several in by_period.items())
    return tuple(found)
