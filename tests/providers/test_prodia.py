"""Prodia v2's blocking call: what it sends, and its answers as bytes and as multipart."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from aioresponses import aioresponses
from yarl import URL

from proxy.clock import Clock
from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse
from proxy.jobs.breaker import Breaker
from proxy.jobs.runtime import ProviderRuntime
from proxy.metrics import Metrics
from proxy.providers.boundary import SUBMIT, Call, Finished, Operation, Reply, UnreadableReply
from proxy.upstream.client import Upstream
from tests.providers.examples import (
    AWKWARD,
    BOUNDARY,
    JOB,
    NAMED,
    PAGE,
    PNG,
    PROMPT,
    brought,
    job,
    job_part,
    model,
    multipart,
    output_part,
    picture,
    provider,
    reply,
    streamed,
)

BASE = "https://inference.prodia.com/v2"
DIALECT = provider("prodia")
SCHNELL = model(DIALECT, "flux-fast.schnell.txt2img.v2")
SUBMITTED = DIALECT.submit(job(SCHNELL, seed=1))
JPEG, WEBP = picture(kind="JPEG"), picture(kind="WEBP")
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def _read(*parts: tuple[str, str, str, bytes], content_type: str = FORM, boundary: str = BOUNDARY) -> Finished:
    answer = DIALECT.read(SUBMIT, streamed(multipart(*parts, boundary=boundary), content_type))
    assert isinstance(answer, Finished)
    return answer


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_submit_asks_for_the_pictures_bytes(output_format: str) -> None:
    call = DIALECT.submit(job(SCHNELL, output_format=output_format, seed=5, steps=4, style_preset="anime"))
    assert (call.method, call.url, call.query) == ("POST", f"{BASE}/job", {"price": "true"})
    assert (call.files, call.picture, call.picture_part, call.handle) == ((), True, "output", SUBMIT)
    assert call.headers == {"accept": f"multipart/form-data; image/{output_format}"}
    assert call.json == {
        "type": "inference.flux-fast.schnell.txt2img.v2",
        "config": {"prompt": PROMPT, "width": 1024, "height": 1024, "seed": 5, "steps": 4, "style_preset": "anime"},
    }


@pytest.mark.parametrize(
    ("name", "word"), [("flux-2.flex.txt2img.v1", "guidance"), ("seedream.txt2img.v1", "guidance_scale")]
)
def test_a_setting_goes_by_the_types_own_name(name: str, word: str) -> None:
    call = DIALECT.submit(job(model(DIALECT, name), cfg=3.5))
    assert call.json is not None
    assert call.json["config"][word] == 3.5
    assert "cfg" not in call.json["config"]


def _form(name: str, operation: Operation, count: int, mask: bool) -> tuple[Call, dict[str, Any]]:
    images = [
        brought(b"picture %d" % number, kind) for number, kind in zip(range(count), ("png", "jpeg"), strict=False)
    ]
    call = DIALECT.submit(
        job(model(DIALECT, name), operation, images, brought(b"mask", "webp") if mask else None, output_format="webp")
    )
    assert call.json is None
    part = call.files[0]
    assert (part.part, part.name, part.content_type) == ("job", "job.json", "application/json")
    return call, json.loads(bytes(part.data))


def test_pictures_go_as_parts_that_the_job_names() -> None:
    call, told = _form("flux-2.pro.img2img.v1", "edit", 2, mask=False)
    assert told == {
        "type": "inference.flux-2.pro.img2img.v1",
        "config": {"prompt": PROMPT, "width": 1024, "height": 1024, "images": ["image0.png", "image1.jpeg"]},
    }
    assert [(file.part, file.name, file.content_type, file.data) for file in call.files[1:]] == [
        ("input", "image0.png", "image/png", b"picture 0"),
        ("input", "image1.jpeg", "image/jpeg", b"picture 1"),
    ]
    assert (call.headers, call.query) == ({"accept": "multipart/form-data; image/webp"}, {"price": "true"})
    assert call.picture


def test_some_types_take_one_picture_by_its_name() -> None:
    _, told = _form("recraft.img2img.v1", "edit", 1, mask=False)
    assert told["config"] == {"prompt": PROMPT, "image": "image0.png"}


@pytest.mark.parametrize("name", ["sdxl.inpainting.v1", "sd15.inpainting.v1"])
def test_a_mask_is_one_more_part(name: str) -> None:
    call, told = _form(name, "inpaint", 1, mask=True)
    assert told["config"] == {"prompt": PROMPT, "image": "image0.png", "mask": "mask.webp"}
    assert [(file.part, file.name, file.data) for file in call.files[1:]] == [
        ("input", "image0.png", b"picture 0"),
        ("input", "mask.webp", b"mask"),
    ]


def test_a_streamed_picture_is_the_result() -> None:
    path = Path("a.part")
    assert DIALECT.read(SUBMIT, Reply(200, {"content-type": "image/png"}, picture=path)) == Finished(path)


@pytest.mark.parametrize("data", [PNG, JPEG, WEBP, AWKWARD, PNG + b"\r\n", PNG + b"\r", PNG + b"--", PNG + b"\n\r\n"])
def test_multipart_hands_back_the_same_bytes(data: bytes) -> None:
    assert _read(job_part(state={"current": "completed", "history": None}), output_part(data)) == Finished(data)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (f'multipart/form-data; boundary="{BOUNDARY}"', BOUNDARY),
        ('multipart/form-data; boundary="a b:c=d;e"', "a b:c=d;e"),
        (f"Multipart/Form-Data;charset=x;boundary={BOUNDARY}", BOUNDARY),
        (f"multipart/form-data; BOUNDARY={BOUNDARY}", BOUNDARY),
        ("multipart/form-data; boundary=x", "x"),
    ],
)
def test_the_boundary_is_the_headers(content_type: str, boundary: str) -> None:
    assert _read(job_part(), output_part(PNG), content_type=content_type, boundary=boundary).image == PNG


@pytest.mark.parametrize(
    "parts",
    [
        [job_part(), output_part(JPEG), output_part(PNG)],
        [output_part(JPEG), job_part()],
        [job_part(), output_part(b"Here is your fox.", "message.txt", "text/plain"), output_part(JPEG)],
        [job_part(), ("other", "x", "image/png", PNG), output_part(JPEG, "x", "application/octet-stream")],
        [job_part(), output_part(b"", "empty.png"), output_part(JPEG)],
    ],
    ids=["several", "job-last", "text-first", "other-part", "empty-first"],
)
def test_the_first_picture_among_the_outputs_is_taken(parts: list[tuple[str, str, str, bytes]]) -> None:
    assert _read(*parts).image == JPEG


@pytest.mark.parametrize(
    ("metrics", "elapsed_s"),
    [
        ({"metrics": {"elapsed": 7.53, "ips": 13.4}}, 7.53),
        ({"metrics": {"elapsed": 0}}, 0.0),
        ({"metrics": {"elapsed": -1}}, None),
        ({"metrics": {"elapsed": "7"}}, None),
        ({"metrics": {"elapsed": 10**400}}, None),
        ({"metrics": {"elapsed": float("inf")}}, None),
        ({"metrics": {"elapsed": float("nan")}}, None),
        ({"metrics": None}, None),
        ({"metrics": []}, None),
        ({}, None),
    ],
)
def test_the_jobs_own_time_is_read_where_it_makes_sense(metrics: dict[str, Any], elapsed_s: float | None) -> None:
    assert _read(job_part(**metrics), output_part(PNG)).elapsed_s == elapsed_s


@pytest.mark.parametrize(
    ("config", "seed"),
    [
        ({"seed": 7}, 7),
        ({"seed": 0}, 0),
        ({}, None),
        (None, None),
        ([7], None),
        ({"seed": None}, None),
        ({"seed": -1}, None),
        ({"seed": True}, None),
        ({"seed": "7\r\nx: y"}, None),
        ({"seed": 2**200}, None),
    ],
)
def test_the_seed_that_the_provider_says_it_used_is_read(config: Any, seed: int | None) -> None:
    assert _read(job_part(config=config), output_part(PNG)).seed == seed


_NO_PRICES: list[Any] = [None, "0.0025", True, -1, 1e300, float("nan"), 10**400, {}]


@pytest.mark.parametrize(
    ("values", "cost"),
    [
        ({"price": {"product": "inference-flux-schnell-large-steps-4", "dollars": 0.0025}}, 2_500_000),
        ({"price": {"dollars": 0}}, 0),
        ({"price": {"dollars": 1}}, 10**9),
        ({"price": {"dollars": 0.00054999999999995}}, 550_000),
        ({}, None),
        *(({"price": price}, None) for price in (None, {}, 0.0025, [0.0025], {"product": "x"})),
        *(({"price": {"dollars": odd}}, None) for odd in _NO_PRICES),
    ],
)
def test_the_price_that_the_provider_tells_is_read(values: dict[str, Any], cost: int | None) -> None:
    assert _read(job_part(**values), output_part(PNG)).cost == cost


def test_the_longest_prompt_does_not_cost_the_picture_that_comes_with_it() -> None:
    echo = job_part(config={"prompt": "\N{FOX FACE}" * 32_000}, price={"dollars": 0.02})
    assert len(echo[3]) > 380_000
    said = streamed(multipart(echo, output_part(PNG)), FORM, 10_000)
    assert DIALECT.read(SUBMIT, said) == Finished(cast("Path", PNG), cost=20_000_000)


@pytest.mark.parametrize(
    "values",
    [
        {"state": {"current": "completed", "history": [{"message": "started"}, {"message": "done"}]}},
        {"state": {"current": ["failed"]}},
        {"state": "failed"},
        {"state": None, "price": None, "error": None},
        {"error": ""},
        {"message": "thank you"},
    ],
)
def test_a_picture_counts_unless_the_job_says_error(values: dict[str, Any]) -> None:
    assert _read(job_part(**values), output_part(PNG)).image == PNG


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"error": "out of memory"}, GenerationFailed),
        ({"error": {"code": 5}}, GenerationFailed),
        ({"error": "NSFW content"}, ContentRefused),
        ({"state": {"current": "failed"}}, GenerationFailed),
        ({"state": {"current": "cancelled", "history": None}}, GenerationFailed),
        (
            {"state": {"current": "failed", "history": [{"message": "ok"}, {"message": "flagged: nsfw"}]}},
            ContentRefused,
        ),
        ({"state": {"current": "failed", "history": ["odd"]}}, GenerationFailed),
    ],
)
def test_an_error_in_the_job_part_wins_over_its_outputs(values: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        _read(job_part(**values), output_part(PNG))
    with pytest.raises(kind):
        DIALECT.read(SUBMIT, reply({"id": JOB, **values}))


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_of_several_pictures_the_first_output_alone_is_written(order: int, piece: int) -> None:
    parts = [job_part(), ("input", "a", "image/png", WEBP), output_part(b"RIF"), output_part(JPEG), output_part(PNG)]
    said = streamed(multipart(*parts[::order]), FORM, piece)
    assert said.picture == cast("Path", JPEG if order == 1 else PNG)
    assert sorted(name for name, _ in said.parts) == ["input", "job", "output", "output", "output"]


def test_what_is_kept_of_other_parts_is_short() -> None:
    long = ("a", "a", "b", bytes(700_000))
    said = streamed(multipart(long, job_part(), output_part(PNG)), FORM, 1_000)
    assert [len(data) for _, data in said.parts] == [524_288, len(job_part()[3]), 0]
    assert said.picture
    said = streamed(multipart(long, long, job_part(), output_part(PNG)), FORM, 1_000)
    assert sum(len(data) for _, data in said.parts) < 1_100_000
    assert said.picture, "it is recognised behind whatever came before it"
    with pytest.raises(UnreadableReply):
        streamed(multipart(*[job_part()] * 65), FORM, 1_000)


@pytest.mark.anyio
async def test_a_picture_that_came_with_a_failure_is_removed(upstream: Upstream, tmp_path: Path) -> None:
    path, clock = tmp_path / "a.part", Clock()
    path.write_bytes(PNG)
    runtime = ProviderRuntime(
        "x",
        DIALECT,
        upstream,
        1,
        submit_breaker=Breaker(clock),
        poll_breaker=Breaker(clock),
        figures=Metrics().of_provider("x"),
    )
    said = Reply(200, {"content-type": FORM}, picture=path, parts=[("job", b'{"error": "nsfw"}')])
    with pytest.raises(ContentRefused):
        runtime.read(SUBMIT, said)
    assert not path.exists()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([output_part(PNG)], "no job part"),
        ([job_part()], "no picture"),
        ([job_part(), output_part(b"GIF89a..", "a.gif", "image/gif")], "no picture"),
        ([job_part(), output_part(b"A fox.", "message.txt", "text/plain")], "no picture"),
        ([job_part(), output_part(b"")], "no picture"),
        ([job_part(), ("input", "a.png", "image/png", PNG)], "no picture"),
    ],
)
def test_a_multipart_answer_that_lacks_a_part_is_a_bad_response(
    parts: list[tuple[str, str, str, bytes]], words: str
) -> None:
    with pytest.raises(ProviderBadResponse, match=words):
        _read(*parts)


WHOLE = multipart(job_part(), output_part(PNG))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (WHOLE, "multipart/form-data"),
        (WHOLE, "multipart/form-data; boundary="),
        (WHOLE, "multipart/form-data; boundary=other"),
        (WHOLE, f"multipart/form-data; boundary={'x' * 5000}"),
        (WHOLE, f"multipart/form-data; boundary={BOUNDARY}; name=漢"),
        (WHOLE[:-20], FORM),
        (WHOLE[:-8], FORM),
        (WHOLE[:60], FORM),
        (b"", FORM),
        (PAGE, FORM),
        (multipart(("job", "job.json", "application/json", b"{"), output_part(PNG)), FORM),
        (multipart(("job", "job.json", "application/json", b"[]"), output_part(PNG)), FORM),
        (multipart(("job", "job.json", "application/json", b"[" * 100_000), output_part(PNG)), FORM),
    ],
)
def test_a_broken_multipart_answer_is_unreadable(body: bytes, content_type: str) -> None:
    for piece in (1, 7, len(body) + 1):
        with pytest.raises(UnreadableReply):
            DIALECT.read(SUBMIT, streamed(body, content_type, piece))
    assert isinstance(DIALECT.refusal(reply(body, content_type=content_type)), str)


@pytest.mark.parametrize(
    "body", [{"id": JOB, "state": {"current": "completed"}}, {}, {"job": JOB, "status": "queued"}, {"imageUrl": "x"}]
)
def test_json_where_a_picture_was_asked_for_is_a_bad_response(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponse, match="without a picture"):
        DIALECT.read(SUBMIT, reply(body))


def test_json_with_a_reason_and_no_picture_is_a_failed_job() -> None:
    with pytest.raises(ContentRefused):
        DIALECT.read(SUBMIT, reply({"id": JOB, "state": {"history": [{"message": "moderation: nsfw"}]}}))


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"token is invalid", "text/plain", "token is invalid"),
        (b'{"error": "steps: maximum: got 1,000"}', "application/json", "steps: maximum: got 1,000"),
        (b'{"detail": "a", "error": "b", "message": "c"}', "application/json", "a"),
        (b'{"message": "c"}', "application/json", "c"),
        (b'{"detail": {"steps": "too many"}}', "application/json", "{'steps': 'too many'}"),
        (b'{"state": {"history": [{"message": "late"}]}}', "application/json", "late"),
        (b"{}", "application/json", ""),
        (b'["x"]', "application/json", "['x']"),
        (multipart(job_part(error="steps: maximum: got 1,000")), FORM, "steps: maximum: got 1,000"),
        (multipart(output_part(PNG)), FORM, ""),
        (b"broken", FORM, ""),
        (PAGE, "text/html", PAGE.decode()),
    ],
)
def test_the_words_of_a_refusal(body: bytes, content_type: str, words: str) -> None:
    assert DIALECT.refusal(reply(body, 400, content_type=content_type)) == words


def test_the_probe_is_the_smallest_legal_job() -> None:
    probe = DIALECT.probe()
    assert (probe.method, probe.url, probe.json) == ("POST", f"{BASE}/job", {"type": "inference.ping.v1"})
    assert (probe.headers, probe.picture) == ({"accept": "application/json"}, False)


@pytest.mark.anyio
@pytest.mark.parametrize("data", [PNG, AWKWARD])
async def test_bytes_stream_into_a_file(upstream: Upstream, web: aioresponses, data: bytes) -> None:
    web.post(f"{BASE}/job?price=true", body=data, content_type="image/png")
    answer = DIALECT.read(SUBMIT, await upstream.send(SUBMITTED, 1.0))
    assert isinstance(answer, Finished)
    assert isinstance(answer.image, Path)
    assert answer.image.read_bytes() == data
    (sent,) = web.requests["POST", URL(f"{BASE}/job?price=true")]
    assert sent.kwargs["json"] == SUBMITTED.json
    assert sent.kwargs["headers"] == {**SUBMITTED.headers, **NAMED}
    assert sent.kwargs["params"] == {"price": "true"}
    assert sent.kwargs["allow_redirects"] is False


@pytest.mark.anyio
async def test_a_form_and_its_multipart_answer(upstream: Upstream, web: aioresponses) -> None:
    body = multipart(job_part(metrics={"elapsed": 0.3}), output_part(AWKWARD))
    web.post(
        f"{BASE}/job?price=true", body=body, headers={"Content-Type": f'multipart/form-data; boundary="{BOUNDARY}"'}
    )
    wanted = job(model(DIALECT, "flux-2.pro.img2img.v1"), "edit", [brought(AWKWARD)])
    answer = DIALECT.read(SUBMIT, await upstream.send(DIALECT.submit(wanted), 1.0))
    assert isinstance(answer, Finished)
    assert isinstance(answer.image, Path)
    assert (answer.image.read_bytes(), answer.elapsed_s) == (AWKWARD, 0.3)
    (sent,) = web.requests["POST", URL(f"{BASE}/job?price=true")]
    assert sent.kwargs["json"] is None
    assert sent.kwargs["headers"]["content-type"].startswith("multipart/form-data; boundary=")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "body", "content_type", "headers"),
    [
        (401, b"token is invalid", "text/plain", {}),
        (429, b"", "application/json", {"Retry-After": "2"}),
        (400, multipart(job_part(error="steps: maximum: got 1,000")), FORM, {}),
        (500, PNG, "image/png", {}),
    ],
)
async def test_a_refusal_is_never_taken_for_a_picture(
    upstream: Upstream, web: aioresponses, status: int, body: bytes, content_type: str, headers: dict[str, str]
) -> None:
    web.post(f"{BASE}/job?price=true", status=status, body=body, headers={"Content-Type": content_type, **headers})
    said = await upstream.send(SUBMITTED, 1.0)
    assert (said.status, said.body, said.picture) == (status, body, None)
    assert said.retry_after == (2.0 if headers else None)
