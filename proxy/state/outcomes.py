"""What operations are given and what they answer, as plain data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from proxy.state.money import Balance, KeyRow, Limit, Unit
from proxy.state.periods import Period
from proxy.state.records import Account, Generation, JobId, JobRow, Route
from proxy.state.transitions import End, JobState


@dataclass(frozen=True, slots=True)
class Pace:
    """How many requests may start a generation in a UTC minute, and how many may be open at once; 0: any number.

    ``scope``: ``key:ID`` or ``user:KEY:USER``, of the request's own account.
    """

    scope: str
    per_minute: int = 0
    at_once: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A generation to be started. ``id``: from ``generation_id``, since what is old is found by it.

    ``reserve``: nano-dollars held for each picture, the dearest candidate's price. ``submit``: so many of its jobs have
    a slot, and are written as submitting at once. ``waiter``: whether the holder has somebody who waits.
    ``fingerprint``: keyed digest of the request, equal for equal requests of one key only.
    """

    id: str
    holder: str
    account: Account
    route: Route
    n: int = 1
    seed: int = 0
    reserve: int = 0
    submit: int = 0
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    request: str = "{}"
    attempt: int = 0
    waiter: bool = True
    pace: tuple[Pace, ...] = ()


class Started(NamedTuple):
    """The generation is written; inherited pictures are ``done``. ``remaining``: nano-dollars under the tightest
    limit, None without one."""

    generation: Generation
    remaining: int | None = None


class Exists(NamedTuple):
    """The Idempotency-Key already stands for this generation; nothing was started."""

    generation: Generation


class OverLimit(NamedTuple):
    """A limit leaves no room; nothing was started. ``used`` and ``limit``: nano-dollars or pictures; ``resets``: the
    UTC day when the period ends, None if it never does."""

    scope: str
    unit: Unit
    period: Period
    limit: int
    used: int
    resets: int | None


class OverPace(NamedTuple):
    """Too many requests; nothing was started. ``retry_after_ms``: until the minute ends, None when at once."""

    scope: str
    limit: int
    retry_after_ms: int | None


class NotLiving(NamedTuple):
    """The holder is taken for dead: nothing was written. It must register anew under another id."""

    holder: str


class Change(NamedTuple):
    """What became of one step of a job. ``state`` and ``epoch`` are the row's now ("gone": there is no row).

    ``applied``: the step is written, now or by an earlier try of the same. If not, nothing was changed, and the caller
    stops following the job unless what it finds is its own. ``end``: of the generation, once all its jobs have ended.
    """

    applied: bool
    state: JobState | Literal["gone"]
    epoch: int
    end: End | None
    remaining: int | None = None


class Recovered(NamedTuple):
    """``follow``: accepted jobs that are the caller's now. ``released``, ``unknown``: how many others ended so.
    ``more``: there may be more, ask again."""

    follow: tuple[Generation, ...]
    jobs: tuple[JobId, ...]
    released: int
    unknown: tuple[JobRow, ...]
    more: bool


class Standing(NamedTuple):
    """A limit and what is used of it in the present period."""

    limit: Limit
    balance: Balance
    remaining: int
    resets: int | None


class Usage(NamedTuple):
    """The sums of one name: of a key, a model, a day … ``split``: what they are split by, if they are."""

    name: str
    balance: Balance
    split: str = ""


class Swept(NamedTuple):
    """What housekeeping removed. ``more``: it stopped at its limit."""

    generations: int
    entries: int
    more: bool


class KeySet(NamedTuple):
    """All keys that are not deleted, with their limits. ``ever``: there has been one, even if it is deleted by now."""

    revision: int
    keys: tuple[KeyRow, ...]
    limits: tuple[Limit, ...]
    ever: bool
