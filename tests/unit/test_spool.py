"""Uploads in unnamed files: the view outlives its file, and its end may come anywhere."""

import concurrent.futures.thread
import os
import tempfile
import time

from proxy.api.spool import view


def test_a_view_that_ends_while_an_executors_lock_is_held_does_not_wait_for_it() -> None:
    """The collector runs wherever it likes: within ``submit``, for one."""
    with tempfile.TemporaryFile() as file:
        file.write(b"picture")
        seen = view(file, 7)
    assert bytes(seen) == b"picture"
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with concurrent.futures.thread._global_shutdown_lock:
        del seen
    for _ in range(200):
        if len(os.listdir("/proc/self/fd")) < before:  # noqa: PTH208
            return
        time.sleep(0.01)
    raise AssertionError("the file is still open")
