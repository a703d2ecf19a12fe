"""Any order of events, on the engine and on a model of a few lines: the same states, the same money."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from proxy.state.checker import problems
from proxy.state.money import Balance
from proxy.state.operations import State
from proxy.state.outcomes import Change, Exists, OverLimit, Started
from proxy.state.records import JobId
from proxy.state.sqlite.engine import open_sqlite
from tests.state import database
from tests.state.parts import ANN, DEARER, PRICE, ROUTE, Wall, dollars, pictures, wanted

ROOM, ROOM_PICTURES = 6 * PRICE, 8
OPEN = ("intended", "submitting", "accepted")
LEADS = {
    "intended": {"release": "released"},
    "submitting": {
        "not_started": "released",
        "next_route": "intended",
        "failed": "failed",
        "lose": "lost",
        "doubt": "unknown",
    },
    "accepted": {"failed": "failed", "lose": "lost"},
    "unknown": {"not_started": "released", "failed": "failed", "lose": "lost"},
}
EVENTS = ("not_started", "next_route", "failed", "lose", "doubt", "release")
RANK = ("unknown", "lost", "again", "ok")


@dataclass
class Model:
    """A job as it should be."""

    state: str = "intended"
    epoch: int = 0
    held: int = PRICE
    price: int = PRICE
    cost: int = 0
    settled: str = ""

    @property
    def money(self) -> Balance:
        if self.state in OPEN:
            return Balance(reserved=self.held, reserved_pictures=1)
        if self.state in ("done", "lost") or self.settled == "paid":
            return Balance(spent=self.cost, spent_pictures=1)
        if self.state == "unknown" and not self.settled:
            return Balance(unknown=self.held, unknown_pictures=1)
        return Balance()

    def may(self, *, epoch: int) -> bool:
        """Whether a decision counts, and evidence in any state but one that is settled."""
        return not self.settled and (self.state in ("accepted", "unknown") or epoch == self.epoch)

    def lose(self) -> None:
        self.cost = self.price


async def in_memory(wall: Wall) -> State:
    """Open an empty state."""
    return open_sqlite(None, wall=wall)


class Orders(RuleBasedStateMachine):
    """One account with room for so much, and whatever may befall its jobs, with right and with wrong epochs."""

    jobs: Bundle[JobId] = Bundle("jobs")
    open: Callable[[Wall], Awaitable[State]] = staticmethod(in_memory)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.wall = Wall()
        self.state = self.loop.run_until_complete(self.open(self.wall))
        self.model: dict[JobId, Model] = {}
        self.ends: dict[str, str] = {}
        self.keyed: dict[str, str] = {}
        self.holder = "h0"
        self.do("register", "h0")
        self.do("set_limits", [dollars("all", ROOM, "total"), pictures("key:k1", ROOM_PICTURES, "total")])

    def do(self, name: str, *arguments: Any, **named: Any) -> Any:
        async def operation() -> Any:
            return await getattr(self.state, name)(*arguments, **named)

        return self.loop.run_until_complete(operation())

    def teardown(self) -> None:
        self.do("close")
        self.loop.close()

    @property
    def used(self) -> tuple[int, int]:
        sums = [job.money for job in self.model.values()]
        return sum(one.used("dollars") for one in sums), sum(one.used("pictures") for one in sums)

    def epoch(self, job: JobId, wrong: bool) -> int:
        return self.model[job].epoch + 5 * wrong

    def ended(self, generation: str) -> None:
        """The end is written once, when the last job ends."""
        states = [one.state for job, one in self.model.items() if job.generation == generation]
        if generation not in self.ends and not any(state in OPEN for state in states):
            words = {"done": "ok", "released": "again", "failed": "lost"}
            self.ends[generation] = min((words.get(state, state) for state in states), key=RANK.index)

    @rule(target=jobs, n=st.integers(1, 3), submit=st.integers(0, 3), key=st.sampled_from([None, None, "a", "b"]))
    def start(self, n: int, submit: int, key: str | None) -> Any:
        start = wanted(
            n=n, submit=submit, idempotency_key=key, holder=self.holder, fingerprint=f"{len(self.model)}".encode()
        )
        outcome = self.do("start", start)
        dollars_used, pictures_used = self.used
        if key in self.keyed and self.ends.get(self.keyed[key]) != "again":
            assert isinstance(outcome, Exists)
            assert outcome.generation.row.id == self.keyed[key]
            return multiple()
        if dollars_used + n * PRICE > ROOM or pictures_used + n > ROOM_PICTURES:
            assert isinstance(outcome, OverLimit)
            return multiple()
        assert isinstance(outcome, Started)
        if key is not None:
            self.keyed[key] = start.id
        made = [JobId(start.id, number) for number in range(n)]
        self.model.update({job: Model("submitting" if job.number < submit else "intended") for job in made})
        return multiple(*made)

    @rule(job=jobs, route=st.sampled_from([ROUTE, DEARER]), wrong=st.booleans())
    def submit(self, job: JobId, route: Any, wrong: bool) -> None:
        model = self.model[job]
        change = self.do("submit", job, self.epoch(job, wrong), self.holder, route)
        if model.state != "intended" or wrong:
            assert change.applied == (model.state == "submitting" and not wrong)
            return
        more = max(0, route.price - model.held)
        if more and self.used[0] + more > ROOM:
            assert isinstance(change, OverLimit)
            return
        assert isinstance(change, Change)
        assert change.applied
        model.state, model.held, model.price = "submitting", model.held + more, route.price

    @rule(job=jobs, wrong=st.booleans())
    def accept(self, job: JobId, wrong: bool) -> None:
        model = self.model[job]
        change = self.do("accept", job, self.epoch(job, wrong), self.holder, str(job))
        if model.state in ("submitting", "unknown") and model.may(epoch=self.epoch(job, wrong)):
            model.epoch += model.state == "unknown"
            model.state = "accepted"
            assert (change.applied, change.epoch) == (True, model.epoch)
        else:
            assert change.applied == (model.state == "accepted")

    @rule(job=jobs, wrong=st.booleans(), cost=st.sampled_from([None, 0, PRICE, 3 * PRICE]))
    def finish(self, job: JobId, wrong: bool, cost: int | None) -> None:
        model = self.model[job]
        may = model.state in ("submitting", "accepted", "unknown") and model.may(epoch=self.epoch(job, wrong))
        change = self.do("finish", job, self.epoch(job, wrong), str(job), cost=cost, price_source="provider")
        assert change.applied == (may or model.state == "done")
        if may:
            model.state, model.cost = "done", model.price if cost is None else cost
            self.ended(job.generation)

    @rule(job=jobs, wrong=st.booleans(), event=st.sampled_from(EVENTS))
    def end(self, job: JobId, wrong: bool, event: str) -> None:
        model = self.model[job]
        goal = LEADS.get(model.state, {}).get(event)
        may = goal is not None and model.may(epoch=self.epoch(job, wrong))
        assert self.do("end", job, self.epoch(job, wrong), event).applied == may
        if goal is not None and may:
            model.state, model.cost = goal, model.price
            self.ended(job.generation)

    @rule(job=jobs, outcome=st.sampled_from(["paid", "free"]))
    def resolve(self, job: JobId, outcome: str) -> None:
        model = self.model[job]
        may = model.state == "unknown" and not model.settled
        assert self.do("resolve", job, outcome, "me") == may
        if may:
            model.settled, model.cost = outcome, model.price

    @rule()
    def restart(self) -> None:
        """The process dies; the next one takes up what is open."""
        self.do("retire", self.holder)
        self.holder = f"h{int(self.holder[1:]) + 1}"
        self.do("register", self.holder)
        recovered = self.do("recover", self.holder, [])
        assert set(recovered.jobs) == {job for job, model in self.model.items() if model.state == "accepted"}
        for job, model in self.model.items():
            if model.state in OPEN:
                model.epoch += 1
                model.state = {"intended": "released", "submitting": "unknown"}.get(model.state, model.state)
                self.ended(job.generation)
        assert self.do("recover", self.holder, recovered.jobs).jobs == ()

    @invariant()
    def the_engine_says_the_same(self) -> None:
        everything = self.do("everything")
        assert problems(everything) == []
        assert {job.id: (job.state, job.epoch, job.resolved) for job in everything.jobs} == {
            job: (model.state, model.epoch, model.settled) for job, model in self.model.items()
        }
        assert {row.id: row.ended_as for row in everything.generations if row.ended_as} == self.ends
        sums = [Balance(), *(model.money for model in self.model.values())]
        for standing in self.do("standing", ANN):
            assert standing.balance == Balance(*(sum(of) for of in zip(*sums, strict=True)))


SETTINGS = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_any_order() -> None:
    run_state_machine_as_test(Orders, settings=SETTINGS)


def test_any_order_in_a_database(database_url: str) -> None:
    class InDatabase(Orders):
        open = staticmethod(partial(database.emptied, database_url))

    run_state_machine_as_test(InDatabase, settings=settings(SETTINGS, max_examples=5))
