"""Prodia's former web job API: calls as data, states and defects."""

from typing import Any

import pytest
from aioresponses import aioresponses
from yarl import URL

from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse
from proxy.providers.boundary import SUBMIT, Finished, Handle
from proxy.providers.checkpoints import CHECKPOINTS, SAMPLERS
from proxy.upstream.client import Upstream
from tests.providers.examples import JOB, PNG, PROMPT, content, follow, job, model, pending, provider, reply

BASE = "https://api.prodia.com"
DIALECT = provider("prodia-legacy")
MODEL = DIALECT.models()[0]
POLL = Handle("job", JOB)
POLL_URL = f"{BASE}/job/{JOB}"


def test_submit_is_a_get_with_the_web_apps_words() -> None:
    call = DIALECT.submit(job(MODEL, seed=1234))
    assert (call.method, call.url, call.json, call.files, call.picture) == ("GET", f"{BASE}/generate", None, (), False)
    assert call.query == {
        "new": "true",
        "prompt": PROMPT,
        "model": "absolutereality_v181.safetensors [3d9d4d2b]",
        "negative_prompt": "",
        "steps": "20",
        "cfg": "7",
        "seed": "1234",
        "sampler": "DPM++ 2M Karras",
        "aspect_ratio": "square",
    }
    headers = dict(call.headers)
    assert headers.pop("user-agent").startswith("Mozilla/5.0 ")
    assert headers == {
        "accept": "*/*",
        "accept-language": "en-US,en;q=0.9",
        "origin": "https://app.prodia.com",
        "referer": "https://app.prodia.com/",
    }


@pytest.mark.parametrize(
    ("size", "aspect_ratio", "upscale"),
    [
        ((512, 512), "square", None),
        ((512, 768), "portrait", None),
        ((768, 512), "landscape", None),
        ((1024, 1024), "square", "true"),
        ((1024, 1536), "portrait", "true"),
        ((1536, 1024), "landscape", "true"),
        ((1792, 1024), "landscape", "true"),
    ],
)
def test_sizes_are_three_ratios_twice(size: tuple[int, int], aspect_ratio: str, upscale: str | None) -> None:
    query = DIALECT.submit(job(MODEL, seed=1, **MODEL.shapes.nearest(*size).settings)).query
    assert (query["aspect_ratio"], query.get("upscale")) == (aspect_ratio, upscale)
    assert "width" not in query


def test_settings_become_text() -> None:
    query = DIALECT.submit(job(MODEL, seed=0, steps=25, cfg=7.5, sampler="Euler a", negative_prompt="x")).query
    assert {name: query[name] for name in ("seed", "steps", "cfg", "sampler", "negative_prompt")} == {
        "seed": "0",
        "steps": "25",
        "cfg": "7.5",
        "sampler": "Euler a",
        "negative_prompt": "x",
    }


def test_the_checkpoints_are_the_65_with_the_default_first() -> None:
    assert len(DIALECT.models()) == len(set(CHECKPOINTS)) == 65
    assert {one.name for one in DIALECT.models()} == set(CHECKPOINTS)
    assert model(DIALECT, "default") is MODEL
    assert model(DIALECT, "dreamshaper_8").name == "dreamshaper_8.safetensors [9d40847d]"
    assert all(list(one.choices["sampler"]) == list(SAMPLERS) for one in DIALECT.models())


@pytest.mark.parametrize("asked", [POLL, SUBMIT], ids=["poll", "submit"])
@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"job": JOB, "status": "queued", "params": {}}, "queued"),
        ({"job": JOB}, "queued"),
        ({"job": JOB, "status": "generating"}, "generating"),
        ({"job": JOB, "status": "pending"}, "generating"),
        ({"job": JOB, "status": None, "imageUrl": None}, "generating"),
        ({"job": JOB, "status": ["succeeded"]}, "generating"),
    ],
)
def test_a_running_job_is_asked_after(asked: Handle, body: dict[str, Any], state: str) -> None:
    answer = pending(DIALECT.read(asked, reply(body)))
    call = DIALECT.ask(answer.handle)
    assert (call.method, call.url, call.query) == ("GET", POLL_URL, {})
    assert call.headers == DIALECT.probe().headers
    assert (answer.state, answer.progress, answer.preview, answer.at_once) == (state, None, None, False)


@pytest.mark.parametrize(
    ("address", "image"),
    [
        ({"imageUrl": "https://images.prodia.xyz/other.png"}, "https://images.prodia.xyz/other.png"),
        ({"imageUrl": None}, f"https://images.prodia.xyz/{JOB}.png"),
        ({}, f"https://images.prodia.xyz/{JOB}.png"),
    ],
)
def test_a_finished_job_names_its_picture_or_lets_it_be_told(address: dict[str, Any], image: str) -> None:
    assert DIALECT.read(POLL, reply({"job": JOB, "status": "succeeded", **address})) == Finished(image)


def test_pictures_lie_where_the_configuration_says() -> None:
    dialect = provider("prodia-legacy", image_base_url="https://own.test/pictures/")
    finished = dialect.read(POLL, reply({"job": JOB, "status": "succeeded"}))
    assert finished == Finished(f"https://own.test/pictures/{JOB}.png")


@pytest.mark.parametrize("address", ["", 5, ["https://images.prodia.xyz/a.png"], {}])
def test_a_picture_address_that_is_none_is_a_bad_response(address: object) -> None:
    with pytest.raises(ProviderBadResponse, match="names no picture"):
        DIALECT.read(POLL, reply({"job": JOB, "status": "succeeded", "imageUrl": address}))


@pytest.mark.parametrize("body", [{}, {"status": "queued"}, {"job": None}, {"job": "../models"}, {"job": 5}])
def test_an_answer_without_a_job_is_a_bad_response(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponse, match="names no job"):
        DIALECT.read(SUBMIT, reply(body))


def test_a_failed_job_gives_no_reason_or_one() -> None:
    with pytest.raises(GenerationFailed):
        DIALECT.read(POLL, reply({"job": JOB, "status": "failed"}))
    with pytest.raises(ContentRefused):
        DIALECT.read(POLL, reply({"job": JOB, "status": "failed", "error": "NSFW"}))


def test_the_probe_is_the_list_of_models() -> None:
    assert (DIALECT.probe().method, DIALECT.probe().url) == ("GET", f"{BASE}/models")
    assert DIALECT.refusal(reply(b"Not Found", 404)) == "Not Found"


@pytest.mark.anyio
async def test_a_whole_job_on_the_wire(upstream: Upstream, web: aioresponses) -> None:
    wanted = job(MODEL, seed=7)
    submit = DIALECT.submit(wanted)
    bought = URL(submit.url).with_query(sorted(submit.query.items()))
    web.get(bought, payload={"job": JOB, "status": "queued"})
    web.get(POLL_URL, payload={"job": JOB, "status": "generating"})
    web.get(POLL_URL, payload={"job": JOB, "status": "succeeded"})
    web.get(f"https://images.prodia.xyz/{JOB}.png", body=PNG, content_type="image/png")
    finished = await follow(upstream, DIALECT, wanted)
    assert isinstance(finished.image, str)
    assert content(await upstream.fetch(finished.image)) == PNG

    (sent,) = web.requests["GET", bought]
    assert sent.kwargs["params"] == submit.query
    assert sent.kwargs["headers"] == submit.headers
    assert sent.kwargs["json"] is sent.kwargs["data"] is None
    assert len(web.requests["GET", URL(POLL_URL)]) == 2
    assert web.requests["GET", URL(POLL_URL)][0].kwargs["params"] is None
    (fetched,) = web.requests["GET", URL(finished.image)]
    assert "referer" not in fetched.kwargs["headers"]
