"""The keys of the state and of the environment as the running service knows them: found by their digests."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from proxy.accounts.given import GivenKeys
from proxy.state.money import KeyRow, Limit
from proxy.state.outcomes import KeySet, Pace

CountBy = Literal["", "user", "x-openwebui-user-id"]
"""How a key tells the end users behind it apart: not at all, by OpenAI's parameter, or by Open WebUI's header."""
COUNT_BY: Final[tuple[CountBy, ...]] = ("user", "x-openwebui-user-id")


@dataclass(frozen=True, slots=True)
class Key:
    """A key, as far as requests depend on it. ``id`` is empty for callers without one.

    ``expires``: Unix milliseconds. ``models``: names and wildcards, empty for all. ``per_minute``, ``at_once``: 0 for
    any number; ``user_per_minute``, ``user_at_once``: of each end user. ``limits``: of the key (scope ``key:ID``) and
    of each end user (``users:ID``).
    """

    id: str = ""
    name: str = ""
    owner: str = ""
    expires: int | None = None
    disabled: bool = False
    models: tuple[str, ...] = ()
    per_minute: int = 0
    at_once: int = 0
    count_by: CountBy = ""
    show_users: bool = False
    limits: tuple[Limit, ...] = ()
    user_per_minute: int = 0
    user_at_once: int = 0

    def may_use(self, model: str) -> bool:
        """Whether it may use a model of this name."""
        return not self.models or any(_pattern(each).match(model) for each in self.models)

    def pace(self, user: str) -> tuple[Pace, ...]:
        """Return how many generations it, and an end user behind it (empty: none is told apart), may start."""
        paces = []
        if self.per_minute or self.at_once:
            paces.append(Pace(f"key:{self.id}", self.per_minute, self.at_once))
        if user and (self.user_per_minute or self.user_at_once):
            paces.append(Pace(f"user:{self.id}:{user}", self.user_per_minute, self.user_at_once))
        return tuple(paces)

    @property
    def in_dollars(self) -> bool:
        """Whether it, or each end user behind it, has a budget in dollars."""
        return any(limit.unit == "dollars" for limit in self.limits)


ANYONE: Final = Key()
"""Who calls a service that asks for no key."""


class Keys:
    """All keys by digest. ``given``: those of the environment. ``wall``: Unix time in seconds.

    ``reopened``: a service that has had keys, and has none any more, is open to anyone all the same.
    """

    def __init__(self, given: GivenKeys, wall: Callable[[], float], *, reopened: bool = False) -> None:
        self.given = given
        self._wall = wall
        self._reopened = reopened
        self._given = {digest: _given_key(digest, name) for digest, name in given.callers.items()}
        self._kept: dict[bytes, Key] = {}
        self._old: dict[bytes, tuple[int, Key]] = {}
        self._ever = False
        self.revision = -1

    def offer(self, kept: KeySet) -> None:
        """Know the keys of the state as they are now."""
        limits: dict[str, list[Limit]] = {}
        for limit in kept.limits:
            limits.setdefault(limit.scope.partition(":")[2], []).append(limit)
        self._kept, self._old = {}, {}
        for row in kept.keys:
            key = _kept_key(row, limits.get(row.id, ()))
            self._kept[row.digest] = key
            if row.old_digest is not None and row.old_until is not None:
                self._old[row.old_digest] = (row.old_until, key)
        self._ever = kept.ever
        self.revision = kept.revision

    @property
    def asked(self) -> bool:
        """Whether callers need a key: as soon as there is one, and even after the last one was deleted."""
        return self.given.ask or bool(self._kept) or (self._ever and not self._reopened)

    def find(self, digest: bytes) -> Key | None:
        """Return the key with this digest, expired and disabled ones too."""
        key = self._kept.get(digest) or self._given.get(digest)
        if key is None and digest in self._old:
            until, rotated = self._old[digest]
            return rotated if self.now < until else None
        return key

    def over(self, key: Key) -> bool:
        """Whether a key has expired."""
        return key.expires is not None and self.now >= key.expires

    @property
    def now(self) -> int:
        """Unix milliseconds."""
        return int(self._wall() * 1000)

    def __iter__(self) -> Iterator[Key]:
        return iter((*self._given.values(), *self._kept.values()))

    def named(self, name: str) -> bool:
        """Whether a key of the environment has this name, which the state can't know."""
        return any(key.name == name for key in self._given.values())


def _given_key(digest: bytes, name: str) -> Key:
    key_id = digest.hex()[:16]
    return Key(key_id, name or key_id)


def _kept_key(row: KeyRow, limits: Iterable[Limit]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        owner=row.owner,
        expires=row.expires,
        disabled=row.disabled is not None,
        models=models_of(row),
        per_minute=row.per_minute,
        at_once=row.at_once,
        count_by=next((each for each in COUNT_BY if each == row.count_by), ""),
        show_users=bool(row.show_users),
        limits=tuple(limits),
        user_per_minute=row.user_per_minute,
        user_at_once=row.user_at_once,
    )


def models_of(row: KeyRow) -> tuple[str, ...]:
    """Return the models that a key may use, empty for all."""
    return tuple(json.loads(row.models)) if row.models else ()


@lru_cache(maxsize=1024)
def _pattern(name: str) -> re.Pattern[str]:
    """Return what matches a name with wildcards; only ``*`` is one, since names hold brackets."""
    return re.compile(".*".join(map(re.escape, name.split("*"))) + r"\Z", re.DOTALL)
