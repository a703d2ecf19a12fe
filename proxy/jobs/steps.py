"""How a job reports its steps, and what it returns at its end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy.accounts.prices import UNKNOWN, Price
from proxy.clock import Deadline
from proxy.providers.boundary import Finished, Handle
from proxy.requests.summary import Origin
from proxy.upstream.client import Upstream

JobState = Literal["waiting", "queued", "generating", "done", "failed"]


class Steps(Protocol):
    """Takes the reports of one job from whoever runs or follows it.

    ``submitting`` is awaited *before* the fact: no byte of a submit is sent until it has returned. It may raise
    StateUnavailable, and then nothing is sent. The others must not raise, since what they report has happened.
    Each submit begins with ``submitting``. Then comes ``not_started``, after which another ``submitting`` or
    ``released`` may follow; or else whatever ended the job. ``code``: the failure's, as callers see it.
    """

    @property
    def submitted(self) -> bool:
        """Whether a picture is, or may have been, bought."""
        ...

    def wanted(self) -> bool:
        """Whether anybody still wants the picture, so that it should be submitted."""
        ...

    async def submitting(self, provider: str, model: str, /) -> None:
        """Report that a submit is about to be sent. Raises StateUnavailable, SpendLimitReached (a dearer route)."""
        ...

    async def accepted(self, handle: Handle, expires_s: float | None, /) -> None:
        """Report the handle, and in how many seconds the provider may forget the job (None: not known)."""
        ...

    async def not_started(self, code: str, /, *, sent: bool) -> None:
        """Report that this submit provably started nothing; ``sent``: the provider received and refused it."""
        ...

    async def released(self, code: str, /) -> None:
        """Report that no route is left: nothing was bought, and nothing more will be submitted."""
        ...

    async def unknown(self, code: str, /) -> None:
        """Report that this submit may or may not have bought a picture."""
        ...

    async def failed(self, code: str, /) -> None:
        """Report that the provider said that the job failed."""
        ...

    async def lost(self, code: str, /) -> None:
        """Report that a picture was bought and will not come."""
        ...

    async def done(self, picture: str, price: Price, /) -> None:
        """Report the picture, as text that can be kept, and what it cost."""
        ...

    def progress(self, state: JobState, fraction: float | None = None, preview: str | None = None) -> None:
        """Report how the job is doing, for whoever watches. Nothing depends on it."""
        ...

    def pass_over(self, route: str, provider: str, code: str | None) -> None:
        """Report why ``route`` did not make the picture and another one is tried."""
        ...

    def reconsider(self, route: str) -> None:
        """Undo ``pass_over``: ``route`` is tried once more, or its failure is the one reported."""
        ...


@dataclass(slots=True)
class Progress:
    """The steps of one job in this process's memory, for whoever watches.

    ``submits``: calls that reached the provider, or may have. ``submitted``: a picture is, or may have been, bought.
    ``resumable``: another process could carry on with it. ``provider``: the one of the latest submit.
    ``wanted``: whether anybody still wants the picture.
    ``passed_over``: for each route that was tried in vain, its provider and the failure's code.
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
    resumable: bool = True

    async def submitting(self, provider: str, _model: str, /) -> None:
        """Count the submit, and remember its provider."""
        # Counted before the call: if this is cancelled while it is sent, it may have arrived.
        self.submits += 1
        self.submitted = True
        self.resumable = False
        self.provider = provider

    async def accepted(self, _handle: Handle, _expires_s: float | None, /) -> None:
        """Note that others could follow the job, by its handle."""
        self.resumable = True

    async def not_started(self, _code: str, /, *, sent: bool) -> None:
        """Take the submit back. A call that never reached the provider isn't counted as one."""
        self.submitted = False
        self.resumable = True
        if not sent:
            self.submits -= 1

    async def released(self, _code: str, /) -> None:
        """Note that it is over; the failure that is raised says how."""
        self.resumable = True

    unknown = failed = lost = released

    async def done(self, _picture: str, _price: Price, /) -> None:
        """Record that the job is done."""
        self.resumable = True
        self.progress("done", 1.0)

    def progress(self, state: JobState, fraction: float | None = None, preview: str | None = None) -> None:
        """Record a change and notify those who watch."""
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
class FinishedJob:
    """A finished job, where it comes from, until when its picture may be fetched and stored, and what it cost.

    ``upstream``: what speaks to its provider. ``waited_s``: seconds from its request, read, to its submit.
    """

    finished: Finished
    origin: Origin
    lifetime: Deadline
    upstream: Upstream
    price: Price = UNKNOWN
    waited_s: float = 0.0
