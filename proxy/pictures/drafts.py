"""Pictures being written: local files, wherever the finished ones are stored, under names that are never served."""

import contextlib
import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".part"
_ABANDONED_S = 3600
"""Younger drafts may belong to another process that uses the same folder."""
_LEAST_FREE_BYTES = 67_108_864
"""More than one picture of the largest size, and some for what else is written to the disk."""


@dataclass(slots=True)
class FileDraft:
    """A picture being written; nobody sees it until it is complete and published."""

    path: Path
    file: BinaryIO

    @property
    def in_place(self) -> bool:
        """Whether ``path`` still leads to this file: its folder may have been removed or replaced meanwhile."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.file.fileno()))
        except OSError:
            return False

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``. Raises OSError."""
        # An unbuffered file may take less than it is given, as when the disk fills up:
        # https://docs.python.org/3/library/io.html#io.RawIOBase.write
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
        """Remove what was written, if possible."""
        with contextlib.suppress(OSError):
            self.file.close()
        remove(self.path)


def remove(path: Path) -> None:
    """Remove a draft's file if possible. A failure is ignored: whoever is done with it can't repair the folder."""
    with contextlib.suppress(OSError):
        path.unlink()


class Drafts:
    """The folder that drafts are written into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, now: float, *, alone: bool = False) -> None:
        """Create the folder, and remove what a crash left there. ``now``: Unix time in seconds. Raises OSError.

        ``alone``: no other process serves from here, so every draft is left over. Should one be written all the same
        (by a command), whoever writes it still has it open, and goes on in memory.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if alone or path.stat().st_mtime < now - _ABANDONED_S:
                    path.unlink()

    def check_room(self) -> None:
        """Check that the folder has room; create it again if it was removed. Raises OSError."""
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
        """Write a byte into a new file and remove it. Raises OSError when no picture can be written."""
        # Only writing shows it: permissions, a quota, used-up inodes and a read-only mount all look well before that.
        draft = self.draft()
        try:
            draft.write(b"?")
        finally:
            draft.discard()

    def draft(self) -> FileDraft:
        """Open a new file to write a picture into. Raises OSError, also when the disk is nearly full."""
        self.check_room()
        path = self.directory / f"{secrets.token_hex(16)}{SUFFIX}"
        # Unbuffered: a full disk must show at the write whose bytes are still at hand, not at the close.
        return FileDraft(path, path.open("x+b", buffering=0))

    def write(self, data: bytes) -> Path:
        """Write a whole draft and return its file. Raises OSError."""
        draft = self.draft()
        try:
            with contextlib.closing(draft):
                draft.write(data)
        except BaseException:
            draft.discard()
            raise
        return draft.path
