"""Every fault, seen from a client's side of a real socket."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.simulator.replies import reset as reset_connection
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


def last(story: Story) -> dict[str, object]:
    body: dict[str, object] = story.polls[-1].json
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
    ("F1", (LEGACY,), refused(404)),
    ("F2", (LEGACY,), lambda s: s.submit == Answer(broken="timeout") and s.counts["started"] == 0),
    ("F3", (LEGACY, V1), failed),
    ("F4", (LEGACY, V1), lambda s: len(s.polls) == 25 and last(s)["status"] == "generating"),
    ("F4:queued", (LEGACY, V1), lambda s: len(s.polls) == 25 and last(s)["status"] == "queued"),
    ("F5", (LEGACY, V1), lambda s: last(s)["status"] == "succeeded" and "imageUrl" not in last(s)),
    ("F6", (LEGACY,), lambda s: s.submit.status == 200 and "job" not in s.submit.json),
    ("F7", (LEGACY,), lambda s: s.picture.status == 404),
    ("F7:tiny", (LEGACY,), lambda s: s.picture.status == 200 and 0 < len(s.picture.body) < 500),
    ("F8", (V1,), refused(400, b"Invalid Generation Parameters")),
    ("F9", (V1,), refused(401)),
    ("F9:402", (V1,), refused(402)),
    ("F9:402:poll", (V1,), lambda s: {poll.status for poll in s.polls} == {402}),
    ("F10", (V2, ASYNC), refused(401, b"token is invalid")),
    ("F11", (V2, ASYNC), lambda s: refused(429)(s) and s.submit.headers["retry-after"] == "2"),
    ("F11:1:0.5", (V2, ASYNC), lambda s: refused(429)(s) and s.submit.headers["retry-after"] == "0.5"),
    ("F12", (V2, ASYNC), lambda s: refused(429)(s) and "retry-after" not in s.submit.headers),
    (
        "F13",
        (V2, ASYNC),
        lambda s: refused(400, b'"error"')(s) and s.submit.type == "multipart/form-data" and b"steps" in s.submit.body,
    ),
    ("F14", (V2, ASYNC), lambda s: refused(400)(s) and isinstance(s.submit.json["detail"], str)),
    ("F14:object", (V2, ASYNC), lambda s: refused(400)(s) and isinstance(s.submit.json["detail"], dict)),
    ("F15", (V2,), lambda s: s.submit.type == "application/json" and s.submit.json["state"]["current"] == "completed"),
    ("F16", (V2,), lambda s: parts(s.submit) == ["job"]),
    ("F16:job", (V2,), lambda s: parts(s.submit) == ["output"]),
    ("F16:boundary", (V2,), lambda s: s.submit.headers["content-type"] == "multipart/form-data"),
    ("F16:several", (V2,), lambda s: parts(s.submit) == ["job", "output", "output"]),
    ("F16:text", (V2,), lambda s: parts(s.submit) == ["job", "text", "output"]),
    ("F17", (ASYNC,), lambda s: {poll.status for poll in s.polls} == {404}),
    ("F17:2", (ASYNC,), lambda s: [poll.status for poll in s.polls[:4]] == [200, 200, 404, 404]),
    ("F18", (ASYNC,), lambda s: s.polls[-1].body == b"processed" and s.picture == Answer()),
    ("F19", (LABS,), lambda s: s.submit.status == 200 and s.submit.json == {"task_id": None}),
    ("F19:missing", (LABS,), lambda s: s.submit.status == 200 and "task_id" not in s.submit.json),
    ("F20", (LABS,), refused(403, b"Just a moment...")),
    ("F20:503", (LABS,), refused(503, b"Just a moment...")),
    ("F20:poll", (LABS,), recovers(page(403))),
    ("F20:poll:2", (LABS,), lambda s: [p.status for p in s.polls[:3]] == [200, 403, 200]),
    ("F21", (LABS,), lambda s: s.submit.status == 200 and s.submit.type == "text/html" and s.submit.body != b""),
    ("F21:empty", (LABS,), lambda s: s.submit.status == 200 and s.submit.body == b""),
    ("F21:poll", (LABS,), lambda s: {(p.status, p.type) for p in s.polls} == {(200, "text/html")}),
    ("F22", (LABS,), lambda s: last(s)["status"] == "Done" and last(s)["final_image_url"] is None),
    ("F23", (LABS,), lambda s: set(statuses(s)) == {None} and s.picture.status == 200),
    ("F23:missing", (LABS,), lambda s: set(statuses(s)) == {"missing"} and s.picture.status == 200),
    (
        "F23:unknown",
        (LABS,),
        lambda s: set(statuses(s)) == {"Simmering"} and s.picture.status == 200,
    ),
    ("F24", (LABS,), lambda s: last(s)["status"] == "In Progress" and s.picture.status == 200),
    (
        "F25",
        (LABS,),
        lambda s: (
            len(s.polls) == 25 and all(p.json["progress"] == 0.4 and p.json["current_image_url"] for p in s.polls)
        ),
    ),
    ("F26", (LABS,), lambda s: "Error" in str(last(s)["status"]) and "code" in last(s)),
    ("F27", (LABS,), lambda s: statuses(s) == ["Queued"] * 25),
    ("F27:1.5", (LABS,), lambda s: statuses(s) == ["Queued"] * 2 + ["In Progress"] * 2 + ["Done"]),
    ("F28", POLLED, recovers(page(502))),
    ("F28:2:524", POLLED, recovers(page(524), 2)),
    ("F29", POLLED, recovers(cut)),
    ("F29:submit", POLLED, lambda s: cut(s.submit) and s.counts["started"] == 1),
    ("F29", (V2,), lambda s: cut(s.submit) and s.submit.type == "image/png"),
    ("F29:type", (V2,), lambda s: s.submit.type == "text/html" and s.submit.body.startswith(b"\x89PNG")),
    (
        "F29:type",
        (LEGACY, V1, LABS),
        lambda s: {a.type for a in (s.submit, *s.polls)} == {"text/html"} and s.picture.status == 200,
    ),
    ("F30", (LEGACY, V1), failed),
    ("F30", (V2, ASYNC), refused(400, b"NSFW")),
    ("F30", (LABS,), lambda s: s.submit.json == {"task_id": None}),
    ("F30:status", (LABS,), lambda s: "Error" in str(last(s)["status"])),
    ("F31", ALL, lambda s: s.submit.status == 504 and s.counts["started"] == 1 and "retry-after" in s.submit.headers),
    ("F31:503", ALL, refused(503, b"queue full")),
    ("drop", ALL, lambda s: reset(s.submit) and s.counts["submits"] == 1 == s.counts["started"]),
    ("hang", ALL, lambda s: s.submit.broken == "timeout" and s.counts["submits"] == 1 == s.counts["started"]),
    ("reset-poll:2", POLLED, recovers(reset, 2)),
    ("retryafter:5:2", POLLED, recovers(lambda a: a.status == 429 and a.headers["retry-after"] == "5", 2)),
    ("gone", POLLED, lambda s: {poll.status for poll in s.polls} == {404}),
    ("gone:1", POLLED, lambda s: [poll.status for poll in s.polls[:3]] == [200, 404, 404]),
    ("503", ALL, refused(503)),
    ("500", ALL, refused(500)),
    ("401", ALL, refused(401)),
    ("402", ALL, refused(402)),
    ("nsfw", (LEGACY, V1), failed),
    ("nsfw", (V2, ASYNC), refused(400, b"NSFW")),
    ("nsfw", (LABS,), lambda s: s.submit.json == {"task_id": None}),
    ("failed", (LEGACY, V1), failed),
    ("failed", (ASYNC,), lambda s: s.polls[-1].body == b"failed"),
    ("failed", (V2,), lambda s: s.submit.status == 200 and s.submit.json["state"]["current"] == "failed"),
    ("failed", (LABS,), lambda s: "Error" in str(last(s)["status"])),
    ("huge", POLLED, lambda s: s.picture.broken == "too long" and len(s.picture.body) > 4_000_000),
    ("huge", (V2,), lambda s: s.submit.broken == "too long" and len(s.submit.body) > 4_000_000),
    ("huge:json", (LEGACY, V1, LABS), lambda s: len(s.submit.body) > 4_000_000 and s.submit.body.startswith(b"{")),
    ("pixels", POLLED, lambda s: s.picture.body[16:24] == (30_000).to_bytes(4, "big") * 2),
    ("pixels", (V2,), lambda s: s.submit.body[16:24] == (30_000).to_bytes(4, "big") * 2),
    ("notpicture", POLLED, lambda s: s.picture.type == "image/png" and s.picture.body.startswith(b"<!doctype")),
    ("notpicture", (V2,), lambda s: s.submit.type == "image/png" and s.submit.body.startswith(b"<!doctype")),
]

ENDLESS = ("F2", "hang")

CASES = [pytest.param(fault, kind, check, id=f"{fault}-{kind}") for fault, kinds, check in ROWS for kind in kinds]


@pytest.mark.parametrize(("fault", "kind", "check"), CASES)
async def test_a_fault_shows_what_its_row_says(client: Client, fault: str, kind: str, check: Check) -> None:
    if fault in ENDLESS:
        client.patience_s = 0.4
    story = await client.follow(kind, f"[fault:{fault}]")
    assert story.counts["submits"] == 1
    assert check(story), story


def test_every_numbered_fault_is_in_the_table() -> None:
    assert {fault.partition(":")[0] for fault, _, _ in ROWS} >= {f"F{number}" for number in range(1, 32)}


@pytest.mark.parametrize(("fault", "seconds"), [("slow-body", 20), ("slow-body:50", 50)])
@pytest.mark.parametrize("kind", [V1, ASYNC])
async def test_a_slow_body_drips(client: Client, kind: str, fault: str, seconds: float) -> None:
    before = client.time.now
    story = await client.follow(kind, f"[fault:{fault}]")
    assert story.picture.picture.width == 512
    assert client.time.now - before == pytest.approx(seconds + len(story.polls) - 1)


@pytest.mark.parametrize(("kind", "foreign"), [(LEGACY, "F8"), (V1, "F1"), (ASYNC, "F19"), (LABS, "F10")])
async def test_a_row_of_another_dialect_is_ignored(client: Client, kind: str, foreign: str) -> None:
    assert (await client.follow(kind, f"[fault:{foreign}]")).picture.status == 200


@pytest.mark.parametrize("fault", ["F11:2", "503:2", "drop:2"])
async def test_a_count_limits_a_fault_to_the_first_submits_of_a_prompt(client: Client, fault: str) -> None:
    prompt = f"three tries [fault:{fault}] [seconds:0] [tag:tries{fault}]"
    answers = [await client.schnell(prompt, width=256, height=256) for _ in range(3)]
    assert [answer.status == 200 for answer in answers] == [False, False, True]
    assert (await client.counts(f"tries{fault}"))["submits"] == 3


@pytest.mark.parametrize("kind", [LEGACY, V1, LABS])
async def test_a_bad_address_is_given_as_it_is(client: Client, kind: str) -> None:
    submit = await client._submit(kind, "x [seconds:0] [fault:badurl:http://[::1]:9/secret?a=b]")
    poll = (await client._poll(kind, client._job(submit) or "")).json
    assert (poll.get("imageUrl") or poll.get("final_image_url")) == "http://[::1]:9/secret?a=b"


async def test_a_bad_address_can_be_an_output(client: Client) -> None:
    job = (await client.schnell("a pear [seconds:0] [fault:badurl:http://x/]", "/job/async")).json["id"]
    assert (await client.v2(f"/job/async/{job}/output")).json == ["http://x/"]


async def test_negative_prompts_carry_words_too(client: Client) -> None:
    answer = await client.v1("/sd/generate", {"prompt": "a pear", "negative_prompt": "[fault:F8]"})
    assert answer.status == 400


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_connections_really_break_under_each_of_uvicorns_servers(loop: str, http: str) -> None:
    with Server(loop, http) as server:
        async with aiohttp.ClientSession() as session:
            client = Client(session, server.origin, server.time)
            dropped = await client.follow(V1, "[fault:drop]")
            assert reset(dropped.submit)
            assert dropped.submit.status == 0
            broken = await client.follow(V2, "[fault:F29]")
            assert cut(broken.submit)
            assert (await client.schnell("still alive [seconds:0]")).status == 200


class Wrapped:
    """A middleware with a ``receive`` of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, Held(getattr(receive, "__self__", None)).receive, send)


class Held:
    def __init__(self, cycle: Any) -> None:
        self.cycle = cycle

    async def receive(self) -> Message:
        message: Message = await self.cycle.receive()
        return message


async def test_connections_break_behind_one_layer_of_wrapping() -> None:
    with Server(wrap=Wrapped) as server:
        async with aiohttp.ClientSession() as session:
            story = await Client(session, server.origin, server.time).follow(V1, "[fault:drop]")
            assert reset(story.submit)


async def test_where_no_connection_can_be_reached_nothing_pretends() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(RuntimeError, match="uvicorn"):
        await reset_connection(receive)


async def test_the_words_are_not_drawn(client: Client) -> None:
    plain = await client.schnell("a pear [seconds:0]", seed=3, width=256, height=256)
    tagged = await client.schnell("a pear [tag:drawn] [seconds:0]", seed=3, width=256, height=256)
    assert plain.body == tagged.body
