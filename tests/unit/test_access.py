"""Who may ask: keys compared as digests of bytes, and for a service without keys its own names and pages."""

import base64
import time
from typing import Any

import pytest
from starlette.datastructures import Headers

from proxy.accounts.accounts import Caller
from proxy.accounts.given import read_given
from proxy.accounts.keys import Keys
from proxy.api.access import Access
from proxy.config import ServerSettings
from proxy.errors import NotAuthenticated, OriginNotAllowed


def _access(*keys: str, **server: Any) -> Access:
    given, problems = read_given(",".join(keys), "", "", ("KEYS", "ADMIN", "METRICS"))
    assert not problems
    return Access(Keys(given, time.time), ServerSettings(**server), time.monotonic)


def _headers(*pairs: tuple[str, str | bytes]) -> Headers:
    raw = [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in pairs]
    return Headers(raw=raw)


@pytest.mark.parametrize(
    "pairs",
    [
        [("authorization", "Bearer secret")],
        [("authorization", "bearer secret")],
        [("authorization", "BEARER   secret  ")],
        [("authorization", "  Bearer secret")],
        [("authorization", "Bearer \tsecret")],
        [("api-key", "secret")],
        [("api-key", " secret ")],
        [("authorization", "Bearer secret"), ("api-key", "another")],
    ],
)
def test_a_known_key_is_taken_in_every_usual_form(pairs: list[tuple[str, str | bytes]]) -> None:
    assert len(_access("other", "secret").caller(_headers(*pairs)).key.id) == 16


@pytest.mark.parametrize(
    "pairs",
    [
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer Secret")],
        [("authorization", "Bearer secret x")],
        [("authorization", "Basic secret")],
        [("authorization", "secret")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer secret"), ("authorization", "Bearer secret")],
        [("authorization", "Basic secret"), ("api-key", "secret")],
        [("authorization", "Basic x"), ("authorization", "Bearer ,")],
        [("api-key", "wrong")],
    ],
)
def test_a_wrong_key_is_refused(pairs: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        _access("other", "secret", "?").caller(_headers(*pairs))
    assert refusal.value.status == 401
    assert refusal.value.headers == {"www-authenticate": "Bearer"}
    assert "secret" not in refusal.value.message
    assert refusal.value.code == (None if pairs[0][1] == "Bearer" else "invalid_api_key")


@pytest.mark.parametrize(
    "pairs", [[], [("authorization", "Bearer  ")], [("api-key", " ")], [("api-key", "secret"), ("api-key", "secret")]]
)
def test_no_key_is_told_apart_from_a_wrong_one(pairs: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        _access("secret").caller(_headers(*pairs))
    assert (refusal.value.status, refusal.value.code) == (401, None)
    assert "Authorization: Bearer" in refusal.value.message


@pytest.mark.parametrize("key", ["voilà", "Å", "clé secrète", "鍵", "sk-plain"])
def test_keys_are_compared_as_bytes(key: str) -> None:
    assert _access(key).caller(_headers(("authorization", f"Bearer {key}"))).key.id
    assert _access(key).caller(_headers(("api-key", key))).key.id


def test_a_key_that_is_no_text_works_as_well() -> None:
    from_environment = b"k\xff\xfe".decode("utf-8", "surrogateescape")
    assert _access(from_environment).caller(_headers(("authorization", b"Bearer k\xff\xfe"))).key.id


def test_owners_tell_callers_apart_without_naming_their_keys() -> None:
    access = _access("one", "two")
    owners = {access.caller(_headers(("api-key", key))).key.id for key in ("one", "two", "one")}
    assert len(owners) == 2
    assert _access().caller(_headers(("api-key", "anything"))) == Caller()


def _basic(credentials: bytes) -> tuple[str, bytes]:
    return "authorization", b"Basic " + base64.b64encode(credentials)


@pytest.mark.parametrize("credentials", [b"anna:secret", b":secret", b"secret", b"secret:"])
def test_a_key_may_come_as_a_password_where_that_is_asked_for(credentials: bytes) -> None:
    access = _access("other", "secret")
    assert access.caller(_headers(_basic(credentials)), basic=True) == access.caller(_headers(("api-key", "secret")))
    with pytest.raises(NotAuthenticated):
        access.caller(_headers(_basic(credentials)))


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([_basic(b"anna:wrong")], "invalid_api_key"),
        ([_basic(b"secret:anna")], "invalid_api_key"),
        ([("authorization", "Basic secret")], "invalid_api_key"),
        ([_basic(b"anna:secret"), _basic(b"anna:secret")], "invalid_api_key"),
        ([("authorization", "Basic ")], None),
        ([_basic(b":")], None),
    ],
)
def test_a_wrong_password_is_refused(pairs: list[tuple[str, str | bytes]], code: str | None) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        _access("secret").caller(_headers(*pairs), basic=True)
    assert refusal.value.code == code


def test_a_password_is_not_taken_from_a_foreign_page() -> None:
    access = _access("secret", cors_origins=("https://chat.example",))
    known = _headers(_basic(b"anna:secret"), ("origin", "https://chat.example"))
    assert access.caller(known, basic=True)
    for origin in ("https://evil.example", "null"):
        with pytest.raises(OriginNotAllowed):
            access.caller(_headers(_basic(b"anna:secret"), ("origin", origin)), basic=True)
        assert access.caller(_headers(("api-key", "secret"), ("origin", origin)), basic=True)


_HOSTS: list[tuple[str, bool]] = [
    ("127.0.0.1", True),
    ("127.0.0.1:8080", True),
    ("localhost:8080", True),
    ("LOCALHOST", True),
    ("app.localhost", True),
    ("[::1]:8080", True),
    ("pics.example", True),
    ("PICS.example", True),
    ("box.lan", True),
    ("box.lan:9000", True),
    ("exact.lan:9000", True),
    ("exact.lan", False),
    ("", False),
    ("evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("localhost.evil.example", False),
    ("box.lan.evil.example", False),
    ("127.0.0.1@evil.example", False),
    ("192.168.0.9:8080", False),
    ("[", False),
    ("[::1", False),
    ("a\u2100b", False),
]


@pytest.mark.parametrize(("host", "known"), _HOSTS)
def test_a_service_without_keys_answers_to_its_own_names(host: str, *, known: bool) -> None:
    settings: dict[str, Any] = {"public_url": "https://pics.example", "allowed_hosts": ["box.lan", "exact.lan:9000"]}
    access = _access(**settings)
    for guarded in (access, _access("key", **settings)):
        if known:
            guarded.check_host(host)
        else:
            with pytest.raises(OriginNotAllowed, match="allowed_hosts") as refusal:
                guarded.check_host(host)
            assert (refusal.value.status, refusal.value.code) == (403, "origin_not_allowed")
            assert host in refusal.value.message


def test_a_service_with_keys_answers_to_any_name_unless_told() -> None:
    _access("key").check_host("evil.example")


_ORIGINS: list[tuple[str | None, str, bool]] = [
    (None, "127.0.0.1:8080", True),
    ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
    ("http://localhost:3000", "127.0.0.1:8080", True),
    ("https://[::1]:3000", "127.0.0.1:8080", True),
    ("HTTP://LOCALHOST:3000", "127.0.0.1:8080", True),
    ("https://app.example", "127.0.0.1:8080", True),
    ("https://pics.example", "pics.example", True),
    ("null", "127.0.0.1:8080", False),
    ("", "127.0.0.1:8080", False),
    ("https://evil.example", "127.0.0.1:8080", False),
    ("https://evil.example", "evil.example", False),
    ("http://app.example", "127.0.0.1:8080", False),
    ("https://app.example.evil.example", "127.0.0.1:8080", False),
    ("http://localhost.evil.example", "127.0.0.1:8080", False),
    ("http://127.0.0.1@evil.example", "127.0.0.1:8080", False),
    ("file://", "127.0.0.1:8080", False),
    ("chrome-extension://localhost", "127.0.0.1:8080", False),
    ("http://[", "127.0.0.1:8080", False),
]


@pytest.mark.parametrize(("origin", "host", "known"), _ORIGINS)
def test_a_service_without_keys_is_open_to_its_own_pages_only(origin: str | None, host: str, *, known: bool) -> None:
    access = _access(public_url="https://pics.example", cors_origins=["https://APP.example/"])
    if known:
        access.check_origin(origin, host)
        assert access.cors(origin, host) == origin
    else:
        with pytest.raises(OriginNotAllowed, match="cors_origins") as refusal:
            access.check_origin(origin, host)
        assert (refusal.value.status, refusal.value.code) == (403, "origin_not_allowed")
        assert (origin or "") in refusal.value.message
        assert access.cors(origin, host) is None


@pytest.mark.parametrize(
    ("cors_origins", "origin", "allowed"),
    [
        ([], None, "*"),
        ([], "https://any.example", "*"),
        (["https://app.example"], "https://app.example", "https://app.example"),
        (["https://app.example"], "https://any.example", None),
        (["https://app.example"], "http://localhost:3000", None),
        (["https://app.example"], None, None),
    ],
)
def test_with_keys_any_page_may_ask_unless_some_are_named(
    cors_origins: list[str], origin: str | None, allowed: str | None
) -> None:
    access = _access("key", cors_origins=cors_origins)
    access.check_origin(origin, "pics.example")
    assert access.cors(origin, "pics.example") == allowed


def test_what_a_refusal_repeats_is_short_and_printable() -> None:
    with pytest.raises(OriginNotAllowed) as refusal:
        _access().check_host("evil\x00.example" + "x" * 500)
    assert "evil?.example" in refusal.value.message
    assert len(refusal.value.message) < 250


@pytest.mark.parametrize(
    "host", ["", "evil.test@127.0.0.1", "127.0.0.1/evil", "127.0.0.1#x", "127.0.0.1:999999", "localhost:1:2", "[::1"]
)
def test_what_is_no_host_is_not_ours(host: str) -> None:
    with pytest.raises(OriginNotAllowed):
        _access().check_host(host)
