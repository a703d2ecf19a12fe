"""Uploads on their way to disk and back: a write may wait for a full disk cache, so it never runs on the event loop."""

import asyncio
import mmap
import os
import threading
import weakref
from dataclasses import dataclass, field
from functools import cache
from queue import SimpleQueue
from typing import BinaryIO

_BATCH_BYTES = 1_048_576


@dataclass(slots=True)
class Spool:
    """What waits to be written, at most about a megabyte of it as long as ``relieve`` is awaited between additions."""

    _waiting: list[tuple[BinaryIO, bytes]] = field(default_factory=list)
    _size: int = 0

    def add(self, file: BinaryIO, data: bytes) -> None:
        """Have ``data`` written behind what was added for the file before."""
        self._waiting.append((file, data))
        self._size += len(data)

    async def relieve(self) -> None:
        """Write what waits, away from the event loop, once it is a megabyte. Raises OSError."""
        if self._size >= _BATCH_BYTES:
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write all that waits. Raises OSError. Blocks."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for file, data in waiting:
            file.write(data)


def view(file: BinaryIO, size: int) -> memoryview | bytes:
    """Return a view into a file's first ``size`` bytes; it outlives the file's closing."""
    if not size:
        return b""
    file.flush()
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    # Whoever closes an unnamed file last frees all of it, which takes a while: not where the view happens to end.
    weakref.finalize(mapped, _closing().put, os.dup(file.fileno())).atexit = False
    return memoryview(mapped)


@cache
def _closing() -> SimpleQueue[int]:
    """Return the queue of descriptors that a thread closes.

    The collector may call the finalizer anywhere, in the middle of a lock's holder too. Of all queues and executors
    only this kind's ``put`` may be called from there: https://docs.python.org/3/library/queue.html#simplequeue-objects
    """
    descriptors: SimpleQueue[int] = SimpleQueue()

    def close() -> None:
        while True:
            os.close(descriptors.get())

    threading.Thread(target=close, name="uploads", daemon=True).start()
    return descriptors
