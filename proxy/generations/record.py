"""One generation: its jobs, how it ended, and the requests that wait for it."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from proxy.clock import Deadline
from proxy.errors import Failure, SubmitOutcomeUnknown
from proxy.generations.results import Picture
from proxy.jobs.steps import Progress
from proxy.requests.summary import Origin, RequestSummary
from proxy.state.records import Account

Ending = Literal["done", "left", "late"]
End = Literal["ok", "again", "lost", "unknown"]
"""How a generation ends, from best to worst (``badness`` ranks by this order).

``ok``: with its pictures. ``again``: failed, but everything bought is still here, so a repeat may start anew.
``lost``: a picture was bought and is gone. ``unknown``: a picture may have been bought.
"""
Sign = Literal["key", "retry", "orphan"]
"""What gives a request away as a repeat."""
Happened = Callable[[], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass(slots=True, eq=False)
class Generation:
    """The jobs that one request started, and their end: pictures, or a failure.

    ``number``: counts generations in the order in which they started. ``claim``: how often a repeat has taken it over;
    only the latest one may report that it was delivered. ``unattended_at``: the moment since which nobody waits for
    it. ``handed_over``: a caller was given its address. ``mirrored``: another process follows its jobs.
    ``waited_elsewhere``: somebody waits for it at another replica, as far as is known here. ``has_left``: until it
    is written, whether the caller that it is started for has hung up, even if nobody has read that. ``written``: set
    once its start is in the state, or was refused. ``salvage``: the finished pictures of a generation that failed, by
    number; a repeat inherits them. ``remaining``: nano-dollars left under the tightest limit when its money last
    moved, None without one.
    """

    id: str
    number: int
    request: RequestSummary
    fingerprint: bytes = field(repr=False)
    account: Account
    seed: int
    hold: Deadline
    created: int
    progress: list[Progress] = field(default_factory=list)
    pictures: tuple[Picture, ...] = ()
    failure: Failure | None = None
    end: End | None = None
    ended_at: float | None = None
    key: str | None = None
    waiters: int = 0
    attempt: int = 0
    claim: int = 0
    delivered_at: float | None = None
    unattended_at: float | None = None
    handed_over: bool = False
    mirrored: bool = False
    waited_elsewhere: bool = False
    has_left: Callable[[], bool] | None = None
    remaining: int | None = None
    task: asyncio.Task[None] | None = None
    written: asyncio.Event = field(default_factory=asyncio.Event)
    salvage: dict[int, Picture] = field(default_factory=dict)
    _watching: set[Callable[[], None]] = field(default_factory=set)
    _waiting: set[asyncio.Future[Ending]] = field(default_factory=set)

    @property
    def owner(self) -> str:
        """The id of the key that it belongs to."""
        return self.account.key

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def submits(self) -> int:
        """How many submits were made."""
        return sum(progress.submits for progress in self.progress)

    @property
    def submitted(self) -> bool:
        """Whether any picture is, or may have been, bought."""
        return any(progress.submitted for progress in self.progress)

    def origin(self) -> Origin:
        """Return the origin of the first picture; without one, the route that was tried last or comes first."""
        if self.pictures:
            return self.pictures[0].origin
        asked = {progress.provider for progress in self.progress}
        origins = self.request.origins
        return next((one for one in reversed(origins) if one.provider in asked), origins[0]).seeded(self.seed)

    def result(self) -> tuple[Picture, ...]:
        """Return the pictures of a generation that has ended. Raises its Failure."""
        if self.failure is not None:
            raise self.failure
        return self.pictures

    def watch(self, look: Callable[[], None]) -> Callable[[], None]:
        """Call ``look`` after every change from now on. Returns a function that stops it."""
        self._watching.add(look)
        return lambda: self._watching.discard(look)

    def changed(self) -> None:
        """Call everyone who watches."""
        # A copy: a watcher may stop watching while it is called.
        for look in tuple(self._watching):
            look()

    @contextmanager
    def attended(self, receive: Receive) -> Iterator[asyncio.Future[Ending]]:
        """Yield a future of how one caller's wait ends: left, when ``receive`` says so, or what ``release`` passes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ending] = loop.create_future()
        self._waiting.add(future)
        watcher = loop.create_task(_watch_for_leaving(receive, future))
        try:
            yield future
        finally:
            watcher.cancel()
            self._waiting.discard(future)

    async def wait(
        self,
        receive: Receive,
        until: Deadline,
        *,
        changed: Happened | None = None,
        beat: Happened | None = None,
        beat_s: float = math.inf,
    ) -> Ending:
        """Wait for the end (done), for the caller to leave (left), or for the deadline (late).

        Meanwhile ``changed`` is awaited after changes (once for several) and ``beat`` every ``beat_s`` seconds.
        """
        if self.done:
            return "done"
        with self.attended(receive) as ending:
            timer = asyncio.get_running_loop().call_later(until.remaining, _settle, ending, "late")
            try:
                if changed or beat:
                    await self._report(ending, changed, beat, lambda: Deadline.after(until.clock, beat_s))
                return await ending
            finally:
                timer.cancel()

    async def _report(
        self,
        ending: asyncio.Future[Ending],
        changed: Happened | None,
        beat: Happened | None,
        next_beat: Callable[[], Deadline],
    ) -> None:
        """Await ``changed`` after changes and ``beat`` at each ``next_beat`` until ``ending`` is set."""
        news = asyncio.Event()
        ending.add_done_callback(lambda _: news.set())
        unwatch = self.watch(news.set) if changed else lambda: None
        due = next_beat()
        try:
            while not ending.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(due.remaining if beat else None):
                        await news.wait()
                if beat and due.passed and not ending.done():
                    due = next_beat()  # before the beat: a caller who reads slowly must not shift all later ones
                    await beat()
                if changed and news.is_set() and not ending.done():
                    news.clear()  # before the call: a change that happens during it needs another one
                    await changed()
        finally:
            unwatch()

    def release(self, ending: Ending) -> None:
        """End the wait of everyone who waits."""
        for future in tuple(self._waiting):
            _settle(future, ending)


@dataclass(frozen=True, slots=True)
class Joined:
    """The generation that a request waits for. ``how``: what gave the request away as a repeat, None if it is new.

    ``claim``: the generation's ``claim`` when this request joined it; a later one has taken it over since if it grew.
    """

    generation: Generation
    how: Sign | None = None
    claim: int = 0


def end_of(failure: BaseException | None, *, submitted: bool) -> End:
    """Return how a job or a generation ended. ``submitted``: a picture was, or may have been, bought."""
    if failure is None:
        return "ok"
    if isinstance(failure, SubmitOutcomeUnknown):
        return "unknown"
    # A failure that says "retry" must not be kept as the answer to that very repeat.
    told_to_retry = isinstance(failure, Failure) and failure.should_retry
    return "lost" if submitted and not told_to_retry else "again"


def badness(failure: BaseException, *, submitted: bool) -> tuple[int, bool]:
    """Return the key that sorts the failures of several jobs, the worst for the caller's money last."""
    told_to_retry = isinstance(failure, Failure) and failure.should_retry
    return get_args(End).index(end_of(failure, submitted=submitted)), not told_to_retry


def _settle(future: asyncio.Future[Ending], ending: Ending) -> None:
    # The end, the deadline and the caller's leaving race; whichever is second would raise InvalidStateError.
    if not future.done():
        future.set_result(ending)


async def until_left(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _watch_for_leaving(receive: Receive, future: asyncio.Future[Ending]) -> None:
    await until_left(receive)
    _settle(future, "left")
