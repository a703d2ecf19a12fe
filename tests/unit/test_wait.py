"""The wait for a generation's end: everybody who waits goes through it."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from proxy.clock import Deadline
from proxy.config import compose
from proxy.engine import Engine
from proxy.generations.record import Ending, Generation
from proxy.state.records import Account
from tests.time_skip import backend, clock

pytestmark = pytest.mark.anyio
_RESOLVED = Engine(compose({}, {})).resolve({"prompt": "a fox", "model": "imagelabs/sdxl-turbo"})


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on the loop that skips idle time."""
    return backend()


class _Caller:
    """Stays until it leaves; notes when it was told of changes and beats."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.told: list[tuple[str, float]] = []
        self._started = asyncio.get_running_loop().time()

    async def receive(self) -> MutableMapping[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def changed(self) -> None:
        self._note("changed")

    async def beat(self) -> None:
        self._note("beat")

    def _note(self, what: str) -> None:
        self.told.append((what, round(asyncio.get_running_loop().time() - self._started, 1)))


def _generation() -> Generation:
    return Generation("imggen_1", 1, _RESOLVED.summary(), b"", Account(), 0, Deadline.after(clock(), 300), 0)


def _end(generation: Generation) -> None:
    generation.ended_at = clock().monotonic()
    generation.changed()
    generation.release("done")


def _wait(generation: Generation, caller: _Caller, hold_s: float = 60) -> asyncio.Task[Ending]:
    until = Deadline.after(clock(), hold_s)
    waiting = generation.wait(caller.receive, until, changed=caller.changed, beat=caller.beat, beat_s=10)
    return asyncio.get_running_loop().create_task(waiting)


async def test_beats_keep_their_time_whatever_changes() -> None:
    generation, caller = _generation(), _Caller()
    task = _wait(generation, caller)
    for _ in range(5):
        await asyncio.sleep(5.5)
        generation.changed()
        generation.changed()
    await asyncio.sleep(1)
    _end(generation)
    assert await task == "done"
    changes = [at for what, at in caller.told if what == "changed"]
    beats = [at for what, at in caller.told if what == "beat"]
    assert changes == pytest.approx([5.5, 11, 16.5, 22, 27.5], abs=0.2)
    assert beats == pytest.approx([10, 20], abs=0.2)


async def test_a_wait_ends_with_the_hold() -> None:
    generation, caller = _generation(), _Caller()
    assert await _wait(generation, caller, hold_s=25) == "late"
    assert [what for what, _ in caller.told] == ["beat", "beat"]
    generation.changed()
    assert len(caller.told) == 2


async def test_a_wait_ends_when_the_caller_leaves() -> None:
    generation, caller = _generation(), _Caller()
    task = _wait(generation, caller)
    await asyncio.sleep(1)
    caller.left.set()
    assert await task == "left"
    assert caller.told == []


async def test_an_ended_generation_is_not_waited_for() -> None:
    generation, caller = _generation(), _Caller()
    _end(generation)
    assert await _wait(generation, caller, hold_s=0) == "done"
    assert caller.told == []


async def test_the_first_ending_counts_even_while_the_caller_is_told_of_a_change() -> None:
    generation, caller = _generation(), _Caller()

    async def leave() -> None:
        caller.left.set()
        await asyncio.sleep(1)
        _end(generation)

    task = asyncio.get_running_loop().create_task(
        generation.wait(caller.receive, Deadline.after(clock(), 60), changed=leave)
    )
    await asyncio.sleep(1)
    generation.changed()
    assert await task == "left"
