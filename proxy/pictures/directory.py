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
from proxy.pictures.drafts import Drafts
from proxy.pictures.store import Found, Opened, StoredPicture, open_file

_NAME = re.compile(r"[0-9a-f]{32}\.(png|jpg|webp)\Z")


class PictureDirectory:
    """A picture store in a folder.

    A file is removed ``keep_s`` seconds after it came, or before that, the oldest first, when the quota is exceeded.
    Drafts are written into the same folder, so that publishing one is a rename, which is atomic: nobody sees half a
    picture (https://docs.python.org/3/library/os.html#os.rename).
    """

    def __init__(self, directory: Path, *, keep_s: float, max_bytes: int, clock: Clock) -> None:
        self.directory = directory
        self.drafts = Drafts(directory)
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._files: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._pinned: set[str] = set()
        self.used_bytes = 0

    async def prepare(self) -> None:
        """Create the folder and list what is in it. To be called before anything else. Raises OSError."""
        self.drafts.open(self._clock.wall())
        found = []
        for path in self.directory.iterdir():
            if _NAME.match(path.name):
                with contextlib.suppress(FileNotFoundError):  # another process may be sweeping the same folder
                    status = path.stat()
                    found.append((status.st_mtime, path.name, status.st_size))
        for born, name, size in sorted(found):
            self._files[name] = (born, size)
            self.used_bytes += size
        self._sweep()

    async def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Give a complete draft its public name. It is kept at least until ``release``. Raises OSError."""
        return self._publish(draft, facts)

    def _publish(self, draft: Path, facts: Facts) -> StoredPicture:
        name = f"{draft.stem}.{EXTENSIONS[facts.format]}"
        size = draft.stat().st_size
        draft.rename(self.directory / name)
        self._files[name] = (self._clock.wall(), size)
        self._pinned.add(name)
        self.used_bytes += size
        self._sweep()
        return StoredPicture(name, facts, size)

    async def find(self, name: str) -> Found | None:
        """Return what is known of a picture that may still be served, else None."""
        entry = self._files.get(name)
        if entry is None or entry[0] + self._keep_s <= self._clock.wall():
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

    async def sweep(self) -> None:
        """Remove pictures past their time, then the oldest until the quota holds, but none that is still to be
        delivered."""
        self._sweep()

    def _sweep(self) -> None:
        oldest_kept = self._clock.wall() - self._keep_s
        excess = self.used_bytes - self._max_bytes
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
            self.used_bytes -= self._files.pop(name)[1]
            with contextlib.suppress(OSError):
                (self.directory / name).unlink(missing_ok=True)
