"""Limits, balances, ledger entries and keys, as plain data: whole nano-dollars, moments in Unix milliseconds."""

from typing import Final, Literal, NamedTuple

from proxy.state.periods import Period
from proxy.state.transitions import Kind

NANO: Final = 1_000_000_000
"""Nano-dollars in a dollar."""

Unit = Literal["dollars", "pictures"]
"""Of a limit."""


class Limit(NamedTuple):
    """What may be used in each period.

    ``scope``: ``all``, ``key:ID``, ``owner:NAME``, or ``users:KEY`` for each end user of a key. ``amount`` and
    ``extra``: nano-dollars or pictures; the extra counts until ``extra_until``.
    """

    scope: str
    unit: Unit
    period: Period
    amount: int
    extra: int = 0
    extra_until: int = 0

    def allowed(self, now: int) -> int:
        """Return the limit at a moment."""
        return self.amount + (self.extra if now < self.extra_until else 0)


class Balance(NamedTuple):
    """Sums in the three places where money can lie, in nano-dollars and pictures."""

    reserved: int = 0
    spent: int = 0
    unknown: int = 0
    reserved_pictures: int = 0
    spent_pictures: int = 0
    unknown_pictures: int = 0

    def used(self, unit: Unit) -> int:
        """Return all that counts against a limit."""
        if unit == "dollars":
            return self.reserved + self.spent + self.unknown
        return self.reserved_pictures + self.spent_pictures + self.unknown_pictures


class SpendRow(NamedTuple):
    """The balance of one scope in one period; kept only where there is a limit, and equal to the ledger's sums."""

    scope: str
    period: Period
    start: int
    reserved: int
    spent: int
    unknown: int
    reserved_pictures: int
    spent_pictures: int
    unknown_pictures: int

    @property
    def balance(self) -> Balance:
        """Its figures alone."""
        return Balance(*self[3:])


class Entry(NamedTuple):
    """A ledger entry: how the six balances changed. ``who``: the person who settled an unknown outcome."""

    id: int
    at: int
    kind: Kind
    generation: str
    number: int
    key: str
    key_name: str
    owner: str
    end_user: str
    provider: str
    model: str
    day: int
    reserved: int
    spent: int
    unknown: int
    reserved_pictures: int
    spent_pictures: int
    unknown_pictures: int
    price_source: str
    who: str


class KeyRow(NamedTuple):
    """A key. ``digest``: SHA-256 of the secret; ``old_digest`` is accepted until ``old_until`` after a rotation.

    ``models``: JSON list of names and wildcards, empty for all. ``per_minute`` and ``at_once``: 0 for no limit.
    ``count_by``: how end users are told apart, empty: not at all; ``user_per_minute``, ``user_at_once``: of each.
    """

    id: str
    name: str
    digest: bytes
    tail: str
    owner: str
    created: int
    expires: int | None = None
    disabled: int | None = None
    deleted: int | None = None
    models: str = ""
    per_minute: int = 0
    at_once: int = 0
    count_by: str = ""
    show_users: int = 0
    old_digest: bytes | None = None
    old_until: int | None = None
    note: str = ""
    user_per_minute: int = 0
    user_at_once: int = 0


class KeyChange(NamedTuple):
    """One change to a key: when, by whom, and what, as JSON text."""

    id: int
    at: int
    key: str
    who: str
    change: str
