"""The life of a job, as data: what may happen to it in which state, and where its money lies then.

A job that may have been bought is never submitted a second time: ``submitting`` leads to ``unknown`` when its answer is
lost, whoever finds it, and only evidence leads out of ``unknown``. Evidence (a handle, a picture, the provider's word)
counts whoever brings it, since there is one submit behind it; a decision counts only from the holder of the job's
present epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

JobState = Literal["intended", "submitting", "accepted", "done", "lost", "unknown", "released", "failed"]
"""Open: intended, submitting, accepted. Ended: the others."""

Event = Literal[
    "submit",
    "accept",
    "finish",
    "not_started",
    "next_route",
    "failed",
    "lose",
    "doubt",
    "release",
    "recover",
    "paid",
    "free",
]
"""What happens to a job.

submit: its bytes are about to be sent · accept: a handle came · finish: its picture is stored · not_started: provably
nothing was bought · next_route: the same, and another route is tried · failed: the provider's own word · lose: bought,
and will not come · doubt: nobody knows whether it was bought · release: it will not be submitted · recover: nobody
follows it · paid, free: a person settles what was unknown.
"""

Column = Literal["reserved", "spent", "unknown"]
"""Where a job's money lies."""

Kind = Literal["reserve", "settle", "release", "unknown", "correct", "sum"]
"""Of a ledger entry. sum: many old entries of one day in one."""

End = Literal["ok", "again", "unknown", "lost"]
"""How a generation ended. again: something was not bought, and may be asked for anew. lost: a picture was bought and
will not come, or the provider said that its job failed; a repeat hears the same, so that it buys nothing."""

OPEN: Final[tuple[JobState, ...]] = ("intended", "submitting", "accepted")
ENDED: Final[tuple[JobState, ...]] = ("done", "lost", "unknown", "released", "failed")


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a job. ``needs_epoch``: a decision, which only the present holder may take."""

    to: JobState
    needs_epoch: bool
    new_epoch: bool = False


_DECIDE: Final = True
_EVIDENCE: Final = False

TRANSITIONS: Final[dict[tuple[JobState, Event], Transition]] = {
    ("intended", "submit"): Transition("submitting", _DECIDE),
    ("intended", "release"): Transition("released", _DECIDE),
    ("intended", "recover"): Transition("released", _EVIDENCE, new_epoch=True),
    ("submitting", "accept"): Transition("accepted", _DECIDE),
    ("submitting", "finish"): Transition("done", _DECIDE),
    ("submitting", "not_started"): Transition("released", _DECIDE),
    ("submitting", "next_route"): Transition("intended", _DECIDE),
    ("submitting", "failed"): Transition("failed", _DECIDE),
    ("submitting", "lose"): Transition("lost", _DECIDE),
    ("submitting", "doubt"): Transition("unknown", _DECIDE),
    ("submitting", "recover"): Transition("unknown", _EVIDENCE, new_epoch=True),
    ("accepted", "finish"): Transition("done", _EVIDENCE),
    ("accepted", "failed"): Transition("failed", _EVIDENCE),
    ("accepted", "lose"): Transition("lost", _EVIDENCE),
    ("accepted", "recover"): Transition("accepted", _EVIDENCE, new_epoch=True),
    ("unknown", "accept"): Transition("accepted", _EVIDENCE, new_epoch=True),
    ("unknown", "finish"): Transition("done", _EVIDENCE),
    ("unknown", "not_started"): Transition("released", _EVIDENCE),
    ("unknown", "failed"): Transition("failed", _EVIDENCE),
    ("unknown", "lose"): Transition("lost", _EVIDENCE),
    ("unknown", "paid"): Transition("unknown", _EVIDENCE),
    ("unknown", "free"): Transition("unknown", _EVIDENCE),
}
"""Every step there is; what is not in the table changes nothing. None leads out of what a person has settled."""

_COLUMNS: Final[dict[JobState, Column | None]] = {
    "intended": "reserved",
    "submitting": "reserved",
    "accepted": "reserved",
    "done": "spent",
    "lost": "spent",
    "unknown": "unknown",
    "released": None,
    "failed": None,
}
_SETTLED: Final[dict[str, Column | None]] = {"": "unknown", "paid": "spent", "free": None}
_KINDS: Final[dict[tuple[Column | None, Column | None], Kind]] = {
    (None, "reserved"): "reserve",
    ("reserved", "spent"): "settle",
    ("reserved", None): "release",
    ("reserved", "unknown"): "unknown",
    ("unknown", "reserved"): "correct",
    ("unknown", "spent"): "correct",
    ("unknown", None): "correct",
}


def column(state: JobState, resolved: str = "") -> Column | None:
    """Return where the money of a job lies; ``resolved``: what a person said of an unknown one (paid, free)."""
    return _SETTLED[resolved] if state == "unknown" else _COLUMNS[state]


def kind(before: Column | None, after: Column | None) -> Kind | None:
    """Return the ledger entry that a move of money is; None when it stays where it is."""
    return None if before == after else _KINDS[before, after]


def verdict(states: Iterable[JobState]) -> End | None:
    """Return how a generation with jobs in these states has ended, None if one is open.

    What may be bought beats what was lost, and both beat what may be asked for again: a caller who hears "again" must
    not buy anything twice by believing it.
    """
    found = set(states)
    if not found.isdisjoint(OPEN):
        return None
    if "unknown" in found:
        return "unknown"
    if not found.isdisjoint(("lost", "failed")):
        return "lost"
    return "again" if "released" in found else "ok"
