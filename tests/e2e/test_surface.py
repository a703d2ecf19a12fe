"""The HTTP surface as clients that are no SDK see it: odd paths and methods, browsers, curl, proxies in front."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from proxy.pictures.codec import inspect
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

SPEED = 400.0
PRODIA = "prodia/inference.flux-fast.schnell.txt2img.v2"
V1 = "prodia-v1/dreamshaper_8.safetensors [9d40847d]"
LEGACY = "prodia-legacy/dreamshaper_8.safetensors [9d40847d]"
LABS = "imagelabs/sdxl-turbo"
GENERATIONS = "/v1/images/generations"
KEY = "schlüssel"
PAGE = "https://chat.example.org"

EXPOSED = {
    "x-request-id",
    "openai-processing-ms",
    "x-images-provider",
    "x-images-model",
    "x-images-mapped",
    "x-images-dropped",
    "x-images-attempts",
    "x-images-reattached",
}


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=SPEED) as service:
        yield service


@pytest.fixture(scope="module")
async def keyed() -> AsyncIterator[Service]:
    server = {"cors_origins": [PAGE], "trusted_proxies": []}
    async with running(speed=SPEED, environment={"IMAGES_PROXY_KEYS": KEY}, server=server) as service:
        yield service


@dataclass(frozen=True)
class Raw:
    """An answer as it came over the socket; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    service: Service, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"", **more: str
) -> Raw:
    """Send one request as it stands, without any client's tidying up, and read the answer to its end."""
    host = service.url.removeprefix("http://")
    fields = {"Host": host, "Connection": "close", **({"Content-Length": str(len(body))} if body else {})}
    fields |= {**(headers or {}), **more}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
    try:
        async with asyncio.timeout(5):
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    top, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Raw(int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, content)


def check_error(raw: Raw, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that an answer is an error in OpenAI's envelope with the headers of every error; return the error."""
    assert raw.status == status
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-should-retry"] in ("true", "false")
    body: dict[str, Any] = json.loads(raw.body)
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"] == code
    return error


def no_nulls(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(no_nulls, value.values()))
    if isinstance(value, list):
        return all(map(no_nulls, value))
    return value is not None


async def make(service: Service, **values: Any) -> Answer:
    answer = await service.generate(**{"prompt": "a heron", **values})
    assert answer.status == 200
    return answer


# --- paths and methods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/v1",
        "/v1/",
        "/v2/images/generations",
        "/v1/chat",
        "/v1/images",
        "/v1/images/",
        "/v1/images/generations/more",
        "/docs",
        "/redoc",
        "/index.html",
        "/images",
        "/images/",
        "/images/nothing.png",
        "/images/00000000000000000000000000000000.png",
        "/images/../proxy/app.py",
        "/images/..%2f..%2fetc%2fpasswd",
        "/images/%00.png",
        "/v1/images/generations/imggen_0",
        "/v1/images/generations/a/b",
        "/v1/responses/resp_0",
        "/v1/responses/resp_0/input_items",
        "/%",
        "/%ff%fe",
        "/" + "a" * 4000,
    ],
)
async def test_an_unknown_path_is_told_in_json(service: Service, path: str) -> None:
    error = check_error(await exchange(service, "GET", path), 404)
    assert error["type"] == "invalid_request_error"
    head = await exchange(service, "HEAD", path)
    assert (head.status, head.headers["content-type"], head.body) == (404, "application/json", b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", GENERATIONS, {"POST"}),
        ("HEAD", GENERATIONS, {"POST"}),
        ("DELETE", GENERATIONS, {"POST"}),
        ("TRACE", GENERATIONS, {"POST"}),
        ("GET", "/images/generations/", {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("DELETE", "/v1/models/dall-e-3", {"GET", "HEAD"}),
        ("PROPFIND", "/v1/models", {"GET", "HEAD"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("PUT", "/metrics", {"GET", "HEAD"}),
        ("POST", "/images/00000000000000000000000000000000.png", {"GET", "HEAD"}),
        ("PUT", "/v1/images/generations/imggen_0", {"GET", "HEAD", "DELETE"}),
        ("GET", "/v1/responses", {"POST"}),
        ("POST", "/v1/responses/resp_0", {"GET", "HEAD", "DELETE"}),
        ("GET", "/v1/responses/resp_0/cancel", {"POST"}),
    ],
)
async def test_a_wrong_method_names_the_right_ones(service: Service, method: str, path: str, allowed: set[str]) -> None:
    raw = await exchange(service, method, path)
    assert raw.status == 405
    assert set(raw.headers["allow"].split(", ")) == allowed
    if method == "HEAD":
        assert raw.body == b""
    else:
        assert all(name in check_error(raw, 405)["message"] for name in allowed)


@pytest.mark.parametrize("method", ["BREW", "get", "CONNECT", "PRI"])
async def test_odd_methods_are_refused_in_json(service: Service, method: str) -> None:
    check_error(await exchange(service, method, "/v1/models"), 400, "invalid_value")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/models/",
        "/models",
        "//v1//models",
        "/v1/v1/models",
        "/api/v1/models",
        "/openai/v1/models",
        "/v1models",
        "/v1/models?limit=5&api-version=x",
        "/%76%31/models",
    ],
)
async def test_every_form_of_the_models_address(service: Service, path: str) -> None:
    raw = await exchange(service, "GET", path)
    assert raw.status == 200
    assert json.loads(raw.body)["object"] == "list"
    head = await exchange(service, "HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, raw.headers["content-length"], b"")


@pytest.mark.parametrize(
    "path",
    [
        GENERATIONS,
        "/v1/images/generations/",
        "/images/generations",
        "//images//generations",
        "/v1/v1/images/generations",
        "/api/v1/images/generations",
        "/v1images/generations",
        "/openai/v1/images/generations",
        "/openai/deployments/dall-e-3/images/generations?api-version=2025-04-01-preview",
        "/deployments/dall-e-3/images/generations",
        "/v1/images/generations?model=ignored",
    ],
)
async def test_every_form_of_the_generations_address(service: Service, path: str) -> None:
    error = check_error(await exchange(service, "POST", path, body=b"{}"), 400, "missing_required_parameter")
    assert error["param"] == "prompt"


@pytest.mark.parametrize("name", [LEGACY, LABS, "gpt-image-7-tomorrow", "dall-e-3"])
@pytest.mark.parametrize("encoding", ["encoded slash", "plain slash"])
async def test_a_model_is_described_under_any_spelling(service: Service, name: str, encoding: str) -> None:
    spelt = name.replace(" ", "%20").replace("[", "%5B").replace("]", "%5D")
    raw = await exchange(
        service, "GET", "/v1/models/" + (spelt.replace("/", "%2F") if encoding == "encoded slash" else spelt)
    )
    assert raw.status == 200
    assert json.loads(raw.body)["id"] == name


@pytest.mark.parametrize("model", [None, ""])
async def test_a_deployment_names_the_model_that_the_body_leaves_out(service: Service, model: str | None) -> None:
    """null and an empty string mean absent; gpt-image-1 is the name that implies base64."""
    answer = await service.post(
        "/openai/deployments/gpt-image-1/images/generations", {"prompt": "a heron", "model": model}
    )
    assert list(answer.json["data"][0]) == ["b64_json"]


# --- browsers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [GENERATIONS, "/v1/models", "/v1/images/edits", "/nowhere", "*"])
async def test_a_bare_options_is_answered(service: Service, keyed: Service, path: str) -> None:
    for house in (service, keyed):
        raw = await exchange(house, "OPTIONS", path)
        assert 200 <= raw.status < 300
        assert "POST" in raw.headers["allow"]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8080", "https://[::1]"])
async def test_a_preflight_from_this_machine(service: Service, origin: str) -> None:
    wanted = "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
    raw = await exchange(
        service,
        "OPTIONS",
        GENERATIONS,
        {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert 200 <= raw.status < 300
    assert raw.headers["access-control-allow-origin"] == origin
    assert "POST" in raw.headers["access-control-allow-methods"]
    allowed = {name.strip().lower() for name in raw.headers["access-control-allow-headers"].split(",")}
    assert allowed >= set(wanted.split(", "))
    assert raw.headers["access-control-allow-private-network"] == "true"
    assert int(raw.headers["access-control-max-age"]) > 0
    assert "origin" in raw.headers["vary"].lower()


async def test_cors_on_success_and_failure(service: Service) -> None:
    origin = {"Origin": "http://localhost:3000"}
    for raw in (
        await exchange(service, "GET", "/v1/models", origin),
        await exchange(service, "GET", "/nowhere", origin),
        await exchange(service, "GET", GENERATIONS, origin),
        await exchange(service, "POST", GENERATIONS, origin, b"nonsense"),
        await exchange(service, "POST", GENERATIONS, origin, b'{"prompt": "a heron", "size": "256x256"}'),
    ):
        assert raw.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert {name.strip() for name in raw.headers["access-control-expose-headers"].split(",")} >= EXPOSED


async def test_without_keys_foreign_pages_and_hosts_are_refused_before_the_body(service: Service) -> None:
    tag = "rebound"
    unsent = {"Content-Length": "500", "Content-Type": "text/plain"}
    for headers, setting in (
        ({"Origin": "https://example.org"}, "cors_origins"),
        ({"Origin": "null"}, "cors_origins"),
        ({"Origin": "http://127.0.0.1.example.org"}, "cors_origins"),
        ({"Origin": "http://localhost@example.org"}, "cors_origins"),
        ({"Host": "example.org"}, "allowed_hosts"),
        ({"Host": "127.0.0.1.example.org:80"}, "allowed_hosts"),
        ({"Host": "example.org", "X-Forwarded-Host": "127.0.0.1"}, "allowed_hosts"),
    ):
        raw = await exchange(service, "POST", GENERATIONS, {**unsent, **headers}, f"[tag:{tag}]".encode())
        error = check_error(raw, 403, "origin_not_allowed")
        assert setting in error["message"]
        assert next(iter(headers.values())) in error["message"]
    assert (await service.counts(tag))["submits"] == 0
    for path in ("/v1/models", "/metrics", "/v1/images/generations/imggen_0"):
        check_error(await exchange(service, "GET", path, Origin="https://example.org"), 403, "origin_not_allowed")
    for path in ("/healthz", "/readyz"):
        assert (await exchange(service, "GET", path, Host="example.org")).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Host": "["}, {"Host": "[::1"}, {"Origin": "http://["}, {"Origin": "https://[::1"}],
    ids=["host", "cut host", "origin", "cut origin"],
)
async def test_an_unreadable_host_or_origin_is_a_foreign_one(service: Service, headers: Mapping[str, str]) -> None:
    check_error(await exchange(service, "GET", "/v1/models", headers), 403, "origin_not_allowed")


async def test_with_keys_only_listed_pages_may_read(keyed: Service) -> None:
    with_key = {"Authorization": f"Bearer {KEY}"}
    ours = await exchange(keyed, "GET", "/v1/models", {**with_key, "Origin": PAGE})
    assert ours.status == 200
    assert ours.headers["access-control-allow-origin"] == PAGE
    assert "origin" in ours.headers["vary"].lower()
    foreign = await exchange(keyed, "GET", "/v1/models", {**with_key, "Origin": "https://example.org"})
    assert "access-control-allow-origin" not in foreign.headers
    refused = await exchange(keyed, "GET", "/v1/models", Origin=PAGE)
    check_error(refused, 401)
    assert refused.headers["access-control-allow-origin"] == PAGE
    preflight = await exchange(keyed, "OPTIONS", GENERATIONS, {"Origin": PAGE, "Access-Control-Request-Method": "POST"})
    assert 200 <= preflight.status < 300
    assert preflight.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": f"bearer    {KEY}  "}, 200),
        ({"api-key": KEY}, 200),
        ({"Authorization": f"Bearer {KEY.encode().decode('latin-1')}"}, 401),
        ({"Authorization": KEY}, 401),
        ({"x-api-key": KEY}, 401),
        ({}, 401),
    ],
)
async def test_keys_on_the_wire(keyed: Service, headers: Mapping[str, str], status: int) -> None:
    for path in ("/v1/models", "/metrics"):
        assert (await exchange(keyed, "GET", path, headers)).status == status
    for path in ("/healthz", "/readyz"):
        assert (await exchange(keyed, "GET", path, headers)).status == 200


# --- stored pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
async def test_a_stored_picture_suits_every_reader(service: Service, kind: str, suffix: str) -> None:
    answer = await make(service, size="256x256", output_format=kind, response_format="url")
    url = answer.json["data"][0]["url"]
    assert url.startswith(f"{service.url}/images/")
    assert url.endswith(f".{suffix}")
    path = url.removeprefix(service.url)
    foreign = {"Origin": "https://example.org", "Host": "example.org"}
    got = await exchange(service, "GET", path, foreign)
    head = await exchange(service, "HEAD", path)
    assert (got.status, head.status, head.body) == (200, 200, b"")
    assert inspect(got.body).format == kind
    for headers in (got.headers, head.headers):
        assert headers["content-type"] == f"image/{kind}"
        assert headers["content-length"] == str(len(got.body))
        assert headers["cache-control"] == "public, max-age=3600, immutable"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["access-control-allow-origin"] == "*"
    part = await exchange(service, "GET", path, Range="bytes=4-9")
    assert (part.status, part.body) == (206, got.body[4:10])
    assert part.headers["content-range"] == f"bytes 4-9/{len(got.body)}"


async def test_a_picture_that_is_kept_for_good_may_be_cached_for_a_year() -> None:
    async with running(speed=SPEED, images={"keep": 0}) as service:
        url = (await service.generate("a hill", output_format="png", response_format="url")).json["data"][0]["url"]
        answer = await service.get(url)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_the_list_of_models_is_small_and_may_be_short() -> None:
    models = {"mine": {"routes": [LABS]}, "other-*": {}}
    for lists, names in (("all", None), ("configured", ["mine"])):
        async with running(speed=SPEED, server={"list_models": lists}, models=models) as service:
            listed = await service.get("/v1/models")
            found = [each["id"] for each in listed.json["data"]]
            assert max(len(json.dumps(each, separators=(",", ":"))) for each in listed.json["data"]) <= 1_024
            assert [each["title"] for each in (await service.get("/sdapi/v1/sd-models")).json] == found
            assert found == names if names else {"mine", "dall-e-3", LABS} < set(found)
            for hidden in ("dall-e-3", LABS):
                described = (await service.get(f"/v1/models/{hidden}")).json
                assert described["owned_by"] == ("imagelabs" if hidden == LABS else "images-proxy")
                assert (await service.generate("a hill", model=hidden)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_span_of_a_picture_is_served_as_long_as_it_is_the_same_picture(service: Service, method: str) -> None:
    path = (await make(service, size="256x256")).json["data"][0]["url"].removeprefix(service.url)
    whole = await exchange(service, "GET", path)
    size, tag, date = len(whole.body), whole.headers["etag"], whole.headers["last-modified"]
    assert whole.headers["accept-ranges"] == "bytes"
    spans: list[tuple[dict[str, str], slice]] = [
        ({"range": "bytes=0-0"}, slice(0, 1)),
        ({"range": f"bytes={size - 1}-"}, slice(size - 1, size)),
        ({"range": "bytes=10-999999999"}, slice(10, size)),
        ({"range": "bytes=2-5", "if-range": tag}, slice(2, 6)),
        ({"range": "bytes=2-5", "if-range": date}, slice(2, 6)),
    ]
    for headers, span in spans:
        part = await exchange(service, method, path, headers)
        assert part.status == 206
        assert part.body == (whole.body[span] if method == "GET" else b"")
        assert part.headers["content-length"] == str(span.stop - span.start)
        assert part.headers["content-range"] == f"bytes {span.start}-{span.stop - 1}/{size}"
        assert (part.headers["etag"], part.headers["last-modified"]) == (tag, date)
    for headers in ({"range": "bytes=-5"}, {"range": "bytes=1-2,4-5"}, {"range": "bytes=2-5", "if-range": f"W/{tag}"}):
        other = await exchange(service, method, path, headers)
        assert (other.status, other.headers["content-length"]) == (200, str(size))
        assert "content-range" not in other.headers


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=9-4", "bytes=x", "lines=1-2", "bytes="])
async def test_a_range_that_cannot_be_served_is_no_plain_text(service: Service, wanted: str) -> None:
    """RFC 9110 lets a server ignore a range; else it is a failure like any other."""
    url = (await make(service, size="256x256")).json["data"][0]["url"]
    raw = await exchange(service, "GET", url.removeprefix(service.url), Range=wanted)
    if raw.status == 200:
        assert raw.headers["content-type"] == "image/png"
    else:
        assert raw.status in (400, 416)
        assert raw.headers["content-type"] == "application/json"
        assert "error" in json.loads(raw.body)


async def test_pictures_need_no_key(keyed: Service) -> None:
    answer = await keyed.generate("a heron", {"Authorization": f"Bearer {KEY}"}, size="256x256")
    assert (await keyed.get(answer.json["data"][0]["url"])).status == 200


async def test_addresses_follow_a_trusted_proxy_only(service: Service, keyed: Service) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pictures.example.org, inner"}
    trusted = await service.generate("a heron", forwarded, size="256x256")
    assert trusted.json["data"][0]["url"].startswith("https://pictures.example.org/images/")
    untrusted = await keyed.generate("a heron", {**forwarded, "Authorization": f"Bearer {KEY}"}, size="256x256")
    assert untrusted.json["data"][0]["url"].startswith(f"{keyed.url}/images/")


@pytest.mark.parametrize(
    "forwarded",
    [
        {"X-Forwarded-Host": "example.org/path?"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Host": ""},
    ],
    ids=["host", "scheme", "empty"],
)
async def test_a_nonsensical_forwarded_header_leaves_a_usable_address(
    service: Service, forwarded: Mapping[str, str]
) -> None:
    answer = await service.generate("a heron", forwarded, size="256x256")
    assert answer.json["data"][0]["url"].startswith(f"{service.url}/images/")


async def test_public_url_and_copies_of_everything() -> None:
    server = {"public_url": "https://pictures.example.org/base/"}
    async with running(speed=SPEED, server=server, images={"copies": "always"}) as service:
        answers = await asyncio.gather(*(make(service, model=model) for model in (LABS, LEGACY, V1, PRODIA)))
        for answer in answers:
            url = answer.json["data"][0]["url"]
            assert url.startswith("https://pictures.example.org/base/images/")
            stored = await service.get(url.replace("https://pictures.example.org/base", service.url))
            facts = inspect(stored.body)
            assert f"{facts.width}x{facts.height}" == answer.json["size"]


# --- requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Encoding": "identity"},
        {"Accept": "text/html"},
    ],
)
async def test_a_body_is_json_whatever_it_says(service: Service, headers: Mapping[str, str]) -> None:
    body = '{"prompt": "ein Reiher für ☃", "size": "256x256"}'.encode()
    raw = await exchange(service, "POST", GENERATIONS, headers, body)
    assert raw.status == 200
    assert raw.headers["content-type"] == "application/json"


async def test_nulls_empty_strings_and_unknown_fields(service: Service) -> None:
    names = (
        "model n size quality style response_format output_format output_compression user background moderation "
        "stream partial_images seed steps cfg width tiling"
    )
    nulls: dict[str, None] = dict.fromkeys(names.split())
    answer = await make(service, **nulls, watermark=False, promptExtend=True, size_="x")
    assert answer.json["size"] == "1024x1024"
    assert answer.headers["x-images-dropped"] == "watermark, promptExtend, size_"
    assert "x-images-mapped" not in answer.headers
    answer = await make(service, n="2", size="", quality="", response_format="", background="", seed="7", steps="3")
    assert len(answer.json["data"]) == 2
    assert "x-images-dropped" not in answer.headers


REPORTS: list[tuple[dict[str, Any], str, str]] = [
    ({"size": "1024x1024", "quality": "auto", "moderation": "auto", "background": "opaque"}, "", ""),
    ({"size": "auto", "user": "me", "safety_identifier": "you"}, "", ""),
    ({"quality": "hd", "style": "vivid"}, "quality=hd->steps 4; style=vivid->style_preset cinematic", ""),
    ({"size": "4096x4096"}, "size=4096x4096->1920x1920", ""),
    ({"size": "1000X500"}, "size=1000x500->1000x496", ""),
    ({"steps": 90, "cfg": 3}, "steps=90->4", "cfg"),
    ({"steps": 2, "quality": "hd"}, "", "quality"),
    ({"background": "transparent", "moderation": "low"}, "", "background, moderation"),
    ({"a b": 1, "ä": 2, "x" * 65: 3, "fine.name-1": 4}, "", "fine.name-1, +3 more"),
    ({f"f{i:02}": i for i in range(23)}, "", ", ".join(f"f{i:02}" for i in range(20)) + ", +3 more"),
    ({"model": LABS, "size": "1024x1024", "steps": 3, "sampler": "Euler", "style": "vivid"}, "",
     "steps, sampler, style"),
    ({"model": LABS, "seed": 5_000_000_000}, "seed=5000000000->705032704", ""),
    ({"model": LEGACY, "size": "1792x1024"}, "size=1792x1024->1536x1024", ""),
    ({"model": LEGACY, "sampler": "Euler", "seed": 5, "cfg": 25.5, "steps": 1}, "cfg=25.5->20", ""),
    ({"model": LEGACY, "sampler": "no such"}, "", "sampler"),
    ({"model": V1, "width": 999, "height": 500}, "width,height=999x500->1000x496", ""),
]  # fmt: skip
"""What is asked for, and what x-images-mapped and x-images-dropped say of it."""


@pytest.fixture(scope="module")
async def reports(service: Service) -> list[Answer]:
    return await asyncio.gather(*(make(service, **values) for values, _, _ in REPORTS))


@pytest.mark.parametrize("number", range(len(REPORTS)), ids=[str(sorted(values)[:4]) for values, _, _ in REPORTS])
async def test_the_report_of_what_became_of_parameters(reports: list[Answer], number: int) -> None:
    _, mapped, dropped = REPORTS[number]
    assert reports[number].headers.get("x-images-mapped", "") == mapped
    assert reports[number].headers.get("x-images-dropped", "") == dropped


async def test_every_provider_answers_in_the_asked_type(service: Service) -> None:
    async def ask(model: str, form: str, kind: str) -> None:
        answer = await make(
            service, model=model, response_format=form, output_format=kind, output_compression=40, size="512x512"
        )
        datum = answer.json["data"][0]
        assert list(datum) == [form]
        assert answer.json["output_format"] == kind
        data = base64.b64decode(datum[form]) if form == "b64_json" else (await service.get(datum[form])).body
        facts = inspect(data)
        assert (facts.format, f"{facts.width}x{facts.height}") == (kind, answer.json["size"])
        assert answer.headers.get("x-images-dropped", "") == ("output_compression" if kind == "png" else "")

    cases = itertools.product((PRODIA, V1, LEGACY, LABS), ("url", "b64_json"), ("png", "jpeg", "webp"))
    await asyncio.gather(*itertools.starmap(ask, cases))


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_compression_compresses(service: Service, kind: str) -> None:
    async def size(compression: int) -> int:
        answer = await make(
            service,
            model=PRODIA,
            seed=3,
            size="256x256",
            response_format="b64_json",
            output_format=kind,
            output_compression=compression,
        )
        return len(answer.json["data"][0]["b64_json"])

    assert await size(5) < await size(95)


async def test_a_missing_model_is_the_default_one(service: Service) -> None:
    answer = await make(service)
    assert answer.headers["x-images-model"] == "inference.flux-fast.schnell.txt2img.v2"
    assert list(answer.json["data"][0]) == ["url"]


async def test_wildcard_names() -> None:
    models = {
        "gpt-image-*": {"routes": [LABS]},
        "gpt-image-9-*": {"routes": [LEGACY]},
        "*": {"routes": [V1], "response_format": "b64_json"},
    }
    async with running(speed=SPEED, models=models, server={"default_model": "house"}) as service:
        names = {"gpt-image-8": "imagelabs", "gpt-image-9-x": "prodia-legacy", "anything at all": "prodia-v1"}
        answers = await asyncio.gather(*(make(service, model=name) for name in names), make(service))
    assert [a.headers["x-images-provider"] for a in answers] == [*names.values(), "prodia-v1"]
    assert [next(iter(a.json["data"][0])) for a in answers] == ["b64_json"] * 4


@pytest.mark.parametrize(
    "name",
    [
        "dall-e3",
        "DALL-E-3",
        "imagelabs/other",
        "nobody/sdxl-turbo",
        "inference.flux.nonsense.txt2img.v1",
    ],
)
async def test_an_unknown_name_costs_nothing(service: Service, name: str) -> None:
    before = await service.get(f"{service.upstream}/_counts")
    answer = await service.generate("a heron", model=name)
    assert (answer.status, answer.code) == (404, "model_not_found")
    assert answer.json["error"]["param"] == "model"
    assert (await service.get(f"{service.upstream}/_counts")).json == before.json


# --- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["dall-e-3", "gpt-image-1"])
async def test_answers_are_clean(service: Service, model: str) -> None:
    answer = await make(service, model=model, n=2, quality="standard")
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert type(body["created"]) is int
    assert no_nulls(body)
    assert all(len(datum) == 1 for datum in body["data"])
    assert body["background"] in ("transparent", "opaque")
    assert body["quality"] in ("low", "medium", "high")
    usage = body["usage"]
    assert set(usage) >= {"input_tokens", "output_tokens", "total_tokens", "input_tokens_details"}
    assert set(usage["input_tokens_details"]) == {"text_tokens", "image_tokens"}
    assert usage["input_tokens"] == sum(usage["input_tokens_details"].values())
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert all(type(value) is int for name, value in usage.items() if name != "cost" and not isinstance(value, dict))
    assert usage["cost"] == 2 * 0.0025
    for datum in body["data"]:
        if "b64_json" in datum:
            assert "\n" not in datum["b64_json"]
            assert inspect(base64.b64decode(datum["b64_json"], validate=True)).format == "png"


async def test_the_list_of_models_suits_frontends(service: Service) -> None:
    answer = await service.get("/v1/models")
    assert no_nulls(answer.json)
    ids = [model["id"] for model in answer.json["data"]]
    assert len(ids) == len(set(ids))
    assert ids[0].startswith(("dall-", "gpt-image", "chatgpt-image"))
    assert not any("*" in name for name in ids)
    for model in answer.json["data"]:
        assert model["object"] == "model"
        assert type(model["created"]) is int
        assert model["owned_by"]
        assert model["type"] == "image"
        assert model["supported_endpoint_types"] == ["image-generation"]
        assert model["architecture"]["output_modalities"] == ["image"]
        assert "prompt" in model["parameters"]


async def test_health_readiness_and_figures(service: Service) -> None:
    await make(service)
    for path in ("/healthz", "/readyz"):
        answer = await service.get(path)
        assert answer.status == 200
        assert no_nulls(answer.json)
    figures = await exchange(service, "GET", "/metrics")
    assert figures.status == 200
    assert figures.headers["content-type"].startswith("text/plain; version=")
    assert b'provider="prodia"' in figures.body
    assert b"heron" not in figures.body


async def test_a_service_without_providers_is_not_ready() -> None:
    async with running(providers={"enabled": False}) as service:
        assert (await service.get("/healthz")).status == 200
        assert (await service.get("/readyz")).status == 503
        listed = (await service.get("/v1/models")).json["data"]
        assert all("/" not in model["id"] for model in listed)
        answer = await service.generate("a heron")
        assert (answer.status, answer.code) == (503, "provider_not_configured")
        assert answer.json["error"]["param"] == "model"


async def test_a_connection_outlives_errors(service: Service) -> None:
    """Errors must not leave half-read bodies behind that the next request would trip over."""
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as http:
        for body, status in ((b"nonsense", 400), (b'{"prompt": "a heron", "size": "256x256"}', 200), (b"[]", 400)):
            async with http.post(service.url + GENERATIONS, data=body) as response:
                assert response.status == status
                await response.read()
