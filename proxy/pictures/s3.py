"""Pictures in S3-compatible storage, and in a folder as long as the storage does not take them."""

import asyncio
import contextlib
import errno
import logging
import math
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import islice
from pathlib import Path

from proxy.clock import Clock
from proxy.pictures.bucket import NAME, Bucket, StorageFailed, StorageRefused
from proxy.pictures.codec import Facts
from proxy.pictures.directory import PictureDirectory
from proxy.pictures.drafts import FileDraft
from proxy.pictures.store import Found, Opened, StoredPicture, always, publish_through_draft

_LATER_S, _LAST_S = 60.0, 5.0
"""How long a put may take that nobody waits for, and all of them together at the end of the process."""
_PUTS_AT_ONCE = 8
_SWEEP_EVERY_S = 60.0
_log = logging.getLogger("proxy")


class S3Pictures:
    """A picture store at ``address``, an ``s3://bucket/prefix``; the AWS_* variables say where that is.

    ``folder`` (with dated names) takes what the storage does not take, until it does; from there it is served, too.
    ``may_sweep`` is asked before each sweep, so that one of several replicas does it; two at once do no harm.
    Raises OSError when the variables make no sense.
    """

    def __init__(
        self,
        address: str,
        folder: PictureDirectory,
        *,
        keep_s: float,
        clock: Clock,
        may_sweep: Callable[[], Awaitable[bool]] = always,
    ) -> None:
        self.drafts = folder.drafts
        self._folder = folder
        self._bucket = Bucket(address, keep_s)
        self._keep_s = keep_s
        self._clock = clock
        self._may_sweep = may_sweep
        self._swept_at = -math.inf
        self._waiting: dict[str, None] = {}
        self._prefix = str(folder.directory) + os.sep
        self._fails = False
        self._work: asyncio.Task[None] | None = None

    @property
    def used_bytes(self) -> int:
        """Bytes in the folder: what waits for the storage, and what is being delivered."""
        return self._folder.used_bytes

    async def prepare(self, *, alone: bool = False) -> None:
        """Prepare the folder; what an earlier process left there is put. Raises OSError."""
        await self._folder.prepare(alone=alone)
        self._waiting = {name: None for name in self._folder.names if NAME.match(name)}
        self._work = asyncio.get_running_loop().create_task(self._begin())

    async def close(self) -> None:
        """Stop the work in the background. What still waits is put, as far as that goes in a few seconds."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        if not self._fails:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self._put_waiting()

    def check(self, *, by_writing: bool) -> None:
        """Raise OSError when neither the folder nor the storage takes a picture, as far as is known."""
        try:
            self._folder.check(by_writing=by_writing)
        except OSError:
            if self._fails:
                raise

    def draft(self) -> FileDraft | None:
        """Open a draft for a picture to be bought; None: memory must do. Raises OSError, as ``check`` does."""
        try:
            return self.drafts.draft()
        except OSError:
            if self._fails:
                raise
            return None

    async def probe(self) -> str:
        """Put, get, list and delete a test object. Returns what of that fails, empty if nothing does."""
        try:
            name = await self._bucket.try_putting()
        except StorageFailed as failure:
            self._fails = True
            return f"putting an object in images.store fails: {failure.strerror}"
        self._note_success()
        return await self._bucket.try_the_rest(name)

    async def publish(self, draft: Path, facts: Facts) -> StoredPicture:
        """Put a complete draft. If that fails or takes long, it waits in the folder. Raises OSError."""
        stored = await self._folder.publish(draft, facts)
        try:
            # While the storage is known to fail, nobody is kept waiting for it.
            put = not self._fails and await self._put(stored.name)
        except asyncio.CancelledError:  # nobody will ever know its name
            self._folder.release(stored.name)
            self._folder.remove(stored.name)
            raise
        if not put:
            self._waiting[stored.name] = None
        return stored

    async def publish_bytes(self, data: bytes, facts: Facts) -> StoredPicture:
        """Put a picture that is in memory; by way of the folder, if that can be written. Raises OSError."""
        try:
            return await publish_through_draft(self, data, facts)
        except OSError:
            name = self._folder.name_for(secrets.token_hex(16), facts)
            if await self._put_from(name, data):
                return StoredPicture(name, facts, len(data))
            raise

    async def find(self, name: str) -> Found | None:
        """Return what is known of a picture that may still be served, else None. Raises OSError if nobody can tell."""
        found = await self._folder.find(name)
        if not NAME.match(name):
            return found  # of the time before there was a storage
        stored_at = int(name[:8], 16)
        if self._keep_s and stored_at + self._keep_s <= self._clock.wall():
            return None
        # The time in the name, and not a file's or an object's: wherever it is read from, it is the same version.
        size = found.size_bytes if found else await self._size(name)
        return None if size is None else Found(size, stored_at)

    async def open(self, name: str, span: tuple[int, int] | None = None) -> Opened:
        """Open a stored picture. ``span``: its first byte and the one after its last. Raises OSError."""
        if not NAME.match(name):
            return await self._folder.open(name, span)
        if span is None:
            try:
                return Opened((await self._folder.open(name)).size_bytes, self._pieces(name, 0, None))
            except OSError:
                size = await self._size(name)
            if size is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            span = (0, size)
        return Opened(span[1] - span[0], self._pieces(name, *span))

    def pin(self, name: str) -> None:
        """Keep a picture that is still to be delivered, if the folder has it; an object stays for its time anyway."""
        self._folder.pin(name)

    def release(self, name: str) -> None:
        """Note that a picture was delivered, or that nobody will ask for it."""
        self._folder.release(name)
        self._drop(name)

    async def sweep(self) -> None:
        """Put what waits, and remove pictures that are past their time, both in the background."""
        await self._folder.sweep()
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._catch_up())

    async def _begin(self) -> None:
        if problem := await self.probe():
            _log.error("%s", problem)
        await self._put_waiting()

    async def _catch_up(self) -> None:
        if self._fails and not self._waiting:
            await self.probe()
        await self._put_waiting()
        due = self._clock.monotonic() >= self._swept_at + min(_SWEEP_EVERY_S, self._keep_s)
        if self._keep_s and due and not self._fails and await self._may_sweep():
            self._swept_at = self._clock.monotonic()
            try:
                await self._bucket.sweep(int(self._clock.wall() - self._keep_s))
            except StorageFailed as failure:
                _log.warning("removing old pictures from images.store fails: %s", failure.strerror)

    async def _put_waiting(self) -> None:
        while self._waiting:
            names = list(islice(self._waiting, _PUTS_AT_ONCE))
            if not all(await asyncio.gather(*map(self._put_later, names))):
                return

    async def _put_later(self, name: str) -> bool:
        if not (self._folder.directory / name).exists():  # past its time, or removed by somebody
            self._waiting.pop(name, None)
            return True
        try:
            async with asyncio.timeout(_LATER_S):
                put = await self._put(name, patient=True)
        except TimeoutError:
            self._note_failure("putting a picture into images.store takes too long")
            return False
        if put:
            self._waiting.pop(name, None)
            self._drop(name)
        return put

    async def _put(self, name: str, *, patient: bool = False) -> bool:
        return await self._put_from(name, self._prefix + name, patient=patient)

    async def _put_from(self, name: str, source: str | bytes, *, patient: bool = False) -> bool:
        """Put a picture, a file or its bytes. Returns whether that worked."""
        try:
            await self._bucket.put(name, source, patient=patient)
        except StorageFailed as failure:
            self._note_failure(f"putting a picture into images.store fails: {failure.strerror}")
            return False
        self._note_success()
        return True

    def _drop(self, name: str) -> None:
        """Remove a picture from the folder if the storage has it and it is not to be delivered from there."""
        if NAME.match(name) and name not in self._waiting and not self._folder.awaited(name):
            self._folder.remove(name)

    async def _size(self, name: str) -> int | None:
        """Return an object's bytes, None if there is none. Raises OSError when the storage does not tell."""
        try:
            return await self._bucket.size(name)
        except StorageRefused:
            # Who may list some prefixes only hears 403 for what isn't there:
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
            if self._fails:
                raise
            return None

    async def _pieces(self, name: str, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        try:
            opened = await self._folder.open(name, None if stop is None else (start, stop))
            async with contextlib.aclosing(opened.pieces) as pieces:
                async for piece in pieces:
                    start += len(piece)
                    yield piece
        except FileNotFoundError:  # a file that was opened stays readable, so nothing was read yet
            pass
        else:
            return
        async with contextlib.aclosing(self._bucket.pieces(name, start, stop)) as pieces:
            async for piece in pieces:
                yield piece

    def _note_failure(self, told: str) -> None:
        if not self._fails:  # once for each outage
            _log.error("%s; pictures are kept in images.directory meanwhile", told)
        self._fails = True

    def _note_success(self) -> None:
        if self._fails:
            _log.warning("images.store takes pictures again")
        self._fails = False
