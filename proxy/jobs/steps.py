"""What is told of a job: its steps as they happen, and at its end where its picture comes from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy.clock import Deadline
from proxy.providers.boundary import Finished, Handle
from proxy.requests.resolve import Candidate

JobState = Literal["waiting", "queued", "generating", "done", "failed"]


class Steps(Protocol):
    """Where the steps of one job are told, by whoever runs or follows it.

    What is awaited happens *after* it has been told: no byte of a submit is sent before ``submitting`` has returned.
    ``submitting`` may raise StateUnavailable, and nothing is sent then; the others must not raise, since what they tell
    has happened. A job is told ``submitting`` once for each call; then either ``not_started``, after which the next
    ``submitting`` or ``released`` may follow, or whatever ended it. ``code``: of the failure, as callers see it.
    """

    @property
    def submitted(self) -> bool:
        """Whether a picture is, or may have been, bought."""
        ...

    def wanted(self) -> bool:
        """Whether anybody is there for whom it should still be submitted."""
        ...

    async def submitting(self, provider: str, model: str, /) -> None:
        """Tell that the call which starts the job is about to be sent. Raises StateUnavailable."""
        ...

    async def accepted(self, handle: Handle, expires_s: float | None, /) -> None:
        """Tell what the job can be asked for by, and in how many seconds the provider may have forgotten it."""
        ...

    async def not_started(self, code: str, /, *, sent: bool) -> None:
        """Tell that this submit provably started nothing; ``sent``: the provider got it and refused."""
        ...

    async def released(self, code: str, /) -> None:
        """Tell that no route is left: nothing was bought, and nothing will be submitted."""
        ...

    async def unknown(self, code: str, /) -> None:
        """Tell that nobody knows whether this submit bought a picture."""
        ...

    async def failed(self, code: str, /) -> None:
        """Tell that the provider gave the job up, by its own word."""
        ...

    async def lost(self, code: str, /) -> None:
        """Tell that a picture was bought and will not come."""
        ...

    async def done(self, picture: str, cost: int | None = None, /) -> None:
        """Tell where the picture is (its stored name, or the provider's address), and its cost if it was told."""
        ...

    def progress(self, state: JobState, fraction: float | None = None, preview: str | None = None) -> None:
        """Tell how the job is doing, for whoever watches; nothing hangs on it."""
        ...

    def pass_over(self, route: str, provider: str, code: str | None) -> None:
        """Tell why ``route`` did not make the picture, so that another one is tried."""
        ...

    def reconsider(self, route: str) -> None:
        """Take back that ``route`` was passed over: it is asked once more, or its failure is the one told."""
        ...


@dataclass(slots=True)
class Progress:
    """The steps of one job as this process remembers them, for whoever watches.

    ``submits``: calls that reached the provider, or may have. ``submitted``: a picture is, or may have been, bought.
    ``provider``: the one that was asked last. ``wanted``: whether anybody is there for whom it should still be
    submitted. ``passed_over``: for each route that was tried before, its provider and the code of the failure there.
    """

    tell: Callable[[], None]
    wanted: Callable[[], bool] = lambda: True
    state: JobState = "waiting"
    fraction: float | None = None
    preview: str | None = None
    submits: int = 0
    submitted: bool = False
    provider: str = ""
    passed_over: dict[str, tuple[str, str]] = field(default_factory=dict)

    async def submitting(self, provider: str, _model: str, /) -> None:
        """Count the call, and remember who is asked."""
        self.submits += 1
        self.submitted = True
        self.provider = provider

    async def accepted(self, _handle: Handle, _expires_s: float | None, /) -> None:
        """Do nothing: whoever follows the job has its handle, and nobody else could use it here."""

    async def not_started(self, _code: str, /, *, sent: bool) -> None:
        """Take the submit back; a call that never reached the provider wasn't one."""
        self.submitted = False
        if not sent:
            self.submits -= 1

    async def released(self, _code: str, /) -> None:
        """Do nothing: the failure that is raised says it."""

    unknown = failed = lost = released

    async def done(self, _picture: str, _cost: int | None = None, /) -> None:
        """Tell that it is done, if that isn't known yet."""
        self.progress("done", 1.0)

    def progress(self, state: JobState, fraction: float | None = None, preview: str | None = None) -> None:
        """Record a change and tell those who watch."""
        if (state, fraction, preview) != (self.state, self.fraction, self.preview):
            self.state, self.fraction, self.preview = state, fraction, preview
            self.tell()

    def pass_over(self, route: str, provider: str, code: str | None) -> None:
        """Record why ``route`` did not make the picture."""
        self.passed_over[route] = (provider, code or "")

    def reconsider(self, route: str) -> None:
        """Forget that ``route`` was passed over."""
        self.passed_over.pop(route, None)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who makes a picture and how the request was put to them, in names and plain values.

    ``width`` and ``height``: what was asked for, in pixels. ``seed``: None where the provider chose one and
    doesn't say. ``mapped`` and ``dropped``: what became of parameters, as in a translation.
    """

    provider: str
    model: str
    width: int
    height: int
    quality: str
    seed: int | None = None
    mapped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @classmethod
    def of(cls, candidate: Candidate, seed: int) -> "Origin":
        """Return the origin of what ``candidate`` makes from ``seed``."""
        route, translation = candidate.route, candidate.translation
        return cls(
            route.provider,
            route.model.name,
            translation.shape.width,
            translation.shape.height,
            translation.quality,
            translation.with_seed(seed).get("seed"),
            translation.mapped,
            translation.dropped,
        )


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A finished job, where it comes from, and until when it may be brought home."""

    finished: Finished
    origin: Origin
    lifetime: Deadline
