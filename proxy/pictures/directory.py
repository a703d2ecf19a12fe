"""Pictures kept in a folder, within a time and a quota of bytes."""

import contextlib
import errno
import os
import re
import stat
from collections import OrderedDict
from pathlib import Path

from proxy.clock import Clock
from proxy.pictures.codec import EXTENSIONS, Facts
from proxy.pictures.drafts import Drafts, FileDraft
from proxy.pictures.store import Found, Opened, StoredPicture, open_file, publish_through_draft

_NAME = re.compile(r"(?:[0-9a-f]{8})?[0-9a-f]{32}\.(png|jpg|webp)\Z")


class PictureDirectory:
    """A picture store in a folder.

    A file is removed ``keep_s`` seconds after it came (0: never for its age), or before that, the oldest first, when
    the quota is exceeded. ``dated``: names begin with the time of the storing, in Unix seconds of eight hexadecimal
    digits.

    Drafts are written into the same folder, so that publishing one is a rename, which is atomic: nobody sees half a
    picture (https://docs.python.org/3/library/os.html#os.rename).
    """

    def __init__(self, directory: Path, *, keep_s: float, max_bytes: int, clock: Clock, dated: bool = False) -> None:
        self.directory = directory
        self._dated = dated
        self.drafts = Drafts(directory)
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._files: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._pinned: set[str] = set()
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of the pictures in the folder."""
        return self._used_bytes

    async def prepare(self, *, alone: bool = False) -> None:
        """Create the folder and list what is in it. To be called before anything else. Raises OSError."""
        self.drafts.open(self._clock.wall(), alone=alone)
        found = []
        for path in self.directory.iterdir():
            if _NAME.match(path.name):
                with contextlib.suppress(FileNotFoundError):  # another process may be sweeping the same folder
                    status = path.stat()
                    found.append((status.st_mtime, path.name, status.st_size))
        for born, name, size in sorted(found):
            self._files[name] = (born, size)
            self._used_bytes += size
        self._sweep()

    async def close(self) -> None:
        """Do nothing: nothing runs in the background."""

    def check(self, *, by_writing: bool) -> None:
        """Raise OSError when no picture could be stored now. ``by_writing``: find out by writing a test file."""
        if by_writing:
            self.drafts.check()
        else:
            self.drafts.check_room()

    def draft(self) -> FileDraft:
        """Open a draft. Raises OSError."""
        return self.drafts.draft()

    async def probe(self) -> str:
        """Write a test file. Returns why that failed, empty if it didn't."""
        try:
            self.drafts.check()
        except OSError as error:
            return f"no picture can be stored in {self.directory} ({error.strerror})"
        return ""

    def name_for(self, stem: str, facts: Facts) -> str:
        """Return the public name of a picture whose draft is called ``stem``, 32 hexadecimal digits."""
        date = f"{int(self._clock.wall()):08x}" if self._dated else ""
        return f"{date}{stem}.{EXTENSIONS[facts.format]}"

    async def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Give a complete draft its public name. It is kept at least until ``release``. Raises OSError."""
        return self._publish(draft, facts)

    async def publish_bytes(self, data: bytes, facts: Facts) -> StoredPicture:
        """Store a picture that is in memory, as ``publish`` does. Raises OSError."""
        return await publish_through_draft(self, data, facts)

    def _publish(self, draft: Path, facts: Facts) -> StoredPicture:
        name = self.name_for(draft.stem, facts)
        size = draft.stat().st_size
        draft.rename(self.directory / name)
        self._files[name] = (self._clock.wall(), size)
        self._pinned.add(name)
        self._used_bytes += size
        self._sweep()
        return StoredPicture(name, facts, size)

    async def find(self, name: str) -> Found | None:
        """Return what is known of a picture that may still be served, else None."""
        entry = self._files.get(name)
        if entry is None or entry[0] <= self._oldest_kept():
            return None
        try:
            # A link that somebody put here must not serve a file from elsewhere.
            status = (self.directory / name).stat(follow_symlinks=False)
        except OSError:
            return None
        return Found(status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    async def open(self, name: str, span: tuple[int, int] | None = None) -> Opened:
        """Open a stored picture. ``span``: its first byte and the one after its last. Raises OSError."""
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return open_file(self.directory / name, span)

    def pin(self, name: str) -> None:
        """Keep a picture that is still to be delivered until ``release``."""
        if name in self._files:
            self._pinned.add(name)

    def release(self, name: str) -> None:
        """Note that a picture was delivered, or that nobody will ask for it: now time and quota may remove it."""
        self._pinned.discard(name)

    @property
    def names(self) -> list[str]:
        """The pictures in the folder, oldest first."""
        return list(self._files)

    def awaited(self, name: str) -> bool:
        """Whether a picture of this process is still to be delivered."""
        return name in self._pinned

    def remove(self, name: str) -> None:
        """Remove a picture, if it is there and can be removed."""
        entry = self._files.pop(name, None)
        if entry is not None:
            self._used_bytes -= entry[1]
            with contextlib.suppress(OSError):
                (self.directory / name).unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Remove pictures past their time, then the oldest until the quota holds, but none that is still to be
        delivered."""
        self._sweep()

    def _sweep(self) -> None:
        oldest_kept = self._oldest_kept()
        excess = self._used_bytes - self._max_bytes
        surplus: list[str] = []
        # Oldest first, so the loop ends at the first that stays. The newest stays even if it alone exceeds the quota:
        # it has just been paid for.
        for name, (born, size) in self._files.items():
            if born > oldest_kept and (excess <= 0 or len(self._files) - len(surplus) == 1):
                break
            if name not in self._pinned:
                surplus.append(name)
                excess -= size
        for name in surplus:
            self.remove(name)

    def _oldest_kept(self) -> float:
        return self._clock.wall() - self._keep_s if self._keep_s else 0.0
