"""A service in a process of its own, stopped, stalled and starved."""

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .wire import PATH, SCHNELL

pytestmark = pytest.mark.realtime
ROOT = Path(__file__).parents[2]
CONFIG = "[timeouts]\ndrain = 1.5\n"


class Process:
    """The demo, as a user starts it."""

    def __init__(self, directory: Path) -> None:
        config = directory / "config.toml"
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "proxy", "serve", "--demo", "--port", "0", "--config", str(config)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().rpartition("Base URL: ")[2].strip().removesuffix("/v1")
        self.answers: dict[str, tuple[int, dict[str, str], Any]] = {}
        self.threads: list[threading.Thread] = []

    def ask(
        self, path: str, values: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        request = urllib.request.Request(  # noqa: S310
            self.url + path, json.dumps(values).encode() if values else None, headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                return response.status, dict(response.headers), json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), json.load(error)

    def generate(self, name: str, seconds: float) -> None:
        """Ask for a picture in the background."""

        def ask() -> None:
            values = {"prompt": f"{name} [seconds:{seconds}]", "model": SCHNELL, "size": "256x256"}
            self.answers[name] = self.ask(PATH, values)

        self.threads.append(threading.Thread(target=ask))
        self.threads[-1].start()

    def in_flight(self) -> float:
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:  # noqa: S310
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("images_proxy_jobs_in_flight{"))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path)
    yield started
    started.process.kill()
    started.process.communicate()


def test_a_drain_lets_short_requests_finish_and_sends_long_ones_away(demo: Process) -> None:
    demo.generate("short", 0.8)
    demo.generate("long", 30)
    while demo.in_flight() < 2:
        pass
    demo.process.send_signal(signal.SIGTERM)
    while (ready := demo.ask("/readyz"))[0] == 200:
        pass
    assert ready[0] == 503
    assert demo.ask("/healthz")[0] == 200
    refused = demo.ask(PATH, {"prompt": "new", "model": SCHNELL})
    for thread in demo.threads:
        thread.join(10)
    assert demo.answers["short"][0] == 200
    for status, headers, body in (refused, demo.answers["long"]):
        assert (status, body["error"]["code"]) == (503, "server_is_overloaded")
        assert body["error"]["type"] == "service_unavailable_error"
        assert headers["content-type"] == "application/json"
        assert headers["x-should-retry"] == "true"
        assert 1 <= int(headers["retry-after"]) <= 30
    assert demo.answers["long"][1]["x-images-generation"].startswith("/v1/images/generations/")
    _, log = demo.process.communicate(timeout=10)
    assert demo.process.returncode == 0
    assert "Traceback" not in log
    assert "never retrieved" not in log
    assert "was destroyed" not in log


@pytest.mark.parametrize("read", [True, False])
def test_a_stop_waits_until_what_was_handed_over_has_been_read(demo: Process, read: bool) -> None:
    values = {"prompt": "a fox [seconds:0.2]", "model": SCHNELL, "size": "256x256"}
    status, headers, _ = demo.ask(PATH, values, {"prefer": "respond-async"})
    assert status == 202
    while demo.in_flight():
        pass
    demo.process.send_signal(signal.SIGTERM)
    while demo.ask("/readyz")[0] == 200:
        pass
    with pytest.raises(subprocess.TimeoutExpired):
        demo.process.wait(0.3)
    if read:
        assert demo.ask(headers["location"])[0] == 200
        demo.process.wait(1.0)
    else:
        demo.process.wait(10)
    assert demo.process.returncode == 0


def scenario(name: str, directory: Path) -> dict[str, Any]:
    """Run a scenario of ``process`` and return what it saw; the process must survive it."""
    command = [sys.executable, "-W", "error", "-m", "tests.faults.process", name, str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_a_blocked_event_loop_recovers_and_repeats_nothing(tmp_path: Path) -> None:
    seen = scenario("blocked", tmp_path)
    assert (seen["status"], seen["next"]["status"]) == (200, 200)
    assert seen["counts"]["submits"] == 1


def test_a_stepped_clock_changes_no_deadline(tmp_path: Path) -> None:
    seen = scenario("stepped", tmp_path)
    assert [answer["status"] for answer in seen["answers"]] == [200, 200]
    assert seen["counts"]["submits"] == 2


def test_a_disk_that_fills_up_while_a_picture_comes_costs_no_second_one(tmp_path: Path) -> None:
    seen = scenario("full", tmp_path)
    for answer in seen["answers"]:
        assert answer["pending"] == {"status": 504, "code": "generation_pending"}
        assert answer["retry"]["status"] == 200
        assert answer["size"] >= 400_000 * 0.99
        assert answer["counts"]["submits"] == 1
    assert seen["drafts"] == 0


def test_without_file_descriptors_it_says_503_and_recovers(tmp_path: Path) -> None:
    seen = scenario("starved", tmp_path)
    assert seen["health"] == 200
    assert (seen["status"], seen["code"]) == (503, "state_unavailable")
    assert seen["counts"]["submits"] == 0
    assert seen["next"]["status"] == 200
