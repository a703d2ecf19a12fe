"""One request at a time: pipelining, disconnects, answers before the request's end, upgrades, failures."""

import logging
import time
from collections.abc import Callable

import pytest

from .client import HEAD, Client, check_refusal
from .conftest import Background
from .service import Service

pytestmark = pytest.mark.realtime
GET = b"GET /x HTTP/1.1\r\n" + HEAD
POST = b"POST /x HTTP/1.1\r\n" + HEAD
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


@pytest.mark.parametrize("path", ["/early", "/early-after-a-while"])
@pytest.mark.usefixtures("service")
def test_early_answer_reaches_a_client_that_is_still_sending(background: Background, path: str) -> None:
    head = b"POST " + path.encode() + b" HTTP/1.1\r\n" + HEAD + b"Content-Length: 30000000\r\n\r\n"
    request = head + b"a" * 30_000_000  # more than the buffers between hold
    with Client(background.port) as client:  # only now, for its headers have a fifth of a second to come
        client.send(request)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert client.ended()


def test_refusal_reaches_a_client_that_is_still_sending(client: Client) -> None:
    client.send(b"POST /x HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + b"a" * 3_000_000)
    check_refusal(client.answer(), 400, "invalid_value")
    assert client.ended()


def test_endless_body_is_not_drained_for_ever(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.server.connection.LINGER_GAP_S", 0.05)
    monkeypatch.setattr("proxy.server.connection.LINGER_S", 0.1)
    client.send(b"POST /early HTTP/1.1\r\n" + HEAD + b"Content-Length: 9000\r\n\r\n")
    assert client.answer().status == 413
    with pytest.raises(ConnectionError):
        client.drip(b"a" * 50)


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
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["proxy.server.exchange"]


def test_an_answer_to_a_request_that_was_refused_meanwhile_is_dropped(
    client: Client, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    path = "/early-after-a-while"
    client.send(b"HEAD " + path.encode() + b" HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n")
    check_refusal(client.answer(), 400, "invalid_value")
    time.sleep(0.2)
    assert service.paths == [path]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_truncated_answer_is_seen_as_such(client: Client) -> None:
    with pytest.raises(EOFError, match="half"):
        client.get("/cut")


def test_a_fault_behind_the_answers_head_cuts_the_answer(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EOFError):
        client.get("/begin-and-crash")
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["proxy.server.exchange"]


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


def test_an_application_is_lent_the_connection_and_can_abort_it(
    background: Background, client: Client, service: Service, eventually: Callable[[Callable[[], object]], None]
) -> None:
    client.send(HELD)
    eventually(lambda: service.paths == ["/held"])
    background.call(service.scopes[0]["extensions"]["images_proxy.transport"]["transport"].abort)
    assert client.ended()
    eventually(lambda: service.disconnects == ["held"])
