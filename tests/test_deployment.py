"""What a deployment is made of: checked by the programs that read it where they are installed, and held to the code."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy import config
from proxy.config import Timeouts
from tests.test_front import Running, free_port, listening, running, serve

_ROOT = Path(__file__).parents[1]
_UNIT = _ROOT / "deploy/images-proxy.service"
_SECRETS = {"IMAGES_PROXY_KEYS": "sk-first", "POSTGRES_PASSWORD": "secret", "S3_SECRET": "secret"}


def _text(name: str) -> str:
    return (_ROOT / name).read_text(encoding="utf-8")


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def _compose() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not _run(*command, "version").returncode:
            return command
    pytest.skip("no docker compose and no docker-compose on the PATH")


def _service(name: str) -> str:
    """Return what compose.yaml says of a service, or of what services share."""
    below = " " * (len(name) - len(name.lstrip()) + 2)
    found = re.search(rf"^{name}:.*\n((?:{below}.*\n)+)", _text("compose.yaml"), re.MULTILINE)
    assert found is not None
    return found[1]


# --- Docker ------------------------------------------------------------------------------------------------------


def test_compose_understands_its_file() -> None:
    done = _run(*_compose(), "-f", str(_ROOT / "compose.yaml"), "config", **_SECRETS)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("replica1:", "replica2:", "database:", "storage:", "front:"):
        assert re.search(rf"^  {name}$", done.stdout, re.MULTILINE), name


def test_every_secret_is_asked_for() -> None:
    asked = re.findall(r"\$\{(\w+):(.)", _text("compose.yaml"))
    assert {name for name, how in asked if how == "?"} == set(_SECRETS)
    assert not {name for name, how in asked if how != "?"} & set(_SECRETS)


def test_the_replicas_stop_before_docker_loses_patience() -> None:
    grace = re.search(r"stop_grace_period: (\d+)s", _service("x-replica"))
    assert grace is not None
    assert int(grace[1]) > Timeouts().drain + 5
    assert _text("compose.yaml").count("<<: *replica") == 2


def test_the_replicas_configuration_is_valid() -> None:
    named = re.search(r"- \./(\S+):/etc/images-proxy/config\.toml:ro", _service("  replica1"))
    assert named is not None
    settings = config.load(_ROOT / named[1], _SECRETS).settings
    bucket = re.search(r"- pictures:/buckets/(\S+)", _service("  storage"))
    assert bucket is not None
    assert settings.images.store.startswith(f"s3://{bucket[1]}/")
    assert settings.server.host == "0.0.0.0"  # noqa: S104 (inside a container)


def test_the_container_holds_what_is_locked_and_is_not_root() -> None:
    stages = re.split(r"^FROM ", _text("Dockerfile"), flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    build, final = stages
    assert "--require-hashes -r requirements.lock" in build
    assert "pip" not in final
    assert re.search(r"^USER [1-9]\d*$", final, re.MULTILINE)
    for instruction in ("HEALTHCHECK", "VOLUME", "STOPSIGNAL SIGTERM", "EXPOSE 8080"):
        assert re.search(rf"^{instruction}\b", final, re.MULTILINE), instruction
    locked = _text("requirements.lock")
    for extra in ("asyncpg", "obstore"):
        assert re.search(rf"^{extra}==", locked, re.MULTILINE), extra


# --- systemd -----------------------------------------------------------------------------------------------------


def test_systemd_understands_its_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on the PATH")
    unit = tmp_path / _UNIT.name
    # It looks for the program, which is not there.
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", _UNIT.read_text(), flags=re.MULTILINE))
    done = _run("systemd-analyze", "verify", str(unit))
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])


def test_systemd_waits_for_the_drain() -> None:
    patience = re.search(r"^TimeoutStopSec=(\d+)$", _UNIT.read_text(), re.MULTILINE)
    assert patience is not None
    assert int(patience[1]) > Timeouts().drain + 5


# --- the front of several replicas -------------------------------------------------------------------------------


@pytest.fixture
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, list[Running]]]:
    """The port of compose.yaml's front, before two services."""
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("no caddy on the PATH; on Debian: apt-get install caddy")
    with ExitStack() as stack:
        services = []
        for _ in range(2):
            folder = tmp_path_factory.mktemp("replica")
            services.append(stack.enter_context(serve(folder, "", speed=5)))
        port, folder = free_port(), tmp_path_factory.mktemp("front")
        site = _text("deploy/Caddyfile").replace("{$SITE::8080}", f"http://127.0.0.1:{port}")
        for number, (_, address) in enumerate(services, 1):
            site = site.replace(f"replica{number}:8080", address)
        (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
        command = [caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
        listening(port, stack.enter_context(running(command, folder, **homes)))
        yield port, [process for process, _ in services]


def _generate(port: int, prompt: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            "POST", "/v1/images/generations", json.dumps({"prompt": prompt, "model": "imagelabs/sdxl-turbo"})
        )
        answer = connection.getresponse()
        return answer.status, answer.headers["x-images-attempts"]
    finally:
        connection.close()


@pytest.mark.kill
def test_a_replica_that_is_stopped_answers_first_and_the_other_takes_over(
    replicas: tuple[int, list[Running]],
) -> None:
    port, processes = replicas
    with ThreadPoolExecutor(8) as callers:
        held = [callers.submit(_generate, port, f"{number} [seconds:1.5]") for number in range(8)]
        threading.Event().wait(0.3)
        processes[0].send_signal(signal.SIGTERM)
        after = [callers.submit(_generate, port, f"later {number} [seconds:0]") for number in range(8)]
        assert [call.result() for call in held] == [(200, "1")] * 8
        statuses = {call.result()[0] for call in after}
    assert processes[0].wait(timeout=20) == 0
    # One that drains refuses with 503, and says "retry", until the front has noticed.
    assert statuses <= {200, 503}
    assert [_generate(port, f"last {number} [seconds:0]") for number in range(4)] == [(200, "1")] * 4
