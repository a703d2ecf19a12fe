"""Three replicas behind a round-robin front, one of them always dying, frozen or coming back; the database as well.

Callers are OpenAI's own SDK with eight retries. Each intent is one picture that somebody wants, however often it is
asked for: no more may be billed than there are intents, and everybody ends with the picture or an honest refusal.
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx2
import openai
import pytest

from proxy.pictures.drafts import SUFFIX
from proxy.server.process import serving
from proxy.simulator import create_simulator
from proxy.state.checker import problems
from proxy.state.postgres.engine import open_postgres
from proxy.state.records import Everything
from proxy.state.transitions import OPEN
from tests.durability.process import ROOT, Process
from tests.object_store import BUCKET, ObjectStore, object_store
from tests.replicas.front import front
from tests.replicas.parts import LABS, SCHNELL
from tests.state import database
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.realtime]

REPLICAS: Final = 3
CALLERS: Final = 12
KEEP_S: Final = 30
FROZEN_S: Final = 20.0
STUCK_S: Final = 30.0
FAULTS: Final = ("busy:1:0.01", "drop", "500", "failed", "no-picture", "not-a-picture", "unsafe", "no-job", "503")
POLLED_FAULTS: Final = ("gateway:1", "drop:poll:1", "failed", "no-picture", "busy:1:0.01", "drop")
HONEST: Final = frozenset(
    {
        "submit_outcome_unknown",
        "image_generation_failed",
        "provider_bad_response",
        "provider_bad_result",
        "provider_busy",
        "provider_rejected",
        "provider_unavailable",
        "content_policy_violation",
        "job_lost",
        "server_is_overloaded",
        "state_unavailable",
        "project_spend_limit_exceeded",
    }
)
"""What a caller may hear besides the picture."""
SPENT: Final = "project_spend_limit_exceeded"
LIMITED: Final = 30
"""Pictures that one of the keys may make."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Other processes are waited for."""
    return backend(skip=False)


@dataclass
class Cluster:
    """Replicas on one database and one store. ``down``: the one that is being treated badly."""

    processes: list[Process]
    server: Any
    url: str
    objects: ObjectStore
    upstream: str
    random: Random
    front: str = ""
    happened: list[str] = field(default_factory=list)

    def ports(self) -> list[int]:
        return [process.port for process in self.processes]

    async def kill(self, process: Process) -> None:
        await process.kill()
        await asyncio.sleep(self.random.uniform(0.2, 2.0))
        await self.start(process)

    async def start(self, process: Process) -> None:
        """Start it, as whoever supervises it does: again, as long as it ends because the database is away."""
        for _ in range(5):
            await process.start(wait=False)
            try:
                await process.ready()
            except AssertionError:
                await asyncio.sleep(1)
            else:
                return
        raise AssertionError(process.errors)

    async def freeze(self, process: Process) -> None:
        assert process._process is not None
        process._process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        process._process.send_signal(signal.SIGCONT)

    async def restart_database(self) -> None:
        await asyncio.to_thread(database.restart, self.server, self.random.choice(["fast", "immediate"]))

    async def misfortune(self, every_s: float, enough: asyncio.Event) -> None:
        """Treat one replica after the other badly, never two at a time, and the database in between."""
        for number in count():
            if enough.is_set():
                return
            process = self.processes[number % REPLICAS]
            what = ("freeze", "kill", "database", "kill")[number % 4]
            self.happened.append(f"{what} {number % REPLICAS}")
            if what == "database":
                await self.restart_database()
            else:
                await (self.freeze if what == "freeze" else self.kill)(process)
            await asyncio.sleep(every_s)

    async def everything(self) -> Everything:
        state = await open_postgres(self.url, adopt=False)
        try:
            return await state.everything()
        finally:
            await state.close()

    async def new_key(self, name: str, *options: str) -> str:
        """Make a key with the command."""
        process = self.processes[0]
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "keys", "create", name, *options, "--json",
            "--config", str(process.configure()), cwd=ROOT, env=process.whole_environment,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, _ = await command.communicate()
        return str(json.loads(told)["key"])


@dataclass
class Crowd:
    """Callers. ``intents``: by the tag of their prompts."""

    cluster: Cluster
    keys: dict[str, str]
    intents: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    requests: int = 0
    _numbers: Iterator[int] = field(default_factory=count)

    @asynccontextmanager
    async def sdk(self, name: str, timeout_s: float) -> AsyncIterator[openai.AsyncOpenAI]:
        async def counted(_request: httpx2.Request) -> None:
            self.requests += 1

        http = httpx2.AsyncClient(event_hooks={"request": [counted]}, timeout=timeout_s)
        url = f"{self.cluster.front}/v1"
        async with openai.AsyncOpenAI(
            base_url=url, api_key=self.keys[name], max_retries=8, http_client=http, timeout=timeout_s
        ) as sdk:
            yield sdk

    async def come(self, enough: asyncio.Event) -> None:
        """Be one caller after the other."""
        while not enough.is_set():
            await self.intend(next(self._numbers))

    async def intend(self, number: int) -> None:
        """Want a picture, or the same picture as somebody else at the same time, and insist on it."""
        chance = self.cluster.random
        model = chance.choice([LABS, SCHNELL])
        fault = ""
        if chance.random() < 0.2:
            fault = f"[fault:{chance.choice(POLLED_FAULTS if model == LABS else FAULTS)}]"
        equals = 3 if chance.random() < 0.1 else 1
        tag = f"i{number}"
        self.intents[tag] += equals
        prompt = f"a fox {number} [tag:{tag}] [seconds:{chance.choice([0.0, 0.3, 2.0])}] [bytes:3000] {fault}"
        body: dict[str, Any] = {
            "prompt": prompt,
            "model": model,
            "size": "256x256",
            "response_format": chance.choice(["b64_json", "url"]),
        }
        name = chance.choices(["rich", "limited"], [6, 1])[0]
        if equals == 1 and chance.random() < 0.2:
            body["extra_headers"] = {"Idempotency-Key": tag}
        if chance.random() < 0.1:
            body["stream"] = True
        # An impatient one hangs up and asks again; one who is refused each time would end by hanging up itself.
        timeout_s = 60.0 if fault == "[fault:503]" else chance.choice([5.0, 12.0, 60.0])
        await asyncio.gather(*(self.insist(tag, name, body, timeout_s) for _ in range(equals)))

    async def insist(self, tag: str, name: str, body: dict[str, Any], timeout_s: float) -> None:
        async with self.sdk(name, timeout_s) as sdk:
            try:
                answer = await sdk.images.generate(**body)
                if body.get("stream"):
                    kinds = [event.type async for event in answer]
                    assert kinds[-1] == "image_generation.completed"
                self.ends["picture"] += 1
                self.pictures[name] += 1
            except openai.APIStatusError as refusal:
                code = str(refusal.code)
                self.ends[code] += 1
                if code not in HONEST:
                    self.wrong.append(f"{tag}: {refusal.status_code} {code} {refusal.message} {body}")
            except openai.APIConnectionError as error:
                self.ends[type(error).__name__] += 1
                self.wrong.append(f"{tag}: {error!r} {body}")
            except (openai.APIError, httpx2.HTTPError) as error:
                # A stream that had begun: what the SDK doesn't repeat, its caller hears as an error.
                self.ends["stream"] += 1
                if not body.get("stream"):
                    self.wrong.append(f"{tag}: {error!r} {body}")


@pytest.fixture
async def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        upstream = f"http://127.0.0.1:{await stack.enter_async_context(serving(create_simulator(speed=20.0)))}"
        # Not in pytest's own folder, whose path is too long for a socket.
        short = tempfile.TemporaryDirectory(prefix="images-proxy-chaos-", ignore_cleanup_errors=True)
        server = database.start(Path(stack.enter_context(short)) / "postgres")
        stack.callback(server.cleanup)
        (tmp_path / "objects").mkdir()
        objects = stack.enter_context(object_store(tmp_path / "objects"))
        url = await database.create(server, "state")
        processes = []
        for number in range(REPLICAS):
            folder = tmp_path / f"replica-{number}"
            folder.mkdir()
            images: dict[str, Any] = {
                "store": f"s3://{BUCKET}/p",
                "directory": str(folder / "pictures"),
                "keep": KEEP_S,
            }
            environment = {**objects.environment, "IMAGES_PROXY_DATABASE_URL": url}
            tables: dict[str, dict[str, Any]] = {"images": images, "timeouts": {"lifetime": 60, "hold": 60}}
            process = Process(folder, upstream, tables=tables, environment=environment)
            stack.push_async_callback(process.kill)
            processes.append(process)
        seed = request.config.getoption("--soak-seed")
        found = Cluster(processes, server, url, objects, upstream, Random(seed))  # noqa: S311
        for process in processes:
            await found.start(process)
        found.front = await stack.enter_async_context(front(found.ports))
        yield found


async def eventually(what: str, within_s: float, holds: Any) -> None:
    until = time.monotonic() + within_s
    while (found := await holds()) and time.monotonic() < until:  # noqa: ASYNC110 (other processes are looked at)
        await asyncio.sleep(0.5)
    assert not found, (what, found)


async def run(cluster: Cluster, requests: int, every_s: float, least_s: float) -> None:
    keys = {
        "rich": await cluster.new_key("rich", "--budget", "1000/month"),
        "limited": await cluster.new_key("limited", "--pictures", f"{LIMITED}/total"),
    }
    await asyncio.sleep(5.5)  # every replica has read of them by then
    crowd = Crowd(cluster, keys)
    enough = asyncio.Event()
    began = time.monotonic()
    callers = [asyncio.create_task(crowd.come(enough)) for _ in range(CALLERS)]
    misfortune = asyncio.create_task(cluster.misfortune(every_s, enough))
    while crowd.requests < requests or time.monotonic() - began < least_s:
        await asyncio.sleep(0.2)
        assert not misfortune.done(), misfortune.result()
    enough.set()
    await asyncio.gather(misfortune, *callers)
    told = (crowd.requests, cluster.happened, crowd.ends)
    print(*told, f"{time.monotonic() - began:.0f} s", sep="\n")  # noqa: T201 (the figures of a long run)

    async def unfinished() -> list[str]:
        return [str(job.id) + job.state for job in (await cluster.everything()).jobs if job.state in OPEN]

    await eventually("jobs are stuck", STUCK_S, unfinished)
    everything = await cluster.everything()
    assert problems(everything) == []
    billed = {}
    async with httpx2.AsyncClient() as http:
        for tag, intents in crowd.intents.items():
            started = (await http.get(f"{cluster.upstream}/_counts", params={"tag": tag})).json()["started"]
            if started > intents:
                billed[tag] = (started, intents)
    assert billed == {}, told
    limits = [row for row in everything.spend if row.scope.startswith("key:") and row.period == "total"]
    used = sum(row.spent_pictures + row.unknown_pictures + row.reserved_pictures for row in limits)
    assert used <= LIMITED
    assert crowd.pictures["limited"] <= LIMITED
    assert crowd.wrong == [], told

    async def left_over() -> list[str]:
        folders = [process.folder / "pictures" for process in cluster.processes]
        # A draft that a killed process was writing is removed by a later one, when it is surely nobody's.
        kept = [path.name for folder in folders for path in folder.iterdir() if path.suffix not in (SUFFIX, ".json")]
        return [*kept, *cluster.objects.objects()]

    await eventually("pictures are left over", 2 * KEEP_S + 60, left_over)


@pytest.mark.kill
async def test_a_short_while(cluster: Cluster) -> None:
    await run(cluster, 250, 3.0, 50.0)


@pytest.mark.soak
@pytest.mark.skipif("not config.getoption('--full')", reason="takes minutes")
async def test_two_thousand_requests(cluster: Cluster) -> None:
    await run(cluster, 2000, 8.0, 240.0)
