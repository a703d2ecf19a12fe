"""What a hostile, broken or merely odd client meets."""

from collections.abc import Callable

import pytest

from .client import HEAD, Client, check_refusal
from .service import Service

pytestmark = pytest.mark.realtime
GET = b"GET /x HTTP/1.1\r\n" + HEAD
POST = b"POST /x HTTP/1.1\r\n" + HEAD


REFUSED = {
    "content-length-and-chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-and-content-length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two-content-lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "two-equal-content-lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "content-length-list": POST + b"Content-Length: 2, 2\r\n\r\nab",
    "signed-content-length": POST + b"Content-Length: +2\r\n\r\nab",
    "negative-content-length": POST + b"Content-Length: -2\r\n\r\nab",
    "chunked-twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked-in-two-headers": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "empty-transfer-coding": POST + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n",
    "coding-and-content-length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "chunked-in-1.0": b"POST /x HTTP/1.0\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "target-of-another-scheme": b"GET ftp://localhost/x HTTP/1.1\r\n" + HEAD + b"\r\n",
    "chunked-not-last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bare-lf": b"GET /x HTTP/1.1\nHost: localhost\n\n",
    "folded-header": GET + b"X-A: 1\r\n 2\r\n\r\n",
    "space-before-colon": GET + b"X-A : 1\r\n\r\n",
    "nul": GET + b"X-A: a\0b\r\n\r\n",
    "bare-cr": GET + b"X-A: a\rb\r\n\r\n",
    "bad-chunk-end": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n",
    "bad-chunk-size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no-host": b"GET /x HTTP/1.1\r\n\r\n",
    "two-hosts": GET + b"Host: other\r\n\r\n",
    "two-hosts-in-1.0": b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "http-0.9": b"GET /x\r\n\r\n",
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-2.0": b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n",
    "unknown-method": b"BREW /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "target-not-ascii": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "target-with-space": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
}

UNKNOWN_CODINGS = {
    "gzip-then-chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "gzip-then-chunked-in-two-headers": b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "identity-then-chunked": b"Transfer-Encoding: identity,chunked\r\n",
    "empty-then-chunked": b"Transfer-Encoding: ,chunked\r\n",
    "gzip": b"Transfer-Encoding: gzip\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "unknown": b"Transfer-Encoding: xchunked\r\n",
    "with-a-parameter": b"Transfer-Encoding: chunked;q=1\r\n",
    "behind-an-upgrade": b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: gzip, chunked\r\n",
}

OTHER_AUTHORITIES = {
    "another-host": (b"http://other/x", b"localhost"),
    "another-port": (b"http://localhost:8081/x", b"localhost:8080"),
    "a-port-that-host-lacks": (b"http://localhost:8080/x", b"localhost"),
    "the-other-scheme's-port": (b"https://localhost:80/x", b"localhost"),
    "a-user": (b"http://me@localhost/x", b"localhost"),
    "host-within-the-user": (b"http://localhost@other/x", b"localhost"),
    "an-empty-host-header": (b"http://localhost/x", b""),
    "no-host": (b"http:///x", b"localhost"),
    "without-a-path": (b"http://other", b"localhost"),
}

SERVED = {
    "absolute-form": b"GET http://localhost/x HTTP/1.1\r\n" + HEAD + b"\r\n",
    "absolute-form-with-the-default-port": b"GET http://localhost:80/x HTTP/1.1\r\n" + HEAD + b"\r\n",
    "absolute-form-in-capitals": b"GET HTTPS://LOCALHOST/x HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
    "absolute-form-of-ipv6": b"GET http://[::1]:80/x HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    "absolute-form-in-1.0-without-host": b"GET http://other/x HTTP/1.0\r\n\r\n",
    "chunked-in-capitals": POST + b"Transfer-Encoding: CHUNKED \r\n\r\n0\r\n\r\n",
    "underscore": GET + b"x_y: 1\r\n\r\n",
    "http-1.0-without-host": b"GET /x HTTP/1.0\r\n\r\n",
    "leading-empty-lines": b"\r\n\r\n" + GET + b"\r\n",
    "hundred-headers": GET + b"".join(b"X-%d: 1\r\n" % number for number in range(99)) + b"\r\n",
    "head-of-exactly-the-limit": GET + b"X-A: " + b"a" * (32768 - len(GET) - 9) + b"\r\n\r\n",
    "short-head-long-body": POST + b"Content-Length: 300000\r\n\r\n" + b"b" * 300_000,
    "encoded-nul": b"GET /%00%ff HTTP/1.1\r\n" + HEAD + b"\r\n",
}

TOO_LARGE = {
    "one-byte-over": GET + b"X-A: " + b"a" * (32768 - len(GET) - 8) + b"\r\n\r\n",
    "value-of-64-mib": GET + b"X-A: " + b"a" * (64 * 1024 * 1024),
    "name-of-1-mib": GET + b"x" * (1024 * 1024),
    "target-of-1-mib": b"GET /" + b"a" * (1024 * 1024) + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    "one-header-over": GET + b"".join(b"X-%d: 1\r\n" % number for number in range(100)) + b"\r\n",
    "200000-headers": GET + b"A:\r\n" * 200_000 + b"\r\n",
    "empty-lines": b"\r\n" * 40_000,
    "chunk-extension": POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 80_000,
    "trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-A: " + b"a" * 80_000,
    "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n" + b"X-A: 1\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_malformed_request_is_refused_and_the_connection_ended(client: Client, data: bytes) -> None:
    client.send(data)
    check_refusal(client.answer(), 400, "invalid_value")
    assert client.ended()


@pytest.mark.parametrize("headers", UNKNOWN_CODINGS.values(), ids=UNKNOWN_CODINGS)
def test_a_coding_that_the_parser_would_pass_over_is_refused(client: Client, service: Service, headers: bytes) -> None:
    client.send(POST + headers + b"\r\n3\r\nabc\r\n0\r\n\r\n")
    check_refusal(client.answer(), 501, None)
    assert client.ended()
    assert service.scopes == []


@pytest.mark.parametrize(("target", "host"), OTHER_AUTHORITIES.values(), ids=OTHER_AUTHORITIES)
def test_a_target_that_contradicts_its_host_is_refused(
    client: Client, service: Service, target: bytes, host: bytes
) -> None:
    client.send(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    check_refusal(client.answer(), 400, None)
    assert client.ended()
    assert service.scopes == []


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("http://localhost", "/", ""), ("http://localhost?q=1", "/", "q=1"), ("http://localhost//x?q", "//x", "q")],
)
def test_an_absolute_target_means_its_path(
    client: Client, service: Service, target: str, path: str, query: str
) -> None:
    assert client.get(target).status == 200
    assert (service.scopes[0]["path"], service.scopes[0]["query_string"].decode()) == (path, query)


@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED)
def test_odd_but_valid_request_is_served(client: Client, service: Service, data: bytes) -> None:
    client.send(data)
    assert client.answer().status == 200
    assert len(service.scopes) == 1


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
def test_headers_over_a_limit_are_refused(client: Client, service: Service, data: bytes) -> None:
    client.send(data)
    check_refusal(client.answer(), 431, "headers_too_large")
    assert client.ended()
    assert service.bodies == []


def test_refused_request_never_reaches_the_application(client: Client, service: Service) -> None:
    client.send(REFUSED["two-hosts"])
    client.answer()
    assert service.scopes == []


def test_malformed_bytes_after_an_answer_are_refused(client: Client) -> None:
    assert client.get("/x").status == 200
    client.send(b"nonsense\r\n\r\n")
    check_refusal(client.answer(), 400, "invalid_value")
    assert client.ended()


# --- time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET /x HT", GET, b"\r\n"], ids=["nothing", "line", "header", "blank"])
def test_headers_that_do_not_come_are_refused(hasty: Client, sent: bytes) -> None:
    hasty.send(sent)
    check_refusal(hasty.answer(), 408, "request_timeout")
    assert hasty.ended()


def test_dripping_headers_do_not_extend_their_time(hasty: Client) -> None:
    hasty.drip(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    check_refusal(hasty.answer(), 408, "request_timeout")


def test_stalled_body_is_refused_and_the_application_told(
    hasty: Client, service: Service, eventually: Callable[[Callable[[], object]], None]
) -> None:
    hasty.send(POST + b"Content-Length: 10\r\n\r\nabc")
    check_refusal(hasty.answer(), 408, "request_timeout")
    eventually(lambda: service.disconnects == ["body"])
    assert hasty.ended()


DRIPS = {
    "small": b"Content-Length: 20\r\n\r\n" + b"a" * 20,
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 4 + b"0\r\n\r\n",
    "framing": b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 20 + b"\r\na\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("rest", DRIPS.values(), ids=DRIPS)
def test_dripping_body_is_refused_though_it_never_stalls(hasty: Client, service: Service, rest: bytes) -> None:
    head, end, body = rest.partition(b"\r\n\r\n")
    hasty.send(POST + head + end)
    hasty.drip(body)
    check_refusal(hasty.answer(), 408, "request_timeout")
    assert service.bodies == []


def test_announced_large_body_may_not_drip(hasty: Client) -> None:
    hasty.send(POST + b"Content-Length: 9000000\r\n\r\n")
    hasty.drip(b"a" * 12)
    check_refusal(hasty.answer(), 408, "request_timeout")
