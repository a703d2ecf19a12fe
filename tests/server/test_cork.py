"""The head of an answer goes out with the first piece of its body, or soon alone."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from proxy.wire import Cork


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


class Loop:
    """Runs what was put off when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Any] = []

    def call_soon(self, call: Any) -> None:
        self.soon.append(call)

    def turn(self) -> None:
        while self.soon:
            self.soon.pop()()


def _corked() -> tuple[Any, Transport, Loop]:
    transport, loop = Transport(), Loop()
    cycle: Any = SimpleNamespace(transport=transport)
    Cork(cycle, loop)  # type: ignore[arg-type]
    return cycle, transport, loop


def test_head_and_first_piece_are_one_write() -> None:
    cycle, transport, loop = _corked()
    cycle.transport.write(b"head ")
    cycle.transport.write(b"body")
    cycle.transport.write(b"more")
    loop.turn()
    assert transport.calls == [b"head body", b"more"]


def test_a_head_whose_body_is_not_there_goes_out_on_the_next_turn() -> None:
    cycle, transport, loop = _corked()
    cycle.transport.write(b"head")
    assert transport.calls == []
    loop.turn()
    assert transport.calls == [b"head"]
    assert cycle.transport is transport


def test_closing_writes_the_head_first() -> None:
    cycle, transport, loop = _corked()
    cycle.transport.write(b"head")
    cycle.transport.close()
    loop.turn()
    assert transport.calls == [b"head"]
    assert transport.closed


def test_nothing_is_written_to_a_connection_that_was_closed_meanwhile() -> None:
    cycle, transport, loop = _corked()
    cycle.transport.write(b"head")
    transport.close()
    loop.turn()
    assert transport.calls == []
