"""What every answer that reports a failure carries."""

import json
import re

import pytest

from proxy.errors import Failure, InvalidRequest, NotAuthenticated, Overloaded, write
from proxy.logs import new_request_id
from proxy.server.exchange import refusal


@pytest.mark.parametrize(
    ("retry_after", "told"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.2, "2"), (30.0, "30"), (31.0, "30"), (1e9, "30")]
)
def test_retry_after_is_one_to_thirty_whole_seconds(retry_after: float | None, told: str) -> None:
    headers, _ = write(Overloaded("Full.", retry_after=retry_after))
    assert (headers["retry-after"], headers["x-should-retry"]) == (told, "true")


def test_what_should_not_be_repeated_names_no_time() -> None:
    headers, _ = write(InvalidRequest("No."))
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers


@pytest.mark.parametrize(
    "failure", [NotAuthenticated("No."), Overloaded("Full.", retry_after=99.0), InvalidRequest("No.", param="n")]
)
def test_a_refused_connection_says_the_same_as_the_api(failure: Failure) -> None:
    headers, body = write(failure)
    assert json.loads(body) == failure.body()
    assert int(headers["content-length"]) == len(body)
    head, _, rest = refusal(failure, "req_1", [(b"date", b"now")]).partition(b"\r\n\r\n")
    assert rest == body
    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {failure.status} ")
    assert {f"{name}: {value}" for name, value in headers.items()} < set(lines)
    assert {"x-request-id: req_1", "access-control-allow-origin: *", "connection: close", "date: now"} < set(lines)


def test_request_ids_are_all_different() -> None:
    assert re.fullmatch(r"req_[0-9a-f]{32}", new_request_id())
    assert new_request_id() != new_request_id()
