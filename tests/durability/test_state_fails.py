"""The state cannot be written: nothing new is bought, and what was bought is answered and written later."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.state.checker import problems
from tests.durability.test_kill import MODELS
from tests.service import Service, running
from tests.time_skip import backend

pytestmark = pytest.mark.anyio
LABS: Final = MODELS["imagelabs"]
_MEGABYTE: Final = 1_048_576


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on the loop that skips idle time."""
    return backend()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("this system lets nobody make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


@pytest.fixture
async def service(small_disk: Path, tmp_path: Path) -> AsyncIterator[Service]:
    state, images = {"path": str(small_disk / "state.sqlite3")}, {"directory": str(tmp_path / "pictures")}
    async with running(state=state, images=images) as service:
        yield service


async def test_on_a_full_disk_nothing_is_bought_until_there_is_room_again(service: Service, small_disk: Path) -> None:
    assert (await service.generate("a fox [tag:t]", model=LABS)).status == 200
    filler = fill(small_disk)
    for model in MODELS.values():
        refused = await service.generate("a hen [tag:t]", model=model)
        assert (refused.status, refused.code) == (503, "state_unavailable")
        assert refused.headers["x-should-retry"] == "true"
        assert refused.headers["retry-after"]
    assert (await service.counts("t"))["submits"] == 1
    filler.unlink()
    assert (await service.generate("a hen [tag:t]", model=LABS)).status == 200
    assert (await service.counts("t"))["submits"] == 2
    assert problems(await service.engine.journal.state.everything()) == []


@pytest.mark.parametrize("kind", MODELS)
async def test_what_was_sent_is_answered_from_memory_and_written_later(
    service: Service, small_disk: Path, kind: str
) -> None:
    prompt = "a fox [seconds:3] [tag:t]"
    call = asyncio.create_task(service.generate(prompt, {"Idempotency-Key": "k"}, model=MODELS[kind]))
    while (await service.counts("t"))["submits"] == 0:  # noqa: ASYNC110 (another server is looked at)
        await asyncio.sleep(0.05)
    filler = fill(small_disk)
    answer = await call
    assert answer.status == 200
    journal = service.engine.journal
    assert journal.behind > 0
    again = await service.generate(prompt, {"Idempotency-Key": "k"}, model=MODELS[kind])
    assert (again.status, again.json["data"]) == (200, answer.json["data"]), "a repeat costs nothing and is served"
    refused = await service.generate("a hen [tag:t]", model=MODELS[kind])
    assert (refused.status, refused.code) == (503, "state_unavailable")
    filler.unlink()
    while journal.behind:  # noqa: ASYNC110 (nobody tells when it is written)
        await asyncio.sleep(0.1)
    found = await journal.state.everything()
    assert [job.state for job in found.jobs] == ["done"]
    assert problems(found) == []
    assert (await service.generate("a hen [tag:t]", model=MODELS[kind])).status == 200
    assert (await service.counts("t"))["submits"] == 2


async def test_a_state_that_was_taken_away_is_not_begun_anew(service: Service, small_disk: Path) -> None:
    file = small_disk / "state.sqlite3"
    file.rename(small_disk / "elsewhere")
    refused = await service.generate("a hen [tag:t]", model=LABS)
    assert (refused.status, refused.code) == (503, "state_unavailable")
    assert not file.exists()
    (small_disk / "elsewhere").rename(file)
    assert (await service.generate("a hen [tag:t]", model=LABS)).status == 200
    assert (await service.counts("t"))["submits"] == 1
