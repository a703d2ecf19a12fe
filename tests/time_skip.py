"""An event loop that doesn't wait in vain: where only time can bring something, it takes that time for passed.

The service, the simulator and the callers of a test live on one loop and speak over real sockets. When nothing can be
read or written and no thread is at work, then the next thing to happen is a timer: the loop's clock jumps there. So a
test that waits for half a minute takes milliseconds, and a busy machine makes no timeout come early, for computing
takes next to none of this time. It must not be used where another process or a thread of the test's own is waited for.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from proxy.clock import Clock
from proxy.state.sqlite.writer import Writer

_SURELY_IDLE_S = 0.001
"""Real seconds without an event before time is skipped: the loopback may be late on a busy machine."""
_TURN_S = 0.00001
"""What a turn of the loop takes on its clock, so that whoever waits for a moment a hair away gets there."""


class _Selector(selectors.DefaultSelector):
    """Selects as usual, but keeps a time of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()
        self.threads_at_work = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; without anything after ``timeout`` seconds of the own time."""
        self.now += _TURN_S
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None or self.threads_at_work:  # these work in real time
            started = time.monotonic()
            events = super().select(timeout)
            self.now += min(time.monotonic() - started, timeout or 0.0)
            return events
        events = super().select(min(timeout, _SURELY_IDLE_S))
        if not events:
            self.now += timeout
        return events


class SkippingLoop(asyncio.SelectorEventLoop):
    """The loop; ``time`` is the selector's."""

    def __init__(self) -> None:
        self._own = _Selector()
        super().__init__(self._own)

    def time(self) -> float:
        """Return the loop's seconds, skipped ones included."""
        return self._own.now

    def pass_by(self, seconds: float) -> None:
        """Let so much time be over at once, as when the loop is blocked."""
        self._own.now += seconds

    @contextmanager
    def real_time(self) -> Iterator[None]:
        """Skip nothing meanwhile."""
        self._own.threads_at_work += 1
        try:
            yield
        finally:
            self._own.threads_at_work -= 1

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run in a thread; nothing is skipped until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.wait_for_thread(future)
        return future

    def wait_for_thread(self, future: asyncio.Future[Any]) -> None:
        """Skip nothing until a thread has brought the result."""
        self._own.threads_at_work += 1
        future.add_done_callback(self._end_thread)

    def _end_thread(self, _: object) -> None:
        self._own.threads_at_work -= 1


def _count_writes(real: Callable[..., asyncio.Future[Any]]) -> Callable[..., asyncio.Future[Any]]:
    """Make time go on as it does while a state's thread is at work."""

    def ask(*arguments: Any) -> asyncio.Future[Any]:
        future = real(*arguments)
        loop = asyncio.get_running_loop()
        if isinstance(loop, SkippingLoop):
            loop.wait_for_thread(future)
        return future

    return ask


for _name in ("ask", "ask_later"):
    setattr(Writer, _name, _count_writes(getattr(Writer, _name)))


def backend(*, skip: bool = True) -> tuple[str, dict[str, Any]]:
    """Return what an ``anyio_backend`` fixture returns: this loop, or else the one that is served with."""
    return "asyncio", {"loop_factory": SkippingLoop} if skip else {"use_uvloop": True}


def clock() -> Clock:
    """Return a clock that goes with the running loop."""
    return Clock(monotonic=asyncio.get_running_loop().time)


def block(seconds: float) -> None:
    """Block the running loop for so long."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, SkippingLoop):
        loop.pass_by(seconds)
    else:
        time.sleep(seconds)


def real_time() -> AbstractContextManager[None]:
    """Let nothing be skipped: another process is waited for, and another fixture may have chosen the loop."""
    loop = asyncio.get_running_loop()
    return loop.real_time() if isinstance(loop, SkippingLoop) else nullcontext()
