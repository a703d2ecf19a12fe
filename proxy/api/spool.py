"""Uploads on their way to disk and back. A write may block on a slow disk, so it never runs on the event loop."""

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
    """Data waiting to be written; about a megabyte at most if ``relieve`` is awaited between additions."""

    _waiting: list[tuple[BinaryIO, bytes | memoryview]] = field(default_factory=list)
    _size: int = 0

    def add(self, file: BinaryIO, data: bytes | memoryview) -> None:
        """Queue ``data`` to be written after what was added for the file before."""
        self._waiting.append((file, data))
        self._size += len(data)

    async def relieve(self) -> None:
        """Write what is queued, in a thread, once it is a megabyte. Raises OSError."""
        if self._size >= _BATCH_BYTES:
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write all that is queued. Raises OSError. Blocks."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for file, data in waiting:
            file.write(data)


def view(file: BinaryIO, size: int) -> memoryview | bytes:
    """Return a view into a file's first ``size`` bytes; it outlives the file's closing."""
    if not size:
        return b""
    file.flush()
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    # The last close of an unnamed file frees its blocks, which takes a while for a large one. A view ends anywhere, on
    # the event loop too, so a descriptor is kept for a thread to close. Not at exit: the kernel closes everything then.
    weakref.finalize(mapped, _closing().put, os.dup(file.fileno())).atexit = False
    return memoryview(mapped)


@cache
def _closing() -> SimpleQueue[int]:
    """Return the queue of descriptors that a thread closes.

    A finalizer may run anywhere, even while its thread holds a lock. Of all queues and executors only this one's
    ``put`` is safe there: https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put
    """
    descriptors: SimpleQueue[int] = SimpleQueue()

    def close() -> None:
        while True:
            os.close(descriptors.get())

    threading.Thread(target=close, name="uploads", daemon=True).start()
    return descriptors
