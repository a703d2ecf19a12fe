"""The routes of administration and of one's own key: LiteLLM's bodies, OpenAI's SDK, and who is kept out."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import openai
import pytest

from tests.accounts.parts import ADMIN, AS_ADMIN, MODEL, bearer, new_key, used
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

METRICS_KEY = "metrics-only"
ADMIN_ROUTES = (
    ("POST", "/key/generate"),
    ("POST", "/key/update"),
    ("POST", "/key/delete"),
    ("POST", "/key/block"),
    ("POST", "/key/unblock"),
    ("POST", "/key/ann/regenerate"),
    ("GET", "/key/info?key=ann"),
    ("GET", "/key/list"),
    ("GET", "/v1/organization/costs?start_time=0"),
    ("GET", "/v1/organization/usage/images?start_time=0"),
    ("POST", "/v1/ledger/imggen_1.0"),
)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    environment = {"IMAGES_PROXY_ADMIN_KEY": ADMIN, "IMAGES_PROXY_METRICS_KEY": METRICS_KEY}
    async with running(speed=400, environment=environment) as service:
        yield service


async def asked(service: Service, method: str, path: str, headers: dict[str, str], **values: Any) -> Answer:
    body = values if method == "POST" else None
    async with service.http.request(method, service.url + path, headers=headers, json=body) as response:
        return await Answer.read(response)


async def as_admin(service: Service, path: str, /, **values: Any) -> Any:
    answer = await asked(service, "POST" if values else "GET", path, AS_ADMIN, **values)
    assert answer.status == 200, answer.json
    return answer.json


async def picture(service: Service, key: dict[str, str], prompt: str = "a fox", **values: Any) -> Answer:
    return await service.generate(prompt, key, model=MODEL, **values)


# --- who is kept out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
async def test_only_the_admin_key_administers(service: Service, method: str, path: str) -> None:
    ann = await new_key(service)
    for headers, status, code in (
        (ann, 403, None),
        (bearer(METRICS_KEY), 401, "invalid_api_key"),
        (bearer("wrong"), 401, "invalid_api_key"),
        ({}, 401, None),
        ({**AS_ADMIN, "origin": "https://evil.test"}, 403, "origin_not_allowed"),
    ):
        answer = await asked(service, method, path, headers)
        assert (answer.status, answer.code) == (status, code), headers
    assert (await asked(service, method, path, {**AS_ADMIN, "origin": service.url})).status in (200, 400, 404)


async def test_without_an_admin_key_there_is_no_administration() -> None:
    async with running(environment={"IMAGES_PROXY_KEYS": "plain-key"}) as service:
        for method, path in ADMIN_ROUTES:
            answer = await asked(service, method, path, bearer("plain-key"))
            assert (answer.status, answer.code) == (404, None)


async def test_neither_admin_nor_metrics_key_makes_pictures(service: Service) -> None:
    for key in (AS_ADMIN, bearer(METRICS_KEY)):
        answer = await picture(service, key)
        assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await used(service) == {}


async def test_metrics_are_for_their_key_and_the_admin(service: Service) -> None:
    ann = await new_key(service)
    statuses = [(await service.get("/metrics", key)).status for key in (bearer(METRICS_KEY), AS_ADMIN, ann, {})]
    assert statuses == [200, 200, 403, 401]
    assert (await service.get("/v1/usage", bearer(METRICS_KEY))).status == 401


async def test_whoever_guesses_the_admin_key_has_ten_tries_a_minute(service: Service) -> None:
    ann = await new_key(service)
    statuses = [(await service.get("/key/list", bearer(f"guess-{number}"))).status for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    answer = await service.get("/v1/usage", AS_ADMIN)
    assert (answer.status, answer.code) == (429, "rate_limit_exceeded"), "the right one is not looked at either"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (await picture(service, ann)).status == 200, "whoever makes pictures is not concerned"


# --- LiteLLM ----------------------------------------------------------------------------------------------------------


async def test_litellms_bodies_make_change_and_end_keys(service: Service) -> None:
    # https://docs.litellm.ai/docs/proxy/virtual_keys and the key of its Terraform provider
    made = await as_admin(
        service,
        "/key/generate",
        key_alias="prod-key-1",
        models=["dall-e-3", MODEL],
        max_budget=10.0,
        budget_duration="30d",
        duration="90d",
        rpm_limit=200,
        tpm_limit=50000,
        max_parallel_requests=10,
        user_id="user123",
        metadata={"environment": "production"},
    )
    assert made["key"].startswith("sk-")
    assert {name: made[name] for name in ("key_alias", "max_budget", "budget_duration", "rpm_limit", "user_id")} == {
        "key_alias": "prod-key-1",
        "max_budget": 10.0,
        "budget_duration": "30d",
        "rpm_limit": 200,
        "user_id": "user123",
    }
    assert (made["budget"], made["ignored"], made["spend"]) == (["10/month"], ["tpm_limit"], 0.0)
    assert made["metadata"] == {"environment": "production"}
    assert made["key_name"] == f"sk-...{made['key'][-4:]}"
    assert (await picture(service, bearer(made["key"]))).status == 200

    info = await as_admin(service, f"/key/info?key={made['token']}")
    assert info["key"] == made["token"]
    assert (info["info"]["spend"], info["info"]["limits"][0]["remaining"]) == (0.0025, "9.9975")
    assert info["info"]["changes"][0]["who"] == "admin (127.0.0.1)"
    assert (await as_admin(service, f"/key/info?key={made['key']}"))["key"] == made["token"]

    updated = await as_admin(service, "/key/update", key=made["key"], max_budget=20, models=[])
    assert (updated["budget"], updated["models"], updated["key"]) == (["20/month"], [], made["token"])
    updated = await as_admin(service, "/key/update", key="prod-key-1", budget_duration="1d")
    assert updated["budget"] == ["20/day"]
    updated = await as_admin(service, "/key/update", key="prod-key-1", max_budget=None, rpm_limit=None)
    assert (updated["budget"], updated["max_budget"], updated["rpm_limit"]) == ([], None, None)

    assert (await as_admin(service, "/key/block", key=made["key"]))["blocked"]
    assert (await picture(service, bearer(made["key"]))).status == 401
    assert not (await as_admin(service, "/key/unblock", key=made["key"]))["blocked"]
    assert (await picture(service, bearer(made["key"]))).status == 200

    fresh = await as_admin(service, f"/key/{made['token']}/regenerate", grace_period="1h")
    assert [(await service.get("/v1/models", bearer(each["key"]))).status for each in (made, fresh)] == [200, 200]
    again = await as_admin(service, "/key/prod-key-1/regenerate", grace_period="0s")
    assert [(await service.get("/v1/models", bearer(each["key"]))).status for each in (fresh, again)] == [401, 200]

    deleted = await as_admin(service, "/key/delete", keys=[again["key"]])
    assert deleted == {"deleted_keys": [again["token"]]}
    assert (await service.get("/v1/models", bearer(again["key"]))).status == 401
    assert (await asked(service, "POST", "/key/delete", AS_ADMIN, key_aliases=["prod-key-1"])).status == 404


async def test_keys_are_listed_by_page(service: Service) -> None:
    for name in ("a", "b", "c"):
        await as_admin(service, "/key/generate", key_alias=name, max_budget=5, user_id="x" if name == "c" else "y")
    listed = await as_admin(service, "/key/list?page=2&size=2")
    assert (len(listed["keys"]), listed["total_count"], listed["total_pages"], listed["current_page"]) == (1, 3, 2, 2)
    whole = await as_admin(service, "/key/list?return_full_object=true&user_id=y")
    assert [each["key_alias"] for each in whole["keys"]] == ["a", "b"]
    assert "key" not in whole["keys"][0]
    assert [limit["remaining"] for limit in whole["keys"][0]["limits"]] == ["5"]


async def test_keys_have_our_own_words_too(service: Service) -> None:
    made = await as_admin(
        service,
        "/key/generate",
        name="team",
        owner="family",
        budget=["5/month", "1/day"],
        pictures=["100/week"],
        per_user_budget=["1/month"],
        per_user_pictures=["20/day"],
        count_by="user",
        show_users=True,
        expires="2099-01-01",
    )
    assert (made["budget"], made["pictures"]) == (["1/day", "5/month"], ["100/week"]) or made["budget"] == [
        "5/month",
        "1/day",
    ]
    assert (made["per_user_budget"], made["per_user_pictures"]) == (["1/month"], ["20/day"])
    assert (made["count_by"], made["show_users"], made["expires"]) == ("user", True, "2099-01-01T00:00:00Z")
    assert made["max_budget"] is None, "two budgets are no single one"


@pytest.mark.parametrize(
    ("path", "values", "status", "param"),
    [
        ("/key/generate", {"budget_duration": "1h", "max_budget": 1}, 400, "budget_duration"),
        ("/key/generate", {"max_budget": "much"}, 400, "max_budget"),
        ("/key/generate", {"max_budget": -1}, 400, "max_budget"),
        ("/key/generate", {"budget": ["5/year"]}, 400, "budget"),
        ("/key/generate", {"models": "dall-e-3"}, 400, "models"),
        ("/key/generate", {"rpm_limit": 1.5}, 400, "rpm_limit"),
        ("/key/generate", {"duration": "soon"}, 400, "duration"),
        ("/key/generate", {"key_alias": 7}, 400, "key_alias"),
        ("/key/generate", {"metadata": []}, 400, "metadata"),
        ("/key/generate", {"metadata": {"x": "y" * 3000}}, 400, "metadata"),
        ("/key/generate", {"count_by": "moon"}, 400, "count_by"),
        ("/key/generate", {"key_alias": "taken"}, 409, None),
        ("/key/update", {"owner": "x"}, 400, "key"),
        ("/key/update", {"key": "nobody"}, 404, None),
        ("/key/delete", {"keys": []}, 400, "keys"),
        ("/key/nobody/regenerate", {"grace_period": "1h"}, 404, None),
        ("/v1/ledger/imggen_1.0", {"outcome": "paid"}, 404, None),
        ("/v1/ledger/x", {"outcome": "free"}, 404, None),
        ("/v1/ledger/imggen_1.0", {"outcome": "maybe"}, 400, "outcome"),
    ],
)
async def test_what_is_wrong_is_named(
    service: Service, path: str, values: dict[str, Any], status: int, param: str | None
) -> None:
    await as_admin(service, "/key/generate", key_alias="taken")
    answer = await asked(service, "POST", path, AS_ADMIN, **values)
    assert answer.status == status, answer.json
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["type"] == "invalid_request_error"


# --- what was used ----------------------------------------------------------------------------------------------------


async def test_a_key_sees_itself_and_only_itself(service: Service) -> None:
    ann = await new_key(service, "ann", {"dollars": ["5/month"], "pictures": ["9/day"]})
    bob = await new_key(service, "bob")
    assert (await picture(service, ann, n=2)).status == 200
    assert (await picture(service, bob)).status == 200
    own = (await service.get("/v1/key", ann)).json
    assert {name: own[name] for name in ("name", "pictures", "spent", "reserved", "unknown", "remaining")} == {
        "name": "ann",
        "pictures": 2,
        "spent": "0.005",
        "reserved": "0",
        "unknown": "0",
        "remaining": "4.995",
    }
    assert own["resets"].endswith("-01T00:00:00Z")
    assert {limit["unit"]: limit["remaining"] for limit in own["limits"]} == {"dollars": "4.995", "pictures": "7"}
    assert [row["key"] for row in (await service.get("/v1/usage", bob)).json["rows"]] == ["bob"]
    assert {row["key"] for row in (await service.get("/v1/usage?key=ann", bob)).json["rows"]} == {"bob"}
    assert {row["key"] for row in (await service.get("/v1/ledger", bob)).json["data"]} == {"bob"}
    assert (await service.get("/v1/key", AS_ADMIN)).status == 404


async def test_the_admin_sees_all_that_a_page_needs(service: Service) -> None:
    ann = await new_key(service, owner="family")
    assert (await picture(service, ann, n=3)).status == 200
    assert (await picture(service, ann, "a bird [fault:drop]")).status == 502
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    by_day = await as_admin(service, "/v1/usage?by=day&split=model&since=7d")
    (row,) = by_day["rows"]
    assert (row["day"], row["model"], row["spent"], row["unknown"]) == (
        today,
        MODEL.partition("/")[2],
        "0.0075",
        "0.0025",
    )
    assert by_day["total"] == {name: row[name] for name in by_day["total"]}
    by_provider = await as_admin(service, "/v1/usage?by=provider&split=model")
    assert [(row["provider"], row["pictures"]) for row in by_provider["rows"]] == [("prodia", 3)]
    (unknown,) = (await as_admin(service, "/v1/ledger?unknown=true"))["data"]
    assert (unknown["key"], unknown["owner"], unknown["amount"]) == ("ann", "family", "0.0025")
    jobs = (await as_admin(service, "/v1/ledger?jobs=true"))["data"]
    assert [(job["outcome"], job["amount"]) for job in jobs] == [("unknown", "0.0025")] + [("spent", "0.0025")] * 3
    settled = await as_admin(service, f"/v1/ledger/{unknown['job']}", outcome="paid")
    assert settled == {"object": "ledger.job", "job": unknown["job"], "outcome": "paid"}
    first = await as_admin(service, "/v1/ledger?limit=1")
    assert (first["data"][0]["kind"], first["data"][0]["who"], first["has_more"]) == (
        "correct",
        "admin (127.0.0.1)",
        True,
    )
    assert (await service.get("/v1/ledger?limit=1", ann)).json["data"][0]["who"] == "admin"
    rest = await as_admin(service, f"/v1/ledger?before={first['data'][0]['id']}&key=ann")
    assert (len(rest["data"]), rest["has_more"]) == (8, False)
    assert (await as_admin(service, "/v1/usage"))["total"]["spent"] == "0.01"


async def test_the_admin_sees_the_limits_of_all_together() -> None:
    limits = {"budget": ["5/month"], "owners": {"family": {"pictures": ["9/day"]}}}
    async with running(speed=400, environment={"IMAGES_PROXY_ADMIN_KEY": ADMIN}, limits=limits) as service:
        ann = await new_key(service, owner="family")
        assert (await picture(service, ann)).status == 200
        service_wide, family = (await as_admin(service, "/v1/usage"))["limits"]
        assert (service_wide["scope"], service_wide["remaining"]) == ("service", "4.9975")
        assert (family["scope"], family["owner"], family["remaining"]) == ("owner", "family", "8")
        assert "limits" not in (await service.get("/v1/usage", ann)).json


@pytest.mark.parametrize("query", ["by=moon", "split=moon", "since=soon", "key=nobody"])
async def test_what_cant_be_summed_is_told(service: Service, query: str) -> None:
    answer = await service.get(f"/v1/usage?{query}", AS_ADMIN)
    assert answer.status in (400, 404)
    assert (await service.get("/v1/ledger?limit=0", AS_ADMIN)).status == 400


async def test_openais_own_sdk_reads_costs_and_pictures(service: Service) -> None:
    ann, bob = await new_key(service), await new_key(service, "bob", owner="family")
    assert (await picture(service, ann, n=2)).status == 200
    assert (await picture(service, bob)).status == 200
    start = int(datetime.now(UTC).timestamp()) - 2 * 86_400
    async with openai.AsyncOpenAI(admin_api_key=ADMIN, api_key="x", base_url=f"{service.url}/v1") as client:
        usage = client.admin.organization.usage
        costs = await usage.costs(start_time=start, group_by=["api_key_id"])
        days = [[(each.api_key_id, each.amount.value) for each in day.results] for day in costs.data]  # type: ignore[union-attr]
        assert days == [[], [], [("ann", 0.005), ("bob", 0.0025)]]
        assert costs.data[0].end_time == costs.data[1].start_time
        plain = await usage.costs(start_time=start)
        assert [each.amount.value for each in plain.data[-1].results] == [0.0075]  # type: ignore[union-attr]
        pages = await usage.costs(start_time=start, limit=2)
        assert (len(pages.data), pages.has_more) == (2, True)
        last = await usage.costs(start_time=start, limit=2, page=str(pages.next_page))
        assert (len(last.data), last.has_more) == (1, False)
        images = await usage.images(start_time=start, group_by=["project_id"])
        found = [(each.project_id, each.images) for each in images.data[-1].results]  # type: ignore[union-attr]
        assert found == [("", 2), ("family", 1)]
        with pytest.raises(openai.BadRequestError, match="group_by"):
            await usage.images(start_time=start, group_by=["source"])
        with pytest.raises(openai.BadRequestError, match="api_key_ids"):
            await usage.costs(start_time=start, api_key_ids=["ann"])


async def test_a_change_counts_for_this_process_at_once(service: Service) -> None:
    made = await as_admin(service, "/key/generate", key_alias="ann", pictures=["1"])
    assert (await picture(service, bearer(made["key"]))).status == 200
    assert (await picture(service, bearer(made["key"]), "a bird")).status == 429
    await as_admin(service, "/key/update", key="ann", pictures=["2"])
    assert (await picture(service, bearer(made["key"]), "a bird")).status == 200
