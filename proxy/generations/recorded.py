"""The steps of a job, written into the state before anything relies on them, and then shown to who watches."""

import logging
from collections.abc import Mapping
from functools import partial

from pydantic_core import from_json, to_json

from proxy.accounts.prices import Price
from proxy.generations.journal import Journal
from proxy.generations.record import Generation
from proxy.jobs.steps import JobState, Progress
from proxy.providers.boundary import Handle
from proxy.state.operations import Ending
from proxy.state.outcomes import Change
from proxy.state.records import JobId, JobRow, Route

_log = logging.getLogger("proxy.jobs")


class RecordedSteps:
    """One job's steps. Implements ``proxy.jobs.steps.Steps``.

    ``generation``: shows the same to who watches. ``row``: the job as it was started or adopted. ``routes``: where it
    may be submitted, by provider and model; ``kinds``: each provider's dialect, without which a handle says nothing.
    """

    def __init__(
        self,
        journal: Journal,
        generation: Generation,
        row: JobRow,
        routes: Mapping[tuple[str, str], Route],
        kinds: Mapping[str, str],
    ) -> None:
        self._generation = generation
        self.progress_of: Progress = generation.progress[row.number]
        self._journal = journal
        self._job: JobId = row.id
        self._epoch = row.epoch
        self._routes = routes
        self._kinds = kinds
        self._written_for = (row.provider, row.model) if row.state == "submitting" else None
        self._price = row.price
        self._holding = journal.spending.hold(generation.account, row.provider, row.model, row.reserved)
        self.open = True

    @property
    def submitted(self) -> bool:
        """Whether a picture is, or may have been, bought."""
        return self.progress_of.submitted

    def wanted(self) -> bool:
        """Whether anybody still wants the picture."""
        return self.progress_of.wanted()

    async def submitting(self, provider: str, model: str, /) -> None:
        """Write that a submit is about to be sent, unless that was written with the start. Raises StateUnavailable."""
        written_for, self._written_for = self._written_for, None
        if written_for != (provider, model):
            if written_for is not None:  # for another route, to which nothing was sent
                await self._end("next_route", "")
            route, account = self._routes[provider, model], self._generation.account
            self._note(await self._journal.submit(self._job, self._epoch, route, account))
            self._price = route.price
            self._holding.move(provider, model, route.price)
        await self.progress_of.submitting(provider, model)

    async def accepted(self, handle: Handle, expires_s: float | None, /) -> None:
        """Write the handle."""
        # First of all into the log: should the write be lost, a person can still find the picture.
        provider = self.progress_of.provider
        fields = {"job": str(self._job), "provider": provider, "handle": handle.id}
        _log.info("accepted", extra={"fields": fields})
        text = dump_handle(handle, self._kinds.get(provider, ""))
        write = partial(self._journal.accept, self._job, self._epoch, text, expires_s)
        change = await self._journal.surely(write)
        if change is not None:
            self._epoch = change.epoch
        await self.progress_of.accepted(handle, expires_s)

    async def not_started(self, code: str, /, *, sent: bool) -> None:
        """Write that the job waits for another submit."""
        await self._end("next_route", code)
        await self.progress_of.not_started(code, sent=sent)

    async def released(self, code: str, /) -> None:
        """Write that nothing more will be submitted, and its money is free."""
        self.open = False
        self._holding.release()
        self._note(await self._journal.surely(partial(self._release, code)))

    async def unknown(self, code: str, /) -> None:
        """Write that nobody knows whether a picture was bought."""
        self.open = False
        self._journal.figures.unknown.labels("network").inc()
        self._holding.doubt()
        await self._end("doubt", code)

    async def failed(self, code: str, /) -> None:
        """Write the provider's word that there is no picture."""
        self.open = False
        self._holding.release()
        await self._end("failed", code)

    async def lost(self, code: str, /) -> None:
        """Write that a picture was bought and will not come."""
        self.open = False
        self._holding.settle(self._price)
        await self._end("lose", code)

    async def done(self, picture: str, price: Price, /) -> None:
        """Write the picture, and settle: at what its provider told, else at the price that was written before."""
        self.open = False
        finish = partial(self._journal.state.finish, self._job, self._epoch, picture)
        if price.source == "provider":
            finish = partial(finish, cost=price.amount, price_source=price.source, price_name=price.name)
        self._holding.settle(price.amount if price.source == "provider" else self._price)
        self._note(await self._journal.surely(finish))
        await self.progress_of.done(picture, price)

    async def give_up(self, code: str) -> None:
        """Write that the job is not followed any more, if it hasn't ended: what was submitted counts as bought."""
        if self.open:
            await (self.lost if self.submitted else self.released)(code)

    def progress(self, state: JobState, fraction: float | None = None, preview: str | None = None) -> None:
        """Show how the job is doing."""
        self.progress_of.progress(state, fraction, preview)

    def pass_over(self, route: str, provider: str, code: str | None) -> None:
        """Note why ``route`` did not make the picture."""
        self.progress_of.pass_over(route, provider, code)

    def reconsider(self, route: str) -> None:
        """Undo ``pass_over``."""
        self.progress_of.reconsider(route)

    async def _release(self, code: str) -> Change:
        """Release a job for which nothing was sent, though it may be written that it was about to be."""
        change = await self._journal.state.end(self._job, self._epoch, "release", code)
        if change.applied or change.state not in ("submitting", "unknown"):
            return change
        return await self._journal.state.end(self._job, self._epoch, "not_started", code)

    async def _end(self, event: Ending, code: str) -> None:
        self._note(await self._journal.surely(partial(self._journal.state.end, self._job, self._epoch, event, code)))

    def _note(self, change: Change | None) -> None:
        """Remember what is left of the budget after money has moved."""
        if change is not None and change.remaining is not None:
            self._generation.remaining = change.remaining


def dump_handle(handle: Handle, kind: str) -> str:
    """Return a handle as JSON text, with the dialect that understands it."""
    return to_json({"kind": kind, "handle": handle.dump()}).decode()


def load_handle(text: str) -> tuple[Handle, str]:
    """Read what ``dump_handle`` has written: the handle and its dialect. Raises ValueError."""
    values = from_json(text)
    try:
        return Handle.load(values["handle"]), str(values["kind"])
    except (TypeError, KeyError) as error:
        raise ValueError("not a handle") from error
