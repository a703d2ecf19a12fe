"""Our own base URL as the caller sees it; forwarded headers count only from a trusted proxy."""

import pytest
from starlette.datastructures import Headers

from proxy.api.context import base_url
from proxy.config import ServerSettings

_FORWARDED = {"x-forwarded-proto": "https", "x-forwarded-host": "pics.example"}


def _base(
    headers: dict[str, str],
    client: str | None = "127.0.0.1",
    scheme: str = "http",
    server: ServerSettings | None = None,
) -> str:
    scope = {"type": "http", "scheme": scheme, "client": (client, 5) if client else None, "server": ("::1", 80)}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return base_url(scope, Headers(raw=raw), server or ServerSettings())


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"host": "127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080"),
        ({"host": "box.lan", **_FORWARDED}, "https://pics.example"),
        ({"host": "box.lan", "x-forwarded-proto": "https"}, "https://box.lan"),
        ({"host": "box.lan", "x-forwarded-host": "pics.example:8443"}, "http://pics.example:8443"),
        (
            {"host": "box.lan", "x-forwarded-proto": "HTTPS, http", "x-forwarded-host": "a.example, b"},
            "https://a.example",
        ),
        ({"host": "box.lan", "x-forwarded-proto": "javascript"}, "http://box.lan"),
        ({"host": "box.lan", "x-forwarded-host": "a b"}, "http://box.lan"),
        ({"host": 'x"><script>'}, "http://[::1]:80"),
        ({"host": "evil.example/path"}, "http://[::1]:80"),
        ({"host": "user@evil.example"}, "http://[::1]:80"),
        ({"host": ""}, "http://[::1]:80"),
        ({}, "http://[::1]:80"),
    ],
)
def test_the_base_is_taken_from_the_request(headers: dict[str, str], base: str) -> None:
    assert _base(headers) == base


@pytest.mark.parametrize(
    ("client", "trusted", "believed"),
    [
        ("127.0.0.1", ("127.0.0.1",), True),
        ("10.1.2.3", ("127.0.0.1", "10.0.0.0/8"), True),
        ("::1", ("::1",), True),
        ("10.1.2.3", ("127.0.0.1",), False),
        ("127.0.0.1", (), False),
        ("::1", ("127.0.0.1",), False),
        ("testclient", ("127.0.0.1",), False),
        (None, ("0.0.0.0/0",), False),
    ],
)
def test_forwarded_headers_count_from_trusted_proxies_only(
    client: str | None, trusted: tuple[str, ...], *, believed: bool
) -> None:
    base = _base({"host": "box.lan", **_FORWARDED}, client, server=ServerSettings(trusted_proxies=trusted))
    assert base == ("https://pics.example" if believed else "http://box.lan")


@pytest.mark.parametrize("public_url", ["https://pics.example/base", "https://pics.example/base/"])
def test_a_configured_base_wins_over_everything(public_url: str) -> None:
    server = ServerSettings(public_url=public_url)
    assert _base({"host": "box.lan", "x-forwarded-host": "other"}, server=server) == "https://pics.example/base"


def test_the_scheme_is_the_connections_own() -> None:
    assert _base({"host": "box.lan"}, scheme="https") == "https://box.lan"
