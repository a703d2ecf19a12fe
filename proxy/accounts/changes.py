"""Making and changing keys: the same for the command line and for the routes of administration.

A secret is returned once and kept nowhere; what is kept of it is its digest and its last four characters.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.accounts.amounts import read_amount, read_limits, shown_moment
from proxy.accounts.given import key_digest
from proxy.accounts.keys import COUNT_BY
from proxy.errors import Failure, InvalidRequest, NameTaken, NotFound
from proxy.state import operations
from proxy.state.money import KeyRow, Limit, Unit
from proxy.state.operations import State

PREFIX: Final = "sk-ip-"
_NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_RESERVED: Final = frozenset({"command-line", "admin", "metrics"})
_MOST_MODELS, _LONGEST_MODEL, _LONGEST_NOTE = 200, 200, 2000
_MOST_AT_ONCE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits as people write them (``5/month``); None leaves those of that kind as they are."""

    dollars: Sequence[str] | None = None
    pictures: Sequence[str] | None = None
    user_dollars: Sequence[str] | None = None
    user_pictures: Sequence[str] | None = None

    def applied(self, limits: Sequence[Limit], key_id: str) -> tuple[Limit, ...]:
        """Return a key's limits with these in the place of the former ones; a raise stays. Raises ValueError."""
        groups: list[tuple[str, Unit, Sequence[str] | None]] = [
            (f"key:{key_id}", "dollars", self.dollars),
            (f"key:{key_id}", "pictures", self.pictures),
            (f"users:{key_id}", "dollars", self.user_dollars),
            (f"users:{key_id}", "pictures", self.user_pictures),
        ]
        found: list[Limit] = []
        for scope, unit, texts in groups:
            former = {limit.period: limit for limit in limits if (limit.scope, limit.unit) == (scope, unit)}
            if texts is None:
                found += former.values()
                continue
            read = read_limits(texts, (), scope) if unit == "dollars" else read_limits((), texts, scope)
            for limit in read:
                old = former.get(limit.period)
                found.append(limit if old is None else old._replace(amount=limit.amount))
        return tuple(found)


class KeyAdmin:
    """Makes and changes the keys of a state. ``taken``: whether a name belongs to a key of the environment.

    ``now``: Unix milliseconds. ``who`` is kept with each change.
    """

    def __init__(self, state: State, who: str, now: Callable[[], int], taken: Callable[[str], bool]) -> None:
        self._state = state
        self._who = who
        self._now = now
        self._taken = taken

    async def find(self, named: str) -> tuple[KeyRow, tuple[Limit, ...]]:
        """Return a key by its name, its id, its secret or its secret's digest in hexadecimal. Raises NotFound."""
        kept = await self._state.keys()
        digest = bytes.fromhex(named) if _DIGEST.match(named) else key_digest(named)
        for row in kept.keys:
            if named in (row.name, row.id) or row.digest == digest:
                own = tuple(limit for limit in kept.limits if limit.scope in (f"key:{row.id}", f"users:{row.id}"))
                return row, own
        raise NotFound("There is no such key.")

    async def create(self, name: str, budgets: Budgets, **fields: Any) -> tuple[KeyRow, tuple[Limit, ...], str]:
        """Make a key; returns it with its limits and its secret. ``fields``: of its row.

        Raises InvalidRequest, NameTaken.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        row = KeyRow(
            id=f"key_{secrets.token_hex(8)}",
            name=name,
            digest=key_digest(secret),
            tail=secret[-4:],
            owner="",
            created=self._now(),
        )
        row = _checked(row._replace(**fields))
        self._refuse_taken(name)
        limits = _applied(budgets, (), row.id)
        await self._named(self._state.create_key(row, limits, self._who), name)
        return row, limits, secret

    async def update(
        self, row: KeyRow, limits: tuple[Limit, ...], budgets: Budgets, told: Mapping[str, Any], **fields: Any
    ) -> tuple[KeyRow, tuple[Limit, ...]]:
        """Change a key; ``told``: what is kept of the change. Raises InvalidRequest, NameTaken, NotFound."""
        changed = _checked(row._replace(**fields))
        if changed.name != row.name:
            self._refuse_taken(changed.name)
        now_limits = _applied(budgets, limits, row.id)
        await self._write(changed, None if now_limits == limits else now_limits, told)
        return changed, now_limits

    async def rotate(self, row: KeyRow, grace_ms: int) -> tuple[KeyRow, str]:
        """Give a key a new secret; the old one is accepted for another ``grace_ms``. Raises NotFound."""
        secret = PREFIX + secrets.token_urlsafe(32)
        until = self._now() + grace_ms
        changed = row._replace(
            digest=key_digest(secret), tail=secret[-4:], old_digest=row.digest if grace_ms else None, old_until=until
        )
        await self._write(changed, None, {"rotated": True, "old_until": shown_moment(until)})
        return changed, secret

    async def disable(self, row: KeyRow, *, disabled: bool) -> KeyRow:
        """Disable a key, or enable it again. Raises NotFound."""
        changed = row._replace(disabled=self._now() if disabled else None)
        await self._write(changed, None, {"disabled": disabled})
        return changed

    async def delete(self, row: KeyRow) -> None:
        """Delete a key; what it has spent stays in the ledger. Raises NotFound."""
        await self._write(row._replace(deleted=self._now(), old_digest=None, old_until=None), (), {"deleted": True})

    async def raise_limits(
        self, row: KeyRow, limits: tuple[Limit, ...], amount: str, unit: Unit, until: int
    ) -> tuple[Limit, ...]:
        """Add to each of a key's limits in ``unit`` until a moment. Raises InvalidRequest, NotFound."""
        try:
            extra = read_amount(amount, unit)
        except (ValueError, ArithmeticError):
            raise InvalidRequest(f"'{amount[:40]}' is no amount.", param="amount") from None
        if until <= self._now():
            raise InvalidRequest("The raise would be over already.", param="until")
        raised = tuple(
            limit._replace(extra=extra, extra_until=until)
            if (limit.scope, limit.unit) == (f"key:{row.id}", unit)
            else limit
            for limit in limits
        )
        if raised == limits:
            raise InvalidRequest(f"The key '{row.name}' has no limit in {unit} to raise.")
        await self._write(row, raised, {"raised": amount, "unit": unit, "until": shown_moment(until)})
        return raised

    async def _write(self, row: KeyRow, limits: Sequence[Limit] | None, told: Mapping[str, Any]) -> None:
        changing = self._state.change_key(row, limits, self._who, json.dumps(told))
        if not await self._named(changing, row.name):
            raise NotFound("There is no such key.")

    async def _named(self, writing: Any, name: str) -> Any:
        try:
            return await writing
        except operations.NameTaken:
            raise _name_taken(name) from None

    def _refuse_taken(self, name: str) -> None:
        if self._taken(name):
            raise _name_taken(name)


def _name_taken(name: str) -> Failure:
    return NameTaken(f"There is a key named '{name}' already.")


def _applied(budgets: Budgets, limits: Sequence[Limit], key_id: str) -> tuple[Limit, ...]:
    try:
        return budgets.applied(limits, key_id)
    except ValueError as error:
        raise InvalidRequest(f"{str(error)[:1].upper()}{str(error)[1:]}.", param="budget") from None


def models_text(models: Sequence[str]) -> str:
    """Return the models that a key may use as its row keeps them; none means all. Raises InvalidRequest."""
    if len(models) > _MOST_MODELS or any(not 0 < len(model) <= _LONGEST_MODEL for model in models):
        raise InvalidRequest(
            f"At most {_MOST_MODELS} models, each of 1 to {_LONGEST_MODEL} characters.", param="models"
        )
    return json.dumps(list(models)) if models else ""


def _checked(row: KeyRow) -> KeyRow:
    """Return a key's row if it can be kept. Raises InvalidRequest."""
    if not _NAME.match(row.name) or row.name.startswith("sk-") or _DIGEST.match(row.name):
        message = "A key's name has 1 to 64 printable characters and doesn't look like a key itself."
        raise InvalidRequest(message, param="name")
    if row.name in _RESERVED:
        raise InvalidRequest(f"The name '{row.name}' has a meaning of its own.", param="name")
    if row.owner and not _NAME.match(row.owner):
        raise InvalidRequest("An owner's name has 1 to 64 printable characters.", param="owner")
    for param in ("per_minute", "at_once", "user_per_minute", "user_at_once"):
        number = getattr(row, param)
        if not 0 <= number <= _MOST_AT_ONCE:
            raise InvalidRequest(f"'{param}' must be between 0 (any number) and {_MOST_AT_ONCE}.", param=param)
    if row.count_by and row.count_by not in COUNT_BY:
        raise InvalidRequest(f"'count_by' must be {' or '.join(COUNT_BY)}.", param="count_by")
    if len(row.note) > _LONGEST_NOTE:
        raise InvalidRequest(f"Metadata must have at most {_LONGEST_NOTE} characters.", param="metadata")
    return row
