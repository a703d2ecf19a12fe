"""What a key may do, at the running service: who is let in, what a limit refuses, and what it never refuses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.dollars import decimal_text
from tests.accounts.parts import FREE, MODEL, PRICE, bearer, new_key, used
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running(
        speed=400,
        models={
            "both": {"routes": [MODEL, FREE]},
            "unpriced": {"routes": ["prodia/inference.flux-fast.dev.txt2img.v1"]},
        },
    ) as service:
        yield service


async def picture(service: Service, key: dict[str, str], prompt: str = "a fox", **values: Any) -> Answer:
    headers = {**key, **values.pop("headers", {})}
    return await service.generate(prompt, headers, **{"model": MODEL, **values})


def refused(answer: Answer, status: int, code: str | None, *said: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer.json
    for each in said:
        assert each in answer.json["error"]["message"]


async def test_the_first_key_closes_the_service_and_the_last_does_not_open_it(service: Service) -> None:
    assert (await picture(service, {})).status == 200
    ann = await new_key(service)
    assert (await picture(service, ann)).status == 200
    refused(await picture(service, {}), 401, None)
    refused(await picture(service, bearer("wrong")), 401, "invalid_api_key")
    state = service.engine.journal.state
    (row,) = (await state.keys()).keys
    await state.change_key(row._replace(deleted=1), (), "test", "{}")
    await service.engine.accounts.refresh()
    refused(await picture(service, ann), 401, "invalid_api_key")
    refused(await picture(service, {}), 401, None)


async def test_a_change_by_another_process_is_noticed_by_itself(service: Service) -> None:
    ann = await new_key(service)
    state = service.engine.journal.state
    (row,) = (await state.keys()).keys
    await state.change_key(row._replace(disabled=1), None, "another", "{}")
    async with asyncio.timeout(5):
        while (answer := await service.get("/v1/models", ann)).status == 200:  # noqa: ASYNC110 (no event tells it)
            await asyncio.sleep(0.5)
    refused(answer, 401, "invalid_api_key", "'ann' is disabled")


async def test_a_key_ends_by_its_time_and_a_rotated_one_after_its_grace(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = service.engine.accounts.keys
    now = keys.now
    ann = await new_key(service, expires=now + 60_000)
    bob = await new_key(service, "bob")
    state = service.engine.journal.state
    row = next(row for row in (await state.keys()).keys if row.name == "bob")
    await state.change_key(row._replace(digest=b"new", old_digest=row.digest, old_until=now + 30_000), None, "t", "{}")
    await service.engine.accounts.refresh()
    assert {(await service.get("/v1/models", key)).status for key in (ann, bob)} == {200}
    monkeypatch.setattr(keys, "_wall", lambda: now / 1000 + 61)
    refused(await service.get("/v1/models", ann), 401, "invalid_api_key", "'ann' has expired")
    refused(await service.get("/v1/models", bob), 401, "invalid_api_key")


async def test_a_key_may_use_only_its_models(service: Service) -> None:
    ann = await new_key(service, models='["dall-e-*", "imagelabs/sdxl-turbo"]')
    assert (await picture(service, ann, model="dall-e-2")).status == 200
    assert (await picture(service, ann, model="openai/dall-e-3")).status == 200
    assert (await picture(service, ann, model=FREE)).status == 200
    assert (await picture(service, ann, model="sdxl-turbo")).status == 200
    answer = await picture(service, ann, model="gpt-image-1")
    refused(answer, 403, "model_not_found", "'ann' may not use the model 'gpt-image-1'")
    assert answer.json["error"]["param"] == "model"
    refused(await picture(service, ann, model="no-such"), 404, "model_not_found")
    listed = {each["id"] for each in (await service.get("/v1/models", ann)).json["data"]}
    assert "dall-e-3" in listed
    assert {name for name in listed if not name.startswith("dall-e-")} == {FREE}
    chat = {"model": "both", "messages": [{"role": "user", "content": "a fox"}]}
    refused(await service.post("/v1/chat/completions", chat, ann), 403, "model_not_found")


async def test_a_budget_in_pictures_names_what_is_used_and_when_it_begins_anew(service: Service) -> None:
    ann = await new_key(service, budgets={"pictures": ["2/day"]})
    assert (await picture(service, ann, n=2)).status == 200
    answer = await picture(service, ann, "another")
    refused(
        answer,
        429,
        "project_spend_limit_exceeded",
        "'ann' may use 2 pictures today, and 2 pictures are used",
        "T00:00:00Z (UTC)",
    )
    assert answer.json["error"]["type"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    assert "x-images-budget-remaining" not in answer.headers
    assert (await used(service))["ann"].balance.spent_pictures == 2


async def test_a_budget_in_dollars_is_told_with_each_answer(service: Service) -> None:
    ann = await new_key(service, budgets={"dollars": [f"{decimal_text(3 * PRICE)}/month"]})
    answer = await picture(service, ann)
    assert (answer.status, answer.headers["x-images-budget-remaining"]) == (200, decimal_text(2 * PRICE))
    refused(
        await picture(service, ann, "two foxes", n=3),
        429,
        "project_spend_limit_exceeded",
        "$0.0075 this month, and $0.0025 is used",
    )
    answer = await picture(service, ann, "two foxes", n=2)
    assert (answer.status, answer.headers["x-images-budget-remaining"]) == (200, "0")
    answer = await picture(service, ann, "more")
    refused(answer, 429, "project_spend_limit_exceeded")
    assert answer.headers["x-images-budget-remaining"] == "0"
    assert (await used(service))["ann"].balance.spent == 3 * PRICE


async def test_what_is_used_up_is_refused_before_the_body(service: Service) -> None:
    ann = await new_key(service, budgets={"pictures": ["1"]})
    assert (await picture(service, ann)).status == 200
    await asyncio.sleep(2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
    head = (f"POST {GENERATIONS} HTTP/1.1", "host: x", "content-length: 99", f"authorization: {ann['authorization']}")
    writer.write("\r\n".join((*head, "", "")).encode())
    assert b" 429 " in await reader.readline()
    writer.close()


async def test_a_repeat_is_never_refused(service: Service) -> None:
    ann = await new_key(service, budgets={"pictures": ["1"]}, per_minute=1, at_once=1)
    once = {"Idempotency-Key": "once"}
    first, second = await asyncio.gather(*(picture(service, ann, headers=once) for _ in range(2)))
    await asyncio.sleep(2)
    third = await picture(service, ann, headers=once)
    assert first.json["data"] == second.json["data"] == third.json["data"]
    assert third.headers["x-images-reattached"] == "true"
    refused(
        await picture(service, ann, "another", headers={"Idempotency-Key": "twice"}),
        429,
        "project_spend_limit_exceeded",
    )
    assert (await used(service))["ann"].balance.spent_pictures == 1


@pytest.mark.parametrize("headers", [{"prefer": "respond-async"}, {"accept": "text/event-stream"}])
async def test_a_refusal_has_its_own_status_on_every_way(service: Service, headers: dict[str, str]) -> None:
    ann = await new_key(service, budgets={"pictures": ["1"]})
    stream: dict[str, Any] = {"stream": True} if "accept" in headers else {}
    refused(await picture(service, ann, n=2, headers=headers), 429, "project_spend_limit_exceeded")
    assert (await picture(service, ann, headers=headers, **stream)).status in (200, 202)
    await asyncio.sleep(2)
    refused(await picture(service, ann, "a bird", headers=headers, **stream), 429, "project_spend_limit_exceeded")
    chat = {"model": "both", "messages": [{"role": "user", "content": "a cat"}], **stream}
    refused(await service.post("/v1/chat/completions", chat, ann), 429, "project_spend_limit_exceeded")
    refused(await service.post("/sdapi/v1/txt2img", {"prompt": "a cat"}, ann), 429, "project_spend_limit_exceeded")


async def test_pace_is_held_and_says_when_to_come_back(service: Service) -> None:
    ann = await new_key(service, per_minute=2)
    assert [(await picture(service, ann, f"fox {number}")).status for number in range(2)] == [200, 200]
    answer = await picture(service, ann, "three")
    refused(answer, 429, "rate_limit_exceeded", "2 requests for pictures a minute")
    assert answer.json["error"]["type"] == "rate_limit_error"
    assert answer.headers["x-should-retry"] == "true"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    bob = await new_key(service, "bob", at_once=1)
    running_, other = await asyncio.gather(*(picture(service, bob, f"{n} [seconds:5]") for n in range(2)))
    assert sorted((running_.status, other.status)) == [200, 429]
    late = next(each for each in (running_, other) if each.status == 429)
    refused(late, 429, "rate_limit_exceeded", "1 requests at once")


async def test_without_a_price_a_budget_in_dollars_buys_nothing(service: Service) -> None:
    ann = await new_key(service, budgets={"dollars": ["5"]})
    answer = await picture(service, ann, model="unpriced")
    refused(answer, 400, "price_unknown", "providers.prodia.prices")
    assert answer.json["error"]["param"] == "model"
    assert (await picture(service, await new_key(service, "bob"), model="unpriced")).status == 200
    assert (await picture(service, ann, model="unpriced")).status == 200, "its provider has told the price meanwhile"


async def test_limits_of_the_service_and_of_owners_hold_for_all_their_keys() -> None:
    limits = {"pictures": ["3/day"], "owners": {"family": {"pictures": ["2/day"]}}}
    async with running(speed=400, limits=limits) as service:
        ann, bob = await new_key(service, owner="family"), await new_key(service, "bob", owner="family")
        carl = await new_key(service, "carl")
        assert [(await picture(service, key)).status for key in (ann, bob)] == [200, 200]
        refused(
            await picture(service, ann, "a bird"),
            429,
            "project_spend_limit_exceeded",
            "All keys of 'family' together may use 2 pictures today",
        )
        assert (await picture(service, carl)).status == 200
        refused(
            await picture(service, carl, "a bird"),
            429,
            "organization_spend_limit_exceeded",
            "This service may use 3 pictures",
        )
        assert {name: usage.balance.spent_pictures for name, usage in (await used(service, "owner")).items()} == {
            "family": 2,
            "": 1,
        }


# --- end users --------------------------------------------------------------------------------------------------------


async def test_end_users_have_their_own_limits_and_never_each_others_pictures(service: Service) -> None:
    shared = await new_key(service, "shared", {"user_pictures": ["1/day"], "pictures": ["3/day"]}, count_by="user")
    assert (await picture(service, shared, user="x@example.org")).status == 200
    refused(
        await picture(service, shared, "again", user="x@example.org"),
        429,
        "project_spend_limit_exceeded",
        "Each end user",
    )
    other = await picture(service, shared, user="y@example.org")
    assert other.status == 200
    assert "x-images-reattached" not in other.headers
    assert (await picture(service, shared)).status == 200
    refused(await picture(service, shared, user="z"), 429, "project_spend_limit_exceeded", "The key 'shared'")
    names = set(await used(service, "user"))
    assert "-" in names
    assert len(names) == 3
    assert not any("example.org" in name for name in names)


async def test_end_users_may_come_by_header_and_be_shown(service: Service) -> None:
    shared = await new_key(
        service, "shared", {"user_pictures": ["1/day"]}, count_by="x-openwebui-user-id", show_users=1
    )
    seven = {"x-openwebui-user-id": "seven"}
    assert (await picture(service, shared, headers=seven, user="ignored")).status == 200
    refused(await picture(service, shared, "a bird", headers=seven), 429, "project_spend_limit_exceeded")
    assert set(await used(service, "user")) == {"seven"}


async def test_end_users_are_told_apart_on_every_surface(service: Service) -> None:
    shared = await new_key(service, "shared", {"user_pictures": ["1/day"]}, count_by="user", show_users=1)
    said = [{"role": "user", "content": "a fox"}]
    tools = [{"type": "image_generation", "model": MODEL}]
    for path, body in (
        (GENERATIONS, {"prompt": "a fox", "model": MODEL, "safety_identifier": "a"}),
        ("/v1/chat/completions", {"messages": said, "model": "both", "user": "b"}),
        ("/v1/responses", {"input": "a fox", "tools": tools, "user": "c"}),
        ("/v1/responses", {"input": "a bird", "tools": tools, "safety_identifier": "d"}),
    ):
        answer = await service.post(path, body, shared)
        assert answer.status == 200, answer.json
        again = {**body, "prompt": "a cat", "input": "a cat", "messages": [{"role": "user", "content": "a cat"}]}
        refused(await service.post(path, again, shared), 429, "project_spend_limit_exceeded", "Each end user")
    assert set(await used(service, "user")) == {"a", "b", "c", "d"}


async def test_each_end_user_has_a_pace(service: Service) -> None:
    shared = await new_key(service, "shared", count_by="user", user_per_minute=1, per_minute=2)
    assert (await picture(service, shared, user="x")).status == 200
    refused(await picture(service, shared, "a bird", user="x"), 429, "rate_limit_exceeded", "Each end user of this key")
    assert (await picture(service, shared, user="y")).status == 200
    refused(await picture(service, shared, user="z"), 429, "rate_limit_exceeded", "The key 'shared'")


async def test_invented_end_users_fill_one_bucket(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.accounts.users.MOST_USERS", 2)
    shared = await new_key(service, "shared", count_by="user")
    for number in range(4):
        assert (await picture(service, shared, user=f"u{number}")).status == 200
    assert len(await used(service, "user")) == 3
    assert "*" in await used(service, "user")
