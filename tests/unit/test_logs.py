"""Log lines: JSON for machines, text for a terminal, and of an exception never its words."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from proxy import logs


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("proxy")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def _fail_with(prompt: str) -> None:
    raise RuntimeError(prompt)


def _write(log: logging.Logger) -> None:
    log.info("request", extra={"fields": {"id": "req_1", "status": 200}})
    try:
        _fail_with("a secret prompt")
    except RuntimeError:
        log.exception("unforeseen")


def test_json_lines(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.set_up("json")
    _write(log)
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.pop("time"))
    assert first == {"level": "info", "message": "request", "id": "req_1", "status": 200}
    assert (second["level"], second["message"]) == ("error", "unforeseen")
    assert re.fullmatch(r"RuntimeError at _write:\d+ > _fail_with:\d+", second["exception"])


def test_text_lines(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.set_up("text")
    _write(log)
    first, second = written.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    request id=req_1 status=200", first)
    assert re.search(r"error   unforeseen\s+exception=RuntimeError at _write:\d+ > _fail_with:\d+$", second)
    assert "secret" not in second


@pytest.mark.parametrize(("stream", "starts"), [(_Terminal(), ""), (io.StringIO(), "{")], ids=["terminal", "file"])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, starts: str
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.set_up("auto")
    log.info("request")
    assert stream.getvalue().startswith("{") is bool(starts)
    assert stream.getvalue().count("request") == 1


def test_setting_up_twice_writes_once(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.set_up("text")
    logs.set_up("json")
    log.debug("not this")
    log.info("once")
    assert written.getvalue().count("\n") == 1
    assert log.propagate is False
