"""The recipes of docs/operations.md for reverse proxies, tried with the programs themselves before a real service."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest

_ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^```(nginx|caddy)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_START_S = 20
_UPSTREAM = "127.0.0.1:8080"
_PICTURED = "imagelabs/sdxl-turbo"
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {recipe}
    }}
}}
"""


Running: TypeAlias = "subprocess.Popen[str]"


def _recipe(program: str, path: str) -> str:
    """Return the recipe for a program: at the root of a site, or below ``path``."""
    page = (_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    found = [text for name, text in _FENCED.findall(page) if name == program and ("/pictures/" in text) == bool(path)]
    assert len(found) == 1, f"one recipe for {program} with path {path!r}"
    return str(found[0])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listening(port: int, process: Running) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.02)
        else:
            return


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator[Running]:
    with (folder / "err.txt").open("w") as err:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=err, text=True
        )
        with process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextmanager
def serve(folder: Path, settings: str, speed: float) -> Iterator[tuple[Running, str]]:
    """Run a demo with ``settings``; yields it and its host and port. Its log is ``err.txt`` in ``folder``."""
    (folder / "config.toml").write_text(settings, encoding="utf-8")
    options = ["--demo", "--demo-speed", str(speed), "--port", "0", "--config", "config.toml"]
    python = [sys.executable, "-m", "proxy", "serve", *options]
    with running(python, folder, PYTHONPATH=str(_ROOT), PYTHONUNBUFFERED="1") as service:
        assert service.stdout is not None
        found = re.search(r"http://([\w.]+:\d+)", service.stdout.readline())
        assert found is not None
        yield service, found[1]


@dataclass(slots=True)
class _Front:
    """A service behind a front; ``base`` is the path below which the front serves it."""

    port: int
    base: str
    log: Path
    opened: list[http.client.HTTPConnection] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Make a call to the front; ``path`` is the whole path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.opened.append(connection)
        data = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, data, headers or {})
        return connection.getresponse()

    def generate(self, headers: dict[str, str] | None = None, **body: Any) -> http.client.HTTPResponse:
        return self.ask("POST", f"{self.base}/v1/images/generations", body, headers)

    def lines(self) -> list[dict[str, Any]]:
        """Return the service's log."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]


@contextmanager
def _front(program: str, path: str, folder: Path) -> Iterator[_Front]:
    """Run a program with its recipe, before a service."""
    executable = shutil.which(program, path=os.environ["PATH"] + os.pathsep + "/usr/sbin")
    if executable is None:
        pytest.skip(f"no {program} on the PATH; on Debian: apt-get install {program}")
    port = free_port()
    public = f'[server]\npublic_url = "http://127.0.0.1:{port}{path}"\n' if path else ""
    (folder / "service").mkdir()
    with serve(folder / "service", public, speed=5) as (_, address):
        recipe = _recipe(program, path).replace(_UPSTREAM, address)
        if program == "nginx":
            file = folder / "nginx.conf"
            file.write_text(_NGINX.format(folder=folder, port=port, recipe=recipe), encoding="utf-8")
            command = [executable, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
        else:
            file = folder / "Caddyfile"
            site = re.sub(r"^\S*example\.org", f"http://127.0.0.1:{port}", recipe, count=1, flags=re.MULTILINE)
            file.write_text(f"{{\n    admin off\n}}\n{site}", encoding="utf-8")
            command = [executable, "run", "--config", str(file), "--adapter", "caddyfile"]
        homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
        with running(command, folder, **homes) as process:
            listening(port, process)
            front = _Front(port, path, folder / "service/err.txt")
            yield front
            for connection in front.opened:
                connection.close()


def _a_picture_is_made_and_its_address_leads_to_it(front: _Front) -> None:
    answer = front.generate(prompt="a [seconds:0]", response_format="url")
    assert answer.status == 200
    address = urlsplit(json.load(answer)["data"][0]["url"])
    assert (address.netloc, address.path.startswith(f"{front.base}/images/")) == (f"127.0.0.1:{front.port}", True)
    picture = front.ask("GET", address.path, headers={"range": "bytes=0-3"})
    assert (picture.status, len(picture.read())) == (206, 4)
    assert picture.headers["cache-control"].endswith("immutable")
    assert picture.headers["content-range"].startswith("bytes 0-3/")


def _events_come_when_they_happen(front: _Front) -> None:
    began = time.monotonic()
    answer = front.generate(prompt="a [seconds:1]", model=_PICTURED, stream=True, partial_images=2)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [(line, time.monotonic() - began) for line in answer if line.startswith(b"event:")]
    assert events[-1][0].strip().endswith(b"completed")
    assert len(events) > 1
    # The first comes while the picture is being made: nothing on the way waits for the end.
    assert events[0][1] < events[-1][1] - 0.1


def _a_large_upload_passes(front: _Front) -> None:
    boundary = "b0undary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na [seconds:0]\r\n'
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    data = head.encode() + bytes(30_000_000) + f"\r\n--{boundary}--\r\n".encode()
    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    answer = front.ask("POST", f"{front.base}/v1/images/edits", data, kind)
    told = json.load(answer)["error"]
    assert (answer.status, told["param"]) == (400, "image")  # it arrived, and is no picture


def _a_caller_that_leaves_is_noticed(front: _Front) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    body = json.dumps({"prompt": "leaving [seconds:5]", "model": _PICTURED})
    connection.request("POST", f"{front.base}/v1/images/generations", body)
    threading.Event().wait(0.5)
    connection.close()
    deadline = time.monotonic() + 4
    while not any(line.get("status") == 499 for line in front.lines()):
        assert time.monotonic() < deadline, "the service believes that somebody waits"
        time.sleep(0.02)


def _a_generation_that_was_handed_over_is_found(front: _Front) -> None:
    answer = front.generate({"prefer": "respond-async"}, prompt="later [seconds:0]", model=_PICTURED)
    assert answer.status == 202
    address = urlsplit(answer.headers["location"]).path
    assert address.startswith(f"{front.base}/v1/images/generations/")
    deadline = time.monotonic() + 10
    while (found := front.ask("GET", address)).status == 202:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found.status == 200


def _what_the_service_says_of_trouble_arrives(front: _Front) -> None:
    answer = front.generate(prompt="a [fault:drop]")
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert json.load(answer)["error"]["code"] == "submit_outcome_unknown"


_CHECKS = [
    _a_picture_is_made_and_its_address_leads_to_it,
    _events_come_when_they_happen,
    _a_large_upload_passes,
    _a_caller_that_leaves_is_noticed,
    _a_generation_that_was_handed_over_is_found,
    _what_the_service_says_of_trouble_arrives,
]


@pytest.mark.parametrize("path", ["", "/pictures"], ids=["root", "below a path"])
@pytest.mark.parametrize("program", ["nginx", "caddy"])
def test_a_recipe_keeps_what_the_service_promises(program: str, path: str, tmp_path: Path) -> None:
    # All at once, since they mostly wait.
    with _front(program, path, tmp_path) as front, ThreadPoolExecutor(len(_CHECKS)) as callers:
        done = {check.__name__: callers.submit(check, front) for check in _CHECKS}
        assert {name: repr(call.exception()) for name, call in done.items() if call.exception()} == {}
