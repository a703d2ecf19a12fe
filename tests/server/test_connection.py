"""What a hostile, broken or merely odd client meets: facts/reliability.md 1.6, row by row."""

import logging
import re
import time
from collections.abc import Callable

import pytest

from .client import HEAD, Answer, Client
from .conftest import Background
from .service import Service

GET = b"GET /x HTTP/1.1\r\n" + HEAD
POST = b"POST /x HTTP/1.1\r\n" + HEAD


def check_refusal(answer: Answer, status: int, code: str | None) -> None:
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["connection"] == "close"


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


def drip(client: Client, pieces: bytes) -> None:
    for number in range(len(pieces)):
        client.send(pieces[number : number + 1])
        time.sleep(0.03)


def test_dripping_headers_do_not_extend_their_time(client: Client) -> None:
    drip(client, b"GET /x HTTP/1")
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


def test_dripping_small_body_is_refused(client: Client) -> None:
    client.send(POST + b"Content-Length: 100\r\n\r\n")
    drip(client, b"a" * 12)
    check_refusal(client.answer(), 408, "request_timeout")


def test_chunk_framing_is_not_progress(client: Client) -> None:
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1;")
    drip(client, b"a" * 12)
    check_refusal(client.answer(), 408, "request_timeout")


def test_dripping_large_body_is_refused(client: Client) -> None:
    client.send(POST + b"Content-Length: 9000000\r\n\r\n")
    drip(client, b"a" * 12)
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


# --- pipelining and disconnects -------------------------------------------------------------------------------

HELD = b"GET /held HTTP/1.1\r\n" + HEAD + b"\r\n"


@pytest.mark.parametrize("together", [True, False], ids=["one-segment", "two-segments"])
@pytest.mark.parametrize("second", [GET + b"\r\n", b"nonsense", b"\r\n" * 40_000], ids=["get", "junk", "blank"])
def test_pipelined_request_is_never_executed(
    background: Background,
    client: Client,
    service: Service,
    eventually: Callable[[Callable[[], object]], None],
    second: bytes,
    together: bool,
) -> None:
    client.send(HELD + second if together else HELD)
    eventually(lambda: service.paths == ["/held"])
    if not together:
        client.send(second)
    time.sleep(0.05)
    background.call(service.released.set)
    assert client.answer().json == {"held": True}
    assert client.ended()
    assert service.paths == ["/held"]
    assert service.disconnects == []


@pytest.mark.parametrize("before", [b"", GET + b"\r\n", b"x" * 100_000], ids=["plain", "pipelined", "flood"])
@pytest.mark.parametrize("leave", [Client.half_close, Client.reset], ids=["half-close", "reset"])
def test_disconnect_of_a_held_request_is_seen(
    client: Client,
    service: Service,
    eventually: Callable[[Callable[[], object]], None],
    before: bytes,
    leave: Callable[[Client], None],
) -> None:
    client.post("/held", b"a" * 100)
    eventually(lambda: service.bodies)
    client.send(before)
    leave(client)
    eventually(lambda: service.disconnects == ["held"])
    assert service.paths == ["/held"]


def test_blank_line_after_a_request_is_not_a_second_one(client: Client) -> None:
    client.send(POST + b"Content-Length: 2\r\n\r\nab\r\n")
    assert client.answer().json == {"read": 2}
    assert client.get("/x").status == 200


# --- answers before the end of the request --------------------------------------------------------------------


def test_early_answer_reaches_a_client_that_is_still_sending(client: Client) -> None:
    client.post("/early", b"a" * 3_000_000)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert client.ended()


def test_refusal_reaches_a_client_that_is_still_sending(client: Client) -> None:
    client.send(b"POST /x HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + b"a" * 3_000_000)
    check_refusal(client.answer(), 400, "invalid_value")
    assert client.ended()


def test_drained_connection_is_closed_once_nothing_comes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.connection.LINGER_GAP_S", 0.05)
    client.send(POST + b"Content-Length: 9000\r\n\r\n")
    check_refusal(client.answer(), 408, "request_timeout")
    for _ in range(5):  # still coming: still drained
        client.send(b"a")
        time.sleep(0.02)
    time.sleep(0.2)
    with pytest.raises(ConnectionError):
        drip(client, b"a" * 10)


def test_endless_body_is_not_drained_for_ever(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.connection.LINGER_GAP_S", 0.05)
    monkeypatch.setattr("proxy.connection.LINGER_S", 0.1)
    client.send(b"POST /early HTTP/1.1\r\n" + HEAD + b"Content-Length: 9000\r\n\r\n")
    assert client.answer().status == 413
    with pytest.raises(ConnectionError):
        drip(client, b"a" * 30)


def test_expected_body_that_is_not_wanted_is_never_asked_for(client: Client) -> None:
    client.send(b"POST /early HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert client.ended()


def test_expected_body_is_asked_for_when_it_is_read(client: Client) -> None:
    client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 100
    client.send(b"abc")
    assert client.answer().json == {"read": 3}


def test_early_answer_to_a_whole_request_keeps_the_connection(client: Client) -> None:
    client.post("/early", b"abc")
    assert "connection" not in client.answer().headers
    assert client.get("/x").status == 200


# --- upgrades, failures, settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"a" * 10, b"a" * 200_000], ids=len)
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize("split", [True, False], ids=["two-segments", "one-segment"])
def test_upgrade_is_served_as_an_ordinary_request(
    client: Client,
    service: Service,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    protocol: bytes,
    split: bool,
) -> None:
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol
    head += b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    with caplog.at_level(logging.INFO):
        client.send(head if split else head + body)
        if split:
            time.sleep(0.02)
            client.send(body)
        assert client.answer().json == {"read": len(body)}
        assert client.get("/x").status == 200
    assert service.bodies[0] == body
    assert b"upgrade" not in dict(service.scopes[0]["headers"])
    assert caplog.records == []


def test_chunked_upgrade_keeps_its_body(client: Client) -> None:
    client.send(
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    assert client.answer().json == {"read": 3}


@pytest.mark.parametrize("path", ["/crash", "/silent"])
def test_fault_of_the_application_is_answered_in_json(
    client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    check_refusal(client.get(path), 500, "internal_error")
    assert client.ended()
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["proxy.wire"]


def test_truncated_answer_is_seen_as_such(client: Client) -> None:
    with pytest.raises(EOFError, match="half"):
        client.get("/cut")


def test_trailers_do_not_become_headers(client: Client, service: Service) -> None:
    client.send(b"POST /idle HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: 1\r\n\r\n")
    assert client.answer().json == {"read": 1}
    assert b"x-a" not in dict(service.scopes[0]["headers"])


def test_forwarding_headers_are_left_to_the_application(client: Client, service: Service) -> None:
    client.send(GET + b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n")
    answer = client.answer()
    assert (service.scopes[0]["scheme"], service.scopes[0]["client"][0]) == ("http", "127.0.0.1")
    assert "date" in answer.headers
    assert "server" not in answer.headers
