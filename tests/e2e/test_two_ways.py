"""The two ways in which Prodia v2 starts a job, and the price that it tells in both."""

from pathlib import Path
from typing import Any

import pytest

from proxy.accounts.prices import Price
from tests.service import Service, running

pytestmark = pytest.mark.anyio

FAST = "prodia/inference.flux-fast.schnell.txt2img.v2"
FLEX = "prodia/inference.flux-2.flex.txt2img.v1"
KLEIN = "prodia/inference.flux-2.klein.4b.txt2img.v1"
UNPUBLISHED = "prodia/inference.flux-fast.dev.txt2img.v1"
"""It has a price, which only the provider knows."""
V1 = "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"


async def _made(
    service: Service, prompt: str, model: str, words: str = "", **values: Any
) -> tuple[list[Price], dict[str, int]]:
    """Make pictures; return what each cost and what reached the provider."""
    answer = await service.generate(f"{prompt} [tag:{prompt}] {words}", model=model, **values)
    assert answer.status == 200, answer.json
    generation = max(service.engine.generations, key=lambda each: each.number)
    return [picture.price for picture in generation.pictures], await service.counts(prompt)


@pytest.mark.parametrize(
    ("model", "followed", "amount", "source"),
    [
        (FAST, False, 2_500_000, "provider"),
        (FLEX, True, 60_000_000, "provider"),
        (KLEIN, True, None, "unknown"),
        (V1, True, 0, "table"),
    ],
)
async def test_what_is_dear_or_has_no_price_is_followed_and_what_is_cheap_and_quick_is_not(
    model: str, followed: bool, amount: int | None, source: str
) -> None:
    async with running() as service:
        (price,), counts = await _made(service, "fox", model)
    assert (price.amount, price.source) == (amount, source)
    assert counts["submits"] == counts["started"] == 1
    assert (counts["polls"] > 0) is followed


@pytest.mark.parametrize(("mode", "model"), [("sync", KLEIN), ("sync", FLEX), ("async", FAST)])
async def test_a_mode_that_is_set_holds_for_all(mode: str, model: str) -> None:
    async with running(providers={"mode": mode}) as service:
        (price,), counts = await _made(service, "fox", model)
    assert (counts["polls"] > 0) is (mode == "async")
    assert (price.amount is None) is (model == KLEIN)


async def test_a_configured_price_decides_and_stands_where_none_is_told() -> None:
    async with running(providers={"prices": {"flux-2.klein.4b.txt2img.v1": 0.0043}}) as service:
        prices, counts = await _made(service, "fox", KLEIN, n=2)
    assert {(price.amount, price.source) for price in prices} == {(4_300_000, "config")}
    assert (counts["submits"], counts["polls"]) == (2, 0)


async def test_a_type_that_refuses_is_made_in_one_call_and_only_asked_once() -> None:
    async with running() as service:
        for number, submits in enumerate((2, 1)):
            _, counts = await _made(service, f"fox{number}", KLEIN, "[fault:no-async]")
            assert (counts["submits"], counts["started"], counts["polls"]) == (submits, 1, 0)
    async with running(providers={"mode": "async"}) as service:
        refused = await service.generate("fox [fault:no-async]", model=KLEIN)
        assert (refused.status, refused.code) == (400, "provider_rejected")


async def test_an_edit_tells_its_price_too() -> None:
    async with running() as service:
        picture = (await service.generate("fox", model=FAST, response_format="b64_json")).json["data"][0]["b64_json"]
        images = [{"image_url": f"data:image/png;base64,{picture}"}]
        values = {"prompt": "a hat", "model": "prodia/inference.nano-banana.img2img.v2", "images": images}
        assert (await service.post("/v1/images/edits", values)).status == 200
        generation = max(service.engine.generations, key=lambda each: each.number)
        assert [(each.price.amount, each.price.source) for each in generation.pictures] == [(39_000_000, "provider")]


# --- the answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "n", "cost", "source"),
    [
        (FAST, 1, "0.0025", "provider"),
        (FLEX, 3, "0.18", "provider"),
        (V1, 2, "0", "table"),
        (KLEIN, 2, None, "unknown"),
    ],
)
async def test_an_answer_says_what_its_pictures_cost(model: str, n: int, cost: str | None, source: str) -> None:
    async with running() as service:
        answer = await service.generate("fox", {"origin": service.url}, model=model, n=n)
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"x-images-cost", "x-images-cost-source"} <= set(exposed)
        chat = {"model": model, "n": n, "messages": [{"role": "user", "content": "fox"}]}
        said = await service.post("/v1/chat/completions", chat)
    for each in (answer, said):
        assert (each.headers.get("x-images-cost"), each.headers["x-images-cost-source"]) == (cost, source)
        assert each.json["usage"].get("cost") == (None if cost is None else float(cost))


async def test_a_repeat_and_a_stream_tell_the_cost_too() -> None:
    async with running(providers={"prices": {"flux-2.klein.4b.txt2img.v1": 0.0043}}) as service:
        for _ in range(2):
            answer = await service.generate("fox", {"idempotency-key": "k"}, model=KLEIN)
            assert (answer.headers["x-images-cost"], answer.headers["x-images-cost-source"]) == ("0.0043", "config")
        streamed = await service.generate("hen", model=KLEIN, stream=True)
        assert b'"cost":0.0043' in streamed.body


async def test_a_failure_tells_no_cost() -> None:
    async with running() as service:
        failed = await service.generate("fox [fault:failed]", model=FAST)
    assert failed.status == 502
    assert not {"x-images-cost", "x-images-cost-source"} & {name.lower() for name in failed.headers}


async def test_a_dry_run_tells_the_price() -> None:
    async with running() as service:
        for model, price in ((FAST, "0.0025"), (KLEIN, None), (V1, "0")):
            told = await service.generate("fox", {"x-images-dry-run": "true"}, model=model)
            assert [route["price"] for route in told.json["routes"]] == [price]


async def test_what_was_told_outlives_the_process(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"state": {"path": f"{tmp_path}/state.sqlite3"}, "images": {"directory": f"{tmp_path}/all"}}
    key = {"idempotency-key": "k"}
    async with running(**kept) as service:
        first = await service.generate("fox [tag:x]", key, model=UNPUBLISHED)
        assert (first.headers["x-images-cost"], first.headers["x-images-cost-source"]) == ("0.008", "provider")
        assert (await service.counts("x"))["polls"] > 0
    async with running(**kept) as service:
        again = await service.generate("fox [tag:x]", key, model=UNPUBLISHED)
        assert again.headers["x-images-reattached"] == "true"
        assert again.json["usage"] == first.json["usage"]
        for name in ("x-images-cost", "x-images-cost-source"):
            assert again.headers[name] == first.headers[name]
        told = await service.generate("hen", {"x-images-dry-run": "true"}, model=UNPUBLISHED)
        assert told.json["routes"][0]["price"] == "0.008"
        await service.generate("hen [tag:y]", model=UNPUBLISHED)
        counts = await service.counts("y")
        assert (counts["submits"], counts["polls"]) == (1, 0), "cheap, as is known from then"
        everything = await service.engine.journal.state.everything()
        assert [(job.price, job.price_source, job.cost) for job in everything.jobs] == [
            (None, "provider", 8_000_000),
            (8_000_000, "provider", 8_000_000),
        ]
