"""The head of an answer that tells its length goes out with the first piece of its body."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from proxy.server.exchange import Cork


class Transport:
    """Notes each call to the kernel."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.calls.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def _corked() -> tuple[Any, Transport, Cork]:
    transport = Transport()
    cycle: Any = SimpleNamespace(transport=transport)
    cycle.transport = Cork(cycle)
    return cycle, transport, cycle.transport


def test_head_and_first_piece_are_one_write() -> None:
    cycle, transport, _ = _corked()
    cycle.transport.write(b"head ")
    assert transport.calls == []
    cycle.transport.write(b"body")
    cycle.transport.write(b"more")
    assert transport.calls == [b"head body", b"more"]


def test_a_head_without_a_body_goes_out_when_the_answer_ends() -> None:
    cycle, transport, cork = _corked()
    cycle.transport.write(b"head")
    cork.pull()
    assert transport.calls == [b"head"]
    assert cycle.transport is transport


def test_closing_writes_the_head_first() -> None:
    cycle, transport, _ = _corked()
    cycle.transport.write(b"head")
    cycle.transport.close()
    assert transport.calls == [b"head"]
    assert transport.closed


def test_nothing_is_written_to_a_connection_that_was_closed_meanwhile() -> None:
    cycle, transport, cork = _corked()
    cycle.transport.write(b"head")
    transport.close()
    cork.pull()
    assert transport.calls == []
