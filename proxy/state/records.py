"""Generations and jobs as plain data: moments in Unix milliseconds, whole nano-dollars, days in UTC.

A row is a tuple of its table's columns. Nothing here has a place for a prompt, an uploaded picture or a secret.
"""

import secrets
from dataclasses import dataclass
from typing import NamedTuple, Self

from proxy.state.money import Entry, SpendRow
from proxy.state.transitions import Column, End, JobState, column


class JobId(NamedTuple):
    """One picture of a generation; ``number`` counts from 0."""

    generation: str
    number: int

    def __str__(self) -> str:
        return f"{self.generation}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes. Raises ValueError."""
        generation, _, number = text.rpartition(".")
        return cls(generation, int(number))


def generation_id(now: int) -> str:
    """Return a new name that nobody can guess, for a generation of the moment ``now``.

    Names of one time stand side by side in the tables, which halves what is written for each.
    """
    return f"{id_prefix(now)}{secrets.token_hex(10)}"


def id_prefix(now: int) -> str:
    """Return how the names of a moment begin; those of earlier ones are less."""
    return f"imggen_{now:012x}"


@dataclass(frozen=True, slots=True)
class Account:
    """Who is charged. ``key``: the key's id; ``user``: the end user behind it, empty unless the key counts them."""

    key: str = ""
    key_name: str = ""
    owner: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a job is submitted: enough to follow it when the configuration has changed since.

    ``key_env``: the name of the variable with the provider's credentials, never these. ``price``: nano-dollars for a
    picture, None when unknown; ``price_source`` says who told it.
    """

    provider: str
    model: str
    base_url: str = ""
    key_env: str = ""
    price: int | None = None
    price_source: str = "unknown"


class GenerationRow(NamedTuple):
    """What one request asked for, and its end.

    ``idempotency_key``: None without one, or when it was given up. ``fingerprint``: None when no repeat may find it.
    ``request``: JSON text of what an answer needs besides the pictures. ``claim`` counts who took it over; ``waiter``
    is the holder at which somebody waits. ``seed`` is the first job's. ``ended``: None while
    a job is open; ``ended_as``: written once, when all of them have ended. ``hidden``: its caller has given it up.
    """

    id: str
    key: str
    key_name: str
    owner: str
    end_user: str
    idempotency_key: str | None
    fingerprint: bytes | None
    request: str
    seed: int
    n: int
    attempt: int
    claim: int
    waiter: str | None
    created: int
    ended: int | None
    delivered: int | None
    ended_as: End | None
    hidden: int = 0

    @property
    def account(self) -> Account:
        """Who is charged for it."""
        return Account(self.key, self.key_name, self.owner, self.end_user)


class JobRow(NamedTuple):
    """One picture being made.

    ``handle``: JSON text of the provider's handle. ``expires``: when the provider forgets the result. ``picture``: the
    name (or JSON text) under which it is stored. ``failure``: our code for why there is none. ``day``: of the
    reservation, which decides its periods. ``reserved``: what is, or was, held; ``cost``: what was settled.
    ``inherited``: the generation that this picture comes from; ``taken``: the one that has it now. ``resolved``: what
    a person said of an unknown outcome: paid, free.
    """

    generation: str
    number: int
    state: JobState
    holder: str
    epoch: int
    provider: str
    model: str
    base_url: str
    key_env: str
    price: int | None
    price_source: str
    seed: int
    submits: int
    submitted: int | None
    handle: str | None
    expires: int | None
    picture: str | None
    failure: str
    day: int
    reserved: int
    cost: int | None
    ended: int | None
    inherited: str | None
    taken: str | None
    resolved: str

    @property
    def id(self) -> JobId:
        """Its generation and number."""
        return JobId(self.generation, self.number)

    @property
    def route(self) -> Route:
        """Where it was, or is to be, submitted."""
        return Route(self.provider, self.model, self.base_url, self.key_env, self.price, self.price_source)

    @property
    def column(self) -> Column | None:
        """Where its money lies; None also for an inherited picture, which was paid elsewhere."""
        return None if self.inherited is not None else column(self.state, self.resolved)

    @property
    def amount(self) -> int:
        """The money that lies there, in nano-dollars."""
        at = self.column
        if at is None:
            return 0
        return self.cost if at == "spent" and self.cost is not None else self.reserved


class Generation(NamedTuple):
    """A generation with its jobs in order. ``waited_for``: somebody waits at a holder that lives."""

    row: GenerationRow
    jobs: tuple[JobRow, ...]
    waited_for: bool = False


class Holder(NamedTuple):
    """A process that follows jobs. ``exclusive``: it alone may, as long as it has the file's lock."""

    id: str
    started: int
    beat: int
    exclusive: int


class Everything(NamedTuple):
    """All rows at one moment, for the checker."""

    generations: tuple[GenerationRow, ...]
    jobs: tuple[JobRow, ...]
    spend: tuple[SpendRow, ...]
    ledger: tuple[Entry, ...]
