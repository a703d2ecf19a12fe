"""A client that sends exactly the bytes it is told and reads answers strictly."""

import json
import re
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

HEAD = b"Host: localhost\r\n"
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self.unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes) -> None:
        """Send byte by byte, 20 ms apart."""
        for number in range(len(data)):
            self.send(data[number : number + 1])
            time.sleep(0.02)

    def get(self, path: str) -> Answer:
        self.send(b"GET " + path.encode() + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
        return self.answer()

    def post(self, path: str, body: bytes, headers: bytes = b"") -> None:
        length = str(len(body)).encode()
        self.send(
            b"POST " + path.encode() + b" HTTP/1.1\r\n" + HEAD + headers
            + b"Content-Length: " + length + b"\r\n\r\n" + body
        )  # fmt: skip

    def answer(self) -> Answer:
        """Read one answer with a Content-Length; EOFError when the connection ends before."""
        while b"\r\n\r\n" not in self.unread:
            self._more()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(status_line.split(" ")[1])
        length = int(headers.get("content-length", "0"))
        while len(self.unread) < length:
            self._more()
        body, self.unread = self.unread[:length], self.unread[length:]
        return Answer(status, headers, body)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self.unread)
        self.unread += data

    def ended(self) -> bool:
        """Whether the server ends the connection in order (no reset) without another byte."""
        return not self.unread and self.socket.recv(65536) == b""

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def check_refusal(answer: Answer, status: int, code: str | None) -> None:
    """Check that an answer is a refusal in the envelope, and the connection's last."""
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["connection"] == "close"
