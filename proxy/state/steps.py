"""The steps of a job after its start, each with its money, and with the generation's end when it is the last."""

from collections.abc import Collection
from typing import Final, Literal

from proxy.state import balances
from proxy.state.operations import Ending
from proxy.state.outcomes import Change, NotLiving, OverLimit
from proxy.state.records import JobId, Route
from proxy.state.tables import Charge, Present, Tables
from proxy.state.transitions import ENDED, TRANSITIONS, End, Event, JobState, column, kind, verdict

_GONE: Final = Change(False, "gone", 0, None)


def _unchanged(present: Present, *, own: bool = False) -> Change:
    """Answer that nothing was written now; ``own``: because it has been before."""
    return Change(own, present.state, present.epoch, present.ended_as)


def submit(tables: Tables, job: JobId, epoch: int, holder: str, route: Route) -> Change | OverLimit | NotLiving:
    """Note that a job is about to be sent; hold more first if the route is dearer."""
    present = tables.present(job)
    if present is None:
        return _GONE
    if present.state == "submitting" and (present.epoch, present.holder) == (epoch, holder):
        return _unchanged(present, own=True)
    if not present.allows("submit", epoch) or present.holder != holder:
        return _unchanged(present)
    if not tables.lives(holder):
        return NotLiving(holder)
    more = max(0, (route.price or 0) - present.reserved)
    if more:
        refusal = balances.room(tables, present.account, present.day, more, 0)
        if refusal is not None:
            return refusal
        charge = Charge(*job, present.account, route.provider, route.model, present.day, route.price_source)
        balances.reserve(tables, [charge], more, pictures=0)
    tables.change(
        job,
        present,
        state="submitting",
        submits=present.submits + 1,
        submitted=tables.now,
        provider=route.provider,
        model=route.model,
        base_url=route.base_url,
        key_env=route.key_env,
        price=route.price,
        price_source=route.price_source,
        reserved=present.reserved + more,
    )
    return Change(True, "submitting", epoch, None)


def accept(tables: Tables, job: JobId, epoch: int, holder: str, handle: str, expires: int | None = None) -> Change:
    """Keep the provider's handle; after an unknown outcome under a new epoch."""
    present = tables.present(job)
    if present is None:
        return _GONE
    if present.state == "accepted" and (present.handle, present.holder) == (handle, holder):
        return _unchanged(present, own=True)
    if not present.allows("accept", epoch):
        return _unchanged(present)
    new = present.epoch + TRANSITIONS[present.state, "accept"].new_epoch
    tables.change(
        job,
        present,
        state="accepted",
        handle=handle,
        expires=expires,
        holder=holder,
        epoch=new,
        ended=None,
        failure="",
    )
    if present.ended_as is not None:  # told already, but something is to be followed again
        tables.reopen(job.generation)
    left = move(tables, job, present, "accepted")
    return Change(True, "accepted", new, present.ended_as, left)


def finish(
    tables: Tables,
    job: JobId,
    epoch: int,
    picture: str,
    cost: int | None,
    price_source: str,
    price_name: str,
) -> Change:
    """Keep a stored picture and settle."""
    present = tables.present(job)
    if present is None:
        return _GONE
    if present.state == "done" and present.picture == picture:
        return _unchanged(present, own=True)
    if not present.allows("finish", epoch):
        return _unchanged(present)
    if cost is not None:
        present = present._replace(price_source=price_source)
        if price_name:
            tables.remember(price_name, cost)
    cost = present.expected if cost is None else cost
    tables.change(
        job,
        present,
        state="done",
        picture=picture,
        cost=cost,
        price_source=present.price_source,
        ended=tables.now,
        failure="",
    )
    left = move(tables, job, present, "done", cost)
    return Change(True, "done", present.epoch, close(tables, job.generation, present, "done"), left)


def end(tables: Tables, job: JobId, epoch: int, event: Ending, failure: str) -> Change:
    """End a job without a picture, or let it wait for its next route."""
    present = tables.present(job)
    if present is None:
        return _GONE
    if not present.allows(event, epoch):
        return _unchanged(present)
    return step(tables, job, present, event, failure=failure)


def step(
    tables: Tables, job: JobId, present: Present, event: Event, *, failure: str = "", holder: str | None = None
) -> Change:
    """Write a step that ``present`` allows and that brings neither handle nor picture. ``holder``: a new one."""
    to = TRANSITIONS[present.state, event]
    epoch = present.epoch + to.new_epoch
    cost = present.expected if to.to == "lost" else None
    tables.change(
        job,
        present,
        state=to.to,
        epoch=epoch,
        holder=present.holder if holder is None else holder,
        failure=failure,
        cost=cost,
        ended=tables.now if to.to in ENDED else None,
    )
    left = move(tables, job, present, to.to, cost or 0)
    return Change(True, to.to, epoch, close(tables, job.generation, present, to.to), left)


def resolve(tables: Tables, job: JobId, outcome: Literal["paid", "free"], who: str) -> bool:
    """Settle an unknown outcome by a person's word."""
    present = tables.present(job)
    if present is None or not present.allows(outcome, None):
        return False
    cost = present.expected if outcome == "paid" else None
    tables.change(job, present, resolved=outcome, cost=cost)
    move(tables, job, present, "unknown", cost or 0, resolved=outcome, who=who)
    return True


def move(
    tables: Tables, job: JobId, present: Present, to: JobState, cost: int = 0, *, resolved: str = "", who: str = ""
) -> int | None:
    """Move a job's money where it lies in its new state."""
    before, after = column(present.state, present.resolved), column(to, resolved)
    moved = kind(before, after)
    if moved is None or present.inherited is not None:
        return None
    charge = Charge(*job, present.account, present.provider, present.model, present.day, present.price_source)
    settled = cost if after == "spent" else present.reserved
    return balances.move(tables, moved, charge, (before, present.reserved), (after, settled), who)


def close(tables: Tables, generation: str, present: Present, to: JobState) -> End | None:
    """Write the generation's end if this was the last of its jobs, once: later evidence doesn't change it."""
    if to not in ENDED:
        return present.ended_as
    states: Collection[JobState] = [to] if present.n == 1 else tables.states(generation)
    ended_as = verdict(states)
    if ended_as is not None:
        tables.close(generation, ended_as)
    return present.ended_as or ended_as
