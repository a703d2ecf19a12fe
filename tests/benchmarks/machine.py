"""Processes and what they cost: CPU seconds, resident memory, and the limits that thousands of sockets need."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.demo import KEYS

ROOT = Path(__file__).parents[2]
SMALL, ORDINARY = 2_048, 200_000
"""Bytes of a picture: next to nothing, so that all else is seen, and what a picture of a megapixel takes as JPEG."""
FAST_WAITS = {"first": 0.2, "step": 0.2, "factor": 1, "longest": 0.2, "jitter": 0.1, "most": 10**9}
"""The waits that the service keeps when polls cost nothing: its shortest, and up to a tenth more."""
IN_MEMORY = next((path for path in (Path("/dev/shm"),) if path.is_dir()), None)  # noqa: S108 (the kernel's name for it)
FREE_POLLS = 1e-6
"""As ``poll_worth``: the service polls as often as it ever does."""


def raise_limits() -> None:
    """Allow as many open files as the machine does."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Program:
    """A running process and its figures, read from /proc."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._proc = Path(f"/proc/{process.pid}")

    def tell(self, **told: Any) -> dict[str, Any]:
        """Send a JSON line and read the one that comes back."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.read_line())
        return answer

    def read_line(self) -> str:
        """Return the next line of its output; raises RuntimeError when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended: {self.process.wait()}")
        return line

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its threads so far (to the nanosecond; /proc/PID/stat counts in 10 ms)."""
        return sum(int(task.read_text().split()[0]) for task in self._proc.glob("task/*/schedstat")) / 1e9

    def resident_kib(self) -> int:
        """Return its resident memory."""
        return self._status("VmRSS")

    def peak_kib(self) -> int:
        """Return the most that it ever had resident."""
        return self._status("VmHWM")

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _status(self, name: str) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@contextmanager
def started(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run a command from the repository's top, its standard error dropped, and end it in the end."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=None if environment is None else dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    program = Program(process)
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def module(name: str, *arguments: str) -> Iterator[tuple[Program, str]]:
    """Run one of this package's programs; yields it and the address that it prints."""
    with started([sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]) as program:
        yield program, program.read_line().strip()


@contextmanager
def callers() -> Iterator[Program]:
    """Run a load generator."""
    with started([sys.executable, "-m", "tests.benchmarks.load"]) as program:
        yield program


CONFIGURATION = """
[server]
port = 0
max_in_flight = 20000
log = "json"
[timeouts]
poll_worth = {poll_worth}
[state]
path = "{state}"
[images]
directory = "{directory}"
[providers.prodia]
base_url = "{upstream}/v2"
allow_private_hosts = true
image_hosts = ["127.0.0.1"]
max_jobs = 10000
[providers.prodia-v1]
base_url = "{upstream}/v1"
allow_private_hosts = true
image_hosts = ["127.0.0.1"]
max_jobs = 10000
[providers.imagelabs]
enabled = false
"""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", **KEYS}


@contextmanager
def service(
    upstream: str,
    *,
    poll_worth: float = FREE_POLLS,
    folder_in: Path | None = IN_MEMORY,
    state: str = "",
    command: Sequence[str] = ("proxy",),
) -> Iterator[tuple[Program, int]]:
    """Run the service as its users do, before ``upstream``; yields it and its port.

    Its pictures go to memory where there is such a file system: a disk's file system would be measured otherwise. Its
    state is on the disk, as what it is for needs one; ``state``: another path.
    """
    with tempfile.TemporaryDirectory(dir=folder_in) as folder, tempfile.TemporaryDirectory() as disk:
        file = Path(folder) / "config.toml"
        places = {"directory": f"{folder}/pictures", "state": state or f"{disk}/state.sqlite3"}
        file.write_text(CONFIGURATION.format(upstream=upstream, poll_worth=poll_worth, **places))
        with started([sys.executable, "-m", *command, "serve", "--config", str(file)], ENVIRONMENT) as program:
            yield program, port_of(program.read_line().rpartition(" ")[2])


@contextmanager
def floor(upstream: str, waits: Mapping[str, float] = FAST_WAITS) -> Iterator[tuple[Program, int]]:
    """Run the bare program before ``upstream``; yields it and its port."""
    with module("floor", upstream, json.dumps(waits)) as (program, address):
        yield program, port_of(address)


@contextmanager
def both(upstream: str, **settings: Any) -> Iterator[dict[str, tuple[Program, int]]]:
    """Run the service and the floor."""
    with ExitStack() as stack:
        yield {
            "ours": stack.enter_context(service(upstream, **settings)),
            "floor": stack.enter_context(floor(upstream)),
        }


def port_of(address: str) -> int:
    """Return an address's port."""
    port = urlsplit(address.strip()).port
    assert port is not None
    return port


def settle(seconds: float) -> None:
    """Let what was started come to rest."""
    time.sleep(seconds)
