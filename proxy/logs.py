"""One line for each request: JSON for machines, words for a terminal. Never a prompt, a key, a path or a query."""

import json
import logging
import secrets
import sys
import time
from functools import lru_cache
from typing import Literal


@lru_cache(maxsize=1)  # many lines share a second
def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _stamp(int(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = _outline(record.exc_info[1])
        return json.dumps(line)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()} {fields}"
        if record.exc_info:
            line += f" exception={_outline(record.exc_info[1])}"
        return line.rstrip()


def set_up(style: Literal["json", "text", "auto"]) -> None:
    """Send the service's log to standard error, as JSON or as text; auto: text on a terminal."""
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text() if text else _Json())
    logger = logging.getLogger("proxy")
    logger.handlers[:] = [handler]  # replaced, not added: twice set up would write each line twice
    logger.propagate = False
    logger.setLevel(logging.INFO)


def _outline(error: BaseException | None) -> str:
    """Name an exception and the places it passed, without its message, which may quote a prompt."""
    if error is None:
        return ""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(places[-8:])}"


def new_request_id() -> str:
    """Return a name for a request, for its answer and its log line."""
    return f"req_{secrets.token_hex(16)}"
