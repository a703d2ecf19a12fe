"""Money is exact: budgets under parallel calls, and figures that agree with what the simulator has begun."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from proxy.clock import Clock
from proxy.dollars import decimal_text
from proxy.errors import SpendLimitReached
from proxy.state.money import Balance
from proxy.state.outcomes import Start, Started
from proxy.state.records import Account, Route, generation_id
from tests.accounts.parts import ADMIN, AS_ADMIN, FREE, MODEL, PRICE, new_key, used
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

Budgets = Mapping[str, Sequence[str]]


async def sums(service: Service) -> Balance:
    """Return what was used in all; whatever it is summed by, it is the same."""
    found = {
        Balance(
            *(
                sum(figures)
                for figures in zip(*(row.balance for row in (await used(service, by)).values()), strict=True)
            )
        )
        for by in ("key", "owner", "model", "provider", "day")
    }
    assert len(found) == 1, found
    return found.pop()


async def begun(service: Service) -> int:
    """Return how many jobs the simulator has begun, and would bill."""
    async with service.http.get(f"{service.upstream}/_counts") as response:
        return int((await response.json())["started"])


class Rush:
    """Many callers of one key at once, some of whom leave, repeat, or meet faults. ``faults``: how many do."""

    def __init__(self, service: Service, key: dict[str, str], random: Random, faults: float) -> None:
        self.service, self.key, self.random, self.faults = service, key, random, faults
        self.statuses: Counter[int] = Counter()

    async def of(self, callers: int) -> None:
        await asyncio.gather(*(self.come(number) for number in range(callers)))

    async def come(self, number: int) -> None:
        chance = self.random.random()
        fault = "[fault:drop]" if chance < self.faults / 2 else "[fault:busy:1:1]" if chance < self.faults else ""
        prompt = f"a fox {number} [seconds:0] [bytes:2000] {fault}"
        headers = {**self.key, "Idempotency-Key": f"call-{number}"}
        leave_s = 0.01 if self.random.random() < self.faults else None
        for _ in range(3):  # as an SDK that is cut off, or told to come again
            try:
                async with asyncio.timeout(leave_s):
                    answer = await self.service.generate(prompt, headers, model=MODEL, size="256x256")
            except TimeoutError:
                leave_s = None
                continue
            except aiohttp.ClientError:
                continue
            if answer.headers.get("x-should-retry") != "true":
                break
        else:
            return
        self.statuses[answer.status] += 1


async def rush(
    budgets: Budgets,
    callers: int,
    *,
    limits: dict[str, Any],
    faults: float = 0.0,
    seed: int = 1,
    path: Path | None = None,
) -> tuple[Balance, int, Counter[int]]:
    """Let many callers come; return what the state says, what the simulator says, and what the callers heard."""
    state = {"path": str(path)} if path else {"path": ":memory:"}
    providers = {"max_jobs": 50}
    server = {"max_in_flight": 5000}
    async with running(speed=1000, limits=limits, state=state, providers=providers, server=server) as service:
        key = await new_key(service, "ann", budgets, owner="family")
        crowd = Rush(service, key, Random(seed), faults)  # noqa: S311 (no secret)
        await crowd.of(callers)
        async with asyncio.timeout(300):
            while service.engine.generations.running:  # noqa: ASYNC110 (no event tells it)
                await asyncio.sleep(0.05)
        return await sums(service), await begun(service), crowd.statuses


LIMITS: list[tuple[Budgets, dict[str, Any]]] = [
    ({"dollars": [f"{decimal_text(20 * PRICE)}/month"]}, {}),
    ({"pictures": ["20/day"]}, {}),
    (
        {"dollars": [f"{decimal_text(35 * PRICE)}/month"], "pictures": ["30"]},
        {"budget": [decimal_text(20 * PRICE)], "owners": {"family": {"pictures": ["25/week"]}}},
    ),
]


@pytest.mark.parametrize(("budgets", "limits"), LIMITS)
async def test_a_budget_for_twenty_buys_twenty_however_many_come_at_once(
    budgets: Budgets, limits: dict[str, Any]
) -> None:
    balance, started, statuses = await rush(budgets, 200, limits=limits)
    assert (balance.spent_pictures, balance.spent, started) == (20, 20 * PRICE, 20)
    assert statuses == {200: 20, 429: 180}
    assert balance.used("pictures") == 20


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_a_budget_for_a_hundred_holds_with_faults_leavers_and_repeats(
    seed: int,
    full: bool,
    tmp_path: Path,
) -> None:
    if seed and not full:
        pytest.skip("one run is enough between edits")
    budgets, limits = LIMITS[seed % 3]
    scaled = {unit: [_times_five(text) for text in texts] for unit, texts in budgets.items()}
    wide = {
        name: [_times_five(text) for text in value]
        if isinstance(value, list)
        else {
            owner: {unit: [_times_five(text) for text in texts] for unit, texts in own.items()}
            for owner, own in value.items()
        }
        for name, value in limits.items()
    }
    callers = 1000 if full else 300
    balance, started, statuses = await rush(
        scaled, callers, limits=wide, faults=0.1, seed=seed, path=tmp_path / "state.sqlite3"
    )
    assert balance.used("pictures") == 100, statuses
    assert balance.reserved == balance.reserved_pictures == 0
    assert balance.spent_pictures <= started <= 100
    assert started == balance.spent_pictures + balance.unknown_pictures


def _times_five(text: str) -> str:
    amount, slash, period = text.partition("/")
    return f"{float(amount) * 5:g}{slash}{period}"


async def test_the_figures_are_those_of_the_simulator() -> None:
    async with running(speed=400) as service:
        ann, bob = await new_key(service, owner="family"), await new_key(service, "bob")
        asked = [
            *(
                (ann, MODEL, fault)
                for fault in ("", "", "drop", "failed", "busy", "invalid", "not-a-picture", "unsafe")
            ),
            *((bob, FREE, fault) for fault in ("", "failed", "gone", "no-picture", "drop")),
        ]
        for number, (key, model, fault) in enumerate(asked):
            text = f"a fox {number} [seconds:0]" + (f" [fault:{fault}]" if fault else "")
            await service.generate(text, key, model=model)
        balance, by_key = await sums(service), await used(service)
        not_billed = 2  # what the provider itself says has failed
        assert balance.spent_pictures + balance.unknown_pictures + not_billed == await begun(service)
        assert (by_key["ann"].balance.spent, by_key["ann"].balance.unknown) == (2 * PRICE, 2 * PRICE)
        assert by_key["bob"].balance.spent == 0
        assert balance.reserved == 0
        assert min(balance) == 0


async def test_joined_and_replayed_calls_cost_nothing() -> None:
    async with running(speed=400) as service:
        ann = await new_key(service, budgets={"pictures": ["5"]})
        once = {**ann, "Idempotency-Key": "once"}
        calls = [service.generate("a fox [seconds:1]", once, model=MODEL) for _ in range(5)]
        answers = [*await asyncio.gather(*calls), await service.generate("a fox [seconds:1]", once, model=MODEL)]
        assert {answer.status for answer in answers} == {200}
        counted = {**ann, "x-stainless-retry-count": "1"}
        assert (await service.generate("a bird", ann, model=MODEL)).status == 200
        assert (await service.generate("a bird", counted, model=MODEL)).headers["x-images-reattached"] == "true"
        assert (await sums(service)).used("pictures") == await begun(service) == 2


async def test_of_four_pictures_with_two_failures_two_are_settled_and_never_again() -> None:
    async with running(speed=400) as service:
        ann = await new_key(service, budgets={"dollars": [decimal_text(4 * PRICE)]})
        prompt = "a fox [seconds:0.1] [fault:busy:2:300]"
        first = await service.generate(prompt, ann, model=MODEL, n=4)
        assert (first.status, first.code) == (429, "provider_busy")
        balance = await sums(service)
        assert (balance.spent_pictures, balance.reserved_pictures) == (2, 0)
        second = await service.generate(prompt, ann, model=MODEL, n=4)
        assert (second.status, second.headers["x-images-budget-remaining"]) == (200, "0"), second.json
        balance = await sums(service)
        assert (balance.spent, balance.spent_pictures, await begun(service)) == (4 * PRICE, 4, 4)


async def test_a_dearer_route_reserves_the_difference_before_its_submit() -> None:
    async with running(speed=400) as service:
        await new_key(service, budgets={"dollars": [decimal_text(3 * PRICE)]})
        journal = service.engine.journal
        (row,) = (await journal.state.keys()).keys
        account = Account(row.id, row.name)
        cheap = Route("prodia", "cheap", price=PRICE, price_source="table")
        start = Start(id=generation_id(row.created), holder=journal.holder, account=account, route=cheap, reserve=PRICE)
        started = await journal.start(start)
        assert isinstance(started, Started)
        job = started.generation.jobs[0].id
        with pytest.raises(SpendLimitReached, match=r"may use \$0.0075 in all, and \$0.0025 is used"):
            await journal.submit(job, 0, replace(cheap, model="dear", price=4 * PRICE), account)
        change = await journal.submit(job, 0, replace(cheap, model="dearer", price=2 * PRICE), account)
        assert change.applied
        assert (await sums(service)).reserved == 2 * PRICE
        assert figures(service, "limit_refusals_total") == {("key",): 1.0}


async def test_an_unknown_outcome_counts_until_a_person_settles_it() -> None:
    async with running(speed=400, environment={"IMAGES_PROXY_ADMIN_KEY": ADMIN}) as service:
        ann = await new_key(service, budgets={"pictures": ["1"]})

        async def ask(prompt: str) -> Answer:
            return await service.generate(prompt, ann, model=MODEL)

        assert (await ask("a fox [fault:drop]")).code == "submit_outcome_unknown"
        await asyncio.sleep(2)
        assert (await ask("a bird")).code == "project_spend_limit_exceeded"
        (unknown,) = (await service.get("/v1/ledger?unknown=1", AS_ADMIN)).json["data"]
        settled = await service.post(f"/v1/ledger/{unknown['job']}", {"outcome": "free"}, AS_ADMIN)
        assert settled.status == 200
        assert (await ask("a bird")).status == 200
        balance = await sums(service)
        assert (balance.spent_pictures, balance.unknown_pictures) == (1, 0)


async def test_a_period_changes_by_itself_and_money_stays_where_it_was_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = [86_400.0 * 20_000 - 1]  # 23:59:59
    monkeypatch.setattr(
        "tests.service.clock", lambda: Clock(monotonic=asyncio.get_running_loop().time, wall=lambda: second[0])
    )
    async with running(speed=1) as service:
        ann = await new_key(service, budgets={"pictures": ["1/day"]})
        late = asyncio.create_task(service.generate("a fox [seconds:20]", ann, model=MODEL))
        async with asyncio.timeout(10):
            while not await begun(service):  # noqa: ASYNC110 (no event tells it)
                await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        assert (await service.generate("a bird", ann, model=MODEL)).status == 429
        second[0] += 2
        await asyncio.sleep(2)
        assert (await service.generate("a bird [seconds:0]", ann, model=MODEL)).status == 200
        assert (await late).status == 200
        days = await used(service, "day")
        assert {day: row.balance.spent_pictures for day, row in days.items()} == {"19999": 1, "20000": 1}
        await asyncio.sleep(2)
        assert (await service.generate("a cat", ann, model=MODEL)).status == 429


async def test_secrets_and_end_users_are_written_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    environment = {"IMAGES_PROXY_ADMIN_KEY": ADMIN, "IMAGES_PROXY_KEYS": "named=environment-key"}
    async with running(speed=400, state={"path": str(path)}, environment=environment) as service:
        made = (await service.post("/key/generate", {"key_alias": "ann", "count_by": "user"}, AS_ADMIN)).json
        key = {"authorization": f"Bearer {made['key']}"}
        assert (await service.generate("a fox", key, model=MODEL, user="who@example.org")).status == 200
        assert (await service.generate("a fox", {"api-key": "environment-key"}, model=MODEL)).status == 200
        said = [repr(vars(service.engine)), repr(vars(service.engine.accounts)), repr(service.engine.configuration)]
        told = ("/metrics", "/key/list?return_full_object=true", "/v1/usage?by=user", "/v1/ledger")
        said += [(await service.get(address, AS_ADMIN)).body.decode() for address in told]
        assert set(await used(service)) == {"ann", "named"}
    said += [each.read_bytes().decode("latin-1") for each in path.parent.glob("state*")]
    for secret in (made["key"], ADMIN, "environment-key", "who@example.org"):
        assert not any(secret in text for text in said), secret


# --- the metrics ------------------------------------------------------------------------------------------------------


def figures(service: Service, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by key, provider and model, or by scope."""
    found = {}
    for family in service.engine.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == f"images_proxy_{name}":
                found[
                    tuple(
                        sample.labels[label]
                        for label in ("key", "provider", "model", "scope")
                        if label in sample.labels
                    )
                ] = sample.value
    return found


async def test_the_metrics_tell_money_by_key_provider_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(speed=1, limits={"pictures": ["5"]}) as service:
        ann = await new_key(service, budgets={"pictures": ["3"]})
        late = asyncio.create_task(service.generate("a fox [seconds:20]", ann, model=MODEL))
        async with asyncio.timeout(10):
            while not await begun(service):  # noqa: ASYNC110 (no event tells it)
                await asyncio.sleep(0.1)
        place = ("ann", *MODEL.split("/"))
        assert figures(service, "reserved_dollars") == {place: 0.0025}
        assert (await late).status == 200
        assert (await service.generate("a bird [fault:drop]", ann, model=MODEL)).status == 502
        assert (await service.generate("a cat [fault:failed] [seconds:0]", ann, model=MODEL)).status == 502
        assert figures(service, "reserved_dollars")[place] == pytest.approx(0.0)
        assert figures(service, "spent_dollars_total") == {place: 0.0025}
        assert figures(service, "unknown_dollars_total") == {place: 0.0025}
        assert figures(service, "pictures_total") == {place: 1.0}
        assert (await service.generate("a dog [seconds:0]", ann, model=MODEL, n=2)).status == 429
        assert figures(service, "limit_refusals_total") == {("key",): 1.0}
        monkeypatch.setattr("proxy.accounts.spending._MOST", 1)
        bob = await new_key(service, "bob", per_minute=1)
        assert (await service.generate("a fox [seconds:0]", bob, model=MODEL)).status == 200
        assert (await service.generate("a cat [seconds:0]", bob, model=MODEL)).status == 429
        assert (
            await service.generate("a cow [seconds:0]", await new_key(service, "c"), model=MODEL, n=3)
        ).status == 429
        assert figures(service, "pictures_total") == {place: 1.0, ("other", "other", "other"): 1.0}
        assert figures(service, "limit_refusals_total") == {("key",): 1.0, ("pace",): 1.0, ("service",): 1.0}
