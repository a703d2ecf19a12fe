"""Pictures being written: local files, wherever the finished ones are kept, under names that are never served."""

import contextlib
import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".part"
_ABANDONED_S = 3600
_LEAST_FREE_BYTES = 67_108_864


@dataclass(slots=True)
class FileDraft:
    """A picture being written; nobody sees it until it is complete and published."""

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
    """Remove a draft's file, as far as that can be done: whoever is done with it can't mend its folder."""
    with contextlib.suppress(OSError):
        path.unlink()


class Drafts:
    """The folder that drafts are written into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, now: float) -> None:
        """Create the folder, and remove what a crash left there; ``now`` in seconds of wall time. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < now - _ABANDONED_S:
                    path.unlink()

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
        """Write into a new file and remove it. Raises OSError when no picture can be written."""
        draft = self.draft()
        try:
            draft.write(b"?")
        finally:
            draft.discard()

    def draft(self) -> FileDraft:
        """Open a new file to write a picture into. Raises OSError, also when the disk is all but full."""
        self.check_room()
        path = self.directory / f"{secrets.token_hex(16)}{SUFFIX}"
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
