"""Every fault, seen from a client's side of a real socket."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import uvloop
from starlette.types import Message

from proxy.simulator import FAULTS
from proxy.simulator.replies import drop
from tests.service import running
from tests.simulator.client import Answer, Client, Story
from tests.simulator.conftest import Server

pytestmark = pytest.mark.anyio

LEGACY, V1, V2, ASYNC, LABS = "prodia-legacy", "prodia-v1", "prodia", "prodia-async", "imagelabs"
POLLED = (LEGACY, V1, ASYNC, LABS)
ALL = (*POLLED, V2)

Check = Callable[[Story], bool]


def refused(status: int, text: bytes = b"") -> Check:
    """The submit is refused, and no job begins."""
    return lambda story: story.submit.status == status and text in story.submit.body and story.counts["started"] == 0


def last(story: Story) -> dict[str, Any]:
    body: dict[str, Any] = story.polls[-1].json
    return body


def reset(answer: Answer) -> bool:
    return answer.broken in ("ServerDisconnectedError", "ClientOSError", "ConnectionResetError")


def cut(answer: Answer) -> bool:
    """The answer began and broke off. How much of it aiohttp hands on before it reports the reset is chance."""
    whole = int(answer.headers.get("content-length", 0))
    return answer.status == 200 and answer.broken == "ClientPayloadError" and len(answer.body) < whole


def recovers(bad: Callable[[Answer], bool], times: int = 1) -> Check:
    """The first polls go wrong, and the job ends well all the same."""
    return lambda story: (
        all(bad(poll) for poll in story.polls[:times])
        and not bad(story.polls[times])
        and story.picture.picture.size[0] >= 512
    )


def page(status: int) -> Callable[[Answer], bool]:
    return lambda answer: answer.status == status and answer.type == "text/html"


def failed(story: Story) -> bool:
    return last(story) == {"job": last(story)["job"], "status": "failed"}


def parts(answer: Answer) -> list[str]:
    """Return the names of a multipart answer's parts; a text output is named so."""
    boundary = answer.body.partition(b"\r\n")[0]
    heads = [part.partition(b"\r\n\r\n")[0] for part in answer.body.split(boundary)[1:-1]]
    names = [head.partition(b'name="')[2].partition(b'"')[0].decode() for head in heads]
    return ["text" if b"message.txt" in head else name for head, name in zip(heads, names, strict=True)]


def statuses(story: Story) -> list[object]:
    return [poll.json.get("status", "missing") for poll in story.polls]


ROWS: list[tuple[str, tuple[str, ...], Check]] = [
    ("404", ALL, refused(404)),
    ("silent", ALL, lambda s: s.submit == Answer(broken="timeout") and s.counts["started"] == 0),
    ("stuck", (LEGACY, V1), lambda s: len(s.polls) == 25 and last(s)["status"] == "generating"),
    ("stuck:queued", (LEGACY, V1), lambda s: statuses(s) == ["queued"] * 25),
    ("stuck:queued", (LABS,), lambda s: statuses(s) == ["Queued"] * 25),
    ("stuck", (ASYNC,), lambda s: [poll.body for poll in s.polls] == [b"processing"] * 25),
    ("stuck", (V2,), lambda s: s.submit.broken == "timeout" and s.counts["started"] == 1),
    ("no-picture", (LEGACY, V1), lambda s: last(s)["status"] == "succeeded" and "imageUrl" not in last(s)),
    ("no-job", (LEGACY, V1), lambda s: s.submit.status == 200 and "job" not in s.submit.json),
    ("expired", POLLED, lambda s: s.picture.status == 404),
    ("expired:tiny", POLLED, lambda s: s.picture.status == 200 and 0 < len(s.picture.body) < 500),
    ("invalid", (LEGACY, V1), refused(400, b"Invalid Generation Parameters")),
    ("invalid", (LABS,), refused(400, b"invalid")),
    ("402:poll", POLLED, recovers(lambda answer: answer.status == 402)),
    ("402:poll:3", (V1,), lambda s: [poll.status for poll in s.polls] == [402] * 3 + [200]),
    ("401", (V2, ASYNC), refused(401, b"token is invalid")),
    ("busy", ALL, lambda s: refused(429)(s) and s.submit.headers["retry-after"] == "2"),
    ("busy:1:0.5", ALL, lambda s: refused(429)(s) and s.submit.headers["retry-after"] == "0.5"),
    ("no-capacity", ALL, lambda s: refused(429)(s) and "retry-after" not in s.submit.headers),
    (
        "invalid",
        (V2, ASYNC),
        lambda s: refused(400, b'"error"')(s) and s.submit.type == "multipart/form-data" and b"steps" in s.submit.body,
    ),
    ("invalid:detail", (V2, ASYNC), lambda s: refused(400)(s) and isinstance(s.submit.json["detail"], str)),
    ("invalid:detail:object", (V2, ASYNC), lambda s: refused(400)(s) and isinstance(s.submit.json["detail"], dict)),
    ("no-async", (ASYNC,), refused(400, b"does not permit async")),
    ("no-async", (V2,), lambda s: s.submit.status == 200 and s.counts["started"] == 1),
    (
        "no-picture",
        (V2,),
        lambda s: s.submit.type == "application/json" and s.submit.json["state"]["current"] == "completed",
    ),
    ("broken-multipart", (V2,), lambda s: parts(s.submit) == ["job"]),
    ("broken-multipart:job", (V2,), lambda s: parts(s.submit) == ["output"]),
    ("broken-multipart:boundary", (V2,), lambda s: s.submit.headers["content-type"] == "multipart/form-data"),
    ("broken-multipart:several", (V2,), lambda s: parts(s.submit) == ["job", "output", "output"]),
    ("broken-multipart:text", (V2,), lambda s: parts(s.submit) == ["job", "text", "output"]),
    ("gone:2", (ASYNC,), lambda s: [poll.status for poll in s.polls[:4]] == [200, 200, 404, 404]),
    ("no-picture", (ASYNC,), lambda s: s.polls[-1].body == b"processed" and s.picture == Answer()),
    ("no-job", (LABS,), lambda s: s.submit.status == 200 and s.submit.json == {"task_id": None}),
    ("no-job:missing", (LABS,), lambda s: s.submit.status == 200 and "task_id" not in s.submit.json),
    ("challenge", ALL, refused(403, b"Just a moment...")),
    ("challenge:503", ALL, refused(503, b"Just a moment...")),
    ("challenge:poll", POLLED, recovers(page(403))),
    ("challenge:poll:2", (LABS,), lambda s: [p.status for p in s.polls[:3]] == [200, 403, 200]),
    ("not-json", ALL, lambda s: s.submit.status == 200 and s.submit.type == "text/html" and s.submit.body != b""),
    ("not-json:empty", ALL, lambda s: s.submit.status == 200 and s.submit.body == b""),
    ("not-json:poll", (LABS,), lambda s: [p.type for p in s.polls[:2]] == ["text/html", "application/json"]),
    ("no-picture", (LABS,), lambda s: last(s)["status"] == "Done" and last(s)["final_image_url"] is None),
    ("odd-status", (LABS,), lambda s: set(statuses(s)) == {None} and s.picture.status == 200),
    ("odd-status:missing", (LABS,), lambda s: set(statuses(s)) == {"missing"} and s.picture.status == 200),
    (
        "odd-status:unknown",
        (LABS,),
        lambda s: set(statuses(s)) == {"Simmering"} and s.picture.status == 200,
    ),
    ("early-picture", (LABS,), lambda s: last(s)["status"] == "In Progress" and s.picture.status == 200),
    ("failed", (LABS,), lambda s: "Error" in str(last(s)["status"]) and "code" in last(s)),
    ("slow", (LABS,), lambda s: statuses(s) == ["Queued"] * 25),
    ("slow:1.5", (LABS,), lambda s: statuses(s) == ["Queued"] * 2 + ["In Progress"] * 2 + ["Done"]),
    ("gateway", POLLED, recovers(page(502))),
    ("gateway:2:524", POLLED, recovers(page(524), 2)),
    ("cut", POLLED, recovers(cut)),
    ("cut:submit", POLLED, lambda s: cut(s.submit) and s.counts["started"] == 1),
    ("cut", (V2,), lambda s: cut(s.submit) and s.submit.type == "image/png"),
    ("wrong-type", (V2,), lambda s: s.submit.type == "text/html" and s.submit.body.startswith(b"\x89PNG")),
    (
        "wrong-type",
        (LEGACY, V1, LABS),
        lambda s: {a.type for a in (s.submit, *s.polls)} == {"text/html"} and s.picture.status == 200,
    ),
    ("504", ALL, lambda s: s.submit.status == 504 and s.counts["started"] == 1 and "retry-after" in s.submit.headers),
    ("overloaded", ALL, refused(503, b"queue full")),
    ("drop", ALL, lambda s: reset(s.submit) and s.counts["submits"] == 1 == s.counts["started"]),
    ("hang", ALL, lambda s: s.submit.broken == "timeout" and s.counts["submits"] == 1 == s.counts["started"]),
    ("drop:poll:2", POLLED, recovers(reset, 2)),
    ("busy:poll:2:5", POLLED, recovers(lambda a: a.status == 429 and a.headers["retry-after"] == "5", 2)),
    ("gone", POLLED, lambda s: {poll.status for poll in s.polls} == {404}),
    ("gone:1", POLLED, lambda s: [poll.status for poll in s.polls[:3]] == [200, 404, 404]),
    ("503", ALL, refused(503)),
    ("500", ALL, refused(500)),
    ("401", ALL, refused(401)),
    ("402", ALL, refused(402)),
    ("unsafe", (LEGACY, V1), failed),
    ("unsafe", (V2, ASYNC), refused(400, b"NSFW")),
    ("unsafe", (LABS,), lambda s: s.submit.json == {"task_id": None}),
    ("failed", (LEGACY, V1), failed),
    ("failed", (ASYNC,), lambda s: s.polls[-1].body == b"failed"),
    ("failed", (V2,), lambda s: s.submit.status == 200 and s.submit.json["state"]["current"] == "failed"),
    ("huge", POLLED, lambda s: s.picture.broken == "too long" and len(s.picture.body) > 4_000_000),
    ("huge", (V2,), lambda s: s.submit.broken == "too long" and len(s.submit.body) > 4_000_000),
    ("huge:json", (LEGACY, V1, LABS), lambda s: len(s.submit.body) > 4_000_000 and s.submit.body.startswith(b"{")),
    ("pixels", POLLED, lambda s: s.picture.body[16:24] == (30_000).to_bytes(4, "big") * 2),
    ("pixels", (V2,), lambda s: s.submit.body[16:24] == (30_000).to_bytes(4, "big") * 2),
    ("not-a-picture", POLLED, lambda s: s.picture.type == "image/png" and s.picture.body.startswith(b"<!doctype")),
    ("not-a-picture", (V2,), lambda s: s.submit.type == "image/png" and s.submit.body.startswith(b"<!doctype")),
]

ENDLESS = ("silent", "hang", "stuck")

CASES = [pytest.param(fault, kind, check, id=f"{fault}-{kind}") for fault, kinds, check in ROWS for kind in kinds]


@pytest.mark.parametrize(("fault", "kind", "check"), CASES)
async def test_a_fault_shows_what_its_row_says(client: Client, fault: str, kind: str, check: Check) -> None:
    if fault in ENDLESS and (fault != "stuck" or kind == V2):
        client.patience_s = 0.4
    story = await client.follow(kind, f"[fault:{fault}]")
    assert story.counts["submits"] == 1
    assert check(story), story


def test_every_fault_is_tried_and_described() -> None:
    tried = {fault.partition(":")[0] for fault, _, _ in ROWS} | {"slow-body", "bad-url"}
    names = [name for name, _ in FAULTS]
    assert (tried, len(tried)) == (set(names), len(names))
    assert all(description for _, description in FAULTS)


@pytest.mark.parametrize("kind", ALL)
async def test_an_unknown_fault_is_refused_with_the_names_of_all(client: Client, kind: str) -> None:
    story = await client.follow(kind, "[fault:bsy:1]")
    assert (story.submit.status, story.counts["started"]) == (400, 0)
    assert b"[fault:bsy]" in story.submit.body
    assert all(name.encode() in story.submit.body for name, _ in FAULTS)


@pytest.mark.parametrize(("fault", "seconds"), [("slow-body", 20), ("slow-body:50", 50)])
@pytest.mark.parametrize("kind", [V1, ASYNC])
async def test_a_slow_body_drips(client: Client, kind: str, fault: str, seconds: float) -> None:
    before = client.time.now
    story = await client.follow(kind, f"[fault:{fault}]")
    assert story.picture.picture.width == 512
    assert client.time.now - before == pytest.approx(seconds + len(story.polls) - 1)


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [(LEGACY, "odd-status"), (V1, "broken-multipart"), (ASYNC, "early-picture"), (LABS, "no-async")],
)
async def test_a_fault_that_a_dialect_cannot_show_is_ignored(client: Client, kind: str, foreign: str) -> None:
    assert (await client.follow(kind, f"[fault:{foreign}]")).picture.status == 200


@pytest.mark.parametrize("fault", ["busy:2", "503:2", "drop:2"])
async def test_a_count_limits_a_fault_to_the_first_submits_of_a_prompt(client: Client, fault: str) -> None:
    prompt = f"three tries [fault:{fault}] [seconds:0] [tag:tries{fault}]"
    answers = [await client.schnell(prompt, width=256, height=256) for _ in range(3)]
    assert [answer.status == 200 for answer in answers] == [False, False, True]
    assert (await client.counts(f"tries{fault}"))["submits"] == 3


async def test_a_count_holds_for_all_dialects_together(client: Client) -> None:
    """So that the first provider is busy, and the next one isn't."""
    prompt = "busy once [fault:busy:1] [seconds:0]"
    assert (await client.schnell(prompt)).status == 429
    assert (await client._submit(LABS, prompt)).status == 200
    assert (await client._submit(V1, prompt)).status == 200


@pytest.mark.parametrize("kind", [LEGACY, V1, LABS])
async def test_a_bad_address_is_given_as_it_is(client: Client, kind: str) -> None:
    submit = await client._submit(kind, "x [seconds:0] [fault:bad-url:http://[::1]:9/secret?a=b]")
    poll = (await client._poll(kind, client._job(submit) or "")).json
    assert (poll.get("imageUrl") or poll.get("final_image_url")) == "http://[::1]:9/secret?a=b"


async def test_a_bad_address_can_be_an_output(client: Client) -> None:
    job = (await client.schnell("a pear [seconds:0] [fault:bad-url:http://x/]", "/job/async")).json["id"]
    assert (await client.v2(f"/job/async/{job}/output")).json == ["http://x/"]


async def test_negative_prompts_carry_words_too(client: Client) -> None:
    answer = await client.v1("/sd/generate", {"prompt": "a pear", "negative_prompt": "[fault:invalid]"})
    assert answer.status == 400


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_connections_really_break_on_each_loop(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with Server(loop) as server:
        async with aiohttp.ClientSession() as session:
            client = Client(session, server.origin, server.time)
            dropped = await client.follow(V1, "[fault:drop]")
            assert reset(dropped.submit)
            assert dropped.submit.status == 0
            broken = await client.follow(V2, "[fault:cut]")
            assert cut(broken.submit)
            assert (await client.schnell("still alive [seconds:0]")).status == 200


async def test_where_no_connection_can_be_reached_nothing_pretends() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError

    with pytest.raises(RuntimeError, match=r"proxy\.server"):
        await drop({"type": "http"}, receive, send)


async def test_a_stuck_job_shows_how_far_it_came(client: Client) -> None:
    story = await client.follow(LABS, "[fault:stuck]")
    assert {(poll.json["progress"], poll.json["status"]) for poll in story.polls} == {(0.4, "In Progress")}
    assert (await client.call("GET", last(story)["current_image_url"])).picture.width == 256


async def test_the_words_are_not_drawn(client: Client) -> None:
    plain = await client.schnell("a pear [seconds:0]", seed=3, width=256, height=256)
    tagged = await client.schnell("a pear [tag:drawn] [seconds:0]", seed=3, width=256, height=256)
    assert plain.body == tagged.body


@pytest.mark.parametrize(
    "model", ["dall-e-3", "prodia-v1/dreamshaper_8", "prodia-legacy/dreamshaper_8", "imagelabs/sdxl-turbo"]
)
async def test_a_mistyped_fault_is_no_refusal_of_the_prompts_content(model: str) -> None:
    async with running() as service:
        answer = await service.generate("a fox [fault:bsy]", model=model)
        assert (answer.status, answer.code) == (400, "provider_rejected")
