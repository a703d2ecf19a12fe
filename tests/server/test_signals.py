"""The process under signals, as its supervisor sees it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest

from proxy.server.exchange import WireLimits
from proxy.server.process import loop_factory, serve

from .client import Client
from .conftest import Start
from .service import Service

pytestmark = pytest.mark.realtime
HELD = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
STUCK = b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_idle_service_stops_cleanly(start: Start, number: signal.Signals) -> None:
    service = start("--drain", "30")
    with Client(service.port) as idle:
        idle.get("/x")
        service.signal(number)
        patience = "drain 30" if number == signal.SIGTERM else "drain 0"
        assert service.end() == (0, [patience, "lifespan over", "clean end"], "")
        assert idle.ended()


def test_held_request_finishes_while_readiness_fails(start: Start) -> None:
    service = start("--finish", "0.8")
    with service.held(HELD) as client:
        service.signal(signal.SIGTERM)
        assert service.process.stdout is not None
        assert service.process.stdout.readline() == "drain 5\n"
        time.sleep(0.4)
        with Client(service.port) as balancer:  # the listener is still there
            assert balancer.get("/readyz").status == 503
        answer = client.answer()
        assert (answer.status, answer.json) == (200, {"held": True})
        assert service.end() == (0, ["lifespan over", "clean end"], "")


def test_held_request_gets_the_applications_answer_when_the_drain_is_over(start: Start) -> None:
    service = start("--drain", "0.3")
    with service.held(HELD) as client:
        service.signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.json) == (503, {"held": True})
        assert service.end() == (0, ["drain 0.3", "lifespan over", "clean end"], "")


def test_interrupt_answers_held_requests_at_once(start: Start) -> None:
    service = start("--drain", "30")
    with service.held(HELD) as client:
        service.signal(signal.SIGINT)
        assert client.answer().status == 503
        assert service.end() == (0, ["drain 0", "lifespan over", "clean end"], "")


def test_stuck_handler_is_cut_with_an_envelope(start: Start) -> None:
    service = start("--drain", "0.1")
    with service.held(STUCK) as client:
        service.signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.json["error"]["code"]) == (503, "server_is_overloaded")
        assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
        status, output, _ = service.end()
        assert (status, output) == (0, ["drain 0.1", "lifespan over", "clean end"])


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_second_signal_ends_at_once(start: Start, first: signal.Signals, second: signal.Signals) -> None:
    service = start("--drain", "30")
    with service.held(STUCK) as client:
        service.signal(first)
        assert service.process.stdout is not None
        assert service.process.stdout.readline().startswith("drain")
        service.signal(second)
        answer = client.answer()
        assert (answer.status, answer.json["error"]["code"]) == (503, "server_is_overloaded")
        status, _, log = service.end()
        assert (status, log) == (128 + second, "")


def test_second_signal_does_not_wait_for_a_handler_that_ignores_it(start: Start) -> None:
    service = start("--drain", "30")
    with service.held(STUCK.replace(b"stuck", b"stubborn")):
        service.signal(signal.SIGTERM)
        assert service.process.stdout is not None
        assert service.process.stdout.readline() == "drain 30\n"
        service.signal(signal.SIGTERM)
        assert service.end()[0] == 143


def serve_here(started: Callable[[], None], on_drain: Callable[[float], None]) -> int:
    serving = serve(
        Service(),
        host="127.0.0.1",
        port=0,
        limits=WireLimits(),
        drain_s=7,
        on_drain=on_drain,
        on_started=lambda _: started(),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serving)


def test_signals_are_handled_only_while_serving() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    drained: list[float] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        assert serve_here(lambda number=number: os.kill(os.getpid(), number), drained.append) == 0  # type: ignore[misc]
    assert drained == [7, 0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_second_signal_has_a_backstop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.server.process.EXIT_WITHIN_S", 0.01)
    ended: Queue[int] = Queue()
    monkeypatch.setattr("proxy.server.process.os._exit", ended.put)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    assert serve_here(interrupt, lambda _: interrupt()) == 130
    assert ended.get(timeout=5) == 130


def test_cancelling_the_server_is_not_a_clean_end() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(0.05):
            await serve(
                Service(),
                host="127.0.0.1",
                port=0,
                limits=WireLimits(),
                drain_s=1,
                on_drain=lambda _: None,
                on_started=lambda _: None,
            )

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_running_out_of_descriptors_is_survived(start: Start) -> None:
    service = start("--files", "40")
    clients = [Client(service.port) for _ in range(60)]
    until = time.monotonic() + 5
    while open_files(service.process.pid) < 38 and time.monotonic() < until:
        time.sleep(0.01)
    assert service.process.poll() is None
    for client in clients:
        client.socket.close()
    while time.monotonic() < until:
        try:
            with Client(service.port) as client:
                assert client.get("/x").status == 200
            break
        except (EOFError, ConnectionError):
            time.sleep(0.05)
    else:
        pytest.fail("it never recovered")
    service.signal(signal.SIGTERM)
    assert service.end()[0] == 0
