"""Prodia v1: calls as data, states and defects."""

import json
from typing import Any

import pytest
from aioresponses import aioresponses
from yarl import URL

from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse
from proxy.providers.boundary import Base64, Call, Finished, Handle, Operation, Reply, UnreadableReply
from proxy.upstream.client import Upstream
from tests.providers.conftest import Connect
from tests.providers.examples import (
    JOB,
    KEY,
    NAMED,
    PNG,
    PROMPT,
    brought,
    content,
    follow,
    job,
    lister,
    model,
    pending,
    provider,
    reply,
)

BASE = "https://api.prodia.com/v1"
DIALECT, LISTER = provider("prodia-v1"), lister("prodia-v1")
SD, SDXL = model(DIALECT, "dreamshaper_8"), model(DIALECT, "sd_xl_base_1.0")
POLL = Handle("job", JOB)
POLL_URL = f"{BASE}/job/{JOB}"
IMAGE = f"https://images.prodia.xyz/{JOB}.png"

GENERATE = {
    *("model", "prompt", "negative_prompt", "style_preset", "steps", "cfg_scale", "seed", "upscale", "sampler"),
    *("aspect_ratio", "width", "height"),
}
"""What its documentation named; transform and inpainting add their pictures."""


def _body(call: Call) -> dict[str, Any]:
    assert call.json is not None
    return dict(call.json)


def test_submit_is_a_post_and_the_key_is_a_credential() -> None:
    wanted = job(SD, seed=1234, steps=20, cfg=7.5, sampler="Euler a", style_preset="anime", negative_prompt="x")
    call = DIALECT.submit(wanted)
    assert (call.method, call.url, call.query, call.files) == ("POST", f"{BASE}/sd/generate", {}, ())
    assert call.headers == {"content-type": "application/json", "accept": "application/json"}
    assert DIALECT.credentials() == {"x-prodia-key": KEY}
    assert _body(call) == {
        "model": "dreamshaper_8.safetensors [9d40847d]",
        "prompt": PROMPT,
        "width": 512,
        "height": 512,
        "seed": 1234,
        "steps": 20,
        "cfg_scale": 7.5,
        "sampler": "Euler a",
        "style_preset": "anime",
        "negative_prompt": "x",
    }


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize(
    ("operation", "path", "more"),
    [
        ("generate", "generate", set()),
        ("edit", "transform", {"imageData", "denoising_strength"}),
        ("inpaint", "inpainting", {"imageData", "maskData", "denoising_strength"}),
    ],
)
def test_each_operation_has_its_path_and_only_known_fields(
    family: str, operation: Operation, path: str, more: set[str]
) -> None:
    made_by = SD if family == "sd" else SDXL
    images = [] if operation == "generate" else [brought()]
    mask = brought(b"mask") if operation == "inpaint" else None
    settings: dict[str, Any] = {
        "steps": 5,
        "cfg": 2.0,
        "seed": 1,
        "sampler": "DDIM",
        "style_preset": "anime",
        "negative_prompt": "x",
    }
    if operation != "generate":
        settings["strength"] = 0.5
    call = DIALECT.submit(job(made_by, operation, images, mask, **settings))
    assert call.url == f"{BASE}/{family}/{path}"
    body = _body(call)
    assert more <= body.keys() <= GENERATE | more
    if images:
        assert body["imageData"] == Base64(PNG)
    if mask:
        assert body["maskData"] == Base64(b"mask")


@pytest.mark.parametrize("made_by", DIALECT.models(), ids=lambda one: one.name)
def test_every_model_sends_its_own_name_to_its_own_family(made_by: Any) -> None:
    body = _body(DIALECT.submit(job(made_by, seed=1)))
    assert body["model"] == made_by.name
    assert (body["width"], body["height"]) == ((1024, 1024) if made_by.family == "sdxl" else (512, 512))
    assert "aspect_ratio" not in body


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"job": JOB, "status": "queued"}, "queued"),
        ({"job": JOB}, "queued"),
        ({"job": JOB, "status": "generating"}, "generating"),
        ({"job": JOB, "status": None}, "generating"),
        ({"job": JOB, "status": "generating", "imageUrl": IMAGE}, "generating"),
    ],
)
def test_a_running_job_is_asked_after(body: dict[str, Any], state: str) -> None:
    answer = pending(DIALECT.read(POLL, reply(body)))
    assert DIALECT.ask(answer.handle) == Call("GET", POLL_URL, {"accept": "application/json"}, safe=True)
    assert answer.state == state


def test_a_finished_job_names_its_picture() -> None:
    assert DIALECT.read(POLL, reply({"job": JOB, "status": "succeeded", "imageUrl": IMAGE})) == Finished(IMAGE)


@pytest.mark.parametrize("more", [{}, {"imageUrl": None}, {"imageUrl": ""}, {"imageUrl": 5}])
def test_a_finished_job_without_a_picture_is_a_bad_response(more: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponse, match="names no picture"):
        DIALECT.read(POLL, reply({"job": JOB, "status": "succeeded", **more}))


@pytest.mark.parametrize("body", [{}, {"status": "queued"}, {"job": None}, {"job": "a/b/c/d/e/f"}, {"job": 12345678}])
def test_an_answer_without_a_job_is_a_bad_response(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponse, match="names no job"):
        DIALECT.read(POLL, reply(body))


def test_a_failed_job_gives_no_reason_or_one() -> None:
    with pytest.raises(GenerationFailed):
        DIALECT.read(POLL, reply({"job": JOB, "status": "failed"}))
    with pytest.raises(ContentRefused):
        DIALECT.read(POLL, reply({"job": JOB, "status": "failed", "error": "nsfw"}))


def test_a_refusal_is_plain_text() -> None:
    said = reply(b"Invalid Generation Parameters", 400, content_type="text/plain")
    assert DIALECT.refusal(said) == "Invalid Generation Parameters"


def test_the_catalogue_is_two_lists() -> None:
    calls = LISTER.catalogue()
    assert [call.url for call in calls] == [f"{BASE}/sdxl/models", f"{BASE}/sd/models"]
    models = LISTER.read_catalogue([reply(["new_xl.safetensors [00]"]), reply(["new.ckpt [01]", "newer.ckpt [02]"])])
    assert [(one.name, one.family) for one in models] == [
        ("new_xl.safetensors [00]", "sdxl"),
        ("new.ckpt [01]", "sd"),
        ("newer.ckpt [02]", "sd"),
    ]
    assert DIALECT.submit(job(models[0], seed=1)).url == f"{BASE}/sdxl/generate"
    assert DIALECT.probe().url == f"{BASE}/sd/models"


@pytest.mark.parametrize("body", [{"models": []}, [1, 2], [None], [""], "x", None])
def test_a_catalogue_of_anything_else_is_unreadable(body: object) -> None:
    with pytest.raises(UnreadableReply):
        LISTER.read_catalogue([reply(["a.ckpt"]), reply(body)])


def test_a_catalogue_without_end_is_cut() -> None:
    names = [f"m{number}.ckpt" for number in range(5000)]
    assert len(LISTER.read_catalogue([reply(names), reply([])])) == 2000


@pytest.mark.anyio
async def test_a_whole_job_on_the_wire(connect: Connect, web: aioresponses) -> None:
    upstream = connect(credentials=DIALECT.credentials())
    web.post(f"{BASE}/sd/generate", payload={"job": JOB, "status": "queued"})
    web.get(POLL_URL, payload={"job": JOB, "status": "generating"})
    web.get(POLL_URL, payload={"job": JOB, "status": "succeeded", "imageUrl": IMAGE})
    web.get(IMAGE, body=PNG, content_type="application/octet-stream")
    wanted = job(SD, seed=7)
    assert await follow(upstream, DIALECT, wanted) == Finished(IMAGE)
    assert content(await upstream.fetch(IMAGE)) == PNG

    (submit,) = web.requests["POST", URL(f"{BASE}/sd/generate")]
    assert submit.kwargs["json"] == DIALECT.submit(wanted).json
    assert submit.kwargs["headers"]["x-prodia-key"] == KEY
    polls = web.requests["GET", URL(POLL_URL)]
    assert [poll.kwargs["headers"]["x-prodia-key"] for poll in polls] == [KEY, KEY]
    (fetched,) = web.requests["GET", URL(IMAGE)]
    assert fetched.kwargs["headers"] == {"accept": "image/*", **NAMED}
    assert KEY not in repr(fetched)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "body"), [(400, "Invalid Generation Parameters"), (401, "Unauthorized"), (402, "Payment Required")]
)
async def test_refusals_come_back_as_replies(upstream: Upstream, web: aioresponses, status: int, body: str) -> None:
    web.post(f"{BASE}/sd/generate", status=status, body=body, content_type="text/plain")
    said = await upstream.send(DIALECT.submit(job(SD, seed=7)), 1.0)
    assert (said.status, DIALECT.refusal(said), said.picture) == (status, body, None)


def test_listed_names_that_no_header_can_carry_are_left_out() -> None:
    good = "dreamshaper_8.safetensors [9d40847d]"
    bodies = (json.dumps([good, "模型", "x\r\nset-cookie: a", "\ud800", " "]).encode(), b"[]")
    replies = [Reply(200, body=body) for body in bodies]
    assert [listed.name for listed in LISTER.read_catalogue(replies)] == [good]
    with pytest.raises(UnreadableReply):
        LISTER.read_catalogue([Reply(200, body=b"[]")] * 2)
