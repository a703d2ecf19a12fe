"""Stored pictures: complete or absent, under names that nobody can guess. What a store must do, and how it is read."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from proxy.pictures.codec import MAX_PIXELS, Facts
from proxy.pictures.drafts import Drafts, FileDraft, remove

PIECE_BYTES = 98_304
"""The longest piece of a picture that is read at once.

A multiple of 3, so that no piece's base64 but the last one's is padded and the pieces can be joined (RFC 4648, 4).
"""
_LARGE_BYTES = 1_048_576
"""Below this, handing the work to a thread costs more than the work."""
_IF_IN_MEMORY: int = getattr(os, "RWF_NOWAIT", 0)
"""Read only what needs no waiting for the disk; Linux alone has it: https://man7.org/linux/man-pages/man2/preadv2.2.html"""
_YEAR_S = 31_536_000
"""The longest that caches are to be told: https://www.rfc-editor.org/rfc/rfc2616#section-14.21"""
_ADDRESS = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9!_.*'()-]+)*/?\Z")
"""A bucket, and folders made of what needs no escaping anywhere:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""
T = TypeVar("T")


class ImageSettings(BaseModel):
    """The ``[images]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str = ""
    directory: str = ""
    keep: float = Field(default=3600, ge=0, allow_inf_nan=False)
    max_bytes: int = Field(default=2_147_483_648, gt=0)
    max_pixels: int = Field(default=16_777_216, gt=0, le=MAX_PIXELS)
    copies: Literal["when-needed", "always"] = "when-needed"

    @field_validator("store")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not _ADDRESS.match(value):
            raise ValueError(f"'{value}' is no address as \"s3://bucket/prefix\"")
        if value and find_spec("obstore") is None:
            raise ValueError("needs obstore, which comes with: pip install 'images-proxy[s3]'")
        return value


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
    """A picture, or a span of one, to be read once: ``size_bytes`` in ``pieces`` of PIECE_BYTES, the last one shorter.

    No file is open before the first piece is asked for. Whoever stops before the last one must close ``pieces``.
    """

    size_bytes: int
    pieces: AsyncGenerator[bytes, None] = field(repr=False)


class PictureStore(Protocol):
    """Stores pictures. Drafts are local files, whatever the store does with them when they are published."""

    drafts: Drafts

    @property
    def used_bytes(self) -> int:
        """Bytes of disk in use."""
        ...

    async def prepare(self, *, alone: bool = False) -> None:
        """Get ready; to be called before all else. ``alone``: no other process serves from here. Raises OSError."""
        ...

    async def close(self) -> None:
        """Stop what runs in the background. To be called once, at the end."""
        ...

    def check(self, *, by_writing: bool) -> None:
        """Raise OSError when no picture could be stored now. ``by_writing``: find out by writing a test file."""
        ...

    def draft(self) -> FileDraft | None:
        """Open a draft for a picture to be bought; None: memory must do. Raises OSError, as ``check`` does."""
        ...

    async def probe(self) -> str:
        """Try everything that the store needs to be able to do. Returns what is wrong, empty if nothing is."""
        ...

    async def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Give a complete draft a public name. It is kept at least until ``release``.

        Raises OSError, and then leaves the draft's file as it was.
        """
        ...

    async def publish_bytes(self, data: bytes, facts: Facts) -> StoredPicture:
        """Store a picture that is in memory, as ``publish`` does. Raises OSError."""
        ...

    async def find(self, name: str) -> Found | None:
        """Return what is known of a picture that may still be served, else None. Raises OSError if nobody can tell."""
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


async def always() -> bool:
    """Return True: who is alone may always sweep."""
    return True


def cache_control(keep_s: float) -> str:
    """Return the Cache-Control of a picture that is kept for ``keep_s`` seconds, or for as long as possible (0)."""
    # "immutable": a name is never used for another picture (RFC 8246).
    return f"public, max-age={int(keep_s or _YEAR_S)}, immutable"


async def publish_through_draft(store: PictureStore, data: bytes, facts: Facts) -> StoredPicture:
    """Write ``data`` into a draft and publish that. Raises OSError."""
    draft = await off_the_loop(len(data), lambda: store.drafts.write(data))
    try:
        return await store.publish(draft, facts)
    finally:
        remove(draft)  # gone already if it was published: that renames it


async def off_the_loop(size: int, work: Callable[[], T]) -> T:
    """Return what ``work`` on ``size`` bytes returns; a thread does it if they are many."""
    return work() if size < _LARGE_BYTES else await asyncio.to_thread(work)


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
