"""One request in the making: its jobs, its end, and the requests that wait for it."""

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
from proxy.requests.resolve import ResolvedRequest

Ending = Literal["done", "left", "late"]
End = Literal["ok", "again", "lost", "unknown"]
"""How a generation ends, from best to worst: with its pictures; with a failure after which nothing that was bought is
missing, so that a repeat may start anew; with a job bought and lost; with a job that may have been bought."""
Happened = Callable[[], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass(slots=True, eq=False)
class Generation:
    """The jobs of one intent, and its end: pictures, or a failure.

    ``number``: in the order of their start. ``claim``: how often another request has taken it over, which alone may
    then tell that it was delivered. ``unattended_at``: since when nobody waits for it. ``handed_over``: its address
    was given away, and nobody has asked there for its end yet.
    """

    id: str
    number: int
    resolved: ResolvedRequest = field(repr=False)
    owner: str
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
    task: asyncio.Task[None] | None = None
    _watching: set[Callable[[], None]] = field(default_factory=set)
    _waiting: set[asyncio.Future[Ending]] = field(default_factory=set)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def submits(self) -> int:
        """Calls made that start (and bill) a job."""
        return sum(progress.submits for progress in self.progress)

    @property
    def submitted(self) -> bool:
        """Whether any picture is, or may have been, bought."""
        return any(progress.submitted for progress in self.progress)

    def result(self) -> tuple[Picture, ...]:
        """Return the pictures of an ended generation; raises its Failure."""
        if self.failure is not None:
            raise self.failure
        return self.pictures

    def watch(self, look: Callable[[], None]) -> Callable[[], None]:
        """Call ``look`` after every change from now on; returns a function that ends that."""
        self._watching.add(look)
        return lambda: self._watching.discard(look)

    def changed(self) -> None:
        """Call everyone who watches."""
        for look in tuple(self._watching):
            look()

    @contextmanager
    def attended(self, receive: Receive) -> Iterator[asyncio.Future[Ending]]:
        """Give the end of one caller's wait: done, left when ``receive`` says so, or what ``release`` says."""
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

        Meanwhile ``changed`` is awaited after changes, several in one, and ``beat`` every ``beat_s`` seconds.
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
        """Await ``changed`` after changes and ``beat`` at each ``next_beat`` until ``ending`` is there."""
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
                    due = next_beat()
                    await beat()
                if changed and news.is_set() and not ending.done():
                    news.clear()
                    await changed()
        finally:
            unwatch()

    def release(self, ending: Ending) -> None:
        """Wake everyone who waits."""
        for future in tuple(self._waiting):
            _settle(future, ending)


def end_of(failure: BaseException | None, *, submitted: bool) -> End:
    """Return how a job, or a generation, has ended; ``submitted``: something was, or may have been, bought."""
    if failure is None:
        return "ok"
    if isinstance(failure, SubmitOutcomeUnknown):
        return "unknown"
    told_to_retry = isinstance(failure, Failure) and failure.should_retry
    return "lost" if submitted and not told_to_retry else "again"


def badness(failure: BaseException, *, submitted: bool) -> tuple[int, bool]:
    """Return what sorts failures of several jobs: what says most about what a repeat would buy comes last."""
    told_to_retry = isinstance(failure, Failure) and failure.should_retry
    return get_args(End).index(end_of(failure, submitted=submitted)), not told_to_retry


def _settle(future: asyncio.Future[Ending], ending: Ending) -> None:
    if not future.done():
        future.set_result(ending)


async def until_left(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _watch_for_leaving(receive: Receive, future: asyncio.Future[Ending]) -> None:
    await until_left(receive)
    _settle(future, "left")
