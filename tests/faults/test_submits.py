"""What can go wrong with the call that costs money."""

from typing import Any

import pytest
from starlette.responses import JSONResponse

from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.service import Answer, Service, running

from .scripted import Upstream, before
from .wire import LABS, LEGACY, SCHNELL, V1, assert_failed

pytestmark = pytest.mark.anyio
ALL = pytest.mark.parametrize("model", [SCHNELL, V1, LEGACY, LABS], ids=["v2", "v1", "legacy", "labs"])


async def generate(service: Service, tag: str, fault: str, model: str) -> tuple[Answer, int, int]:
    """Return the answer, and how many submits and polls the simulator saw for it."""
    answer = await service.generate(f"a fox [seconds:0.02] [tag:{tag}] [fault:{fault}]", model=model)
    counts = await service.counts(tag)
    for runtime in service.engine.runtimes.values():
        assert runtime.slots._value == runtime.max_jobs
    return answer, counts["submits"], counts["polls"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nobody_there_or_no_tls(scheme: str) -> None:
    async with serving(create_simulator()) as port:
        base_url = f"https://127.0.0.1:{port}/imagelabs" if scheme == "https" else "http://127.0.0.1:1"
        async with running(providers={"base_url": base_url}) as service:
            answer = await service.generate("a", model=LABS)
            assert_failed(answer, 503, "server_error", "provider_unavailable", retry=True)
            assert answer.headers["x-images-attempts"] == "0"
            assert service.engine.runtimes["imagelabs"].submit_breaker._failures_in_a_row == 1


async def test_after_five_the_breaker_is_open_and_readiness_falls() -> None:
    async with running(providers={"base_url": "http://127.0.0.1:1"}, timeouts={"hold": 1}) as service:
        for _ in range(5):
            await service.generate("a fox", model="dall-e-2")
        answer = await service.generate("a fox", model="dall-e-2")
        assert_failed(answer, 503, "service_unavailable_error", "server_is_overloaded", retry=True)
        others = [one for one in service.engine.runtimes.values() if one.submit_breaker.state == "closed"]
        for model in (f"{one.name}/{one.provider.models()[0].name}" for one in others):
            assert (await service.get("/readyz")).status == 200
            for _ in range(5):
                await service.generate("a", model=model)
        assert (await service.get("/readyz")).status == 503
        assert (await service.get("/healthz")).status == 200


@ALL
async def test_the_connection_drops_after_the_request_was_read(service: Service, tag: str, model: str) -> None:
    answer, submits, _ = await generate(service, tag, "drop", model)
    assert_failed(answer, 502, "server_error", "submit_outcome_unknown")
    assert submits == 1


async def test_an_unknown_outcome_is_not_followed_by_another_route() -> None:
    async with running(timeouts={"submit": 0.2, "lifetime": 0.3}) as service:
        for tag, fault in (("d", "drop"), ("h", "hang"), ("f", "500")):
            answer = await service.generate(f"[tag:{tag}] [fault:{fault}]", model="dall-e-3")
            assert_failed(answer, 502, "server_error", "submit_outcome_unknown")
            assert (await service.counts(tag))["submits"] == 1


@ALL
async def test_no_answer(tag: str, model: str) -> None:
    async with running(timeouts={"submit": 0.2, "lifetime": 0.2}) as service:
        answer, submits, _ = await generate(service, tag, "hang", model)
        assert_failed(answer, 502, "server_error", "submit_outcome_unknown")
        assert submits == 1


async def test_the_retry_is_told_the_same_and_nothing_is_sent() -> None:
    async with running(timeouts={"submit": 0.4, "hold": 0.1}) as service:
        answer = await service.generate("a [tag:t] [fault:hang]", model=LABS)
        assert_failed(answer, 504, "timeout_error", "generation_pending", retry=True)
        for attempt in range(1, 8):
            headers = {"x-stainless-retry-count": str(attempt)}
            answer = await service.generate("a [tag:t] [fault:hang]", headers, model=LABS)
            if answer.status != 504:
                break
        assert_failed(answer, 502, "server_error", "submit_outcome_unknown")
        assert (await service.counts("t"))["submits"] == 1


async def test_busy_with_a_hint_is_asked_once_more(service: Service, tag: str) -> None:
    answer, submits, _ = await generate(service, tag, "busy:1:0.3", SCHNELL)
    assert answer.status == 200
    assert answer.headers["x-images-attempts"] == str(submits) == "2"


@pytest.mark.parametrize(
    ("fault", "hint", "submits"),
    [
        ("busy:9:0.2", "1", 2),
        ("busy:9:9", "9", 1),
        ("busy:9:90", "30", 1),
        ("no-capacity", "1", 1),
    ],
)
async def test_busy(tag: str, fault: str, hint: str, submits: int) -> None:
    async with running(timeouts={"hold": 1}) as service:
        answer, seen, _ = await generate(service, tag, fault, SCHNELL)
        assert_failed(answer, 429, "rate_limit_error", "provider_busy", retry=True)
        assert answer.headers["retry-after"] == hint
        assert seen == submits
        assert service.engine.runtimes["prodia"].submit_breaker.state == "closed"


@pytest.mark.parametrize(
    ("model", "fault"), [(SCHNELL, "401"), (SCHNELL, "402"), (V1, "402"), (V1, "401"), (LABS, "401")]
)
async def test_our_credentials_are_refused(service: Service, tag: str, model: str, fault: str) -> None:
    answer, submits, _ = await generate(service, tag, fault, model)
    assert_failed(answer, 502, "server_error", "provider_auth")
    assert submits == 1
    assert "token is invalid" not in answer.body.decode()
    figures = (await service.get("/metrics")).body.decode()
    assert any('provider_auth"' in line and "submits" in line for line in figures.splitlines())


async def test_refused_content_is_told_and_does_not_travel_on(service: Service, tag: str) -> None:
    answer, submits, _ = await generate(service, tag, "unsafe", "dall-e-3")
    assert_failed(answer, 400, "image_generation_user_error", "content_policy_violation")
    assert submits == 1
    assert service.engine.runtimes["prodia"].submit_breaker._failures_in_a_row == 0


@pytest.mark.parametrize(
    ("model", "fault"),
    [(LABS, "not-json"), (LABS, "not-json:empty"), (LABS, "no-job"), (LABS, "no-job:missing"), (LABS, "huge:json"),
     (LEGACY, "no-job"),
     (V1, "huge:json"), (LABS, "cut:submit"), (SCHNELL, "no-picture"), (SCHNELL, "broken-multipart:job")],
)  # fmt: skip
async def test_nonsense_after_a_submit(service: Service, tag: str, model: str, fault: str) -> None:
    answer, submits, polls = await generate(service, tag, fault, model)
    expected = "submit_outcome_unknown" if fault == "cut:submit" else "provider_bad_response"
    assert_failed(answer, 502, "server_error", expected)
    assert (submits, polls) == (1, 0)
    received = service.engine.runtimes[model.partition("/")[0]].upstream.traffic.received
    assert received < 600_000


async def test_a_job_id_that_is_none_is_never_put_into_an_address() -> None:
    upstream = Upstream()
    jobs: list[Any] = ["../x", "a/b/c/d/e/f", "0f4c6b0e?x=1", "0" * 65, "short", None, 5, ["0f4c6b0e"]]
    async with before(upstream) as service:
        for job in jobs:
            service.engine.runtimes["prodia-legacy"].submit_breaker.succeeded()
            upstream.submit = JSONResponse({"job": job, "status": "queued"})
            assert_failed(await service.generate("a", model=LEGACY), 502, "server_error", "provider_bad_response")
        assert upstream.calls() == ["/generate"] * len(jobs)


async def test_a_refusal_that_bears_an_id_is_not_polled(service: Service, tag: str) -> None:
    answer, submits, polls = await generate(service, tag, "invalid", SCHNELL)
    assert_failed(answer, 400, "invalid_request_error", "provider_rejected")
    assert (submits, polls) == (1, 0)
    upstream = Upstream(submit=JSONResponse({"job": "0f4c6b0e-0d3b", "error": "no"}, 400))
    async with before(upstream) as service:
        assert_failed(await service.generate("a", model=LEGACY), 400, "invalid_request_error", "provider_rejected")
        assert upstream.calls() == ["/generate"]
