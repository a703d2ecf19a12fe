"""Prodia v2: forms, negotiation, schemas, the asynchronous variant."""

import io
import json
from datetime import datetime

import aiohttp
import pytest
from PIL import Image

from tests.simulator.client import SCHNELL, Client, picture_file

pytestmark = pytest.mark.anyio


def order_form(kind: str, config: object, **files: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    job = json.dumps({"type": kind, "config": config})
    form.add_field("job", job, filename="job.json", content_type="application/json")
    for name, data in files.items():
        form.add_field("input", data, filename=name, content_type="image/png")
    return form


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP"), ("*/*", "JPEG")],
)
async def test_v2_answers_with_the_type_asked_for(client: Client, accept: str, expected: str) -> None:
    answer = await client.schnell("a pear", accept=accept, width=320, height=256, seed=5)
    assert (answer.status, answer.type) == (200, f"image/{expected.lower()}")
    assert (answer.picture.format, answer.picture.size) == (expected, (320, 256))


async def test_v2_answers_in_several_parts(client: Client) -> None:
    answer = await client.schnell("a pear", "/job?price=true", "multipart/form-data; image/png", seed=7)
    assert answer.type == "multipart/form-data"
    boundary = answer.headers["content-type"].partition('boundary="')[2].strip('"').encode()
    _, job, output, end = answer.body.split(b"--" + boundary)
    assert end.strip() == b"--"
    assert b'name="output"; filename="output.png"' in output
    assert output.partition(b"\r\n\r\n")[2].startswith(b"\x89PNG")
    description = json.loads(job.partition(b"\r\n\r\n")[2])
    assert description["state"] == {"current": "completed", "history": None}
    assert description["config"] == {"prompt": "a pear", "steps": 4, "seed": 7, "width": 1024, "height": 1024}
    assert description["price"] == {"product": "inference-flux-fast-schnell", "dollars": 0.0025}


@pytest.mark.parametrize("path", ["/job?price=true", "/job/async?price=true"])
async def test_v2_tells_a_price_only_of_what_is_completed(client: Client, path: str) -> None:
    answer = await client.schnell("a pear [fault:failed] [seconds:0]", path, "application/json")
    assert "price" not in answer.json
    described = (await client.v2(f"/job/async/{answer.json['id']}/job.json?price=true")).json
    assert described["state"]["current"] == "failed"
    assert "price" not in described
    free = {"type": "inference.recraft.v4.txt2img.v1", "config": {"prompt": "a pear [seconds:0]"}}
    assert (await client.v2("/job?price=true", "application/json", json=free)).json["price"] is None


async def test_v2_forgets_a_result_when_its_description_says_so(client: Client) -> None:
    job = (await client.schnell("a pear [seconds:1]", "/job/async", width=256, height=256)).json
    created, expires = (datetime.fromisoformat(job[name]) for name in ("created_at", "expires_at"))
    assert (expires - created).total_seconds() == 300
    client.time.now += 299
    assert (await client.v2(f"/job/async/{job['id']}/output/output.png")).status == 200
    client.time.now += 2
    for end in ("job.state.current", "job.json", "output", "output/output.png"):
        assert (await client.v2(f"/job/async/{job['id']}/{end}")).status == 404


async def test_v2_takes_json_only_as_a_description(client: Client) -> None:
    answer = await client.schnell("a pear", accept="application/json")
    assert answer.type == "application/json"
    assert "price" not in answer.json
    assert (await client.schnell("a pear", accept="video/mp4")).status == 400


async def test_v2_ping_is_free(client: Client) -> None:
    before = (await client.call("GET", f"{client.origin}/_counts")).json
    answer = await client.v2(json={"type": "inference.ping.v1"})
    assert answer.json["state"]["current"] == "completed"
    assert (await client.v2("/job/async", json={"type": "inference.ping.v1"})).status == 400
    assert (await client.call("GET", f"{client.origin}/_counts")).json == before


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"steps": 1000}, "at '/steps': maximum: got 1,000, want 4"),
        ({"width": 8}, "at '/width': minimum: got 8, want 256"),
        ({"width": "8"}, "at '/width': got string, want integer"),
        ({"sampler": "Euler"}, "additional properties 'sampler' not allowed"),
        ({"style_preset": "gloomy"}, "at '/style_preset': value must be one of"),
        ({"loras": ["a"]}, "at '/loras': value must be one of"),
        ({"prompt": None}, "at '/prompt': got null, want string"),
    ],
)
async def test_v2_refuses_what_a_schema_does_not_allow(client: Client, config: object, said: str) -> None:
    body = {"type": SCHNELL, "config": {"prompt": "a pear"} | dict(config)}  # type: ignore[call-overload]
    answer = await client.v2(json=body)
    assert answer.status == 400
    assert answer.json["id"]
    assert said in answer.json["error"]


@pytest.mark.parametrize(
    "body", [{}, {"type": "inference.flux.txt2img.v1", "config": {"prompt": "x"}}, {"type": 5, "config": {}}]
)
async def test_v2_answers_429_to_a_type_it_does_not_know(client: Client, body: object) -> None:
    answer = await client.v2(json=body)
    assert answer.status == 429
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"type": "x", "config": 3}', b"[" * 100_000])
async def test_v2_refuses_what_is_no_job(client: Client, body: bytes) -> None:
    assert (await client.v2(data=body)).status == 400


async def test_v2_wants_its_token_everywhere(client: Client) -> None:
    job = (await client.schnell("a pear", "/job/async")).json["id"]
    paths = ["/job", "/job/async", *(f"/job/async/{job}/{end}" for end in ("job.state.current", "job.json", "output"))]
    for path in [*paths, f"/job/async/{job}/output/output.png"]:
        answer = await client.v2(path, headers={"authorization": "Bearer wrong"})
        assert (answer.status, answer.type, answer.body) == (401, "text/plain", b"token is invalid")


async def test_v2_async_names_its_one_output(client: Client) -> None:
    job = (await client.schnell("a pear [seconds:1.5]", "/job/async?price=true", "image/webp")).json
    assert job["state"]["current"] == "processing"
    path = f"/job/async/{job['id']}"
    assert (await client.v2(f"{path}/output")).json == []
    assert (await client.v2(f"{path}/output/output.webp")).status == 404
    client.time.now += 2
    assert (await client.v2(f"{path}/job.state.current")).body == b"processed"
    assert "price" not in (await client.v2(f"{path}/job.json")).json
    described = (await client.v2(f"{path}/job.json?price=true")).json
    assert (described["state"]["current"], described["price"]["dollars"]) == ("completed", 0.0025)
    assert (await client.v2(f"{path}/output")).json == ["output.webp"]
    assert (await client.v2(f"{path}/output/output.webp")).picture.format == "WEBP"
    assert (await client.v2(f"{path}/output/output.png")).status == 404
    client.time.now += 300
    assert (await client.v2(f"{path}/job.state.current")).status == 404
    assert (await client.v2("/job/async/unknown/job.state.current")).status == 404


async def test_v2_takes_inputs_by_name(client: Client) -> None:
    kind = "inference.flux-2.pro.img2img.v1"
    red = picture_file("#ff0000")
    config = {"prompt": "a pear [seconds:0]", "images": ["a.png"], "width": 128, "height": 64}
    answer = await client.v2(data=order_form(kind, config, **{"a.png": red}))
    assert answer.picture.size == (128, 64)
    wrong = await client.v2(data=order_form(kind, {**config, "images": ["b.png"]}, **{"a.png": red}))
    assert (wrong.status, "b.png" in wrong.json["error"]) == (400, True)
    broken = await client.v2(data=order_form(kind, config, **{"a.png": b"no picture"}))
    assert (broken.status, "not a picture" in broken.json["error"]) == (400, True)
    two_jobs = order_form(kind, config, **{"a.png": red})
    two_jobs.add_field("config", "{}")
    assert (await client.v2(data=two_jobs)).status == 400


@pytest.mark.parametrize(
    ("kind", "config", "size"),
    [
        ("inference.flux-fast.schnell.txt2img.v1", {"prompt": "a pear", "resolution": "1024x576"}, (1024, 576)),
        ("inference.recraft.txt2img.v1", {"prompt": "a pear", "size": "1365x1024"}, (1365, 1024)),
        ("inference.nano-banana.txt2img.v2", {"prompt": "a pear", "aspect_ratio": "16:9"}, (1360, 768)),
        ("inference.nano-banana.txt2img.v2", {"prompt": "a pear"}, (1024, 1024)),
        ("inference.sd15.txt2img.v1", {"prompt": "a pear"}, (512, 512)),
        ("inference.flux.dev.txt2img.v2", {"prompt": "a pear", "width": 640, "height": "?"}, (640, 1024)),
    ],
)
async def test_v2_draws_the_size_that_the_type_means(
    client: Client, kind: str, config: object, size: tuple[int, int]
) -> None:
    assert (await client.v2(json={"type": kind, "config": config})).picture.size == size


async def test_v2_inpaints_with_the_second_input(client: Client) -> None:
    mask = io.BytesIO()
    Image.new("L", (96, 96), 0).save(mask, "PNG")
    inputs = {"a.png": picture_file("#ff0000"), "b.png": mask.getvalue()}
    untouched = await client.v2(data=order_form("inference.sd15.inpainting.v1", {"prompt": "a pond"}, **inputs))
    assert untouched.picture.getcolors() == [(96 * 96, (255, 0, 0))]


async def test_v2_wants_a_prompt_even_where_the_schema_is_unknown(client: Client) -> None:
    answer = await client.v2(json={"type": "inference.flux.dev.txt2img.v2"})
    assert (answer.status, answer.json["error"].splitlines()[-1]) == (400, "- at '': missing property 'prompt'")


@pytest.mark.parametrize("kind", ["prodia", "prodia-async", "prodia-v1", "prodia-legacy", "imagelabs"])
async def test_undrawn_pictures_have_the_weight_asked_for(client: Client, kind: str) -> None:
    story = await client.follow(kind, "[bytes:300000]")
    answer = story.submit if kind == "prodia" else story.picture
    assert (len(answer.body), answer.picture.size, answer.type) == (300_000, (512, 512), "image/png")
