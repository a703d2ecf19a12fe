"""Runs generations in tasks of their own: they outlive the requests that wait for them.

The HTTP surface and the command line both come through here. A generation is written into the state before anything is
sent for it, so it outlives the process too (docs/reliability.md).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from proxy.clock import Clock, Deadline
from proxy.errors import Overloaded
from proxy.generations.journal import Journal
from proxy.generations.record import Generation, Joined, Sign
from proxy.generations.registry import Registry
from proxy.generations.results import Picture
from proxy.generations.shared import SharedRepeats
from proxy.generations.tasks import Tasks
from proxy.generations.work import Making, Work
from proxy.jobs.steps import Progress
from proxy.requests.resolve import ResolvedRequest
from proxy.state.operations import StateUnavailable
from proxy.state.records import generation_id


class Generations:
    """All generations of this process: those that run and those that ended less than ``result_s`` seconds ago.

    ``kinds``: each provider's dialect. ``pin`` and ``release`` begin and end the time in which a picture must stay.
    """

    def __init__(
        self,
        making: Making,
        journal: Journal,
        clock: Clock,
        *,
        hold_s: float,
        result_s: float,
        kinds: Mapping[str, str],
        pin: Callable[[Picture], None] = lambda _: None,
        release: Callable[[Picture], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._hold_s = hold_s
        self._pin = pin
        self._release = release
        self._registry = Registry(clock, result_s=result_s)
        self._work = Work(making, journal, self._registry, clock, kinds)
        self._tasks = Tasks(self._work, journal, self._registry, clock, pin, release)
        self._repeats = SharedRepeats(journal, self._registry, clock, self._tasks)
        self.draining = False

    def __iter__(self) -> Iterator[Generation]:
        return iter(self._registry)

    def running_of(self, owner: str) -> int:
        """How many generations of one owner have not ended."""
        return self._registry.open_of(owner)

    @property
    def running(self) -> int:
        """How many generations have not ended, whether anybody waits for them or not."""
        return len(self._tasks.running)

    @property
    def resumable(self) -> bool:
        """Whether another process could carry on with all that runs."""
        return all(
            progress.resumable for generation in self._tasks.running.values() for progress in generation.progress
        )

    @property
    def uncollected(self) -> int:
        """How many generations were handed over, have ended, and have not been asked for since."""
        return len(self._tasks.uncollected)

    async def open(self) -> int:
        """Register this process, adopt the jobs that an earlier one left, and remember what repeats may ask for.

        Returns how many jobs are carried on with. Raises proxy.state.operations.StateUnavailable.
        """
        await self._journal.register()
        self._journal.state.on_ended(self._work.told_ended)
        carried_on = await self.recover()
        for found in await self._journal.state.remembered():
            if self._registry.get(found.row.id) is None:
                self._tasks.restore(found)
        return carried_on

    async def recover(self) -> int:
        """Carry on with the jobs that nobody follows; returns how many. Raises operations.StateUnavailable."""
        return await self._tasks.recover()

    async def beat(self) -> None:
        """Tell that this process lives, and carry on with jobs that nobody follows. Raises StateUnavailable of
        proxy.state.operations."""
        await self._journal.beat()
        await self.recover()
        if self._journal.shared:
            await self._repeats.look_after()

    def knows(self, resolved: ResolvedRequest, *, key: str | None, attempt: int) -> bool:
        """Whether ``join`` would find a generation that such a request repeats. Raises IdempotencyKeyReused."""
        generation, _ = self._registry.repeated(resolved.fingerprint, resolved.checked.owner, key=key, attempt=attempt)
        return generation is not None

    async def knows_shared(self, resolved: ResolvedRequest, *, key: str | None, attempt: int) -> bool:
        """Whether ``join_shared`` would find one, here or at another replica. Raises IdempotencyKeyReused."""
        if self._journal.shared:
            with contextlib.suppress(StateUnavailable):
                return await self._repeats.knows(resolved, key, attempt)
        return self.knows(resolved, key=key, attempt=attempt)

    def join(
        self,
        resolved: ResolvedRequest,
        *,
        key: str | None = None,
        attempt: int = 0,
        may_start: Callable[[], None] = lambda: None,
    ) -> Joined:
        """Return the generation to wait for: the one that ``resolved`` repeats, or a new one.

        ``key``: the request's Idempotency-Key. ``attempt``: the SDK's retry counter, 0 for a first call.
        ``may_start`` is called before a new generation starts; it raises a Failure to refuse that.
        Raises IdempotencyKeyReused, Overloaded while draining.
        """
        # No await from here on: between the lookup and the start another request must not slip in.
        self.sweep()
        known, how = self._registry.repeated(resolved.fingerprint, resolved.checked.owner, key=key, attempt=attempt)
        if known is None or how is None:
            return self._begin(resolved, key, attempt, may_start)
        # Only these take a generation over; by one key any number of callers may wait side by side.
        if how != "key":
            self._claim(known, attempt)
        return self.attend(known, how)

    async def join_shared(
        self,
        resolved: ResolvedRequest,
        *,
        key: str | None = None,
        attempt: int = 0,
        may_start: Callable[[], None] = lambda: None,
        has_left: Callable[[], bool] | None = None,
    ) -> Joined:
        """Return the generation to wait for, as ``join``; it may be another replica's.

        ``has_left``: whether the caller has hung up, even if nobody has read that yet: then it may repeat its call at
        another replica, so nothing is sent. Raises as ``join``.
        """
        if not self._journal.shared:
            return self.join(resolved, key=key, attempt=attempt, may_start=may_start)
        self.sweep()
        try:
            repeated = await self._repeats.take(resolved, key, attempt)
        except StateUnavailable:  # nothing can be started now; what is here can be had
            return self.join(resolved, key=key, attempt=attempt, may_start=may_start)
        if repeated is None:
            return self._begin(resolved, key, attempt, may_start, has_left)
        generation = repeated.generation
        if generation not in self._registry and repeated.found is not None:
            self._tasks.remember(generation, repeated.found)
        return self.attend(generation, repeated.how)

    def leave(self, joined: Joined, *, delivered: bool) -> None:
        """Note that a request no longer waits; ``delivered``: it was given the generation's end."""
        generation = joined.generation
        generation.waiters -= 1
        if not generation.waiters:
            generation.unattended_at = self._clock.monotonic()
            if not delivered and self._journal.shared:  # a repeat may come to another replica
                claim = generation.claim
                self._journal.soon(lambda: self._journal.state.leave(generation.id, claim))
        # Once a repeat has taken over, the first caller's answer counts for nothing: it went to a dead connection.
        if delivered and joined.claim == generation.claim:
            self.deliver(generation)
        else:
            self._registry.refile(generation)

    def attend(self, generation: Generation, how: Sign | None = None) -> Joined:
        """Wait for a generation beside whoever else does; ``leave`` ends that."""
        generation.waiters += 1
        self._registry.refile(generation)
        return Joined(generation, how, generation.claim)

    def hand_over(self, generation: Generation) -> None:
        """Note that a caller was given the generation's address: from now on it belongs to whoever has that."""
        self.deliver(generation)
        generation.handed_over = True
        self._tasks.expect_collection(generation)

    def deliver(self, generation: Generation) -> None:
        """Note that the generation's end, or its address, was sent to the caller."""
        generation.delivered_at = self._clock.monotonic()
        if generation.end != "again":  # that one is asked for anew, whatever was told of it
            claim = generation.claim
            self._journal.soon(lambda: self._journal.state.deliver(generation.id, claim))
        if generation.done:
            self._tasks.uncollected.discard(generation.id)
            for picture in generation.pictures:
                self._release(picture)
        self._registry.refile(generation)

    def lose(self, joined: Joined) -> None:
        """Note that an answer did not arrive: a repeat may take the generation over."""
        generation = joined.generation
        if joined.claim == generation.claim:
            self._claim(generation, generation.attempt, waited_for=bool(generation.waiters))
            for picture in generation.pictures:
                self._pin(picture)
            self._tasks.expect_collection(generation)
            self._registry.refile(generation)

    async def find(self, generation_id: str, owner: str) -> Generation | None:
        """Return the generation with this id if it is ``owner``'s, whichever replica follows it."""
        self.sweep()
        generation = self._registry.get(generation_id)
        if self._journal.shared:
            generation = await self._repeats.find(generation_id)
        return generation if generation is not None and generation.owner == owner else None

    async def abandon(self, generation: Generation) -> None:
        """Stop following a generation's jobs, and let nobody find it any more. It unbuys nothing."""
        self._tasks.abandon(generation)
        await self._journal.surely(lambda: self._journal.state.hide(generation.id))

    def expects(self, owner: str, *, key: str | None, attempt: int) -> bool:
        """Whether a request of ``owner`` may turn out to repeat one that is here, and so cost no new job.

        Where others share the state, whatever says that it is a repeat may be one of theirs.
        """
        if self._journal.shared and (key is not None or attempt):
            return True
        return self._registry.may_repeat(owner, key=key, attempt=attempt)

    def sweep(self) -> None:
        """Forget what ended more than ``result_s`` seconds ago."""
        for generation in self._registry.outdated():
            self._tasks.release_pictures_of(generation)

    async def close(self) -> None:
        """Cancel everything that runs, and leave it to the next process as it stands in the state."""
        await self._tasks.close()

    # --- starting, and carrying on -----------------------------------------------------------------------------

    def _begin(
        self,
        resolved: ResolvedRequest,
        key: str | None,
        attempt: int,
        may_start: Callable[[], None],
        has_left: Callable[[], bool] | None = None,
    ) -> Joined:
        # After the lookup: even while draining a repeat gets what was made for it.
        if self.draining:
            raise Overloaded("This service is shutting down.", retry_after=2.0)
        may_start()
        generation = self._start(resolved, key, attempt)
        generation.has_left = has_left
        return Joined(generation)

    def _start(self, resolved: ResolvedRequest, key: str | None, attempt: int) -> Generation:
        chosen = resolved.candidates[0].translation.seed
        wall = self._clock.wall()
        generation = Generation(
            id=generation_id(int(wall * 1000)),
            number=next(self._tasks.numbers),
            request=resolved.summary(),
            fingerprint=resolved.fingerprint,
            account=resolved.checked.account,
            seed=chosen if chosen is not None else self._clock.random.randrange(2**31),
            hold=Deadline.after(self._clock, self._hold_s),
            created=int(wall),
            key=key,
            waiters=1,
            attempt=attempt,
        )
        generation.progress = [
            Progress(generation.changed, lambda: self._tasks.wanted(generation)) for _ in range(generation.request.n)
        ]
        self._registry.add(generation)
        self._tasks.run(generation, lambda: self._work.make(generation, resolved))
        return generation

    def _claim(self, generation: Generation, attempt: int, *, waited_for: bool = True) -> None:
        """Take a generation over for a repeat, or for nobody when its answer was lost."""
        seen, generation.claim = generation.claim, generation.claim + 1
        generation.attempt, generation.delivered_at = attempt, None
        journal = self._journal
        waiter = journal.holder if waited_for else ""
        journal.soon(lambda: journal.state.claim(generation.id, seen, attempt, waiter))
