"""Which store pictures go to: a folder, or S3-compatible storage with the folder for what that does not take."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from proxy.clock import Clock
from proxy.pictures.directory import PictureDirectory
from proxy.pictures.store import ImageSettings, PictureStore, always


def store_for(
    settings: ImageSettings, directory: Path, clock: Clock, may_sweep: Callable[[], Awaitable[bool]] = always
) -> PictureStore:
    """Return the store that ``settings`` name. Raises OSError when the AWS_* variables make no sense.

    ``may_sweep`` is asked before each sweep of what several replicas share.
    """
    folder = PictureDirectory(
        directory, keep_s=settings.keep, max_bytes=settings.max_bytes, clock=clock, dated=bool(settings.store)
    )
    if not settings.store:
        return folder
    from proxy.pictures.s3 import S3Pictures  # noqa: PLC0415 (an extra, for those who use it)

    return S3Pictures(settings.store, folder, keep_s=settings.keep, clock=clock, may_sweep=may_sweep)
