"""Two replicas on one database: a repeat, an address and an end are found on whichever it is asked for."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.clock import Clock, Deadline
from proxy.state.operations import StateUnavailable
from tests.accounts.parts import new_key
from tests.replicas.parts import LABS, SCHNELL, gone, replicas, submitted
from tests.service import Answer, Service
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.realtime, pytest.mark.usefixtures("storage")]

_ASKED: Final[dict[str, Any]] = {"model": LABS, "size": "256x256", "response_format": "b64_json"}
_RETRY: Final = {"x-stainless-retry-count": "1"}
_numbers = count()
Pair = list[Service]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The database is another process, which is waited for."""
    return backend(skip=False)


@pytest.fixture(scope="module")
async def both(anyio_backend: object, module_url: str) -> AsyncIterator[Pair]:  # noqa: ARG001 (it chooses the loop)
    """Two replicas for most tests here, which begin with nothing that concerns them."""
    async with replicas(module_url) as services:
        yield services


@pytest.fixture
def tag() -> str:
    """What tells a test's calls from those of others."""
    return f"t{next(_numbers)}"


def ask(service: Service, prompt: str, headers: dict[str, str] | None = None, **values: Any) -> "asyncio.Task[Answer]":
    return asyncio.create_task(service.generate(prompt, headers, **{**_ASKED, **values}))


def picture(answer: Answer) -> str:
    assert answer.status == 200, answer.json
    data: str = answer.json["data"][0]["b64_json"]
    return data


async def test_a_takeover_that_was_not_written_is_made_up_for(both: Pair, tag: str) -> None:
    """What this process believes of a claim may be wrong when the database was away in between."""
    one, two = both
    prompt = f"a fox [seconds:0.6] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    await gone(first)
    generation = next(each for each in one.engine.generations if not each.done)
    generation.claim = 7
    assert picture(await ask(one, prompt, _RETRY))
    assert generation.claim == 1
    assert (await two.counts(tag))["submits"] == 1


async def test_nothing_is_sent_for_who_leaves_while_it_is_written(
    both: Pair, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat may come to another replica before the first one knows that its caller has gone."""
    one, two = both
    prompt = f"a fox [seconds:0.2] [tag:{tag}]"
    state, written = one.engine.journal.state, asyncio.Event()
    start = state.start

    async def slowly(wanted: Any) -> Any:
        await written.wait()
        return await start(wanted)

    monkeypatch.setattr(state, "start", slowly)
    first = ask(one, prompt)
    await asyncio.sleep(0.1)
    await gone(first)
    again = ask(two, prompt, _RETRY)
    await submitted(two, tag)
    written.set()
    assert picture(await again)
    await asyncio.sleep(0.2)
    assert (await two.counts(tag))["submits"] == 1


async def test_what_is_here_can_be_had_while_the_database_is_away(
    both: Pair, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = both
    prompt = f"a fox [seconds:0.3] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    await gone(first)
    handed = await ask(one, f"a hen [seconds:0] [tag:{tag}]", {"prefer": "respond-async"})
    with monkeypatch.context() as away:
        for service in both:
            for name in ("repeatable", "claim", "generation", "by_idempotency_key", "start"):
                away.setattr(service.engine.journal.state, name, unavailable)
        assert picture(await ask(one, prompt, _RETRY))
        assert (await one.get(handed.headers["location"])).status in (200, 202)
        assert (await two.get(handed.headers["location"])).status == 404
        refused = await ask(two, prompt, _RETRY)
        assert (refused.status, refused.code) == (503, "state_unavailable")
        dry = {"x-images-dry-run": "true", "Idempotency-Key": tag}
        assert not (await two.generate(prompt, dry, **_ASKED)).json["reattached"]
    assert (await one.counts(tag))["submits"] == 2


async def unavailable(*_: Any) -> Any:
    raise StateUnavailable("The database is away.")


async def test_a_process_that_stood_still_sends_nothing(both: Pair, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the write and the sending it may have been taken for dead."""
    one, _ = both
    journal = one.engine.journal
    with monkeypatch.context() as frozen:
        frozen.setattr(journal, "_lease", lambda: Deadline.after(Clock(), 0.0))
        answer = await ask(one, f"a fox [tag:{tag}]")
        assert (answer.status, answer.code) == (503, "state_unavailable")
    assert (await one.counts(tag))["submits"] == 0
    await asyncio.sleep(0.1)
    jobs = (await journal.state.everything()).jobs
    assert {job.state for job in jobs[-1:]} == {"released"}


async def test_a_new_name_is_taken_and_what_others_follow_now_is_left_to_them(both: Pair, tag: str) -> None:
    """What becomes of a replica that was taken for dead."""
    one, two = both
    prompt = f"a fox [seconds:1] [tag:{tag}]"
    await one.engine._beat()
    first = ask(one, prompt)
    await submitted(one, tag)
    await asyncio.sleep(0.2)
    before = one.engine.journal.holder
    await two.engine.journal.state.retire(before)
    await two.engine._beat()
    generation = next(each for each in one.engine.generations if not each.done)
    assert not generation.mirrored
    await one.engine._beat()
    assert one.engine.journal.holder != before
    assert generation.mirrored
    assert picture(await first)
    assert (await one.counts(tag))["submits"] == 1
    assert len(one.engine.journal.living) == 2


async def test_a_job_that_waits_for_its_turn_is_dropped_wherever_it_is_abandoned(database_url: str) -> None:
    async with replicas(database_url, providers={"max_jobs": 1}) as (one, two):
        running = ask(one, "a fox [seconds:1.5] [tag:t]")
        await submitted(one, "t")
        handed = await ask(one, "a hen [seconds:0] [tag:t]", {"prefer": "respond-async"})
        async with two.http.delete(two.url + handed.headers["location"]) as response:
            assert response.status == 204
        await one.engine._beat()
        assert picture(await running)
        await asyncio.sleep(0.3)
        assert (await one.counts("t"))["submits"] == 1


async def test_a_job_that_waits_for_its_turn_stays_while_somebody_waits_elsewhere(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.generations.tasks._ABANDONED_S", 0.3)
    async with replicas(database_url, providers={"max_jobs": 1}) as (one, two):
        running = ask(one, "a fox [seconds:1.5] [tag:t]")
        await submitted(one, "t")
        first = ask(one, "a hen [seconds:0] [tag:t]")
        await asyncio.sleep(0.2)
        await gone(first)
        again = ask(two, "a hen [seconds:0] [tag:t]")
        await asyncio.sleep(0.1)
        await one.engine._beat()
        assert picture(await again)
        assert picture(await running)
        assert (await one.counts("t"))["submits"] == 2


@pytest.mark.parametrize("ended", [False, True])
async def test_a_key_means_the_same_everywhere(both: Pair, tag: str, ended: bool) -> None:
    one, two = both
    key = {"Idempotency-Key": tag}
    first = ask(one, f"a fox [seconds:0.6] [tag:{tag}]", key)
    await submitted(one, tag)
    if ended:
        await first
    second = ask(two, f"a fox [seconds:0.6] [tag:{tag}]", key)
    assert picture(await first) == picture(await second)
    assert (await one.counts(tag))["submits"] == 1
    assert (await second).headers["x-images-reattached"] == "true"
    assert (await second).headers["x-images-attempts"] == "1"
    other = await two.generate("another fox", key, **_ASKED)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert picture(await ask(two, f"a fox [seconds:0.6] [tag:{tag}]", key)) == picture(await first)


@pytest.mark.parametrize("sign", ["counter", "bare"])
@pytest.mark.parametrize("ended", [False, True])
async def test_a_repeat_takes_over_at_another_replica_what_nobody_waits_for(
    both: Pair, tag: str, sign: str, ended: bool
) -> None:
    one, two = both
    prompt = f"a fox [seconds:0.6] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    await gone(first)
    if ended:
        await asyncio.sleep(0.6)
    headers = _RETRY if sign == "counter" else {}
    again = await ask(two, prompt, headers)
    assert picture(again)
    assert again.headers["x-images-reattached"] == "true"
    assert (await one.counts(tag))["submits"] == 1
    fresh = await ask(one, prompt)
    assert picture(fresh)
    assert (await one.counts(tag))["submits"] == 2, "it was delivered, so this is a new intent"


async def test_of_two_bare_repeats_at_two_replicas_one_gets_what_is_there(both: Pair, tag: str) -> None:
    one, two = both
    prompt = f"a fox [seconds:0.6] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    await gone(first)
    answers = await asyncio.gather(ask(one, prompt), ask(two, prompt), ask(two, prompt))
    assert [answer.status for answer in answers] == [200] * 3
    assert (await one.counts(tag))["submits"] == 3
    assert sorted(answer.headers.get("x-images-reattached", "") for answer in answers) == ["", "", "true"]


async def test_an_equal_call_elsewhere_is_a_call_of_its_own_while_somebody_waits(both: Pair, tag: str) -> None:
    one, two = both
    prompt = f"a fox [seconds:0.6] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    assert picture(await ask(two, prompt)) != picture(await first)
    assert (await one.counts(tag))["submits"] == 2


async def test_a_counted_repeat_joins_beside_a_waiter_at_another_replica(both: Pair, tag: str) -> None:
    """Its first connection may be half open, unnoticed: a counter proves that this is no new intent."""
    one, two = both
    prompt = f"a fox [seconds:0.6] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    assert picture(await ask(two, prompt, _RETRY)) == picture(await first)
    assert (await one.counts(tag))["submits"] == 1


async def test_an_answer_that_was_delivered_elsewhere_is_a_counted_repeats_for_a_moment(both: Pair, tag: str) -> None:
    one, two = both
    prompt = f"a fox [seconds:0] [tag:{tag}]"
    first = await ask(one, prompt)
    await asyncio.sleep(0.15)
    assert picture(await ask(two, prompt, _RETRY)) == picture(first)
    assert (await one.counts(tag))["submits"] == 1


async def test_what_was_taken_over_at_another_replica_is_not_joined_here(both: Pair, tag: str) -> None:
    """The replica that follows the job is the last to know who waits for it."""
    one, two = both
    prompt = f"a fox [seconds:0.8] [tag:{tag}]"
    first = ask(one, prompt)
    await submitted(one, tag)
    await gone(first)
    again = ask(two, prompt)
    await asyncio.sleep(0.15)
    fresh = await ask(one, prompt)
    assert picture(fresh) != picture(await again)
    assert (await one.counts(tag))["submits"] == 2


async def test_an_address_works_everywhere(database_url: str) -> None:
    async with replicas(database_url, environment={"IMAGES_PROXY_KEYS": "sk-mine-1234567,sk-yours-123456"}) as both:
        one, two = both
        mine = {"Authorization": "Bearer sk-mine-1234567"}
        handed = await ask(one, "a fox [seconds:0.6] [tag:t]", {**mine, "prefer": "respond-async"})
        assert handed.status == 202
        place = handed.headers["location"]
        assert (await two.get(place, {"Authorization": "Bearer sk-yours-123456"})).status == 404
        asked = await two.get(place, mine)
        assert (asked.status, asked.json["id"]) == (202, handed.json["id"])
        async with asyncio.timeout(10):
            while (asked := await two.get(place, mine)).status == 202:  # noqa: ASYNC110 (a client polls)
                await asyncio.sleep(0.02)
        assert picture(asked)
        async with two.http.delete(two.url + place, headers=mine) as response:
            assert response.status == 204
        assert [(await each.get(place, mine)).status for each in both] == [404, 404]
        assert (await one.counts("t"))["submits"] == 1


async def test_the_end_of_a_failure_is_told_everywhere(both: Pair, tag: str) -> None:
    one, two = both
    key = {"Idempotency-Key": tag}
    prompt = f"a fox [seconds:0.4] [fault:failed] [tag:{tag}]"
    first = ask(one, prompt, key)
    await submitted(one, tag)
    answers = await asyncio.gather(first, ask(two, prompt, key))
    assert [(answer.status, answer.code) for answer in answers] == [(502, "image_generation_failed")] * 2
    assert (await one.counts(tag))["submits"] == 1


async def test_a_refusal_of_what_was_not_bought_is_told_as_it_was(both: Pair, tag: str) -> None:
    one, two = both
    key = {"Idempotency-Key": tag}
    prompt = f"a fox [fault:unsafe] [tag:{tag}]"
    answers = await asyncio.gather(*(ask(each, prompt, key, model=SCHNELL) for each in (one, two)))
    told = [(answer.status, answer.code) for answer in answers]
    assert told == [(400, "content_policy_violation")] * 2


async def test_a_stream_of_another_replicas_job_ends_with_its_picture(both: Pair, tag: str) -> None:
    one, two = both
    key = {"Idempotency-Key": tag}
    prompt = f"a fox [seconds:0.6] [tag:{tag}]"
    asked = {**_ASKED, "stream": True, "partial_images": 2}
    first = asyncio.create_task(one.generate(prompt, key, **asked))
    await submitted(one, tag)
    second = await two.generate(prompt, key, **asked)
    assert second.status == 200
    assert b"image_generation.completed" in second.body
    assert b"image_generation.completed" in (await first).body
    assert (await one.counts(tag))["submits"] == 1


async def test_who_waits_elsewhere_is_told_at_once(both: Pair, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.generations.work._READ_AGAIN_S", 30.0)
    one, two = both
    key = {"Idempotency-Key": tag}
    await asyncio.sleep(0.2)  # until it listens
    first = ask(one, f"a fox [seconds:0.6] [tag:{tag}]", key)
    await submitted(one, tag)
    async with asyncio.timeout(10):
        assert picture(await ask(two, f"a fox [seconds:0.6] [tag:{tag}]", key)) == picture(await first)


async def test_a_dry_run_knows_what_another_replica_has(both: Pair, tag: str) -> None:
    one, two = both
    prompt = f"a fox [seconds:0.4] [tag:{tag}]"
    first = [ask(one, prompt, headers) for headers in ({"Idempotency-Key": tag}, {})]
    await submitted(one, tag, 2)
    told = [
        await two.generate(prompt, {"x-images-dry-run": "true", **headers}, **_ASKED)
        for headers in ({"Idempotency-Key": tag}, {"Idempotency-Key": f"{tag}-other"}, _RETRY, {})
    ]
    assert [answer.json["reattached"] for answer in told] == [True, False, True, False]
    other = await two.generate("a hen", {"x-images-dry-run": "true", "Idempotency-Key": tag}, **_ASKED)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    await asyncio.gather(*first)


async def test_a_repeat_is_not_refused_by_a_budget_that_its_first_call_has_used_up(database_url: str) -> None:
    async with replicas(database_url) as (one, two):
        key = await new_key(one, budgets={"pictures": ["1/total"]})
        await two.engine.accounts.refresh()
        prompt = "a fox [seconds:0.6] [tag:t]"
        first = ask(one, prompt, key)
        await submitted(one, "t")
        await gone(first)
        assert picture(await ask(two, prompt, {**key, **_RETRY}))
        refused = await ask(two, "a hen [tag:t]", {**key, **_RETRY})
        assert (refused.status, refused.code) == (429, "project_spend_limit_exceeded")
        assert (await one.counts("t"))["submits"] == 1


async def test_pictures_that_others_cannot_read_are_told(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replicas(database_url, images={"directory": str(tmp_path)}) as services:
        for service in (*services, *services):
            await service.engine._beat()
    told = [record.message for record in caplog.records if "images.store" in record.message]
    assert len(told) == 2


async def test_slots_are_divided(database_url: str) -> None:
    async with replicas(database_url, 3, providers={"max_jobs": 8, "polls_per_second": 6}) as services:
        for service in services:
            await service.engine._beat()
        runtimes = [service.engine.runtimes["imagelabs"] for service in services]
        assert sorted(runtime.own_slots for runtime in runtimes) == [2, 3, 3]
        assert [runtime.slots._value for runtime in runtimes] == [runtime.own_slots for runtime in runtimes]
        assert {runtime.own_polls_per_second for runtime in runtimes} == {2.0}
        assert [await service.engine._may_sweep() for service in services].count(True) == 1
        await services[0].engine.journal.state.retire(services[0].engine.journal.holder)
        await services[1].engine._beat()
        assert runtimes[1].slots._value == runtimes[1].own_slots == 4
