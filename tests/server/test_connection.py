"""What a hostile, broken or merely odd client meets: facts/reliability.md 1.6, row by row."""

import time
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
    "unknown-transfer-coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
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

SERVED = {
    "absolute-form": b"GET http://localhost/x HTTP/1.1\r\n" + HEAD + b"\r\n",
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
def test_headers_that_do_not_come_are_refused(client: Client, sent: bytes) -> None:
    client.send(sent)
    check_refusal(client.answer(), 408, "request_timeout")
    assert client.ended()


def test_dripping_headers_do_not_extend_their_time(client: Client) -> None:
    client.drip(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    check_refusal(client.answer(), 408, "request_timeout")


def test_later_request_is_timed_from_its_first_byte(client: Client) -> None:
    assert client.get("/x").status == 200
    time.sleep(0.3)  # idle for longer than header_s
    assert client.get("/x").status == 200
    client.send(b"GET")
    check_refusal(client.answer(), 408, "request_timeout")


def test_stalled_body_is_refused_and_the_application_told(
    client: Client, service: Service, eventually: Callable[[Callable[[], object]], None]
) -> None:
    client.send(POST + b"Content-Length: 10\r\n\r\nabc")
    check_refusal(client.answer(), 408, "request_timeout")
    eventually(lambda: service.disconnects == ["body"])
    assert client.ended()


DRIPS = {
    "small": b"Content-Length: 20\r\n\r\n" + b"a" * 20,
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 4 + b"0\r\n\r\n",
    "framing": b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 20 + b"\r\na\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("rest", DRIPS.values(), ids=DRIPS)
def test_dripping_body_is_refused_though_it_never_stalls(client: Client, service: Service, rest: bytes) -> None:
    head, end, body = rest.partition(b"\r\n\r\n")
    client.send(POST + head + end)
    client.drip(body)
    check_refusal(client.answer(), 408, "request_timeout")
    assert service.bodies == []


def test_announced_large_body_may_not_drip(client: Client) -> None:
    client.send(POST + b"Content-Length: 9000000\r\n\r\n")
    client.drip(b"a" * 12)
    check_refusal(client.answer(), 408, "request_timeout")


def test_flowing_large_body_may_take_longer(client: Client, service: Service) -> None:
    piece = b"a" * 110_000
    client.send(POST + b"Content-Length: 1100000\r\n\r\n")
    for _ in range(10):
        client.send(piece)
        time.sleep(0.04)
    assert client.answer().status == 200
    assert [len(body) for body in service.bodies] == [1_100_000]


def test_time_in_which_nobody_reads_does_not_count(client: Client) -> None:
    client.send(b"POST /idle HTTP/1.1\r\n" + HEAD + b"Content-Length: 6\r\n\r\nabc")
    time.sleep(0.4)
    client.send(b"def")
    assert client.answer().json == {"read": 6}
