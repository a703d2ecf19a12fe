"""Prodia v2's asynchronous variant: submit, state, output, bytes."""

from pathlib import Path
from typing import Any

import pytest
from aioresponses import aioresponses
from yarl import URL

from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse
from proxy.providers.boundary import Call, Finished, Handle, Reply, UnreadableReply
from proxy.upstream.client import Upstream
from tests.providers.conftest import Connect
from tests.providers.examples import JOB, KEY, PAGE, PNG, brought, follow, job, model, pending, provider, reply

BASE = "https://inference.prodia.com/v2/job/async"
DIALECT = provider("prodia", mode="async")
SCHNELL = model(DIALECT, "flux-fast.schnell.txt2img.v2")
SUBMITTED = DIALECT.submit(job(SCHNELL, seed=1))


BEGUN = SUBMITTED.handle
STATE, OUTPUT, DETAILS, PRICE = (Handle(step, JOB) for step in ("state", "output", "details", "price"))
STATE_URL, OUTPUT_URL, DETAILS_URL = (f"{BASE}/{JOB}/{path}" for path in ("job.state.current", "output", "job.json"))
WITH_PRICE = {"price": "true"}


def test_submit_is_the_same_body_elsewhere() -> None:
    sync = provider("prodia").submit(job(SCHNELL, seed=1))
    assert (SUBMITTED.method, SUBMITTED.url, SUBMITTED.json, SUBMITTED.picture) == ("POST", BASE, sync.json, False)
    assert (SUBMITTED.headers, SUBMITTED.query) == ({"accept": "application/json"}, WITH_PRICE)
    assert SUBMITTED.handle != sync.handle
    assert DIALECT.credentials() == {"authorization": f"Bearer {KEY}"}


def test_an_edit_is_the_same_form_elsewhere() -> None:
    wanted = job(model(DIALECT, "recraft.img2img.v1"), "edit", [brought()])
    call = DIALECT.submit(wanted)
    assert (call.url, call.files, call.picture) == (BASE, provider("prodia").submit(wanted).files, False)


def test_an_accepted_job_is_asked_after_while_it_is_kept() -> None:
    answer = pending(DIALECT.read(BEGUN, reply({"id": JOB, "state": {"current": "processing"}}, 201)))
    assert (answer.handle, answer.state, answer.at_once, answer.expires_s) == (STATE, "queued", False, 300.0)
    assert DIALECT.ask(STATE) == Call("GET", STATE_URL, {"accept": "*/*"}, safe=True)


@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": "../../x"}, {"job": JOB}, {"id": 5, "detail": "x"}])
def test_an_answer_without_an_id_is_a_bad_response(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponse, match="names no job"):
        DIALECT.read(BEGUN, reply(body, 201))


def test_an_error_beside_the_id_is_a_failed_job() -> None:
    with pytest.raises(GenerationFailed):
        DIALECT.read(BEGUN, reply({"id": JOB, "error": "bad config"}, 201))


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b"processing", "generating"),
        (b'"processing"\n', "generating"),
        (b"queued", "queued"),
        (b"Warming", "generating"),
    ],
)
def test_a_running_job_is_asked_again(body: bytes, state: str) -> None:
    answer = pending(DIALECT.read(STATE, reply(body, content_type="text/plain")))
    assert (answer.handle, answer.state, answer.at_once) == (STATE, state, False)


@pytest.mark.parametrize("body", [b"processed", b'"processed"', b"completed", b" Succeeded\r\n"])
def test_a_processed_jobs_price_is_asked_for_and_then_or_otherwise_its_outputs(body: bytes) -> None:
    answer = pending(DIALECT.read(STATE, reply(body)))
    assert (answer.handle, answer.at_once, answer.otherwise) == (PRICE, True, OUTPUT)
    assert DIALECT.ask(PRICE) == Call("GET", DETAILS_URL, {"accept": "*/*"}, WITH_PRICE, safe=True)
    priced = pending(DIALECT.read(PRICE, reply({"id": JOB, "price": None})))
    assert (priced.handle.step, priced.handle.id, priced.at_once, priced.otherwise) == ("output", JOB, True, None)
    assert DIALECT.ask(OUTPUT) == DIALECT.ask(priced.handle) == Call("GET", OUTPUT_URL, {"accept": "*/*"}, safe=True)


def test_what_the_job_tells_comes_with_its_picture() -> None:
    told = {"price": {"dollars": 0.0125}, "metrics": {"elapsed": 3.1}, "config": {"seed": 9}, "error": None}
    priced = pending(DIALECT.read(PRICE, reply({"id": JOB, **told})))
    named = pending(DIALECT.read(Handle.load(priced.handle.dump()), reply(["a.png"])))
    said = Reply(200, {"content-type": "image/png"}, picture=Path("a"))
    facts: dict[str, Any] = {"elapsed_s": 3.1, "seed": 9, "cost": 12_500_000}
    assert DIALECT.read(Handle.load(named.handle.dump()), said) == Finished(Path("a"), **facts)
    at_an_address = DIALECT.read(priced.handle, reply(["https://images.prodia.xyz/a"]))
    assert at_an_address == Finished("https://images.prodia.xyz/a", **facts)


@pytest.mark.parametrize("body", [PAGE, b"", b"[]", b"null"])
def test_a_price_that_cannot_be_read_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        DIALECT.read(PRICE, reply(body))


@pytest.mark.parametrize("body", [b"failed", b"cancelled", b"canceled"])
def test_a_failed_jobs_reason_is_asked_for_at_once(body: bytes) -> None:
    answer = pending(DIALECT.read(STATE, reply(body)))
    assert (answer.handle, answer.at_once) == (DETAILS, True)
    assert DIALECT.ask(DETAILS).url == DETAILS_URL


@pytest.mark.parametrize("body", [b"", PAGE, b'{"state": "processed"}', b"\xff\xff", b"5"])
def test_a_state_that_is_no_word_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        DIALECT.read(STATE, reply(body))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"id": JOB, "state": {"current": "failed", "history": [{"message": "nsfw"}]}}, ContentRefused),
        ({"id": JOB, "state": {"current": "failed"}}, GenerationFailed),
        ({"id": JOB, "error": "content policy"}, ContentRefused),
        ({"message": "moderated"}, ContentRefused),
        ({}, GenerationFailed),
    ],
)
def test_a_failed_jobs_reason_decides_its_failure(body: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        DIALECT.read(DETAILS, reply(body))


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["output.png"], "output.png"),
        (["a.jpg", "b.png"], "a.jpg"),
        (["message.txt", "image.PNG"], "image.PNG"),
        (["job.json", "picture"], "picture"),
        (["picture", "b.webp"], "b.webp"),
        ([None, 5, "a.png"], "a.png"),
    ],
)
def test_the_first_picture_among_the_outputs_is_collected(names: list[Any], name: str) -> None:
    answer = pending(DIALECT.read(OUTPUT, reply(names)))
    call = DIALECT.ask(answer.handle)
    assert (call.method, call.url) == ("GET", f"{OUTPUT_URL}/{name}")
    assert (call.picture, call.picture_part, call.safe, answer.at_once) == (True, "output", True, True)


def test_an_output_may_be_an_address() -> None:
    assert DIALECT.read(OUTPUT, reply(["https://images.prodia.xyz/a"])) == Finished("https://images.prodia.xyz/a")


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        None,
        [None],
        [5],
        [""],
        ["../secret.png"],
        ["a/b.png"],
        ["..png"],
        [".png"],
        ["a\n.png"],
        ["a?b.png"],
        ["message.txt"],
        ["message.txt", "job.json"],
        ["x" * 200 + ".png"],
        ["%2e%2e.png"],
        "a.png",
        [["a.png"]],
    ],
)
def test_outputs_without_a_usable_name_are_a_bad_response(body: Any) -> None:
    with pytest.raises(ProviderBadResponse, match="names no picture") as caught:
        DIALECT.read(OUTPUT, reply(body))
    assert not isinstance(caught.value, UnreadableReply)


@pytest.mark.parametrize("body", [PAGE, b"", b'["a.png'])
def test_an_unreadable_list_may_be_asked_for_again(body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        DIALECT.read(OUTPUT, reply(body))


@pytest.mark.parametrize("name", ["output.png", "output", "job.json", "job.state.current"])
def test_collected_bytes_are_the_result_whatever_their_name(name: str) -> None:
    said = Reply(200, {"content-type": "image/png"}, picture=Path("a"))
    assert DIALECT.read(Handle("picture", JOB, name), said) == Finished(Path("a"))


@pytest.mark.anyio
async def test_a_whole_job_on_the_wire(connect: Connect, web: aioresponses) -> None:
    upstream = connect(credentials=DIALECT.credentials())
    web.post(f"{BASE}?price=true", status=201, payload={"id": JOB, "state": {"current": "processing"}})
    web.get(STATE_URL, body="processing", content_type="text/plain")
    web.get(STATE_URL, body='"processed"', content_type="text/plain")
    web.get(f"{DETAILS_URL}?price=true", payload={"id": JOB, "price": {"dollars": 0.04}})
    web.get(OUTPUT_URL, body='["message.txt", "output.png"]')
    web.get(f"{OUTPUT_URL}/output.png", body=PNG, content_type="image/png")
    finished = await follow(upstream, DIALECT, job(SCHNELL, seed=1))
    assert isinstance(finished.image, Path)
    assert finished.image.read_bytes() == PNG

    assert finished.cost == 40_000_000
    (submit,) = web.requests["POST", URL(f"{BASE}?price=true")]
    assert submit.kwargs["json"] == SUBMITTED.json
    assert len(web.requests["GET", URL(STATE_URL)]) == 2
    sent = [call for calls in web.requests.values() for call in calls]
    assert len(sent) == 6
    assert {call.kwargs["headers"]["authorization"] for call in sent} == {f"Bearer {KEY}"}
    assert not any(call.kwargs["allow_redirects"] for call in sent)
    assert [call.kwargs["params"] for call in sent if call.kwargs["params"]] == [WITH_PRICE] * 2


@pytest.mark.anyio
async def test_a_failed_job_on_the_wire(upstream: Upstream, web: aioresponses) -> None:
    web.post(f"{BASE}?price=true", status=201, payload={"id": JOB})
    web.get(STATE_URL, body="failed", content_type="text/plain")
    web.get(DETAILS_URL, payload={"id": JOB, "state": {"current": "failed"}, "error": "NSFW"})
    with pytest.raises(ContentRefused):
        await follow(upstream, DIALECT, job(SCHNELL, seed=1))
