"""A process that is killed while it works: what it was told is written is there, and each job does what it must."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from proxy.state.checker import problems
from proxy.state.operations import StateUnusable
from proxy.state.records import JobId
from proxy.state.sqlite.engine import open_sqlite
from tests.state.process import POINTS

pytestmark = [pytest.mark.anyio, pytest.mark.kill]
ROOT = Path(__file__).parents[2]
KILLS = 3


def process(where: Path | str, what: str, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.state.process", str(where), what, *more]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_killed_after_each_write(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite3"
    with process(file, "points") as worker:
        assert worker.stdout is not None
        told = [line.split() for line in iter(worker.stdout.readline, "ready -\n")]
        with pytest.raises(StateUnusable, match="already"):
            open_sqlite(file, exclusive=True)
        worker.kill()
    last = {generation: step for step, generation in told}
    state = open_sqlite(file, exclusive=True)
    await state.register("next")
    recovered = await state.recover("next", [])
    by_step = {step: generation for generation, step in last.items()}
    assert sorted(by_step) == sorted(set(POINTS) - {"nothing"})
    assert recovered.jobs == (JobId(by_step["accept"], 0),)
    assert recovered.follow[0].jobs[0].handle == '{"id": 1}'
    assert [job.generation for job in recovered.unknown] == [by_step["submit"]]
    assert recovered.released == 1
    ends = {}
    for step, generation in by_step.items():
        found = await state.by_idempotency_key("k1", f"key {step}")
        assert found is not None
        assert found.row.id == generation
        assert not found.waited_for
        ends[step] = (found.row.ended_as, found.row.delivered is not None)
    assert ends == {
        "start": ("again", False),
        "submit": ("unknown", False),
        "accept": (None, False),
        "finish": ("ok", False),
        "deliver": ("ok", True),
    }
    assert problems(await state.everything()) == []
    await state.close()


async def test_killed_under_load_again_and_again(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, and every balance agrees with its rows."""
    file, random, told = tmp_path / "state.sqlite3", Random(5), []  # noqa: S311
    for _ in range(KILLS):
        with process(file, "load") as worker:
            assert worker.stdout is not None
            lines = [worker.stdout.readline() for _ in range(random.randrange(20, 60))]
            worker.kill()
            lines += worker.stdout.read().splitlines(keepends=True)
        told += [line.split() for line in lines if line.endswith("\n")]
        state = open_sqlite(file, exclusive=True)
        await state.register("next")
        recovered = await state.recover("next", [])
        assert not recovered.more
        for job in recovered.jobs:
            assert (await state.finish(job, 1, "late")).applied
        everything = await state.everything()
        assert problems(everything) == []
        assert all(row.ended is not None for row in everything.generations)
        await state.close()
    jobs = {str(job.id): job.state for job in everything.jobs}
    generations = {row.id for row in everything.generations}
    counted = Counter(step for step, _ in told)
    assert counted["finish"] > KILLS
    assert {name for step, name in told if step == "start"} <= generations
    assert {jobs[name] for step, name in told if step == "accept"} <= {"done", "lost"}
    # One start per caller, and what it has not yet read the answer of, may be there without having been told.
    assert len(generations) <= counted["start"] + KILLS * 8


async def test_a_full_disk(tmp_path: Path) -> None:
    """Operations fail without a trace, and work again when there is room."""
    with process(tmp_path / "state.sqlite3", "full") as worker:
        output, _ = await asyncio.to_thread(worker.communicate, timeout=60)
    assert worker.returncode == 0
    steps = [line.split()[0] for line in output.splitlines()]
    assert steps == ["start", "submit", "accept", "full", "start", "submit", "accept", "finish", "works"]


async def test_a_second_server_waits_for_the_first(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite3"
    first = open_sqlite(file, exclusive=True)
    with pytest.raises(StateUnusable, match="Replicas need PostgreSQL"):
        open_sqlite(file, exclusive=True)
    beside = open_sqlite(file)
    await beside.close()
    with pytest.raises(StateUnusable):
        open_sqlite(file, exclusive=True)
    await first.close()
    await open_sqlite(file, exclusive=True).close()
