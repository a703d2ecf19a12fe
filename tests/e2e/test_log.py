"""The log and the request figures: which line each request leaves, how loud, and the closing lines of generations."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.app import ROUTES
from tests.e2e.parts import CHAT, GENERATIONS
from tests.service import Service, running

pytestmark = pytest.mark.anyio

LABS = "imagelabs/sdxl-turbo"
KEY = "a-key-for-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the service's loggers write, as loud as debugging."""
    logger, kept = logging.getLogger("proxy"), _Kept()
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield kept.records
    logger.removeHandler(kept)
    logger.setLevel(level)


def lines(records: list[logging.LogRecord], message: str) -> list[dict[str, Any]]:
    """Return the fields of the lines that bear ``message``."""
    return [getattr(record, "fields", {}) for record in records if record.getMessage() == message]


async def closing_lines(records: list[logging.LogRecord], count: int = 1) -> list[dict[str, Any]]:
    """Wait for so many closing lines, and a moment longer for one too many."""
    for _ in range(500):
        if len(lines(records, "generation")) >= count:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)
    return lines(records, "generation")


# --- routes ---------------------------------------------------------------------------------------------------


def test_every_route_has_a_name_of_its_own() -> None:
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and name.replace("_", "").isalnum() for name in names)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "route"),
    [
        ("POST", "/v1/images/generations", {}, 401, "create_image"),
        ("POST", "/openai/deployments/x/images/edits", {}, 401, "edit_image"),
        ("POST", "/v1/sdapi/v1/txt2img", {}, 401, "txt2img"),
        ("GET", "/v1/models/a/b", {}, 401, "get_model"),
        ("POST", CHAT, {**AUTHORIZED, "Content-Encoding": "gzip"}, 415, "complete_chat"),
        ("POST", CHAT, {**AUTHORIZED, "Host": "elsewhere"}, 403, "complete_chat"),
        ("OPTIONS", CHAT, {"Host": "elsewhere"}, 403, "preflight"),
        ("PUT", GENERATIONS, AUTHORIZED, 405, "create_image"),
        ("PUT", GENERATIONS, {}, 401, "create_image"),
        ("GET", "/nowhere", {}, 401, "unmatched"),
        ("GET", "/nowhere", AUTHORIZED, 404, "unmatched"),
        ("POST", GENERATIONS, {**AUTHORIZED, "Content-Length": "2000000"}, 413, "create_image"),
    ],
)
async def test_a_refused_request_bears_its_routes_name(
    records: list[logging.LogRecord], method: str, path: str, headers: dict[str, str], status: int, route: str
) -> None:
    server = {"allowed_hosts": ["127.0.0.1"]}
    async with running(speed=400, server=server, environment={"IMAGES_PROXY_KEYS": KEY}) as service:
        body = b"x" * 2_000_000 if "Content-Length" in headers else b"{}"
        async with service.http.request(method, service.url + path, headers=headers, data=io.BytesIO(body)) as response:
            assert response.status == status
        (line,) = lines(records, "request")
        assert (line["route"], line["status"]) == (route, status)
        page = (await service.get("/metrics", AUTHORIZED)).body.decode()
        families = text_string_to_metric_families(page)
        samples = [sample for family in families for sample in family.samples]
        seen = [sample.labels for sample in samples if sample.name == "images_proxy_requests_total"]
        assert [(labels["route"], labels["status"]) for labels in seen] == [(route, str(status))]
        assert not [sample.name for sample in samples if sample.name.endswith("_created")]


# --- how loud -------------------------------------------------------------------------------------------------


async def test_one_line_for_each_request_for_pictures_is_all_that_is_said(
    service: Service, records: list[logging.LogRecord]
) -> None:
    made = (await service.generate("a mill", model="dall-e-2")).json["data"][0]["url"]
    readable = (
        "/",
        "/healthz",
        "/readyz",
        "/page/app.js",
        "/favicon.ico",
        "/v1/models",
        "/v1/models/dall-e-2",
        "/metrics",
    )
    for path in (*readable, "/openapi.json", "/sdapi/v1/options", made):
        assert (await service.get(path)).status == 200
    async with service.http.options(service.url + GENERATIONS) as response:
        assert response.status == 204
    said = [(record.levelname, record.fields["route"]) for record in records if hasattr(record, "fields")]
    assert [line for line in said if line[0] != "DEBUG"] == [("INFO", "create_image")]
    assert len(said) == 1 + len(readable) + 2 + made.startswith(service.url) + 1


async def test_what_is_refused_is_said(service: Service, records: list[logging.LogRecord]) -> None:
    await service.get("/page/none.js")
    await service.get("/v1/models/none")
    said = [(record.levelname, record.fields["route"]) for record in records if hasattr(record, "fields")]
    assert said == [("INFO", "asset"), ("INFO", "get_model")]


# --- from the client's error to the line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("a mill [fault:failed]", "image_generation_failed"),
        ("a mill [fault:drop]", "submit_outcome_unknown"),
        ("", "empty_string"),
    ],
)
async def test_the_id_in_a_clients_error_finds_its_line(
    service: Service, records: list[logging.LogRecord], prompt: str, code: str
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="-", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as refusal:
            await client.images.generate(model=LABS, prompt=prompt)
    found = [line for line in lines(records, "request") if line["id"] == refusal.value.request_id]
    assert [(line["code"], line["status"]) for line in found] == [(code, refusal.value.status_code)]
    assert refusal.value.code == code


async def test_a_repeat_and_what_it_joined_have_the_same_generation(
    service: Service, records: list[logging.LogRecord]
) -> None:
    checked = {"prompt": "a mill [seconds:0.2]", "model": "dall-e-2"}
    handed = await service.post(GENERATIONS, checked, {"Prefer": "respond-async", "Idempotency-Key": "one"})
    await closing_lines(records)
    joined = await service.post(GENERATIONS, checked, {"Idempotency-Key": "one"})
    first, second, closing = *lines(records, "request"), *lines(records, "generation")
    assert [first["id"], closing["id"]] == [handed.headers["x-request-id"]] * 2
    assert second["id"] == joined.headers["x-request-id"]
    assert first["generation"] == second["generation"] == closing["generation"]
    # Its address is all that it takes to read or abandon it where no keys are asked for.
    assert handed.json["id"].startswith(first["generation"])
    assert len(handed.json["id"]) - len(first["generation"]) >= 16


async def test_polls_of_a_generation_are_for_debugging_only(service: Service, records: list[logging.LogRecord]) -> None:
    checked = {"prompt": "a mill [seconds:0.2]", "model": "dall-e-2"}
    handed = await service.post(GENERATIONS, checked, {"Prefer": "respond-async"})
    path = handed.json["url"]
    status = 202
    while status == 202:
        await asyncio.sleep(0.02)
        status = (await service.get(path)).status
    async with service.http.delete(path) as response:
        assert response.status == 204
    await service.get(path)
    polls = [
        (record.levelname, line)
        for record in records
        if (line := getattr(record, "fields", {})).get("route") == "generation"
    ]
    levels = [(level, line["method"], line["status"]) for level, line in polls]
    assert set(levels[:-2]) <= {("DEBUG", "GET", 202), ("DEBUG", "GET", 200)}
    assert levels[-2:] == [("INFO", "DELETE", 204), ("INFO", "GET", 404)]


# --- closing lines --------------------------------------------------------------------------------------------


async def test_a_handed_over_generation_logs_one_closing_line(
    service: Service, records: list[logging.LogRecord]
) -> None:
    checked = {"prompt": "a secret mill [seconds:0.15]", "model": "dall-e-2", "n": 2}
    handed = await service.post(GENERATIONS, checked, {"Prefer": "respond-async"})
    (line,) = await closing_lines(records)
    assert line.pop("ms") > 0
    expected = {"id": handed.headers["x-request-id"], "outcome": "done", "model": "dall-e-2"}
    assert line == {**expected, "provider": "prodia", "submits": 2, "generation": handed.json["id"][:19]}
    assert "secret" not in str([record.__dict__ for record in records])


async def test_a_handed_over_generation_that_fails_says_how(service: Service, records: list[logging.LogRecord]) -> None:
    checked = {"prompt": "a mill [seconds:0.15] [fault:failed]", "model": LABS}
    await service.post(GENERATIONS, checked, {"Prefer": "respond-async"})
    (line,) = await closing_lines(records)
    assert (line["outcome"], line["model"], line["provider"]) == ("image_generation_failed", "other", "imagelabs")


async def test_an_abandoned_generation_says_so(service: Service, records: list[logging.LogRecord]) -> None:
    checked = {"prompt": "a mill [seconds:30]", "model": LABS}
    handed = await service.post(GENERATIONS, checked, {"Prefer": "respond-async"})
    async with service.http.delete(handed.json["url"]):
        pass
    (line,) = await closing_lines(records)
    assert line["outcome"] == "job_lost"


async def test_a_generation_past_its_callers_hold_logs_one_closing_line(records: list[logging.LogRecord]) -> None:
    async with running(timeouts={"hold": 0.05}, speed=1) as service:
        checked = {"prompt": "a mill [seconds:0.4]", "model": "dall-e-2"}
        late = await service.post(GENERATIONS, checked)
        assert late.code == "generation_pending"
        again = await service.post(GENERATIONS, checked, {"x-stainless-retry-count": "1"})
        assert again.code == "generation_pending"
        (line,) = await closing_lines(records)
        assert (line["id"], line["outcome"]) == (late.headers["x-request-id"], "done")


async def test_a_generation_whose_caller_waits_has_the_requests_line_alone(
    service: Service, records: list[logging.LogRecord]
) -> None:
    for stream in (False, True):
        assert (await service.generate("a mill", model="gpt-image-1", stream=stream)).status == 200
    assert (await service.generate("a mill [fault:failed]", model=LABS)).status == 502
    assert len(lines(records, "request")) == 3
    assert await closing_lines(records, 0) == []


async def test_an_unforeseen_end_that_nobody_waits_for_leaves_its_cause(
    service: Service, records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(service.engine._results, "deliverable", broken)
    await service.post(GENERATIONS, {"prompt": "a mill", "model": LABS}, {"Prefer": "respond-async"})
    (line,) = await closing_lines(records)
    assert line["outcome"] == "internal_error"
    (record,) = [record for record in records if record.getMessage() == "generation"]
    assert (record.levelname, record.exc_info and record.exc_info[0]) == ("ERROR", ZeroDivisionError)
