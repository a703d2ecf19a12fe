"""A running demo service and a headless Chromium for the tests of the page."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DEMO = ("--demo", "--demo-speed", "20")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"http://[\w.]+:\d+", line):
            return match.group()
    pytest.fail("the demo ended before it said its address:\n" + "".join(said))


@contextmanager
def served(cache: Path, *arguments: str, demo: bool = True, **environment: str) -> Iterator[str]:
    """Run a service, the demo unless told otherwise, with these arguments and variables; yield its origin."""
    secrets = (
        *("PRODIA_TOKEN", "PRODIA_API_KEY", "IMAGES_PROXY_CONFIG", "IMAGES_PROXY_DATABASE_URL"),
        *("IMAGES_PROXY_KEYS", "IMAGES_PROXY_ADMIN_KEY", "IMAGES_PROXY_METRICS_KEY"),
    )
    inherited = {name: value for name, value in os.environ.items() if name not in secrets}
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", *(DEMO if demo else ()), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "XDG_CACHE_HOME": str(cache),
            "XDG_STATE_HOME": str(cache),
            **environment,
        },
    )
    with process:
        try:
            address = _address(process)
            # A full pipe would stop the service in the middle of a log line.
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a running demo service, without a slash at the end."""
    with served(tmp_path_factory.mktemp("cache")) as address:
        yield address


@pytest.fixture(scope="module")
def keyed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of one that asks for the key ``sk-of-the-page``."""
    with served(tmp_path_factory.mktemp("cache"), IMAGES_PROXY_KEYS="sk-of-the-page") as address:
        yield address


# Not for the whole session: Playwright's event loop counts as running until it stops, and async tests need their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; the tests are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    expect.set_options(timeout=30_000)  # milliseconds: five seconds, the default, are few on a busy machine
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(Path(CHROMIUM)), args=FLAGS)
        yield started
        started.close()
