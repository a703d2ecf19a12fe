"""ImageLabs: its calls as data, every state and defect of its answers, a whole job."""

from typing import Any

import pytest
from aioresponses import aioresponses
from yarl import URL

from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse
from proxy.providers.boundary import SUBMIT, Base64, Call, Finished, Handle, UnreadableReply
from proxy.upstream.client import Interrupted, Upstream
from tests.providers.examples import NAMED, PAGE, PNG, PROMPT, brought, content, follow, job, pending, provider, reply

BASE = "https://editor.imagelabs.net"
DIALECT = provider("imagelabs")
MODEL = DIALECT.models()[0]
ASK = Handle("progress", "t-1")
FINAL = "https://pictures.test/a.jpg"


def _body(call: Call) -> dict[str, Any]:
    assert call.json is not None
    return dict(call.json)


def test_submit_is_the_editors_post() -> None:
    call = DIALECT.submit(job(MODEL, seed=1234, negative_prompt="blurry"))
    assert (call.method, call.url, call.query, call.files, call.picture) == ("POST", f"{BASE}/txt2img", {}, (), False)
    assert _body(call) == {
        "prompt": PROMPT,
        "seed": "1234",
        "subseed": "1234",
        "attention": 0,
        "width": 1152,
        "height": 896,
        "tiling": False,
        "negative_prompt": "blurry",
        "reference_image": "",
        "reference_image_type": None,
        "reference_strength": 30,
    }
    headers = dict(call.headers)
    assert headers.pop("user-agent").startswith("Mozilla/5.0 ")
    assert headers == {
        "accept": "*/*",
        "accept-language": "en-US,en;q=0.9",
        "cache-control": "no-cache",
        "content-type": "application/json",
        "origin": BASE,
        "referer": f"{BASE}/",
        "x-requested-with": "XMLHttpRequest",
    }


def test_width_and_height_are_always_sent() -> None:
    shape = MODEL.shapes.nearest(512, 4096)
    body = _body(DIALECT.submit(job(MODEL, seed=1, **shape.settings)))
    assert (body["width"], body["height"]) == (shape.width, shape.height)


def test_an_edit_brings_its_picture_as_a_data_url() -> None:
    body = _body(DIALECT.submit(job(MODEL, "edit", images=[brought()], seed=1)))
    assert body["reference_image"] == Base64(PNG, "data:image/png;base64,")
    assert body["reference_image_type"] == "image/png"


@pytest.mark.parametrize(("task", "sent"), [("t-1", "t-1"), (17, "17"), ("ünï/code?", "ünï/code?")])
def test_a_task_is_followed_by_posting_its_id(task: object, sent: str) -> None:
    answer = pending(DIALECT.read(SUBMIT, reply({"task_id": task})))
    assert (answer.state, answer.at_once) == ("queued", False)
    call = DIALECT.ask(answer.handle)
    assert (call.method, call.url, call.json) == ("POST", f"{BASE}/progress", {"task_id": sent})
    assert call.headers == DIALECT.probe().headers


@pytest.mark.parametrize(
    "body",
    [
        {"task_id": None},
        {},
        {"task_id": ""},
        {"task_id": True},
        {"task_id": 1.5},
        {"task_id": ["t"]},
        {"task_id": "a\r\nb"},
        {"task_id": "t" * 201},
        {"error": "daily limit"},
    ],
)
def test_a_submit_without_a_task_is_a_bad_response_and_is_not_asked_after(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponse, match="named no task") as caught:
        DIALECT.read(SUBMIT, reply(body))
    assert not isinstance(caught.value, UnreadableReply)


@pytest.mark.parametrize("asked", [ASK, SUBMIT])
@pytest.mark.parametrize("body", [PAGE, b"", b'{"status": "Do', b"[]"])
def test_a_page_an_empty_body_or_half_an_answer_is_unreadable(asked: Handle, body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        DIALECT.read(asked, reply(body, content_type="text/html"))


@pytest.mark.parametrize(
    ("body", "state", "progress", "preview"),
    [
        ({}, "queued", None, None),
        ({"status": None, "final_image_url": None}, "queued", None, None),
        ({"status": "Pending"}, "queued", None, None),
        ({"status": "a word nobody knows"}, "queued", None, None),
        ({"status": 7, "progress": "half"}, "queued", None, None),
        ({"status": ["Done"], "final_image_url": 5}, "queued", None, None),
        ({"progress": 0}, "queued", 0.0, None),
        ({"progress": 0.4}, "generating", 0.4, None),
        ({"progress": 1}, "generating", 1.0, None),
        ({"progress": 40}, "queued", None, None),
        ({"progress": -1}, "queued", None, None),
        (
            {"progress": 0.4, "current_image_url": "https://pictures.test/p.jpg"},
            "generating",
            0.4,
            "https://pictures.test/p.jpg",
        ),
        ({"current_image_url": "/p.jpg"}, "generating", None, f"{BASE}/p.jpg"),
        ({"current_image_url": ""}, "queued", None, None),
        ({"current_image_url": "http://[broken"}, "generating", None, "http://[broken"),
    ],
)
def test_a_running_task(body: dict[str, Any], state: str, progress: float | None, preview: str | None) -> None:
    answer = pending(DIALECT.read(ASK, reply(body)))
    assert (answer.handle, answer.state, answer.progress, answer.preview) == (ASK, state, progress, preview)
    assert not answer.at_once


def test_progress_that_is_not_a_number_says_nothing() -> None:
    assert pending(DIALECT.read(ASK, reply(b'{"progress": NaN}'))).progress is None


@pytest.mark.parametrize(
    ("body", "image"),
    [
        ({"status": "Done", "final_image_url": FINAL}, FINAL),
        ({"status": "In Progress", "final_image_url": FINAL}, FINAL),
        ({"final_image_url": FINAL}, FINAL),
        ({"status": None, "final_image_url": FINAL}, FINAL),
        ({"status": "Done", "final_image_url": "/out/a.jpg"}, f"{BASE}/out/a.jpg"),
        ({"status": "Done", "final_image_url": "//cdn.test/a.jpg"}, "https://cdn.test/a.jpg"),
        ({"status": "Done", "final_image_url": "http://[broken"}, "http://[broken"),
    ],
)
def test_a_picture_ends_the_task_whatever_its_status(body: dict[str, Any], image: str) -> None:
    assert DIALECT.read(ASK, reply(body)) == Finished(image)


@pytest.mark.parametrize("final", [None, "", 5, []])
def test_done_without_a_picture_is_a_bad_response(final: object) -> None:
    with pytest.raises(ProviderBadResponse, match="names no picture"):
        DIALECT.read(ASK, reply({"status": "Done", "final_image_url": final}))


@pytest.mark.parametrize("status", ["Error", "error: out of memory", "Internal ERROR"])
def test_a_status_with_error_in_it_is_a_failed_job(status: str) -> None:
    with pytest.raises(GenerationFailed):
        DIALECT.read(ASK, reply({"status": status, "code": 5}))


def test_an_error_over_content_is_told_apart() -> None:
    with pytest.raises(ContentRefused):
        DIALECT.read(ASK, reply({"status": "Error", "message": "NSFW prompt"}))


def test_the_probe_asks_after_a_task_that_does_not_exist() -> None:
    assert (DIALECT.probe().url, DIALECT.probe().json) == (f"{BASE}/progress", {"task_id": "00000000"})


def test_a_refusal_is_the_bodys_text() -> None:
    assert DIALECT.refusal(reply(b"no \xff way", 400)) == "no � way"


@pytest.mark.anyio
async def test_a_whole_job_on_the_wire(upstream: Upstream, web: aioresponses) -> None:
    web.post(f"{BASE}/txt2img", payload={"task_id": "t-1"})
    web.post(f"{BASE}/progress", payload={"status": None, "final_image_url": None})
    web.post(f"{BASE}/progress", payload={"progress": 0.4, "current_image_url": "https://pictures.test/p.jpg"})
    web.post(f"{BASE}/progress", payload={"status": "Done", "final_image_url": FINAL})
    web.get(FINAL, body=PNG, content_type="image/png")
    wanted = job(MODEL, seed=5)
    finished = await follow(upstream, DIALECT, wanted)
    assert finished == Finished(FINAL)
    path = await upstream.fetch(FINAL)
    assert content(path) == PNG

    (submit,) = web.requests["POST", URL(f"{BASE}/txt2img")]
    assert submit.kwargs["json"] == DIALECT.submit(wanted).json
    assert submit.kwargs["headers"] == DIALECT.submit(wanted).headers
    assert submit.kwargs["data"] is None
    assert submit.kwargs["params"] is None
    polls = web.requests["POST", URL(f"{BASE}/progress")]
    assert [poll.kwargs["json"] for poll in polls] == [{"task_id": "t-1"}] * 3
    (fetch,) = web.requests["GET", URL(FINAL)]
    assert fetch.kwargs["headers"] == {"accept": "image/*", **NAMED}
    for call in (submit, *polls, fetch):
        assert call.kwargs["allow_redirects"] is False


@pytest.mark.anyio
async def test_a_front_page_in_the_middle_is_a_reply_and_no_crash(upstream: Upstream, web: aioresponses) -> None:
    web.post(f"{BASE}/progress", status=503, body=PAGE, content_type="text/html; charset=UTF-8")
    web.post(f"{BASE}/progress", exception=ConnectionResetError())
    said = await upstream.send(DIALECT.ask(ASK), 1.0)
    assert (said.status, said.content_type, said.body) == (503, "text/html", PAGE)
    with pytest.raises(Interrupted):
        await upstream.send(DIALECT.ask(ASK), 1.0)


@pytest.mark.anyio
async def test_pretended_answers_bypass_middlewares(upstream: Upstream, web: aioresponses) -> None:
    """So what depends on them (unsent or interrupted) is tested on sockets, in test_upstream."""
    ran: list[str] = []

    async def watching(*_: object) -> None:
        ran.append("ran")

    web.post(f"{BASE}/progress", payload={}, repeat=True)
    await upstream.send(DIALECT.ask(ASK), 1.0)
    session = upstream._api_session
    assert session is not None
    assert session._middlewares
    async with session.request("POST", DIALECT.ask(ASK).url, middlewares=(watching,)):  # type: ignore[arg-type]
        assert ran == []
