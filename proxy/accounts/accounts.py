"""Accounts in operation: who a request is charged to, what holds for it, and what is refused before it costs anything.

The state alone decides, when a generation starts, and holds every limit exactly. What is refused earlier is only what
it would refuse as well.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.accounts.keys import ANYONE, Key, Keys
from proxy.accounts.refusals import over_limit
from proxy.accounts.users import EndUsers
from proxy.errors import ModelNotAllowed, NotFound
from proxy.state import operations
from proxy.state.money import Limit
from proxy.state.operations import State
from proxy.state.outcomes import OverLimit, Standing
from proxy.state.periods import day_of
from proxy.state.records import Account

_log = logging.getLogger("proxy")
Role = Literal["key", "admin", "metrics"]
_FRESH_S: Final = 1.0
_MOST_KEPT: Final = 10_000
_USERS_OF_DAYS: Final = 31


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. ``header_user``: the end user by Open WebUI's header."""

    key: Key = ANYONE
    role: Role = "key"
    header_user: str | None = field(default=None, repr=False)


NO_CALLER: Final = Caller()
COMMAND_LINE: Final = Key("command-line", "command-line")
"""Under whose name pictures made by ``images-proxy generate`` are counted."""


class Accounts:
    """The accounts of one process. ``limits``: of the whole service and of owners, as configured.

    ``monotonic``: seconds that never step. ``refused``: is told the scope of each limit that refuses something.
    """

    def __init__(
        self,
        keys: Keys,
        limits: tuple[Limit, ...],
        monotonic: Callable[[], float],
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.keys = keys
        self.users = EndUsers()
        self._limits = limits
        self._in_dollars = {limit.scope for limit in limits if limit.unit == "dollars"}
        self._limited = {limit.scope for limit in limits}
        self._monotonic = monotonic
        self._refused = refused
        self._state: State | None = None
        self._secret = b""
        self._with_room: dict[Account, float] = {}

    async def open(self, state: State, secret: bytes, *, serving: bool) -> None:
        """Read the keys. ``serving``: write the configured limits as well. Raises operations.StateUnavailable."""
        self._state, self._secret = state, secret
        if serving:
            await state.set_limits(self._limits)
        else:  # those that the service has written hold here too
            standing = await state.standing(Account())
            self._in_dollars = {each.limit.scope for each in standing if each.limit.unit == "dollars"}
            self._limited = {each.limit.scope for each in standing}
        await self.refresh()

    async def refresh(self) -> None:
        """Read the keys anew. Raises operations.StateUnavailable."""
        if self._state is None:
            return
        kept = await self._state.keys()
        if kept.revision != self.keys.revision:
            self.keys.offer(kept)
            self._with_room.clear()
        for key in self.keys:
            if key.count_by and not self.users.knows(key.id):
                since = day_of(self.keys.now) - _USERS_OF_DAYS
                self.users.load(key.id, (each.name for each in await self._state.usage("user", since, key.id)))

    def account(self, caller: Caller, user: str | None = None) -> Account:
        """Return who is charged. ``user``: OpenAI's parameter of this name, or the one that follows it."""
        key = caller.key
        if not key.count_by:
            return Account(key.id, key.name, key.owner)
        given = user if key.count_by == "user" else caller.header_user
        return Account(key.id, key.name, key.owner, self.users.name(key.id, given, self._secret, shown=key.show_users))

    def id_of(self, name: str) -> str:
        """Return the id of a key by its name or its id. Raises NotFound."""
        known: list[Key] = [*self.keys, COMMAND_LINE]
        for key in known:
            if name in (key.name, key.id):
                return key.id
        raise NotFound("There is no such key.")

    def in_dollars(self, caller: Caller) -> bool:
        """Whether a budget in dollars holds for a caller, so that prices must be known."""
        key = caller.key
        return key.in_dollars or "all" in self._in_dollars or f"owner:{key.owner}" in self._in_dollars

    def check_model(self, caller: Caller, *names: str) -> None:
        """Raise ModelNotAllowed unless a caller's key may use a model, which has these names, the usual one first."""
        if not any(map(caller.key.may_use, names)):
            raise ModelNotAllowed(f"The key '{caller.key.name}' may not use the model '{names[0][:100]}'.")

    async def overall(self) -> tuple[Standing, ...]:
        """Return the limits of the whole service and of owners, with what is used of them.

        Raises operations.StateUnavailable.
        """
        if self._state is None:
            return ()
        owners = sorted({scope.partition(":")[2] for scope in self._limited if scope.startswith("owner:")})
        found = list(await self._state.standing(Account()))
        for owner in owners:
            standing = await self._state.standing(Account(owner=owner))
            found += (each for each in standing if each.limit.scope.startswith("owner:"))
        return tuple(found)

    async def check_room(self, caller: Caller) -> None:
        """Raise SpendLimitReached when nothing is left for a caller, whatever it may ask for.

        What was seen a moment ago counts as room: the state looks again when a generation starts.
        """
        key = caller.key
        if self._state is None or not (key.limits or "all" in self._limited or f"owner:{key.owner}" in self._limited):
            return
        account = Account(key.id, key.name, key.owner)
        now = self._monotonic()
        if now - self._with_room.get(account, -_FRESH_S) < _FRESH_S:
            return
        try:
            found = await self._state.standing(account)
        except operations.StateUnavailable:  # whoever starts a generation is told
            return
        for standing in found:
            if standing.remaining <= 0:
                self._refused(standing.limit.scope)
                raise over_limit(_as_refusal(standing, self.keys.now), account)
        if len(self._with_room) >= _MOST_KEPT:
            self._with_room.clear()
        self._with_room[account] = now


def _as_refusal(standing: Standing, now: int) -> OverLimit:
    limit, used = standing.limit, standing.balance.used(standing.limit.unit)
    return OverLimit(limit.scope, limit.unit, limit.period, limit.allowed(now), used, standing.resets)
