"""Nothing that a service says of itself repeats a key, a token or a prompt, whatever goes wrong."""

import asyncio
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import logs
from proxy.app import create_app
from proxy.config import compose
from proxy.server.process import serving
from proxy.simulator import create_simulator
from tests.service import Service, simulated_providers
from tests.time_skip import backend, clock

pytestmark = pytest.mark.anyio

KEY, TOKEN, OTHER_TOKEN = "canary-key-e2a1", "canary-token-7c55", "canary-token-19f0"
PROMPT, WRONG, QUERY, NAME = "canary prompt 4b1d", "canary-wrong-0d3e", "canary-query-88a2", "canary-name-63cc"
CANARIES = (KEY, TOKEN, OTHER_TOKEN, PROMPT, WRONG, QUERY, NAME)
FAULTS = ("drop", "500", "503", "401", "unsafe", "busy:9:0", "no-capacity", "invalid", "invalid:detail", "no-picture",
          "broken-multipart", "no-job", "not-json",
          "failed", "not-a-picture", "huge:json", "cut:submit", "bad-url:https://evil.test/x.png", "gone")  # fmt: skip
MODELS = (
    "prodia/inference.flux-fast.schnell.txt2img.v2",
    "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]",
    "prodia-legacy/dreamshaper_8.safetensors [9d40847d]",
    "imagelabs/sdxl-turbo",
)


@pytest.fixture
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    return backend(skip=not full)


@pytest.fixture(params=["json", "text"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged: by the service in its own form, by the libraries from DEBUG on."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger, root = logging.getLogger("proxy"), logging.getLogger()
    before = (logger.handlers[:], logger.propagate, logger.level, root.level)
    logs.set_up(request.param)
    everything = logging.StreamHandler(stream)
    root.addHandler(everything)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(everything)
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])
    root.setLevel(before[3])


class Witness:
    """Asks, and keeps all that is answered but pictures."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.heard: list[str] = []
        self.statuses: set[int] = set()

    async def ask(self, method: str, path: str, *, key: str = KEY, **options: Any) -> None:
        headers = {"authorization": f"Bearer {key}", **options.pop("headers", {})}
        async with self.service.http.request(method, self.service.url + path, headers=headers, **options) as response:
            self.statuses.add(response.status)
            self.heard.append(repr(response.headers))
            self.heard.append((await response.read()).decode("latin-1"))

    async def generate(self, model: str, prompt: str, **values: Any) -> None:
        await self.ask("POST", "/v1/images/generations", json={"model": model, "prompt": prompt, **values})


async def test_nothing_secret_is_ever_said(log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.generations.results._FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("proxy.jobs.breaker._IN_A_ROW", 1000)
    monkeypatch.setattr("proxy.jobs.breaker._LEAST_CALLS", 1000)
    monkeypatch.setattr("proxy.jobs.schedule.SHORTEST_S", 0.01)
    monkeypatch.setattr("proxy.jobs.schedule.LONGEST_S", 0.02)
    monkeypatch.setattr("proxy.jobs.poll._POLL_BACKOFF_S", 0.01)
    async with serving(
        create_simulator(keys={"prodia": TOKEN, "prodia-v1": OTHER_TOKEN}, clock=clock())
    ) as upstream_port:
        upstream = f"http://127.0.0.1:{upstream_port}"
        values = {
            "providers": simulated_providers(upstream, max_jobs=100),
            "images": {"directory": str(tmp_path / "pictures")},
            "state": {"path": str(tmp_path / "state.sqlite3")},
            "timeouts": {"hold": 2},
        }
        environment = {"PRODIA_TOKEN": TOKEN, "PRODIA_API_KEY": OTHER_TOKEN, "IMAGES_PROXY_KEYS": f"{KEY},spare"}
        configuration = compose(values, environment)
        app = create_app(configuration, clock())
        engine = app.state.waiting.engine
        async with serving(app) as port, aiohttp.ClientSession() as http:
            witness = Witness(Service(f"http://127.0.0.1:{port}", upstream, engine, http))
            prompts = [f"{PROMPT} [seconds:0]", *(f"{PROMPT} [seconds:0] [fault:{fault}]" for fault in FAULTS)]
            await asyncio.gather(*(witness.generate(m, prompt, user=NAME) for m in MODELS for prompt in prompts))
            await _be_a_nuisance(witness)

            async def fail(*_: object) -> None:
                raise ValueError(PROMPT)

            monkeypatch.setattr(engine._results, "deliverable", fail)
            await witness.generate(MODELS[0], f"{PROMPT} [seconds:0] again")
            await witness.ask("GET", "/metrics")
            shown = [
                *map(repr, engine.generations),
                repr(vars(engine)),
                repr(configuration),
                repr(configuration.settings),
            ]
            parts = (app.state.waiting, engine.generations, engine.journal, engine._results, engine.routing)
            shown += [repr(vars(part)) for part in parts]
            kept = await engine.journal.state.everything()
            files = _written(tmp_path)
            shown += [repr(runtime) for runtime in engine.runtimes.values()]
    assert {200, 400, 401, 404, 429, 500, 502} <= witness.statuses
    said = {"log": log.getvalue(), "answers": "\n".join(witness.heard), "repr": "\n".join(shown), "state": files}
    assert len(kept.jobs) > len(MODELS) * len(FAULTS) / 2
    assert all(row.id in files for row in kept.generations), "nothing that was written is left out of the search"
    assert said["log"].count("create_image") > len(MODELS) * len(FAULTS)
    assert "ValueError" in said["log"], "the cause of what was unforeseen is told, without its words"
    found = [(place, canary) for place, text in said.items() for canary in CANARIES if canary in text]
    assert not found


def _written(folder: Path) -> str:
    """Return the state's files as they are on the disk, what was removed included."""
    return "".join(path.read_bytes().decode("latin-1") for path in folder.glob("state.sqlite3*"))


async def _be_a_nuisance(witness: Witness) -> None:
    """Bring secrets where they don't belong."""
    path = "/v1/images/generations"
    await witness.ask("POST", f"{path}?api_key={QUERY}", json={"prompt": PROMPT, "n": 99})
    await witness.ask("POST", path, key=WRONG, json={"prompt": PROMPT})
    await witness.ask("POST", path, data=f'{{"prompt": "{PROMPT}", broken')
    await witness.ask("POST", path, json={"prompt": [PROMPT]})
    await witness.ask("POST", path, json={"prompt": PROMPT * 3000})
    await witness.ask("POST", path, json={"prompt": PROMPT, "size": PROMPT})
    await witness.ask("POST", path, json={"prompt": PROMPT}, headers={"api-key": WRONG, "content-encoding": "gzip"})
    await witness.ask("POST", path, json={"prompt": PROMPT}, headers={"idempotency-key": QUERY * 99})
    await witness.ask("GET", "/v1/images/generations/imggen_0")
    await witness.ask("GET", "/v1/models")
    await witness.ask("DELETE", path)
