"""The life of a job, with the provider and the time played."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest

from proxy.clock import Clock, Deadline
from proxy.config import compose
from proxy.engine import Engine
from proxy.errors import (
    ContentRefused,
    Failure,
    GenerationFailed,
    GenerationTimeout,
    JobLost,
    Overloaded,
    ProviderAuth,
    ProviderBadResponse,
    ProviderBusy,
    ProviderRejected,
    ProviderUnavailable,
    StateUnavailable,
    SubmitOutcomeUnknown,
)
from proxy.jobs.breaker import Breaker
from proxy.jobs.run import Jobs
from proxy.jobs.runtime import Limits, ProviderRuntime
from proxy.jobs.schedule import Schedule
from proxy.jobs.steps import FinishedJob, Progress
from proxy.metrics import Metrics
from proxy.providers.boundary import Call, Finished, Handle, Job, Pending, Provider, Reply, UnreadableReply
from proxy.requests.resolve import ResolvedRequest
from proxy.requests.summary import RequestSummary
from proxy.upstream.client import Interrupted, NotSent, Upstream

pytestmark = pytest.mark.anyio

_ENGINE = Engine(compose({}, {"PRODIA_TOKEN": "t"}))
FIRST, SECOND = "prodia", "imagelabs"
CHEAP, DEAR = "inference.flux-fast.schnell.txt2img.v2", "inference.flux-2.flex.txt2img.v1"
UNPRICED = "inference.flux-2.klein.4b.txt2img.v1"
LIFETIME_S = 300.0


def resolved(model: str = "dall-e-3") -> ResolvedRequest:
    """Return an order; that of ``dall-e-3`` has two routes: FIRST, then SECOND."""
    return _ENGINE.resolve({"prompt": "a fox", "model": model})


@dataclass
class Time:
    """A clock that jumps over every sleep."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], None] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.on_sleep()
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Dialect:
    """JSON in plain words: ``{"job": …}``, ``{"done": …}``, ``{"failed": …}``, ``{"extra": …}``, ``{"cost": …}``.

    ``durable``: what was wanted of each submit.
    """

    def __init__(self) -> None:
        self.durable: list[bool] = []

    def submit(self, job: Job) -> Call:
        self.durable.append(job.durable)
        return Call("POST", "http://provider/jobs", json={"prompt": job.prompt})

    def ask(self, handle: Handle) -> Call:
        return Call("GET", f"http://provider/jobs/{handle.id}")

    def read(self, _asked: Handle, reply: Reply) -> Pending | Finished:
        answer = reply.json_object()
        if "done" in answer:
            return Finished("https://provider/1.png")
        if "failed" in answer:
            raise GenerationFailed("no")
        if "extra" in answer:
            return Pending(Handle("extra", "1"), "generating", at_once=True, otherwise=Handle("job", "1"))
        if "cost" in answer:
            return Finished("https://provider/1.png", cost=answer["cost"])
        if "job" not in answer:
            raise UnreadableReply
        return Pending(Handle("job", "1"), answer["job"], answer.get("progress"))

    def refusal(self, reply: Reply) -> str:
        return reply.body.decode()

    def only_at_once(self, reply: Reply) -> bool:
        return "async" in self.refusal(reply)


@dataclass
class Scripted:
    """Answers calls as the script says, its last line for ever; remembers them with their limits in seconds."""

    script: list[Any]
    time: Time
    calls: list[tuple[str, float, float]] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    takes_s: float = 0.0

    async def send(self, call: Call, timeout_s: float, max_bytes: int = 0) -> Reply:  # noqa: ARG002
        self.calls.append((call.method, timeout_s, self.time.now))
        self.time.now += self.takes_s
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if line == "hang":
            await self.hanging.wait()
            line = {"done": 1}
        if isinstance(line, Exception):
            raise line
        status, headers, body = line if isinstance(line, tuple) else (200, {}, line)
        text = body if isinstance(body, str) else json.dumps(body)
        return Reply(status, headers, text.encode())

    @property
    def submits(self) -> int:
        return sum(method == "POST" for method, _, _ in self.calls)

    @property
    def polls(self) -> int:
        return len(self.calls) - self.submits


def refused(status: int, hint: str = "", body: str = "", **headers: str) -> tuple[int, Mapping[str, str], str]:
    return status, {**headers, **({"retry-after": hint} if hint else {})}, body


class Studio:
    """Two providers that follow scripts."""

    def __init__(
        self,
        first: Sequence[Any],
        second: Sequence[Any] = ({"done": 1},),
        *,
        max_jobs: int = 1,
        real_time: bool = False,
        model: str = "dall-e-3",
    ) -> None:
        self.wanted = resolved(model)
        self.time = Time()
        played = Clock(lambda: self.time.now, lambda: self.time.now, self.time.sleep, Random(5))  # noqa: S311
        self.clock = Clock() if real_time else played
        self.upstreams = {
            FIRST: Scripted(list(first), self.time),
            SECOND: Scripted(list(second), self.time),
        }
        metrics = Metrics()
        self.dialects = {name: Dialect() for name in self.upstreams}
        self.runtimes = {
            name: ProviderRuntime(
                name,
                cast("Provider", self.dialects[name]),
                cast("Upstream", upstream),
                max_jobs,
                submit_breaker=Breaker(self.clock),
                poll_breaker=Breaker(self.clock),
                figures=metrics.of_provider(name),
            )
            for name, upstream in self.upstreams.items()
        }
        schedule = Schedule(worth_s=0.06, random=self.clock.random, now=self.clock.monotonic)
        self.jobs = Jobs(self.runtimes, schedule, Limits(15.0, 5.0, LIFETIME_S), self.clock, metrics)
        self.progress = Progress(lambda: None)

    async def follow(self, told: "Told") -> Finished:
        lifetime = Deadline.after(self.clock, LIFETIME_S)
        return await self.jobs.follow(self.runtimes[FIRST], Handle("job", "1"), told, lifetime)

    async def make(self, hold_s: float = 280.0) -> FinishedJob:
        self.progress = Progress(lambda: None)
        return await self.jobs.make(self.wanted, 7, self.progress, Deadline.after(self.clock, hold_s))

    async def fail(self, kind: type[Failure], hold_s: float = 280.0) -> Failure:
        with pytest.raises(kind) as caught:
            await self.make(hold_s)
        assert type(caught.value) is kind
        self.assert_slots_are_free()
        return caught.value

    def submits(self) -> tuple[int, int]:
        return self.upstreams[FIRST].submits, self.upstreams[SECOND].submits

    def assert_slots_are_free(self) -> None:
        for runtime in self.runtimes.values():
            assert runtime.slots._value == runtime.max_jobs


# --- routes ---------------------------------------------------------------------------------------------------


async def test_the_first_route_makes_the_picture() -> None:
    studio = Studio([{"done": 1}])
    finished_job = await studio.make()
    assert (finished_job.origin.provider, finished_job.finished.image) == (FIRST, "https://provider/1.png")
    assert studio.submits() == (1, 0)
    assert (studio.progress.submits, studio.progress.state, studio.progress.fraction) == (1, "done", 1.0)
    studio.assert_slots_are_free()


async def test_where_a_finished_job_comes_from_can_be_written_down() -> None:
    origin = (await Studio([{"done": 1}]).make()).origin
    summary = RequestSummary("m", 1, "url", (origin,))
    assert RequestSummary.load(summary.dump()) == summary
    assert (origin.provider, origin.seed, origin.width, origin.height) == (FIRST, 7, 1024, 1024)


@pytest.mark.parametrize(
    "refusal",
    [
        NotSent("ClientConnectorError"),
        *(refused(status) for status in (429, 503, 401, 402, 403, 404)),
        refused(400, body="prompt: too long"),
        refused(422, body="sampler"),
    ],
    ids=str,
)
async def test_the_next_route_is_tried_when_nothing_was_started(refusal: Any) -> None:
    studio = Studio([refusal])
    assert (await studio.make()).origin.provider == SECOND
    assert studio.submits() == (1, 1)
    assert studio.progress.submitted
    studio.assert_slots_are_free()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Interrupted("ServerDisconnectedError"), SubmitOutcomeUnknown),
        (refused(500), SubmitOutcomeUnknown),
        (refused(504, "2"), SubmitOutcomeUnknown),
        (refused(400, body="NSFW content"), ContentRefused),
        (refused(302), ProviderBadResponse),
        ("<html>", UnreadableReply),
        ({"failed": 1}, GenerationFailed),
    ],
    ids=str,
)
async def test_a_submit_that_may_cost_something_is_never_followed_by_another(
    answer: Any, failure: type[Failure]
) -> None:
    studio = Studio([answer])
    caught = await studio.fail(failure)
    assert studio.submits() == (1, 0)
    assert not caught.should_retry
    assert studio.progress.submitted
    assert studio.time.slept == []


async def test_when_all_refuse_the_failure_that_may_pass_is_told() -> None:
    assert (await Studio([refused(401)], [NotSent("DNS")]).fail(ProviderUnavailable)).should_retry
    assert not (await Studio([refused(401)], [refused(400, body="prompt")]).fail(ProviderAuth)).should_retry
    assert (await Studio([refused(400, body="prompt")], [refused(401)]).fail(ProviderRejected)).param == "prompt"


async def test_an_unsent_call_is_no_submit() -> None:
    studio = Studio([NotSent("DNS")], [NotSent("DNS")])
    await studio.fail(ProviderUnavailable)
    assert (studio.progress.submits, studio.progress.submitted) == (0, False)


# --- busy providers -------------------------------------------------------------------------------------------


async def test_the_first_to_be_free_again_is_asked_once_more_and_not_before_it_said() -> None:
    studio = Studio([refused(429, "9")], [refused(429, "4"), {"done": 1}])
    assert (await studio.make()).origin.provider == SECOND
    assert studio.submits() == (1, 2)
    assert studio.time.now == pytest.approx(4.0)


async def test_a_busy_provider_is_asked_at_most_twice() -> None:
    studio = Studio([refused(401)], [refused(429, "4"), refused(429, "6")])
    caught = await studio.fail(ProviderBusy)
    assert (caught.status, caught.retry_after, caught.should_retry) == (429, 6.0, True)
    assert studio.submits() == (1, 2)


@pytest.mark.parametrize(("hint", "hold_s"), [("", 280.0), ("5", 5.0), ("5", 0.5)])
async def test_it_is_not_asked_again_without_a_hint_or_beyond_the_hold(hint: str, hold_s: float) -> None:
    studio = Studio([refused(429, hint)], [refused(503, hint)])
    await studio.fail(ProviderBusy, hold_s)
    assert studio.submits() == (1, 1)
    assert studio.time.slept == []


# --- slots ----------------------------------------------------------------------------------------------------


async def test_slots_are_given_in_order() -> None:
    studio = Studio(["hang"], max_jobs=1)
    upstream = studio.upstreams[FIRST]
    waiting = [asyncio.create_task(studio.make()) for _ in range(3)]
    finished: list[int] = []
    for number, task in enumerate(waiting):
        task.add_done_callback(lambda _, number=number: finished.append(number))  # type: ignore[misc]
    await asyncio.sleep(0.01)
    assert upstream.submits == 1
    upstream.hanging.set()
    await asyncio.gather(*waiting)
    assert finished == [0, 1, 2]
    studio.assert_slots_are_free()


async def test_no_slot_within_the_hold_is_told_and_nothing_was_sent() -> None:
    studio = Studio(["hang"], real_time=True)
    busy = asyncio.create_task(studio.make())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await studio.make(0.08)
    assert (caught.value.status, caught.value.code, caught.value.should_retry) == (503, "server_is_overloaded", True)
    assert (studio.progress.submits, studio.progress.submitted) == (0, False)
    assert studio.submits() == (1, 0)
    studio.upstreams[FIRST].hanging.set()
    await busy
    studio.assert_slots_are_free()


@pytest.mark.parametrize("script", [["hang"], [{"job": "queued"}, "hang"]], ids=["submit", "poll"])
async def test_cancelling_frees_the_slot(script: list[Any]) -> None:
    studio = Studio(script)
    task = asyncio.create_task(studio.make())
    waiting = asyncio.create_task(studio.make())
    await asyncio.sleep(0.01)
    for each in (waiting, task):
        each.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    assert task.cancelled()
    assert waiting.cancelled()
    studio.assert_slots_are_free()
    assert studio.runtimes[FIRST].submit_breaker.state == "closed"


# --- following ------------------------------------------------------------------------------------------------


async def test_a_job_is_polled_until_it_is_done() -> None:
    studio = Studio([{"job": "queued"}, {"job": "generating", "progress": 0.5}, {"done": 1}])
    await studio.make()
    upstream = studio.upstreams[FIRST]
    assert (upstream.submits, upstream.polls) == (1, 2)
    assert [limit for _, limit, _ in upstream.calls] == [15.0, 5.0, 5.0]


async def test_a_job_past_its_lifetime_is_given_up() -> None:
    studio = Studio([{"job": "generating"}])
    caught = await studio.fail(GenerationTimeout)
    assert (caught.status, caught.code, caught.should_retry) == (504, "generation_timeout", False)
    last = studio.upstreams[FIRST].calls[-1]
    assert LIFETIME_S - 1 < last[2] < LIFETIME_S, "one last question just before the end"
    assert studio.submits() == (1, 0)


@pytest.mark.parametrize(
    ("status", "failure"), [(404, JobLost), (410, JobLost), (401, ProviderAuth), (400, ProviderBadResponse)]
)
async def test_three_final_answers_in_a_row_end_a_job(status: int, failure: type[Failure]) -> None:
    studio = Studio([{"job": "queued"}, refused(status)])
    assert not (await studio.fail(failure)).should_retry
    assert studio.upstreams[FIRST].polls == 3
    assert studio.submits() == (1, 0)


async def test_a_good_answer_wipes_the_strikes_out() -> None:
    lost, running = refused(404), {"job": "queued"}
    studio = Studio([running, lost, lost, running, lost, lost, running, {"done": 1}])
    await studio.make()
    assert studio.upstreams[FIRST].polls == 7


@pytest.mark.parametrize(
    "hiccup", [Interrupted("reset"), NotSent("DNS"), refused(500), refused(403, body="<title>Just a moment...</title>",
               **{"content-type": "text/html"}), "<html>"],
    ids=["reset", "connect", "500", "challenge", "html"],
)  # fmt: skip
async def test_failed_polls_are_repeated_more_and_more_slowly(hiccup: Any) -> None:
    studio = Studio([{"job": "queued"}, *[hiccup] * 4, {"done": 1}])
    await studio.make()
    waits = studio.time.slept[1:]
    assert all(wait >= 0.25 * 2**number for number, wait in enumerate(waits))
    assert all(wait <= 9 for wait in waits)
    assert studio.submits() == (1, 0)


@pytest.mark.parametrize(("hint", "least"), [("7", 7.0), ("", 2.0)])
async def test_a_busy_poll_waits_as_long_as_it_is_told(hint: str, least: float) -> None:
    studio = Studio([{"job": "queued"}, refused(429, hint), {"done": 1}])
    await studio.make()
    assert studio.time.slept[1] >= least
    assert studio.runtimes[FIRST].poll_breaker.state == "closed"


async def test_a_job_that_failed_is_told_at_once() -> None:
    studio = Studio([{"job": "queued"}, {"failed": 1}])
    caught = await studio.fail(GenerationFailed)
    assert (caught.status, caught.code) == (502, "image_generation_failed")
    assert studio.runtimes[FIRST].poll_breaker.state == "closed"


@pytest.mark.parametrize(
    "trouble",
    [
        refused(404),
        refused(500),
        refused(429, "60"),
        refused(401),
        NotSent("DNS"),
        Interrupted("x"),
        "<",
        {"failed": 1},
    ],
    ids=str,
)
async def test_what_is_good_to_know_is_asked_once_and_never_costs_the_picture(trouble: Any) -> None:
    studio = Studio([{"job": "queued"}, {"extra": 1}, trouble, {"done": 1}])
    await studio.make()
    upstream = studio.upstreams[FIRST]
    assert (upstream.submits, upstream.polls) == (1, 3)
    assert [at for _, _, at in upstream.calls[2:]] == [studio.time.now] * 2, "the picture doesn't wait"
    assert upstream.calls[2][1] < upstream.calls[3][1]


# --- prices ---------------------------------------------------------------------------------------------------


async def test_the_price_is_the_providers_word_or_what_was_known_before() -> None:
    studio = Studio([{"cost": 7_000_000}, {"done": 1}])
    told = (await studio.make()).price
    assert (told.amount, told.source) == (7_000_000, "provider")
    known = (await studio.make()).price
    assert (known.amount, known.source) == (2_500_000, "table")
    studio.runtimes[FIRST].prices = {"flux-schnell": 0}
    configured = (await studio.make()).price
    assert (configured.amount, configured.source) == (0, "config")


async def test_what_was_told_once_is_known_for_the_next_of_its_kind() -> None:
    studio = Studio([{"job": "queued"}, {"cost": 4_000_000}, {"done": 1}], model=f"prodia/{UNPRICED}")
    candidate = studio.wanted.candidates[0]
    assert studio.jobs.price(candidate).amount is None
    await studio.make()
    known = studio.jobs.price(candidate)
    assert (known.amount, known.source) == (4_000_000, "table")
    assert (await studio.make()).price == known
    assert studio.dialects[FIRST].durable == [True, False], "dear until it is known to be cheap"


# --- two ways to start a job ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "prices", "durable"),
    [
        (CHEAP, {}, False),
        (CHEAP, {CHEAP: 9_999_999}, False),
        (CHEAP, {CHEAP: 10_000_000}, True),
        (UNPRICED, {}, True),
        (UNPRICED, {UNPRICED: 0}, False),
        (DEAR, {}, True),
        (DEAR, {DEAR: 0}, True),  # free, but said to take twenty seconds
    ],
)
async def test_what_would_be_missed_is_started_so_that_it_survives(
    model: str, prices: dict[str, int], durable: bool
) -> None:
    studio = Studio([{"done": 1}], model=f"prodia/{model}")
    studio.runtimes[FIRST].prices = prices
    await studio.make()
    assert studio.dialects[FIRST].durable == [durable]


async def test_a_model_that_turns_out_to_be_slow_is_started_so_that_it_survives() -> None:
    studio = Studio([{"done": 1}], model=f"prodia/{CHEAP}")
    durable = studio.dialects[FIRST].durable
    for took_s, changed in ((2.6, True), (0.5, False)):
        studio.upstreams[FIRST].takes_s = took_s
        for _ in range(60):
            await studio.make()
        assert durable[-1] is changed
    assert durable[: durable.index(True)] == [False] * 8


async def test_a_model_that_cannot_be_durable_is_made_at_once_and_that_is_remembered() -> None:
    studio = Studio([refused(400, body="no async"), {"done": 1}], model=f"prodia/{UNPRICED}")
    told = Told(studio)
    made = await studio.jobs.make(studio.wanted, 7, told, Deadline.after(studio.clock, 280.0))
    assert made.origin.provider == FIRST
    assert told.events == [
        (0, "submitting", FIRST),
        (1, "not_started", "provider_rejected", True),
        (1, "submitting", FIRST),
    ]
    await studio.make()
    assert studio.dialects[FIRST].durable == [True, False, False]
    studio.assert_slots_are_free()


async def test_a_refusal_that_only_sounds_like_that_is_not_remembered() -> None:
    quoted = refused(400, body="prompt: an async fox")
    studio = Studio([quoted, quoted, {"done": 1}], model=f"prodia/{UNPRICED}")
    await studio.fail(ProviderRejected)
    await studio.make()
    assert studio.dialects[FIRST].durable == [True, False, True]


async def test_a_second_submit_whose_outcome_is_unknown_is_the_last() -> None:
    studio = Studio([refused(400, body="no async"), Interrupted("x"), {"done": 1}], model=f"prodia/{UNPRICED}")
    await studio.fail(SubmitOutcomeUnknown)
    assert studio.submits() == (2, 0)


# --- breakers -------------------------------------------------------------------------------------------------


async def test_failing_submits_leave_the_provider_alone_and_its_running_jobs_followed() -> None:
    studio = Studio([{"job": "queued"}, "hang"], max_jobs=2)
    upstream = studio.upstreams[FIRST]
    running = asyncio.create_task(studio.make())
    while upstream.polls < 1:  # noqa: ASYNC110 (nothing waits in played time)
        await asyncio.sleep(0)
    upstream.script = [NotSent("DNS")]
    for _ in range(5):
        await studio.make()
    assert studio.runtimes[FIRST].submit_breaker.state == "open"
    assert studio.runtimes[FIRST].poll_breaker.state == "closed"
    await studio.make()
    assert upstream.submits == 6, "not asked while its breaker is open"
    upstream.hanging.set()
    assert (await running).origin.provider == FIRST
    studio.time.now += 10
    upstream.script = [{"job": "queued"}, {"done": 1}]
    assert (await studio.make()).origin.provider == FIRST
    assert studio.runtimes[FIRST].submit_breaker.state == "closed"


async def test_when_every_breaker_is_open_it_says_when_to_come_back() -> None:
    studio = Studio([NotSent("DNS")], [NotSent("DNS")])
    for _ in range(5):
        await studio.fail(ProviderUnavailable)
    caught = await studio.fail(Overloaded)
    assert (caught.status, caught.code) == (503, "server_is_overloaded")
    assert caught.retry_after is not None
    assert caught.retry_after >= 1


async def test_failing_polls_open_their_own_breaker_and_the_job_is_kept() -> None:
    studio = Studio([{"job": "queued"}, *[Interrupted("reset")] * 6, {"done": 1}])
    runtime = studio.runtimes[FIRST]
    seen: list[tuple[str, str, float]] = []
    studio.time.on_sleep = lambda: seen.append(
        (runtime.poll_breaker.state, runtime.submit_breaker.state, runtime.poll_breaker.wait_s)
    )
    assert (await studio.make()).origin.provider == runtime.name
    assert [polls for polls, _, _ in seen] == ["closed"] * 5 + ["open"] * 2
    assert {submits for _, submits, _ in seen} == {"closed"}
    assert all(slept >= pause_s for slept, (_, _, pause_s) in zip(studio.time.slept, seen, strict=True))
    assert studio.submits() == (1, 0)


@pytest.mark.parametrize("refusal", [refused(429), refused(401), refused(400, body="NSFW"), refused(400, body="steps")])
async def test_refusals_do_not_open_the_breaker(refusal: Any) -> None:
    studio = Studio([refusal])
    for _ in range(12):
        try:
            await studio.make()
        except ContentRefused:
            continue
    assert studio.runtimes[FIRST].submit_breaker.state == "closed"
    assert studio.upstreams[FIRST].submits == 12


@pytest.mark.parametrize("where", ["slot", "submit"])
async def test_a_cancelled_probe_leaves_the_next_one_free(where: str) -> None:
    studio = Studio(["hang"], [NotSent("DNS")])
    runtime = studio.runtimes[FIRST]
    for _ in range(5):
        runtime.submit_breaker.failed()
    studio.time.now += 10
    if where == "slot":
        await runtime.slots.acquire()
    task = asyncio.create_task(studio.make())
    await asyncio.sleep(0.01)
    assert not runtime.submit_breaker.allow(), "the one probe is taken"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert runtime.submit_breaker.allow()


# --- what is told of a job ------------------------------------------------------------------------------------


class Told(Progress):
    """Progress that writes down what it is told, each with the number of calls that had been made by then."""

    def __init__(self, studio: Studio, unavailable: bool = False) -> None:
        super().__init__(lambda: None)
        self.upstreams, self.unavailable = studio.upstreams.values(), unavailable
        self.events: list[tuple[Any, ...]] = []

    def _note(self, *event: Any) -> None:
        self.events.append((sum(len(upstream.calls) for upstream in self.upstreams), *event))

    async def submitting(self, provider: str, model: str, /) -> None:
        await asyncio.sleep(0)
        self._note("submitting", provider)
        if self.unavailable:
            raise StateUnavailable("The state cannot be written.")
        await super().submitting(provider, model)

    async def accepted(self, handle: Handle, expires_s: float | None, /) -> None:
        self._note("accepted", handle.id, expires_s)

    async def not_started(self, code: str, /, *, sent: bool) -> None:
        self._note("not_started", code, sent)
        await super().not_started(code, sent=sent)

    async def released(self, code: str, /) -> None:
        self._note("released", code)

    async def unknown(self, code: str, /) -> None:
        self._note("unknown", code)

    async def failed(self, code: str, /) -> None:
        self._note("failed", code)

    async def lost(self, code: str, /) -> None:
        self._note("lost", code)


async def _told(studio: Studio) -> list[tuple[Any, ...]]:
    told = Told(studio)
    with contextlib.suppress(Failure):
        await studio.jobs.make(resolved(), 7, told, Deadline.after(studio.clock, 280.0))
    studio.assert_slots_are_free()
    return told.events


async def test_a_submit_is_told_before_it_is_sent_and_its_handle_before_it_is_asked_with() -> None:
    events = await _told(Studio([{"job": "queued"}, {"job": "generating"}, {"done": 1}]))
    assert events == [(0, "submitting", FIRST), (1, "accepted", "1", None)]


@pytest.mark.parametrize(
    ("refusal", "code", "sent"),
    [
        (NotSent("DNS"), "provider_unavailable", False),
        (StateUnavailable("The picture cannot be stored."), "state_unavailable", False),
        (refused(404), "provider_unavailable", True),
        (refused(429), "provider_busy", True),
        (refused(401), "provider_auth", True),
        (refused(400, body="steps"), "provider_rejected", True),
    ],
    ids=str,
)
async def test_a_submit_that_started_nothing_is_told_before_the_next_one(refusal: Any, code: str, sent: bool) -> None:
    events = await _told(Studio([refusal]))
    assert events == [(0, "submitting", FIRST), (1, "not_started", code, sent), (1, "submitting", SECOND)]


async def test_a_job_that_no_route_took_is_released() -> None:
    events = await _told(Studio([refused(401)], [NotSent("DNS")]))
    assert [event[1] for event in events] == ["submitting", "not_started", "submitting", "not_started", "released"]
    assert events[-1][2] == "provider_unavailable"


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ([Interrupted("reset")], ("unknown", "submit_outcome_unknown")),
        ([refused(500)], ("unknown", "submit_outcome_unknown")),
        ([refused(302)], ("unknown", "provider_bad_response")),
        (["<html>"], ("unknown", "provider_bad_response")),
        ([refused(400, body="NSFW")], ("failed", "content_policy_violation")),
        ([{"failed": 1}], ("failed", "image_generation_failed")),
        ([{"job": "queued"}, {"failed": 1}], ("failed", "image_generation_failed")),
        ([{"job": "queued"}, refused(404)], ("lost", "job_lost")),
        ([{"job": "queued"}, refused(401)], ("lost", "provider_auth")),
        ([{"job": "queued"}], ("lost", "generation_timeout")),
    ],
    ids=str,
)
async def test_how_a_job_ended_is_told_once(script: list[Any], ending: tuple[str, str]) -> None:
    events = await _told(Studio(script))
    assert events[-1][1:] == ending
    accepted = [(1, "accepted", "1", None)] if isinstance(script[0], dict) and "job" in script[0] else []
    assert events[:-1] == [(0, "submitting", FIRST), *accepted]


async def test_nothing_is_sent_while_it_cannot_be_told() -> None:
    studio = Studio([{"done": 1}])
    told = Told(studio, unavailable=True)
    with pytest.raises(StateUnavailable):
        await studio.jobs.make(resolved(), 7, told, Deadline.after(studio.clock, 280.0))
    assert [event[1] for event in told.events] == ["submitting", "submitting", "released"]
    assert (studio.submits(), told.submits, told.submitted) == ((0, 0), 0, False)
    assert {runtime.submit_breaker.state for runtime in studio.runtimes.values()} == {"closed"}
    studio.assert_slots_are_free()


# --- following again ------------------------------------------------------------------------------------------


async def _follow(studio: Studio, lifetime_s: float = LIFETIME_S) -> tuple[Finished, Told]:
    told = Told(studio)
    handle = Handle.load(Handle("job", "1").dump())
    finished = await studio.jobs.follow(studio.runtimes[FIRST], handle, told, Deadline.after(studio.clock, lifetime_s))
    studio.assert_slots_are_free()
    return finished, told


async def test_a_job_is_followed_from_its_handle_alone_and_at_once() -> None:
    studio = Studio([{"job": "generating", "progress": 0.5}, Interrupted("reset"), {"done": 1}])
    finished, told = await _follow(studio)
    assert finished.image == "https://provider/1.png"
    upstream = studio.upstreams[FIRST]
    assert (upstream.submits, upstream.polls, upstream.calls[0][2]) == (0, 3, 0.0)
    assert (told.events, told.state) == ([], "done")
    assert studio.jobs._schedule.dump()["keys"][0][1][0] == 0, "how long it took is not known, so nothing is learned"


async def test_a_running_job_is_followed_though_all_places_are_taken() -> None:
    studio = Studio(["hang"], max_jobs=1)
    busy = asyncio.create_task(studio.make())
    await asyncio.sleep(0.01)
    studio.upstreams[FIRST].script = [{"done": 1}]
    told = Told(studio)
    await studio.follow(told)
    assert studio.runtimes[FIRST].slots.locked()
    studio.upstreams[FIRST].hanging.set()
    await busy
    studio.assert_slots_are_free()


async def test_a_job_whose_lifetime_went_by_meanwhile_is_asked_for_once() -> None:
    finished, _ = await _follow(Studio([{"done": 1}]), 0.0)
    assert finished.image
    studio = Studio([{"job": "generating"}])
    with pytest.raises(GenerationTimeout):
        await _follow(studio, 0.0)
    assert studio.upstreams[FIRST].polls == 1


async def test_a_followed_job_that_is_lost_is_told() -> None:
    studio = Studio([refused(404)])
    told = Told(studio)
    with pytest.raises(JobLost):
        await studio.jobs.follow(
            studio.runtimes[FIRST], Handle("job", "1"), told, Deadline.after(studio.clock, LIFETIME_S)
        )
    assert [event[1:] for event in told.events] == [("lost", "job_lost")]
