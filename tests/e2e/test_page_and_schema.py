"""The page's files and the description of what is accepted."""

import re
from collections.abc import AsyncIterator

import pytest

from proxy.requests.image_request import ImageRequest
from tests.service import Service, running

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(environment={"IMAGES_PROXY_KEYS": "k"}) as started:
        yield started


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/usage", "text/html"),
        ("/page/usage.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/page/app.js", "text/javascript"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
async def test_the_page_needs_no_key_and_nothing_from_elsewhere(service: Service, path: str, kind: str) -> None:
    answer = await service.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_page_of_what_was_used_takes_nothing_from_elsewhere_and_no_text_for_html(service: Service) -> None:
    answer = await service.get("/usage")
    policy = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert {policy[name] for name in ("img-src", "style-src", "script-src", "connect-src")} == {"'self'"}
    assert "set-cookie" not in answer.headers
    text = answer.body.decode()
    assert re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", text) is None


async def test_what_has_not_changed_is_not_sent_again(service: Service) -> None:
    answer = await service.get("/page/app.js")
    again = await service.get("/page/app.js", {"if-none-match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["cache-control"] == answer.headers["cache-control"] == "no-cache"
    assert again.headers["content-security-policy"] == answer.headers["content-security-policy"]
    other = await service.get("/page/app.js", {"if-none-match": '"another"'})
    assert (other.status, other.body) == (200, answer.body)


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/..%2fconfig.py", "/page/__init__.py", "/page/", "/page/%00"]
)
async def test_only_the_pages_files_are_served(service: Service, path: str) -> None:
    answer = await service.get(path)
    assert answer.status in (401, 404)
    assert answer.json["error"]["type"] == "invalid_request_error"


async def test_the_schema_is_the_one_that_validates(service: Service) -> None:
    document = (await service.get("/openapi.json")).json
    schemas = document["components"]["schemas"]
    assert set(schemas["ImageRequest"]["properties"]) == set(ImageRequest.model_fields)
    assert schemas["ImageRequest"]["required"] == ["prompt"]
    assert set(ImageRequest.model_fields) < set(schemas["ImageEdit"]["properties"])
    for path in document["paths"]:
        if "{" not in path:
            method = next(iter(document["paths"][path]))
            answer = await service.post(path, {}) if method == "post" else await service.get(path)
            assert answer.status == 401, path
