"""Repeats where several replicas share the state: the same rules, for the generations of all of them.

What this process knows itself is newer than the rows, since its marks are written a moment later. What others have is
in the rows alone: a generation's ``waiter`` is the replica at which somebody waits for it, and counts as long as that
replica lives. Taking over is a compare-and-set on ``claim``, so that of two repeats one gets it.
"""

from typing import Final, NamedTuple

from proxy.clock import Clock
from proxy.errors import IdempotencyKeyReused
from proxy.generations.journal import Journal
from proxy.generations.record import Generation, Sign
from proxy.generations.registry import KEY_REUSED, RECLAIMABLE_S, Registry
from proxy.generations.tasks import Tasks
from proxy.requests.resolve import ResolvedRequest
from proxy.state import records
from proxy.state.operations import StateUnavailable

_TRIES: Final = 10
"""Others were quicker so often."""
_WRONG: Final = -1
"""The claim of a generation whose rows say something else, so that they are believed."""


class Repeated(NamedTuple):
    """The generation that a request repeats. ``found``: its rows, None where this process needs none."""

    generation: Generation
    how: Sign
    found: records.Generation | None = None


class SharedRepeats:
    """Finds what a request repeats, here or at another replica.

    ``registry``, ``tasks``: what this process knows itself, and what it works on.
    """

    def __init__(self, journal: Journal, registry: Registry, clock: Clock, tasks: Tasks) -> None:
        self._journal = journal
        self._registry = registry
        self._clock = clock
        self._tasks = tasks
        self._started = clock.monotonic()
        self._holder = ""

    async def take(self, resolved: ResolvedRequest, key: str | None, attempt: int) -> Repeated | None:
        """Return what a request repeats, taken over for it. None: it is new, as of this very turn of the event loop.

        Raises IdempotencyKeyReused, StateUnavailable of proxy.state.operations.
        """
        if key is not None:
            return await self._by_key(resolved, key)
        for _ in range(_TRIES):
            repeated = await self._look(resolved, attempt)
            if repeated is None:
                return None
            generation = repeated.generation
            await generation.written.wait()
            state, holder = self._journal.state, self._journal.holder
            claim = await state.claim(generation.id, generation.claim, attempt, holder)
            if claim is not None:
                # Another request of this process may have met it meanwhile.
                generation = self._registry.get(generation.id) or generation
                generation.claim, generation.attempt, generation.delivered_at = claim, attempt, None
                generation.waited_elsewhere = False
                return repeated._replace(generation=generation)
            generation.claim = _WRONG
        return None

    async def knows(self, resolved: ResolvedRequest, key: str | None, attempt: int) -> bool:
        """Return whether ``take`` would find a generation. Raises as ``take``."""
        if key is None:
            return await self._look(resolved, attempt) is not None
        found = await self._journal.state.by_idempotency_key(resolved.checked.owner, key)
        if found is not None and found.row.fingerprint != resolved.fingerprint:
            raise IdempotencyKeyReused(KEY_REUSED)
        return found is not None and found.row.ended_as != "again"

    async def _look(self, resolved: ResolvedRequest, attempt: int) -> Repeated | None:
        """Return what a request without a key repeats. Raises StateUnavailable of proxy.state.operations."""
        fingerprint, owner = resolved.fingerprint, resolved.checked.owner
        written = {each.id for each in self._registry.equals(fingerprint) if each.written.is_set()}
        rows = await self._journal.state.repeatable(owner, fingerprint, self._told_since() if attempt else None)
        by_id = {found.row.id: found for found in rows}
        everywhere = Registry(self._clock, result_s=float("inf"))
        for found in rows:
            if (known := self._known(found)) is not None:
                everywhere.add(known)
        for own in self._registry.equals(fingerprint):
            # What was written before the rows were read, and isn't among them, nobody can take over any more.
            if own.id not in by_id and own.id not in written:
                everywhere.add(own)
        generation, how = everywhere.repeated(fingerprint, owner, key=None, attempt=attempt)
        return Repeated(generation, how, by_id.get(generation.id)) if generation is not None and how else None

    async def find(self, generation_id: str) -> Generation | None:
        """Return a generation by its id; None if its caller has given it up, at whichever replica."""
        here = self._registry.get(generation_id)
        try:
            if here is not None:
                return here if await self._still_there(here) else None
            found = await self._journal.state.generation(generation_id)
        except StateUnavailable:
            return here
        if found is None or found.row.fingerprint is None:
            return None
        return self._registry.get(generation_id) or self._tasks.restore(found)

    async def look_after(self) -> None:
        """Read what others have done with the generations that run here.

        Some are waited for at another replica alone. If this process has got a new name since it last looked, others
        have taken it for dead and may follow its jobs now. Raises StateUnavailable of proxy.state.operations.
        """
        holder = self._journal.holder
        renamed, self._holder = self._holder not in ("", holder), holder
        for generation in tuple(self._tasks.running.values()):
            unattended = not generation.waiters and not generation.submitted
            if generation.mirrored or not generation.written.is_set() or not (renamed or unattended):
                continue
            found = await self._journal.state.generation(generation.id)
            if generation.done:
                continue
            if found is None:  # its caller has given it up at another replica
                self._tasks.abandon(generation)
                continue
            self._note_rows(generation, found)
            if any(job.state == "accepted" and job.holder != holder for job in found.jobs):
                self._tasks.mirror(generation, found)

    async def _still_there(self, generation: Generation) -> bool:
        """Return whether a generation has not been given up by its caller, wherever that was.

        Raises StateUnavailable of proxy.state.operations.
        """
        if not generation.written.is_set():
            await generation.written.wait()
        return generation not in self._registry or await self._journal.state.generation(generation.id) is not None

    def _note_rows(self, generation: Generation, found: records.Generation) -> None:
        """Take from its rows what others have done with a generation."""
        row = found.row
        if row.claim > generation.claim:
            generation.claim, generation.attempt, generation.delivered_at = row.claim, row.attempt, None
        if row.claim == generation.claim and row.delivered is not None and generation.delivered_at is None:
            generation.delivered_at = self._clock.monotonic()
        elsewhere = found.waited_for and row.waiter != self._journal.holder
        if generation.waited_elsewhere and not elsewhere:
            generation.unattended_at = self._clock.monotonic()
        generation.waited_elsewhere = elsewhere
        self._registry.refile(generation)

    async def _by_key(self, resolved: ResolvedRequest, key: str) -> Repeated | None:
        """Find a key here; what it stands for at another replica comes to light when it is to be started."""
        fingerprint, owner = resolved.fingerprint, resolved.checked.owner
        while True:
            known, how = self._registry.repeated(fingerprint, owner, key=key, attempt=0)
            if known is None or how is None:
                return None
            there = await self._still_there(known)
            if known is not self._registry.repeated(fingerprint, owner, key=key, attempt=0)[0]:
                continue
            if there:
                return Repeated(known, how)
            self._registry.forget(known)

    def _known(self, found: records.Generation) -> Generation | None:
        own = self._registry.get(found.row.id)
        if own is None:
            generation = self._tasks.read(found)
            if generation is None:
                return None
            generation.waited_elsewhere = found.waited_for and found.row.waiter != self._journal.holder
            return generation
        self._note_rows(own, found)
        return own

    def _told_since(self) -> int:
        """Return the moment since which what was told may be taken over: no time counts in which nobody was there."""
        running_s = self._clock.monotonic() - self._started
        return int((self._clock.wall() - RECLAIMABLE_S) * 1000) if running_s > RECLAIMABLE_S else 0
