"""Who repeats whom: finds the generation that a request repeats, by lookup and without a search.

A repeat carries an Idempotency-Key, or the SDKs' retry counter, or nothing at all (bare). What it gets depends on the
state of the generation (docs/reliability.md, "Who repeats whom"):

==========================  ==========  ===============================================  ==================
the generation               by key      by counter                                       bare
==========================  ==========  ===============================================  ==================
free: nobody waits for it    joins       takes over                                       takes over
waited for                   joins       joins beside the waiter, if its counter is        starts anew
                                         lower and nothing else is there to take over
delivered                    joins       takes over, if its counter is lower, for 10 s     starts anew
again: failed, repeatable    anew        anew                                             anew
==========================  ==========  ===============================================  ==================

A generation that is free or delivered may be running or have ended, with pictures or with a failure: whoever joins it
gets that same end. After an end of "again" everything that was bought is kept for the repeat.
"""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, Literal, TypeVar

from proxy.clock import Clock
from proxy.errors import IdempotencyKeyReused
from proxy.generations.record import Generation, Sign

RECLAIMABLE_S = 10.0
"""Seconds for which a counted repeat may take over what was delivered: an answer that was written may not have arrived.

OpenAI's SDKs wait at most 8 s before a repeat:
https://github.com/openai/openai-python/blob/main/src/openai/_constants.py
"""

KEY_REUSED: Final = "This Idempotency-Key was used with another body."
Standing = Literal["free", "waited", "delivered"]
T = TypeVar("T")


def standing(generation: Generation) -> Standing | None:
    """Return what a generation is to repeats without a key; None if they can never get it."""
    if generation.key is not None or generation.end == "again":
        return None
    if generation.waiters or generation.waited_elsewhere:
        return "waited"
    return "free" if generation.delivered_at is None else "delivered"


class _Equals:
    """The generations of one fingerprint, filed by standing and counter, first come first served within each."""

    __slots__ = ("shelves",)

    def __init__(self) -> None:
        # A dict as an ordered set: takes from the front and from anywhere without a search.
        self.shelves: dict[tuple[Standing, int], dict[str, Generation]] = {}

    def add(self, place: tuple[Standing, int], generation: Generation) -> None:
        self.shelves.setdefault(place, {})[generation.id] = generation

    def remove(self, place: tuple[Standing, int], generation: Generation) -> None:
        shelf = self.shelves[place]
        del shelf[generation.id]
        if not shelf:
            del self.shelves[place]

    def first(self, kind: Standing, attempt: int) -> Generation | None:
        return next(iter(self.shelves.get((kind, attempt), {}).values()), None)

    def attempts(self, kind: Standing) -> list[int]:
        return sorted((attempt for each, attempt in self.shelves if each == kind), reverse=True)


class Registry:
    """All generations that are remembered. Knows neither tasks nor connections."""

    def __init__(self, clock: Clock, *, result_s: float) -> None:
        self._clock = clock
        self._result_s = result_s
        self._by_id: dict[str, Generation] = {}
        self._by_key: dict[tuple[str, str], Generation] = {}
        self._equals: dict[bytes, _Equals] = {}
        self._places: dict[str, tuple[bytes, tuple[Standing, int]]] = {}
        self._ended: deque[Generation] = deque()
        self._open_of: Counter[str] = Counter()
        self._given_of: Counter[tuple[str, Standing]] = Counter()

    def __iter__(self) -> Iterator[Generation]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, generation: Generation) -> bool:
        return generation.id in self._by_id

    def open_of(self, owner: str) -> int:
        """Return how many generations of one owner have not ended."""
        return self._open_of[owner]

    def get(self, generation_id: str) -> Generation | None:
        """Return the generation with this id."""
        return self._by_id.get(generation_id)

    def equals(self, fingerprint: bytes) -> list[Generation]:
        """Return what repeats without a key may get of this fingerprint, in no order."""
        equals = self._equals.get(fingerprint)
        return [] if equals is None else [each for shelf in equals.shelves.values() for each in shelf.values()]

    def repeated(
        self, fingerprint: bytes, owner: str, *, key: str | None, attempt: int
    ) -> tuple[Generation, Sign] | tuple[None, None]:
        """Return the generation that a request repeats and how the repeat was recognised, or None twice if it is new.

        ``attempt``: the retry counter, 0 for none. Raises IdempotencyKeyReused.
        """
        if key is not None:
            # A key alone decides: looking further would make two requests with different keys one generation.
            known = self._by_key.get((owner, key))
            if known is None:
                return None, None
            # https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ asks for a 422.
            if known.fingerprint != fingerprint:
                raise IdempotencyKeyReused(KEY_REUSED)
            return known, "key"
        equals = self._equals.get(fingerprint)
        if equals is None:
            return None, None
        if not attempt:
            # Only what nobody waits for: equal calls side by side are different calls (docs/design.md).
            free = (equals.first("free", each) for each in equals.attempts("free"))
            found = min(
                (generation for generation in free if generation),
                key=lambda generation: generation.number,
                default=None,
            )
            return (found, "orphan") if found else (None, None)
        counted = self._counted(equals, attempt)
        return (counted, "retry") if counted else (None, None)

    def may_repeat(self, owner: str, *, key: str | None, attempt: int) -> bool:
        """Whether a request of ``owner`` may turn out to repeat one that is here, and so cost no new job."""
        # Asked before the body has been read, so there is no fingerprint yet: an owner's counts must do.
        if key is not None:
            return (owner, key) in self._by_key
        kinds: tuple[Standing, ...] = ("free", "waited", "delivered") if attempt else ("free",)
        return any(self._given_of[owner, kind] for kind in kinds)

    def add(self, generation: Generation) -> None:
        """Remember a new generation, by its key too if it has one."""
        self._by_id[generation.id] = generation
        self._open_of[generation.owner] += 1
        if generation.key is not None:
            self._by_key[generation.owner, generation.key] = generation
        self.refile(generation)

    def refile(self, generation: Generation) -> None:
        """File a generation anew, after anything about it has changed."""
        fingerprint, kind = generation.fingerprint, standing(generation)
        place = (kind, generation.attempt) if kind and generation.id in self._by_id else None
        if place is not None and self._places.get(generation.id) == (fingerprint, place):
            return  # it keeps its turn
        self._unfile(generation)
        if place is None or kind is None:
            return
        self._equals.setdefault(fingerprint, _Equals()).add(place, generation)
        self._places[generation.id] = fingerprint, place
        self._given_of[generation.owner, kind] += 1

    def rename(self, generation: Generation, generation_id: str) -> None:
        """Know a generation by the id of the one that it turned out to be."""
        self._unfile(generation)
        self._by_id.pop(generation.id, None)
        generation.id = generation_id
        self._by_id[generation_id] = generation
        self.refile(generation)

    def ended(self, generation: Generation) -> None:
        """Note that a generation has ended; it is remembered for another ``result_s`` seconds."""
        _count_out(self._open_of, generation.owner)
        if generation.id in self._by_id:  # not if it was abandoned: that ends a generation already forgotten
            self._ended.append(generation)
        if generation.end == "again":
            self._forget_key(generation)
        self.refile(generation)

    def forget(self, generation: Generation) -> None:
        """Forget a generation."""
        self._by_id.pop(generation.id, None)
        self._unfile(generation)
        self._forget_key(generation)

    def outdated(self) -> Iterator[Generation]:
        """Forget what ended longer than ``result_s`` ago, and yield it."""
        oldest = self._clock.monotonic() - self._result_s
        # Generations are appended as they end, so the deque is sorted and the first young one stops the loop.
        while self._ended and (self._ended[0].ended_at or 0.0) <= oldest:
            generation = self._ended.popleft()
            self.forget(generation)
            yield generation

    def _counted(self, equals: _Equals, attempt: int) -> Generation | None:
        """Return the generation for a counted repeat: the one with the highest counter below the repeat's own.

        A repeat with the counter 2 that took a generation with 0 would leave only one with 1 for that caller's own
        first repeat, which carries a 1 and may not take it.
        """
        for each in equals.attempts("delivered"):
            self._drop_outdated(equals, each)
        lower = sorted({each for _, each in equals.shelves if each < attempt}, reverse=True)
        kinds: tuple[Standing, ...] = ("free", "delivered")
        found = next((generation for each in lower for kind in kinds if (generation := equals.first(kind, each))), None)
        # A free one with the same or a higher counter is still better than a new job: nobody else waits for it.
        if found is None and (free := equals.attempts("free")):
            found = equals.first("free", free[0])
        if found is None:
            # Its waiter may be this caller's first connection, whose end has not been noticed yet.
            found = next((generation for each in lower if (generation := equals.first("waited", each))), None)
        return found

    def _drop_outdated(self, equals: _Equals, attempt: int) -> None:
        """Unfile what was delivered too long ago to be taken over."""
        oldest = self._clock.monotonic() - RECLAIMABLE_S
        while (generation := equals.first("delivered", attempt)) and (generation.delivered_at or 0.0) <= oldest:
            self._unfile(generation)

    def _unfile(self, generation: Generation) -> None:
        fingerprint, place = self._places.pop(generation.id, (b"", None))
        if place is None:
            return
        equals = self._equals[fingerprint]
        equals.remove(place, generation)
        if not equals.shelves:
            del self._equals[fingerprint]
        _count_out(self._given_of, (generation.owner, place[0]))

    def _forget_key(self, generation: Generation) -> None:
        # After an end of "again" the key may have gone to a newer generation, which must keep it.
        if generation.key is not None and self._by_key.get((generation.owner, generation.key)) is generation:
            del self._by_key[generation.owner, generation.key]


def _count_out(counter: Counter[T], name: T) -> None:
    # A Counter keeps names at zero, and so every owner ever seen.
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
