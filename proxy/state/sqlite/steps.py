"""The steps of a job after its start, each with its money, and with the generation's end when it is the last."""

from typing import Any, Final, Literal, NamedTuple

from proxy.state.operations import Ending
from proxy.state.outcomes import Change, NotLiving, OverLimit
from proxy.state.records import Account, JobId, Route
from proxy.state.sqlite import balances, rows
from proxy.state.sqlite.balances import Charge
from proxy.state.sqlite.session import Session
from proxy.state.transitions import ENDED, TRANSITIONS, End, Event, JobState, column, kind, verdict

_FIND: Final = """
SELECT state, epoch, holder, handle, picture, price, price_source, day, reserved, inherited, resolved, provider, model,
       n, ended_as, key, key_name, owner, end_user
FROM jobs JOIN generations ON id = generation WHERE generation = ? AND number = ?
"""

_ACCEPT: Final = """
UPDATE jobs SET state = 'accepted', handle = ?, expires = ?
WHERE generation = ? AND number = ? AND state = 'submitting' AND epoch = ? AND holder = ?
"""


class Present(NamedTuple):
    """A job as it stands, with what a step needs of its generation."""

    state: JobState
    epoch: int
    holder: str
    handle: str | None
    picture: str | None
    price: int | None
    price_source: str
    day: int
    reserved: int
    inherited: str | None
    resolved: str
    provider: str
    model: str
    n: int
    ended_as: End | None
    key: str
    key_name: str
    owner: str
    end_user: str

    @property
    def account(self) -> Account:
        """Who is charged."""
        return Account(self.key, self.key_name, self.owner, self.end_user)

    @property
    def expected(self) -> int:
        """What it costs if nobody tells: its route's price, else all that was held."""
        return self.reserved if self.price is None else self.price

    def allows(self, event: Event, epoch: int | None) -> bool:
        """Return whether ``event`` leads anywhere from here. ``epoch``: None for whoever recovers it."""
        step = TRANSITIONS.get((self.state, event))
        if step is None or self.resolved:
            return False
        return epoch is None or not step.needs_epoch or epoch == self.epoch

    def unchanged(self, *, own: bool = False) -> Change:
        """Answer that nothing was written now; ``own``: because it has been before."""
        return Change(own, self.state, self.epoch, self.ended_as)


_GONE: Final = Change(False, "gone", 0, None)


def find(session: Session, job: JobId) -> Present | None:
    """Return a job as it stands."""
    row = session.execute(_FIND, job).fetchone()
    return None if row is None else Present._make(row)


def submit(session: Session, job: JobId, epoch: int, holder: str, route: Route) -> Change | OverLimit | NotLiving:
    """Note that a job is about to be sent; hold more first if the route is dearer."""
    present = find(session, job)
    if present is None:
        return _GONE
    if present.state == "submitting" and (present.epoch, present.holder) == (epoch, holder):
        return present.unchanged(own=True)
    if not present.allows("submit", epoch) or present.holder != holder:
        return present.unchanged()
    if not rows.lives(session, holder):
        return NotLiving(holder)
    more = max(0, (route.price or 0) - present.reserved)
    if more:
        refusal = balances.room(session, present.account, present.day, more, 0)
        if refusal is not None:
            return refusal
        charge = Charge(*job, present.account, route.provider, route.model, present.day, route.price_source)
        balances.reserve(session, [charge], more, pictures=0)
    session.execute(
        "UPDATE jobs SET state = 'submitting', submits = submits + 1, submitted = ?, provider = ?, model = ?, "
        "base_url = ?, key_env = ?, price = ?, price_source = ?, reserved = reserved + ? "
        "WHERE generation = ? AND number = ? AND state = 'intended' AND epoch = ?",
        (
            session.now,
            route.provider,
            route.model,
            route.base_url,
            route.key_env,
            route.price,
            route.price_source,
            more,
            *job,
            epoch,
        ),
    )
    return Change(True, "submitting", epoch, None)


def accept(session: Session, job: JobId, epoch: int, holder: str, handle: str, expires: int | None = None) -> Change:
    """Keep the provider's handle; after an unknown outcome under a new epoch."""
    if session.execute(_ACCEPT, (handle, expires, *job, epoch, holder)).rowcount:  # as nearly always
        return Change(True, "accepted", epoch, None)
    present = find(session, job)
    if present is None:
        return _GONE
    if present.state == "accepted" and (present.handle, present.holder) == (handle, holder):
        return present.unchanged(own=True)
    if not present.allows("accept", epoch):
        return present.unchanged()
    new = present.epoch + TRANSITIONS[present.state, "accept"].new_epoch
    session.execute(
        "UPDATE jobs SET state = 'accepted', handle = ?, expires = ?, holder = ?, epoch = ?, ended = NULL, "
        "failure = '' WHERE generation = ? AND number = ? AND state = ?",
        (handle, expires, holder, new, *job, present.state),
    )
    if present.ended_as is not None:  # told already, but something is to be followed again
        session.execute("UPDATE generations SET ended = NULL WHERE id = ?", (job.generation,))
    left = move(session, job, present, "accepted")
    return Change(True, "accepted", new, present.ended_as, left)


def finish(
    session: Session,
    job: JobId,
    epoch: int,
    picture: str,
    cost: int | None,
    price_source: str,
    price_name: str,
) -> Change:
    """Keep a stored picture and settle."""
    present = find(session, job)
    if present is None:
        return _GONE
    if present.state == "done" and present.picture == picture:
        return present.unchanged(own=True)
    if not present.allows("finish", epoch):
        return present.unchanged()
    if cost is not None:
        present = present._replace(price_source=price_source)
        if price_name:
            _remember(session, price_name, cost)
    cost = present.expected if cost is None else cost
    session.execute(
        "UPDATE jobs SET state = 'done', picture = ?, cost = ?, price_source = ?, ended = ?, failure = '' "
        "WHERE generation = ? AND number = ? AND state = ?",
        (picture, cost, present.price_source, session.now, *job, present.state),
    )
    left = move(session, job, present, "done", cost)
    return Change(True, "done", present.epoch, close(session, job.generation, present, "done"), left)


def end(session: Session, job: JobId, epoch: int, event: Ending, failure: str) -> Change:
    """End a job without a picture, or let it wait for its next route."""
    present = find(session, job)
    if present is None:
        return _GONE
    if not present.allows(event, epoch):
        return present.unchanged()
    return step(session, job, present, event, failure=failure)


def step(
    session: Session, job: JobId, present: Present, event: Event, *, failure: str = "", holder: str | None = None
) -> Change:
    """Write a step that ``present`` allows and that brings neither handle nor picture. ``holder``: a new one."""
    to = TRANSITIONS[present.state, event]
    epoch = present.epoch + to.new_epoch
    cost = present.expected if to.to == "lost" else None
    session.execute(
        "UPDATE jobs SET state = ?, epoch = ?, holder = ?, failure = ?, cost = ?, ended = ? "
        "WHERE generation = ? AND number = ? AND state = ?",
        (
            to.to,
            epoch,
            present.holder if holder is None else holder,
            failure,
            cost,
            session.now if to.to in ENDED else None,
            *job,
            present.state,
        ),
    )
    left = move(session, job, present, to.to, cost or 0)
    return Change(True, to.to, epoch, close(session, job.generation, present, to.to), left)


def resolve(session: Session, job: JobId, outcome: Literal["paid", "free"], who: str) -> bool:
    """Settle an unknown outcome by a person's word."""
    present = find(session, job)
    if present is None or not present.allows(outcome, None):
        return False
    cost = present.expected if outcome == "paid" else None
    session.execute(
        "UPDATE jobs SET resolved = ?, cost = ? WHERE generation = ? AND number = ? AND state = 'unknown'",
        (outcome, cost, *job),
    )
    move(session, job, present, "unknown", cost or 0, resolved=outcome, who=who)
    return True


def move(
    session: Session, job: JobId, present: Present, to: JobState, cost: int = 0, *, resolved: str = "", who: str = ""
) -> int | None:
    """Move a job's money where it lies in its new state."""
    before, after = column(present.state, present.resolved), column(to, resolved)
    moved = kind(before, after)
    if moved is None or present.inherited is not None:
        return None
    charge = Charge(*job, present.account, present.provider, present.model, present.day, present.price_source)
    settled = cost if after == "spent" else present.reserved
    return balances.move(session, moved, charge, (before, present.reserved), (after, settled), who)


def close(session: Session, generation: str, present: Present, to: JobState) -> End | None:
    """Write the generation's end if this was the last of its jobs, once: later evidence doesn't change it."""
    if to not in ENDED:
        return present.ended_as
    states: list[Any] = [to]
    if present.n > 1:
        states = [state for (state,) in session.execute("SELECT state FROM jobs WHERE generation = ?", (generation,))]
    ended_as = verdict(states)
    if ended_as is not None:
        session.execute(
            "UPDATE generations SET ended_as = coalesce(ended_as, ?), ended = ? WHERE id = ? AND ended IS NULL",
            (ended_as, session.now, generation),
        )
    return present.ended_as or ended_as


def _remember(session: Session, price_name: str, cost: int) -> None:
    if session.prices.get(price_name) != cost:
        session.execute("INSERT OR REPLACE INTO prices VALUES (?, ?, ?)", (price_name, cost, session.now))
        session.prices[price_name] = cost
