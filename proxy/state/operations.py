"""What can be done to the state: few operations, each one transaction, the same for every engine.

Nothing is sent, and nobody is answered, before the operation in front of it has returned, and has been ``applied``.
Cancelling the wait for an operation does not take it back. An operation may be repeated when its outcome isn't known:
each recognises what it has written itself.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from proxy.state.money import Entry, KeyChange, KeyRow, Limit
from proxy.state.outcomes import (
    Change,
    Exists,
    KeySet,
    NotLiving,
    OverLimit,
    OverPace,
    Recovered,
    Standing,
    Start,
    Started,
    Swept,
    Usage,
)
from proxy.state.records import Account, Everything, Generation, JobId, JobRow, Route

LEASE_MS: Final = 15_000
"""A holder whose last beat is older is dead: its jobs are adopted, and it may start nothing."""

By = Literal["key", "owner", "user", "model", "provider", "day"]
Ending = Literal["not_started", "next_route", "failed", "lose", "doubt", "release"]
"""The events that end a job without a picture (``next_route``: that make it wait for another submit)."""


class StateUnavailable(Exception):
    """The state cannot be read or written now; nothing of the operation was kept. The text says why.

    ``setting``: what says where the state is.
    """

    setting = "state.path"


class StateUnusable(StateUnavailable):
    """The state cannot be used until a person has done something: corrupt, foreign, in use. The text says what."""


class StateInUse(StateUnusable):
    """Another process serves from this file."""


class NameTaken(Exception):
    """Another key has this name."""


class State(Protocol):
    """An engine. Every operation raises StateUnavailable."""

    @property
    def pending(self) -> int:
        """How many writes wait."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may serve from it at the same time."""
        ...

    def close(self) -> Awaitable[None]:
        """Finish what was asked for and let go of the storage."""
        ...

    def on_ended(self, told: Callable[[Collection[str]], None]) -> None:
        """Have ``told`` given the ids of generations that other replicas have ended, where somebody may wait here.

        Some may be missed: who waits for another replica's generation reads it anew each second as well.
        """
        ...

    def register(self, holder: str) -> Awaitable[None]:
        """Announce a process that follows jobs, under a name that was never used before."""
        ...

    def beat(self, holder: str) -> Awaitable[bool]:
        """Tell that it lives; False: it has been given up, and must register anew."""
        ...

    def living(self) -> Awaitable[tuple[str, ...]]:
        """Return the holders that live, the oldest first."""
        ...

    def retire(self, holder: str) -> Awaitable[None]:
        """Take a holder away: its open jobs may be recovered by others at once."""
        ...

    def start(self, start: Start) -> Awaitable[Started | Exists | OverLimit | OverPace | NotLiving]:
        """Write a generation, its jobs and their reservations, or say why not.

        Pictures that failed equal generations have left are inherited; only the missing ones are reserved.
        """
        ...

    def submit(self, job: JobId, epoch: int, holder: str, route: Route) -> Awaitable[Change | OverLimit | NotLiving]:
        """Note that a job is about to be sent; reserves the difference to a dearer route first."""
        ...

    def accept(self, job: JobId, epoch: int, holder: str, handle: str, expires: int | None = None) -> Awaitable[Change]:
        """Keep the provider's handle; ``epoch`` of the answer is the one to go on with."""
        ...

    def finish(
        self,
        job: JobId,
        epoch: int,
        picture: str,
        *,
        cost: int | None = None,
        price_source: str = "",
        price_name: str = "",
    ) -> Awaitable[Change]:
        """Keep a stored picture and settle: at ``cost`` if the provider told one, else at its route's price.

        ``price_name``: under which a told cost is remembered for jobs of the same kind.
        """
        ...

    def end(self, job: JobId, epoch: int, event: Ending, failure: str = "") -> Awaitable[Change]:
        """End a job without a picture; ``failure``: our error code for it."""
        ...

    def recover(self, holder: str, tasks: Collection[JobId], limit: int = 500) -> Awaitable[Recovered]:
        """Give every open job that nobody follows what its state asks for, and adopt those that can be followed.

        ``tasks``: the jobs that this process follows, or has just asked to start.
        """
        ...

    def claim(self, generation: str, seen: int, attempt: int, waiter: str) -> Awaitable[int | None]:
        """Take a generation over for a repeat; returns the new claim, None when another was quicker than ``seen``."""
        ...

    def deliver(self, generation: str, claim: int) -> Awaitable[bool]:
        """Note that its end was told to whoever has this claim. Not to be waited for: it is written within 50 ms."""
        ...

    def leave(self, generation: str, claim: int) -> Awaitable[bool]:
        """Note that whoever has this claim waits no longer. Not to be waited for, as ``deliver``."""
        ...

    def hide(self, generation: str) -> Awaitable[bool]:
        """Let nobody find a generation any more, by address, key or repeat. It unbuys nothing."""
        ...

    def generation(self, generation: str) -> Awaitable[Generation | None]:
        """Find by id."""
        ...

    def remembered(self) -> Awaitable[tuple[Generation, ...]]:
        """Return all that a repeat may find, the oldest first: what a process that starts must know of.

        Nothing where several processes share the state: they look for each repeat.
        """
        ...

    def by_idempotency_key(self, key: str, idempotency_key: str) -> Awaitable[Generation | None]:
        """Find what an Idempotency-Key of one key stands for."""
        ...

    def repeatable(
        self, key: str, fingerprint: bytes, delivered_since: int | None = None
    ) -> Awaitable[tuple[Generation, ...]]:
        """Find what an equal request of a key may take over: not told yet, or not before ``delivered_since``.

        None that ended as "again", none with an Idempotency-Key.
        """
        ...

    def unknown_jobs(self) -> Awaitable[tuple[JobRow, ...]]:
        """List the jobs whose outcome nobody knows and nobody has settled."""
        ...

    def resolve(self, job: JobId, outcome: Literal["paid", "free"], who: str) -> Awaitable[bool]:
        """Settle an unknown outcome by a person's word; False: there is none."""
        ...

    def set_limits(self, limits: Sequence[Limit]) -> Awaitable[None]:
        """Replace the limits of the whole service and of owners."""
        ...

    def standing(self, account: Account) -> Awaitable[tuple[Standing, ...]]:
        """Tell every limit that holds for an account, and what is used of it."""
        ...

    def usage(
        self, by: By, since_day: int, key: str | None = None, split: By | None = None
    ) -> Awaitable[tuple[Usage, ...]]:
        """Sum the ledger from a UTC day on, of one key or of all; ``split``: each name's sums by another one."""
        ...

    def ledger(
        self, *, before: int | None = None, limit: int = 100, key: str | None = None, job: JobId | None = None
    ) -> Awaitable[tuple[Entry, ...]]:
        """Read entries, the newest first; ``before``: an entry's id to go on from."""
        ...

    def prices(self) -> Awaitable[dict[str, int]]:
        """Return the costs last told, in nano-dollars, by ``price_name``."""
        ...

    def keys(self) -> Awaitable[KeySet]:
        """Read all keys."""
        ...

    def key_changes(self, key: str) -> Awaitable[tuple[KeyChange, ...]]:
        """Read what was done to a key, the oldest first."""
        ...

    def create_key(self, key: KeyRow, limits: Sequence[Limit], who: str) -> Awaitable[None]:
        """Keep a new key with its limits. Raises NameTaken."""
        ...

    def change_key(self, key: KeyRow, limits: Sequence[Limit] | None, who: str, change: str) -> Awaitable[bool]:
        """Replace a key's row, and its limits unless None; False: there is none. ``change``: JSON text, no secret.

        Raises NameTaken.
        """
        ...

    def forget_user(self, user: str) -> Awaitable[int]:
        """Remove an end user's name from all rows; returns how many entries had it."""
        ...

    def fingerprint_key(self) -> Awaitable[bytes]:
        """Return the secret of this state's fingerprints, 32 bytes, made once."""
        ...

    def sweep(self, *, result_ms: int, keep_ledger_days: int = 0, limit: int = 500) -> Awaitable[Swept]:
        """Remove generations that ended longer than ``result_ms`` ago, and sum up ledger entries older than so many
        days (0: keep them for ever)."""
        ...

    def everything(self) -> Awaitable[Everything]:
        """Return all rows, for the checker."""
        ...

    def backup(self, file: Path) -> Awaitable[None]:
        """Write a consistent copy while the service goes on."""
        ...
