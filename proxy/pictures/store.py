"""Stored pictures: complete or absent, under names nobody can guess; what may keep them, and how they are read."""

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
"""The longest piece of a picture that is read at once: a multiple of 3, so that most pieces' base64 joins unpadded."""
_IF_IN_MEMORY: int = getattr(os, "RWF_NOWAIT", 0)


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
    """A complete picture that is kept: its public name, type, size in pixels and in bytes."""

    name: str
    facts: Facts
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A picture that whoever knows its name may have: its size in bytes, and the wall time when it was stored."""

    size_bytes: int
    stored_at: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture, or a span of one, to be read once: ``size_bytes`` in ``pieces`` of any length up to PIECE_BYTES.

    Nothing is held before the first piece is asked for; whoever stops before the last one closes ``pieces``.
    """

    size_bytes: int
    pieces: AsyncGenerator[bytes, None] = field(repr=False)


class PictureStore(Protocol):
    """What keeps pictures. Drafts are local files, whatever becomes of them when they are published."""

    drafts: Drafts
    used_bytes: int

    async def prepare(self) -> None:
        """Make ready; before anything else is called. Raises OSError."""
        ...

    async def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Give a complete draft a public name; it stays at least until ``release``.

        Raises OSError, and the draft's file is as it was.
        """
        ...

    async def find(self, name: str) -> Found | None:
        """Return what is known of a picture that may still be served to anybody, else None."""
        ...

    async def open(self, name: str, span: tuple[int, int] | None = None) -> Opened:
        """Open a picture that is there, released or not; ``span``: first byte and the one behind the last.

        Raises OSError when it isn't there; reading its pieces may raise that too.
        """
        ...

    def release(self, name: str) -> None:
        """Tell that a picture has reached its caller, or that nobody will ask for it; time and quota rule it now."""
        ...

    async def sweep(self) -> None:
        """Remove what is past its time or over the quota."""
        ...


def open_file(path: Path, span: tuple[int, int] | None = None) -> Opened:
    """Open a local file that is no link. Raises OSError when it isn't there."""
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
    """Read what the kernel has in memory at once, in a tenth of a thread's time; for what it hasn't, a thread waits.

    The last byte tells: files are read into memory from their beginning on.
    """
    if _IF_IN_MEMORY:
        try:
            os.preadv(file, [bytearray(1)], offset + size - 1, _IF_IN_MEMORY)
        except OSError:  # not in memory, or a file system that can't tell
            pass
        else:
            return os.pread(file, size, offset)
    return await asyncio.to_thread(os.pread, file, size, offset)
