"""The figures after real requests: what ``/metrics`` says must be what happened."""

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import __version__, background
from proxy.clock import Clock
from proxy.config import compose
from proxy.engine import Engine
from proxy.metrics import Metrics
from tests.service import Service, running
from tests.time_skip import backend

pytestmark = pytest.mark.anyio

POLLED = "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"
SYNC = "prodia/inference.flux-fast.schnell.txt2img.v2"
FAMILIES = {
    "images_proxy_requests": "counter",
    "images_proxy_submits": "counter",
    "images_proxy_polls": "counter",
    "images_proxy_polls_per_job": "histogram",
    "images_proxy_detection_lag_seconds": "histogram",
    "images_proxy_job_seconds": "histogram",
    "images_proxy_hold_seconds": "histogram",
    "images_proxy_added_seconds": "histogram",
    "images_proxy_provider_received_bytes": "counter",
    "images_proxy_stored_bytes": "gauge",
    "images_proxy_jobs_in_flight": "gauge",
    "images_proxy_requests_in_flight": "gauge",
    "images_proxy_queue": "gauge",
    "images_proxy_breaker_open": "gauge",
    "images_proxy_reattached": "counter",
    "images_proxy_orphans_rescued": "counter",
    "images_proxy_duplicate_submits_avoided": "counter",
    "images_proxy_event_loop_lag_seconds": "gauge",
    "images_proxy_build": "info",
}


@pytest.fixture
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    return backend(skip=not full)


async def figures(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by its name and labels."""
    page = (await service.get("/metrics")).body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"images_proxy_{name}", frozenset(labels.items())


def test_every_family_is_there() -> None:
    families = {family.name: family.type for family in Metrics().registry.collect()}
    assert {name: families.get(name) for name in FAMILIES} == FAMILIES


@pytest.mark.parametrize("stream", [False, True])
async def test_each_surfaces_waits_are_counted_as_its_own(*, stream: bool) -> None:
    async with running() as service:
        talk = {"messages": [{"role": "user", "content": "a hill"}], "model": POLLED, "stream": stream}
        async with service.http.post(f"{service.url}/v1/chat/completions", json=talk) as response:
            assert response.status == 200
            await response.read()
        async with service.http.post(f"{service.url}/sdapi/v1/txt2img", json={"prompt": "a hill"}) as response:
            assert response.status == 200
            await response.read()
        answer = {"input": "a hill", "model": POLLED, "stream": stream}
        async with service.http.post(f"{service.url}/v1/responses", json=answer) as response:
            assert response.status == 200
            await response.read()
        await service.generate("a hill", model=POLLED)
        async with service.http.post(
            f"{service.url}/v1/images/generations", json={"prompt": "a hill", "stream": True}
        ) as response:
            await response.read()
        seen = await figures(service)
    surfaces = ("images", "stream", "chat", "responses", "sdapi")
    counts = {surface: seen[key("hold_seconds_count", route=surface)] for surface in surfaces}
    assert counts == dict.fromkeys(surfaces, 1)


async def test_a_polled_picture_is_counted() -> None:
    async with running() as service:
        answer = await service.generate("a hill [seconds:0.3] [tag:polled]", model=POLLED)
        assert answer.status == 200
        polls = (await service.counts("polled"))["polls"]
        seen = await figures(service)
    request = {"route": "create_image", "model": "other", "provider": "prodia-v1", "status": "200", "code": ""}
    assert seen[key("requests_total", **request)] == 1
    assert seen[key("submits_total", provider="prodia-v1", outcome="accepted")] == 1
    assert seen[key("polls_total", provider="prodia-v1")] == polls
    assert seen[key("polls_per_job_count", provider="prodia-v1")] == 1
    assert seen[key("polls_per_job_sum", provider="prodia-v1")] == polls > 0
    assert seen[key("detection_lag_seconds_count", provider="prodia-v1")] == 1
    assert 0 <= seen[key("detection_lag_seconds_sum", provider="prodia-v1")] < 60
    assert seen[key("job_seconds_sum", provider="prodia-v1", outcome="finished")] >= 0.3
    assert seen[key("hold_seconds_sum", route="images")] >= 0.3
    assert seen[key("added_seconds_count")] == 1
    assert 0 < seen[key("added_seconds_sum")] < seen[key("hold_seconds_sum", route="images")]
    assert seen[key("jobs_in_flight", provider="prodia-v1")] == 0
    assert seen[key("requests_in_flight")] == 0
    assert seen[key("build_info", version=__version__, python=_python(seen))] == 1


async def test_polls_of_a_job_that_fails_are_counted() -> None:
    async with running() as service:
        answer = await service.generate("a hill [seconds:0.3] [fault:failed] [tag:failed]", model=POLLED)
        assert answer.status == 502
        polls = (await service.counts("failed"))["polls"]
        seen = await figures(service)
    assert seen[key("polls_total", provider="prodia-v1")] == polls > 0
    assert key("polls_per_job_count", provider="prodia-v1") in seen
    assert seen[key("polls_per_job_count", provider="prodia-v1")] == 0


async def test_bytes_are_counted_as_they_come() -> None:
    async with running() as service:
        before = await figures(service)
        answer = await service.generate("a hill [bytes:300000]", model=SYNC, response_format="b64_json")
        assert answer.status == 200
        after = await figures(service)
    name = key("provider_received_bytes_total", provider="prodia")
    assert 290_000 < after[name] - before.get(name, 0) < 310_000
    # The picture stands in an answer that tells more of its job.
    assert 0 < after[name] - after[key("stored_bytes")] < 2_000


async def test_what_runs_and_what_waits_is_told() -> None:
    async with running(providers={"max_jobs": 1}) as service:
        held = [
            asyncio.create_task(service.generate(f"hill number {number} [seconds:0.6]", model=POLLED))
            for number in range(3)
        ]
        seen = await figures(service)
        while seen.get(key("queue", provider="prodia-v1"), 0) < 2:
            await asyncio.sleep(0.02)
            seen = await figures(service)
        assert seen[key("jobs_in_flight", provider="prodia-v1")] == 1
        assert seen[key("requests_in_flight")] == 3
        for task in held:
            task.cancel()


async def test_a_repeat_is_counted_as_a_submit_avoided() -> None:
    async with running() as service:
        headers = {"idempotency-key": "one"}
        first, second = await asyncio.gather(
            *(service.generate("a hill [seconds:0.3]", headers, model=POLLED) for _ in range(2))
        )
        assert first.status == second.status == 200
        seen = await figures(service)
    assert seen[key("reattached_total", how="key")] == 1
    assert seen[key("duplicate_submits_avoided_total")] == 1
    assert seen[key("submits_total", provider="prodia-v1", outcome="accepted")] == 1


async def test_an_orphan_that_is_taken_over_is_counted() -> None:
    async with running() as service:
        body = {"prompt": "a hill [seconds:0.8]", "model": POLLED}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await service.post("/v1/images/generations", body)
        assert (await service.post("/v1/images/generations", body)).status == 200
        seen = await figures(service)
    assert seen[key("orphans_rescued_total")] == 1
    left = {"route": "create_image", "model": "other", "provider": "prodia-v1", "status": "499", "code": ""}
    assert seen[key("requests_total", **left)] == 1


async def test_an_open_breaker_shows() -> None:
    async with running() as service:
        breaker = service.engine.runtimes["prodia-v1"].submit_breaker
        assert (await figures(service))[key("breaker_open", provider="prodia-v1", operation="submit")] == 0
        for _ in range(5):
            breaker.failed()
        seen = await figures(service)
    assert seen[key("breaker_open", provider="prodia-v1", operation="submit")] == 1
    assert seen[key("breaker_open", provider="prodia-v1", operation="poll")] == 0


@pytest.mark.parametrize(("on_time_after", "told"), [(19, 0.3), (20, 0.0)])
async def test_the_longest_lag_of_the_last_ten_seconds_is_told(on_time_after: int, told: float) -> None:
    now, late_s = 0.0, iter([0.0, 0.3, *([0.0] * on_time_after)])

    async def sleep(seconds: float) -> None:
        nonlocal now
        late = next(late_s, None)
        if late is None:
            raise asyncio.CancelledError
        now += seconds + late

    engine = Engine(compose({}, {}), Clock(monotonic=lambda: now, sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await background.watch_loop(engine.clock, engine.metrics.loop_lag_seconds.set)
    assert engine.metrics.registry.get_sample_value("images_proxy_event_loop_lag_seconds") == pytest.approx(told)


async def test_callers_choose_no_label_values() -> None:
    async with running() as service:
        for number in range(5):
            await service.generate("a hill", model=f"made-up-{number}")
            await service.get(f"/made/up/{number}")
            await service.post("/v1/images/generations", {"prompt": "", "model": f"made-up-{number}"})
        seen = await figures(service)
    requests = [dict(labels) for name, labels in seen if name == "images_proxy_requests_total"]
    assert not [labels for labels in requests if "made" in "".join(labels.values())]
    assert len(requests) < 6


def _python(seen: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> str:
    labels = next(dict(labels) for name, labels in seen if name == "images_proxy_build_info")
    return labels["python"]
