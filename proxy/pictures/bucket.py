"""A bucket of S3-compatible storage, as far as pictures need one. Whatever fails is told in our own words.

An object's key is the prefix and the picture's public name. A name begins with the time of the storing, so a listing,
which is in the order of the keys, has the oldest pictures first.
"""

import errno
import os
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from proxy.pictures.store import PIECE_BYTES, cache_control

NAME = re.compile(r"[0-9a-f]{40}\.(png|jpg|webp)\Z")
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_QUICK_S, _PATIENT_S, _CONNECT_S = 5, 600, 3
"""How long a caller waits for the storage; how long a picture may take that is sent on as fast as its reader reads."""
_SINGLE_PUT_BYTES = 16_777_216
"""Larger ones are put in parts of this size."""
_FAILED = (BaseError, OSError)
"""What obstore raises. A missing object, or bucket, is Python's FileNotFoundError."""


class StorageFailed(OSError):
    """The storage did not do what it was asked. ``strerror`` says why, without its addresses and names."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


class StorageRefused(StorageFailed):
    """The storage does not accept the credentials, or they don't allow this."""


class _File:
    """A path. To build one of pathlib's takes a third of the time that a put takes in the event loop."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path


class Bucket:
    """The objects at ``address``, an ``s3://bucket/prefix``; the AWS_* variables say where that is.

    ``keep_s``: what caches are told, as for all pictures. Raises OSError when the variables make no sense.
    """

    def __init__(self, address: str, keep_s: float) -> None:
        self._quick, self._patient = _open(address, _QUICK_S), _open(address, _PATIENT_S)
        cache = cache_control(keep_s)
        self._attributes = {ending: {"Content-Type": kind, "Cache-Control": cache} for ending, kind in _TYPES.items()}

    async def put(self, name: str, source: str | bytes, *, patient: bool = False) -> None:
        """Put a picture, a file or its bytes, over what is there; ``patient``: however long it takes.

        Raises StorageFailed.
        """
        try:
            await obstore.put_async(
                self._patient if patient else self._quick,
                name,
                _File(source) if isinstance(source, str) else source,  # type: ignore[arg-type]  # any path will do
                attributes=self._attributes[name[name.rindex(".") + 1 :]],
                chunk_size=_SINGLE_PUT_BYTES,
            )
        except _FAILED as error:
            raise _failure(error) from None

    async def size(self, name: str) -> int | None:
        """Return an object's bytes, None if there is none. Raises StorageFailed."""
        try:
            return (await obstore.head_async(self._quick, name))["size"]
        except FileNotFoundError:
            return None
        except _FAILED as error:
            raise _failure(error) from None

    async def pieces(self, name: str, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        """Yield an object's bytes in pieces of PIECE_BYTES, the last one shorter. Raises StorageFailed.

        What stands before ``start`` is read as well: not every server can skip it.
        """
        rest, position = bytearray(), 0
        try:
            result = await obstore.get_async(self._patient, name)
            stop = result.meta["size"] if stop is None else stop
            async for received in result.stream(min_chunk_size=PIECE_BYTES):
                rest += received[max(0, start - position) : max(0, stop - position)]
                position += len(received)
                while len(rest) > PIECE_BYTES:
                    yield bytes(rest[:PIECE_BYTES])
                    del rest[:PIECE_BYTES]
                if position >= stop:
                    break
        except _FAILED as error:
            raise _failure(error) from None
        if rest:
            yield bytes(rest)

    async def sweep(self, oldest_kept: int) -> None:
        """Remove the pictures stored before that Unix time; other objects stay. Raises StorageFailed."""
        limit = f"{oldest_kept:08x}"
        try:
            async for page in obstore.list(self._quick, chunk_size=1000):
                names = [entry["path"] for entry in page]
                expired = [name for name in names if NAME.match(name) and name < limit]
                if expired:
                    # To delete what another replica has deleted is no failure in S3.
                    await obstore.delete_async(self._quick, expired)
                if names and names[-1] >= limit:
                    return
        except _FAILED as error:
            raise _failure(error) from None

    async def try_putting(self) -> str:
        """Put a test object. Returns its name. Raises StorageFailed."""
        name = f"check-{secrets.token_hex(8)}"
        try:
            await obstore.put_async(self._quick, name, b"?")
        except _FAILED as error:
            raise _failure(error) from None
        return name

    async def try_the_rest(self, name: str) -> str:
        """Get, list and delete the test object. Returns what of that fails, empty if nothing does."""
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "getting": lambda: obstore.get_async(self._quick, name),
            "listing": lambda: anext(obstore.list(self._quick, chunk_size=1)),
            "deleting": lambda: obstore.delete_async(self._quick, name),
        }
        for step, call in steps.items():
            try:
                await call()
            except (*_FAILED, StopAsyncIteration) as error:
                return f"{step} an object in images.store fails: {_failure(error).strerror}"
        return ""


def _open(address: str, timeout_s: int) -> S3Store:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    endpoints = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    options = {"connect_timeout": f"{_CONNECT_S}s", "timeout": f"{timeout_s}s"}
    if any(endpoint.startswith("http://") for endpoint in endpoints):
        options["allow_http"] = os.environ.get("AWS_ALLOW_HTTP", "true")
    try:
        return S3Store(
            bucket,
            prefix=prefix.strip("/") or None,
            client_options=options,  # type: ignore[arg-type]
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=_QUICK_S)},
        )
    except BaseError as error:
        raise OSError(f"images.store: the AWS_* variables make no sense ({type(error).__name__})") from None


def _failure(error: BaseException) -> StorageFailed:
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StorageRefused("it refuses the credentials, or what they may do")
    if isinstance(error, FileNotFoundError):
        return StorageFailed("there is no such bucket")
    return StorageFailed("it cannot be reached, or does not work")
