"""What can go wrong while a paid job runs."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.providers.boundary import Finished, Handle, Pending, Reply
from proxy.simulator.replies import hang
from tests.service import Service, running
from tests.time_skip import block

from .scripted import JOB, Upstream, before
from .wire import LABS, LEGACY, SCHNELL, V1, assert_failed

pytestmark = pytest.mark.anyio
DONE = JSONResponse({"job": JOB, "status": "succeeded", "imageUrl": "http://127.0.0.1:1/pictures/a.png"})
ISE = "image_generation_server_error"


@dataclass
class Slow:
    """An answer that is long in coming."""

    answer: ASGIApp
    after_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(self.after_s)
        await self.answer(scope, receive, send)


async def test_one_failed_poll_costs_nothing_but_time(service: Service, tag: str) -> None:
    faults = {"gateway": "gateway:1", "reset": "drop:poll:1", "truncated": "cut:1", "challenge": "challenge:poll:1"}
    prompts = [f"[seconds:0.02] [tag:{tag}{name}] [fault:{fault}]" for name, fault in faults.items()]
    answers = await asyncio.gather(*(service.generate(prompt, model=LABS) for prompt in prompts))
    assert [answer.status for answer in answers] == [200] * len(faults)
    for name in faults:
        counts = await service.counts(f"{tag}{name}")
        assert (counts["submits"], counts["polls"]) == (1, 2), name


async def test_a_poll_without_an_answer() -> None:
    upstream = Upstream(polls=[hang, DONE])
    async with before(upstream, timeouts={"poll": 0.2}) as service:
        assert (await service.generate("a", model=LEGACY)).status == 200
        assert upstream.calls() == ["/generate", f"/job/{JOB}", f"/job/{JOB}"]


async def test_polls_that_go_on_failing() -> None:
    async with running(timeouts={"hold": 1.5}) as service:
        prompts = [f"{number} [seconds:0.02] [tag:t] [fault:gateway:9]" for number in range(6)]
        answers = await asyncio.gather(*(service.generate(prompt, model=LABS) for prompt in prompts))
        for answer in answers:
            assert_failed(answer, 504, "timeout_error", "generation_pending", retry=True)
            assert answer.headers["x-images-generation"].startswith("/v1/images/generations/imggen_")
        runtime = service.engine.runtimes["imagelabs"]
        assert (runtime.poll_breaker.state, runtime.submit_breaker.state) == ("open", "closed")
        assert (await service.counts("t"))["submits"] == 6
        assert service.engine.generations.running == 6


@pytest.mark.parametrize("size", [200, 200_000], ids=["small", "large"])
@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
async def test_a_front_ends_page_instead_of_an_answer(size: int, content_type: str) -> None:
    page = Response(b"<html>" + b" " * size, media_type=content_type)
    upstream = Upstream(polls=[page, DONE])
    async with before(upstream) as service:
        assert (await service.generate("a", model=LEGACY)).status == 200
        assert upstream.calls() == ["/generate", *[f"/job/{JOB}"] * 2]


async def test_an_oversized_answer_to_the_submit_is_final() -> None:
    upstream = Upstream(submit=Response(b" " * 200_000, media_type="application/json"))
    async with before(upstream) as service:
        for attempt in range(3):
            answer = await service.generate("a", {"x-stainless-retry-count": str(attempt)}, model=LEGACY)
            assert_failed(answer, 502, "server_error", "provider_bad_response")
        assert upstream.calls() == ["/generate"]


async def test_a_job_that_the_provider_forgot(service: Service, tag: str) -> None:
    answer = await service.generate(f"[seconds:9] [tag:{tag}] [fault:gone]", model=LABS)
    assert_failed(answer, 502, ISE, "job_lost")
    counts = await service.counts(tag)
    assert (counts["submits"], counts["polls"]) == (1, 3)


async def test_a_busy_poll_is_repeated_when_it_was_told_to_and_not_before(service: Service, tag: str) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await service.generate(f"[seconds:0.02] [tag:{tag}] [fault:busy:poll:1:1]", model=V1)
    assert answer.status == 200
    assert loop.time() - started >= 1
    counts = await service.counts(tag)
    assert (counts["submits"], counts["polls"]) == (1, 2)


@pytest.mark.parametrize("status", [429, 503])
async def test_patience_beyond_the_lifetime_leaves_time_for_a_last_poll(status: int) -> None:
    patience = JSONResponse({}, status, {"retry-after": "3600"})
    upstream = Upstream(polls=[patience, Slow(DONE, 0.2)])
    async with before(upstream, timeouts={"lifetime": 1.2}) as service:
        assert (await service.generate("a", model=LEGACY)).status == 200
        assert upstream.calls() == ["/generate", *[f"/job/{JOB}"] * 2]


async def test_the_last_polls_answer_counts_though_the_lifetime_ends_meanwhile() -> None:
    upstream = Upstream(polls=[JSONResponse({}, 429, {"retry-after": "3600"}), Slow(DONE, 1.0)])
    async with before(upstream, timeouts={"lifetime": 1.0}) as service:
        assert (await service.generate("a", model=LEGACY)).status == 200
        assert upstream.calls() == ["/generate", *[f"/job/{JOB}"] * 2]


async def test_a_provider_that_only_asks_for_patience_hears_few_polls() -> None:
    upstream = Upstream(polls=[JSONResponse({}, 429, {"retry-after": "3600"})])
    async with before(upstream, timeouts={"lifetime": 1.2}) as service:
        answer = await service.generate("a", model=LEGACY)
        assert_failed(answer, 504, "timeout_error", "generation_timeout")
        assert len(upstream.calls()) <= 1 + 3


async def test_what_is_done_at_the_end_of_its_lifetime_is_collected() -> None:
    async with running(timeouts={"lifetime": 0.8}, providers={"mode": "async"}) as service:
        runtime = service.engine.runtimes["prodia"]
        read = runtime.provider.read

        class Dawdling:
            """The provider, whose word that a job is done comes when its lifetime is over."""

            def __getattr__(self, name: str) -> Any:
                return getattr(plain, name)

            def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
                answer = read(asked, reply)
                if isinstance(answer, Pending) and answer.at_once and asked.step == "state":
                    block(0.9)
                return answer

        plain, runtime.provider = runtime.provider, Dawdling()
        answer = await service.generate("a [seconds:0.1] [tag:t]", model=SCHNELL)
        assert (answer.status, (await service.counts("t"))["submits"]) == (200, 1)


async def test_unknown_words_mean_that_it_runs(service: Service) -> None:
    prompts = [f"[seconds:0.6] [fault:odd-status{which}]" for which in (":unknown", "", ":missing")]
    answers = await asyncio.gather(*(service.generate(prompt, model=LABS) for prompt in prompts))
    assert [answer.status for answer in answers] == [200] * 3


async def test_done_without_a_picture(service: Service) -> None:
    answer = await service.generate("[seconds:0.02] [fault:no-picture]", model=LABS)
    assert_failed(answer, 502, "server_error", "provider_bad_response")


@pytest.mark.parametrize("model", [SCHNELL, V1, LEGACY, LABS], ids=["v2", "v1", "legacy", "labs"])
async def test_a_job_that_failed(service: Service, tag: str, model: str) -> None:
    before = _samples(service)
    answer = await service.generate(f"[seconds:0.02] [tag:{tag}] [fault:failed]", model=model)
    assert_failed(answer, 502, ISE, "image_generation_failed")
    assert (await service.counts(tag))["submits"] == 1
    assert _samples(service) == before, "a failed job is no sample"


def _samples(service: Service) -> int:
    return sum(figures[0] for _, *three in service.engine.schedule.dump()["keys"] for figures in three)


async def test_a_job_past_its_lifetime() -> None:
    async with running(timeouts={"lifetime": 0.7}) as service:
        answer = await service.generate("[tag:t] [fault:stuck]", model=LABS)
        assert_failed(answer, 504, "timeout_error", "generation_timeout")
        assert (await service.counts("t"))["submits"] == 1
