"""Stored pictures: complete or absent, under names that nobody can guess. What a store must do, and how it is read."""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from proxy.pictures.codec import MAX_PIXELS, Facts
from proxy.pictures.drafts import Drafts

PIECE_BYTES = 98_304
"""The longest piece of a picture that is read at once.

A multiple of 3, so that no piece's base64 but the last one's is padded and the pieces can be joined (RFC 4648, 4).
"""
_IF_IN_MEMORY: int = getattr(os, "RWF_NOWAIT", 0)
"""Read only what needs no waiting for the disk; Linux alone has it: https://man7.org/linux/man-pages/man2/preadv2.2.html"""


class ImageSettings(BaseModel):
    """The ``[images]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str = ""
    keep: float = Field(default=3600, gt=0, allow_inf_nan=False)
    max_bytes: int = Field(default=2_147_483_648, gt=0)
    max_pixels: int = Field(default=16_777_216, gt=0, le=MAX_PIXELS)
    copies: Literal["when-needed", "always"] = "when-needed"


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A complete picture in the store: its public name, type, size in pixels and in bytes."""

    name: str
    facts: Facts
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A picture that may be served to whoever knows its name: its size in bytes, and the Unix time of its storing."""

    size_bytes: int
    stored_at: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture, or a span of one, to be read once: ``size_bytes`` in ``pieces`` of any length up to PIECE_BYTES.

    No file is open before the first piece is asked for. Whoever stops before the last one must close ``pieces``.
    """

    size_bytes: int
    pieces: AsyncGenerator[bytes, None] = field(repr=False)


class PictureStore(Protocol):
    """Stores pictures. Drafts are local files, whatever the store does with them when they are published."""

    drafts: Drafts
    used_bytes: int

    async def prepare(self) -> None:
        """Get ready. To be called before anything else. Raises OSError."""
        ...

    async def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Give a complete draft a public name. It is kept at least until ``release``.

        Raises OSError, and then leaves the draft's file as it was.
        """
        ...

    async def find(self, name: str) -> Found | None:
        """Return what is known of a picture that may still be served, else None."""
        ...

    async def open(self, name: str, span: tuple[int, int] | None = None) -> Opened:
        """Open a stored picture, released or not. ``span``: its first byte and the one after its last.

        Raises OSError when it isn't there; so may reading its pieces.
        """
        ...

    def pin(self, name: str) -> None:
        """Keep a picture that is still to be delivered until ``release``, as ``publish`` does."""
        ...

    def release(self, name: str) -> None:
        """Note that a picture was delivered, or that nobody will ask for it: now time and quota may remove it."""
        ...

    async def sweep(self) -> None:
        """Remove pictures that are past their time or exceed the quota."""
        ...


def open_file(path: Path, span: tuple[int, int] | None = None) -> Opened:
    """Open a local file, but no link. Raises OSError when it isn't there."""
    size = path.stat(follow_symlinks=False).st_size
    start, stop = span or (0, size)
    return Opened(stop - start, _pieces_of(path, start, stop))


async def _pieces_of(path: Path, start: int, stop: int) -> AsyncGenerator[bytes, None]:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while start < stop and (piece := await _read(file, start, min(PIECE_BYTES, stop - start))):
            yield piece
            start += len(piece)
    finally:
        os.close(file)


async def _read(file: int, offset: int, size: int) -> bytes:
    """Read at once what the kernel has in memory, which takes a tenth of a thread's time; let a thread read the rest.

    Only the last byte is probed: files are read into memory from their beginning, so the others are there as well.
    """
    if _IF_IN_MEMORY:
        try:
            os.preadv(file, [bytearray(1)], offset + size - 1, _IF_IN_MEMORY)
        except OSError:  # not in memory, or a file system that can't tell
            pass
        else:
            return os.pread(file, size, offset)
    return await asyncio.to_thread(os.pread, file, size, offset)
