"""Stored pictures: files under names nobody can guess, complete or absent, within a time and a quota of bytes."""

import contextlib
import errno
import os
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.clock import Clock
from proxy.pictures.codec import EXTENSIONS, MAX_PIXELS, Facts

_NAME = re.compile(r"[0-9a-f]{32}\.(png|jpg|webp)\Z")
_DRAFT_SUFFIX = ".part"
_ABANDONED_DRAFT_S = 3600
_LEAST_FREE_BYTES = 67_108_864


class ImageSettings(BaseModel):
    """The ``[images]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str = ""
    keep: float = Field(default=3600, gt=0, allow_inf_nan=False)
    max_bytes: int = Field(default=2_147_483_648, gt=0)
    max_pixels: int = Field(default=16_777_216, gt=0, le=MAX_PIXELS)
    copies: Literal["when-needed", "always"] = "when-needed"


@dataclass(slots=True)
class FileDraft:
    """A picture being written under a name that is never served."""

    path: Path
    file: BinaryIO

    @property
    def in_place(self) -> bool:
        """Whether ``path`` still leads to this file: its folder may have been removed or exchanged meanwhile."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.file.fileno()))
        except OSError:
            return False

    def write(self, data: bytes) -> None:
        """Write all of ``data``: an unbuffered file may take less, on a disk that fills up for one. Raises OSError."""
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def read_back(self, size: int) -> bytes:
        """Return the first ``size`` bytes written. Raises OSError."""
        self.file.seek(0)
        data = b""
        while len(data) < size:
            piece = self.file.read(size - len(data))
            if not piece:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))
            data += piece
        return data

    def close(self) -> None:
        """End the writing."""
        self.file.close()

    def discard(self) -> None:
        """Remove what was written, as far as that can be done."""
        with contextlib.suppress(OSError):
            self.file.close()
        remove(self.path)


def remove(path: Path) -> None:
    """Remove a file, as far as that can be done: whoever is done with a draft can't mend its folder."""
    with contextlib.suppress(OSError):
        path.unlink()


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A complete picture on disk: its public name, type, size in pixels and in bytes."""

    name: str
    path: Path
    facts: Facts
    size_bytes: int


class ImageStore:
    """The folder of pictures. Files go ``keep_s`` seconds after they came, or earlier, oldest first, at the quota."""

    def __init__(self, directory: Path, *, keep_s: float, max_bytes: int, clock: Clock) -> None:
        self.directory = directory
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._files: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._pinned: set[str] = set()
        self.used_bytes = 0

    def open(self) -> None:
        """Create the folder and take stock of it. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for path in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == _DRAFT_SUFFIX:
                    if status.st_mtime < self._clock.wall() - _ABANDONED_DRAFT_S:
                        path.unlink(missing_ok=True)
                elif _NAME.match(path.name):
                    found.append((status.st_mtime, path.name, status.st_size))
        for born, name, size in sorted(found):
            self._files[name] = (born, size)
            self.used_bytes += size
        self.sweep()

    def check_room(self) -> None:
        """Look whether there is a folder with room, and make it anew if it was removed. Raises OSError if not."""
        try:
            disk = os.statvfs(self.directory)
        except FileNotFoundError:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))
        if not self.directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.directory))

    def check(self) -> None:
        """Write into a new file and remove it. Raises OSError when no picture can be stored."""
        draft = self.draft()
        try:
            draft.write(b"?")
        finally:
            draft.discard()

    def draft(self) -> FileDraft:
        """Open a new file to write a picture into. Raises OSError, also when the disk is all but full."""
        self.check_room()
        path = self.directory / f"{secrets.token_hex(16)}{_DRAFT_SUFFIX}"
        return FileDraft(path, path.open("x+b", buffering=0))

    def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Give a complete draft its public name; it stays at least until it is let go. Raises OSError."""
        name = f"{draft.stem}.{EXTENSIONS[facts.format]}"
        path = self.directory / name
        size = draft.stat().st_size
        draft.rename(path)
        self._files[name] = (self._clock.wall(), size)
        self._pinned.add(name)
        self.used_bytes += size
        self.sweep()
        return StoredPicture(name, path, facts, size)

    def write_draft(self, data: bytes) -> Path:
        """Store bytes under a name that is never served. Raises OSError."""
        draft = self.draft()
        try:
            with contextlib.closing(draft):
                draft.write(data)
        except BaseException:
            draft.discard()
            raise
        return draft.path

    def release(self, name: str) -> None:
        """Tell that a picture has reached its caller, or that nobody will ask for it; time and quota rule it now."""
        self._pinned.discard(name)

    def find(self, name: str) -> Path | None:
        """Return the file of a public name that may still be served, else None."""
        entry = self._files.get(name)
        if entry is None or not _NAME.match(name) or entry[0] + self._keep_s <= self._clock.wall():
            return None
        path = self.directory / name
        return path if path.is_file() and not path.is_symlink() else None

    def sweep(self) -> None:
        """Remove pictures past their time, then the oldest until the quota holds, but none that is waited for."""
        oldest_kept = self._clock.wall() - self._keep_s
        excess = self.used_bytes - self._max_bytes
        surplus: list[str] = []
        for name, (born, size) in self._files.items():  # the oldest first: what stays isn't looked at
            if born > oldest_kept and (excess <= 0 or len(self._files) - len(surplus) == 1):
                break
            if name not in self._pinned:
                surplus.append(name)
                excess -= size
        for name in surplus:
            self.used_bytes -= self._files.pop(name)[1]
            with contextlib.suppress(OSError):
                (self.directory / name).unlink(missing_ok=True)
