"""A picture on its way in: into a file, or into memory if the disk fails, since it may be paid for already."""

from pathlib import Path
from typing import Protocol

from proxy.errors import ProviderBadResult, StateUnavailable
from proxy.pictures.completeness import Completeness

_RETRY_S = 5.0


class NotWhole(ProviderBadResult):
    """What came is no whole picture. Where it can be fetched again, another fetch may bring it."""


def unstorable() -> StateUnavailable:
    """Return the failure of a request whose picture could not be stored, and so was not asked for."""
    return StateUnavailable("This service cannot store pictures now, so none was asked for.", retry_after=_RETRY_S)


class Draft(Protocol):
    """A picture being written; nobody sees it until it is complete."""

    path: Path

    @property
    def in_place(self) -> bool:
        """Whether ``path`` still leads to what was written; no longer if its folder was removed meanwhile."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """Add ``data``. Raises OSError."""
        ...

    def read_back(self, size: int) -> bytes:
        """Return the first ``size`` bytes written. Raises OSError."""
        ...

    def close(self) -> None:
        """End the writing."""
        ...

    def discard(self) -> None:
        """Remove it if possible."""
        ...


class Incoming:
    """Takes a picture's bytes. ``draft`` None: into memory from the start."""

    def __init__(self, draft: Draft | None) -> None:
        self._draft = draft
        self._written = 0
        self._memory = bytearray()
        self._completeness = Completeness()

    def write(self, data: bytes | memoryview) -> None:
        """Add ``data``. Raises OSError only if what was written cannot be read back."""
        # Checked as it arrives: a second pass over a large picture at its end would hold up the event loop.
        self._completeness.add(data)
        if self._draft is not None:
            try:
                self._draft.write(data)
            except OSError:
                # A full disk must not cost a paid picture: what has been written is read back, the rest follows.
                self._leave_disk()
            else:
                self._written += len(data)
                return
        self._memory += data

    def finish(self) -> Path | bytes:
        """Return the whole picture: its file, or its bytes. Raises NotWhole, and OSError as ``write`` does."""
        if self._completeness.cut:
            raise NotWhole("The finished picture came cut off or damaged.")
        # Writes into a removed folder succeed as long as the file is open (unlink(2)); only the name has gone.
        if self._draft is not None and not self._draft.in_place:
            self._leave_disk()
        if self._draft is None:
            return bytes(self._memory)
        self._draft.close()
        return self._draft.path

    def discard(self) -> None:
        """Remove what was written."""
        if self._draft is not None:
            self._draft.discard()

    def _leave_disk(self) -> None:
        assert self._draft is not None  # noqa: S101 (both callers have looked)
        self._memory += self._draft.read_back(self._written)
        self._draft.discard()
        self._draft = None
