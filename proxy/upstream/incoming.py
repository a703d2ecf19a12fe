"""A picture on its way in: into a file, and into memory where the disk fails, since it may be paid for already."""

from pathlib import Path
from typing import Protocol

from proxy.errors import ProviderBadResult, StateUnavailable
from proxy.pictures.completeness import Completeness

_RETRY_S = 5.0


class NotWhole(ProviderBadResult):
    """What came is no whole picture; where it can be fetched again, another fetch may bring one."""


def unstorable() -> StateUnavailable:
    """Return the failure of a picture that is not asked for because it could not be stored."""
    return StateUnavailable("This service cannot store pictures now, so none was asked for.", retry_after=_RETRY_S)


class Draft(Protocol):
    """A picture being written; nobody sees it until it is complete."""

    path: Path

    @property
    def in_place(self) -> bool:
        """Whether ``path`` still leads to what was written."""
        ...

    def write(self, data: bytes) -> None:
        """Add ``data``. Raises OSError."""
        ...

    def read_back(self, size: int) -> bytes:
        """Return the first ``size`` bytes written. Raises OSError."""
        ...

    def close(self) -> None:
        """End the writing."""
        ...

    def discard(self) -> None:
        """Remove it, as far as that can be done."""
        ...


class Incoming:
    """Takes a picture's bytes; ``draft`` None: memory from the start."""

    def __init__(self, draft: Draft | None) -> None:
        self._draft = draft
        self._written = 0
        self._memory = bytearray()
        self._completeness = Completeness()

    def write(self, data: bytes) -> None:
        """Add ``data``. Raises OSError only when the disk doesn't give back what it took."""
        self._completeness.add(data)
        if self._draft is not None:
            try:
                self._draft.write(data)
            except OSError:
                self._leave_disk()
            else:
                self._written += len(data)
                return
        self._memory += data

    def finish(self) -> Path | bytes:
        """Return the whole picture: its file, or its bytes. Raises NotWhole, OSError as ``write`` does."""
        if self._completeness.cut:
            raise NotWhole("The finished picture came cut off or damaged.")
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
