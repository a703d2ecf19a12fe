"""The file: its modes, its version, its copies, and what happens when it can't be used."""

import asyncio
import gc
import re
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from proxy.state import schema
from proxy.state.checker import problems
from proxy.state.money import Balance, Entry, KeyChange, KeyRow, Limit, SpendRow
from proxy.state.operations import LEASE_MS, StateUnavailable, StateUnusable
from proxy.state.outcomes import NotLiving
from proxy.state.records import GenerationRow, Holder, JobId, JobRow
from proxy.state.sqlite import housekeeping, repeats, rows, tables
from proxy.state.sqlite.engine import SqliteState, open_sqlite
from proxy.state.sqlite.file import migrate
from tests.state.parts import ME, ROUTE, Life, Wall, dollars, total, wanted

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "made" / "for it" / "state.sqlite3"


async def opened(file: Path, **values: Any) -> SqliteState:
    state = open_sqlite(file, **values)
    await state.register(ME)
    return state


# --- the file ---------------------------------------------------------------------------------------------------------


async def test_nobody_else_can_read_it(file: Path) -> None:
    state = await opened(file, exclusive=True)
    await Life(state).to("done")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
    assert modes.keys() == {"state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm", "state.sqlite3.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    await state.close()


async def test_what_is_written_is_there_the_next_time(file: Path) -> None:
    state = await opened(file)
    life = await Life(state).to("accepted")
    key = await state.fingerprint_key()
    await state.close()
    with pytest.raises(StateUnavailable, match="closed"):
        await state.generation(life.job.generation)
    again = await opened(file)
    assert await again.fingerprint_key() == key
    assert (await again.finish(life.job, 0, "p")).applied
    await again.close()


async def test_a_path_that_cant_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateUnusable, match=r"state\.path.*:memory:"):
        open_sqlite(tmp_path / "file" / "state.sqlite3")


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.sqlite3"
    file.write_bytes(content)
    with pytest.raises(StateUnusable, match="backup"):
        open_sqlite(file)
    assert file.read_bytes() == content


def damage(file: Path, table: str) -> None:
    connection = sqlite3.connect(file)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    content = bytearray(file.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    file.write_bytes(content)


async def test_damage_met_later_says_what_to_do(file: Path) -> None:
    state = await opened(file)
    for _ in range(20):
        await Life(state).to("done")
    await state.close()
    damage(file, "generations")
    state = open_sqlite(file)
    with pytest.raises(StateUnusable, match="backup"):
        await state.everything()
    await state.close()


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite3"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE cookies(a)")
    other.close()
    with pytest.raises(StateUnusable, match="another program"):
        open_sqlite(file)


# --- versions ---------------------------------------------------------------------------------------------------------


def test_the_records_are_the_tables(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x")
    connection.executescript(";".join(schema.MIGRATIONS))
    mirrors: dict[str, Any] = {
        "generations": GenerationRow,
        "jobs": JobRow,
        "holders": Holder,
        "spend": SpendRow,
        "ledger": Entry,
        "limits": Limit,
        "keys": KeyRow,
        "key_changes": KeyChange,
    }
    for table, record in mirrors.items():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        assert columns == list(record._fields), table
    named = {row[1] for table in mirrors for row in connection.execute(f"PRAGMA table_info({table})")}
    assert not named & {"prompt", "upload", "image", "secret", "token"}  # there is no place for these
    assert set(Balance._fields) <= set(SpendRow._fields)
    connection.close()


@pytest.mark.parametrize(
    "query",
    [
        tables._FAILED_EQUALS,
        tables._OPEN_NOW,
        repeats._NOT_TOLD,
        repeats._TOLD,
        rows.BY_IDEMPOTENCY_KEY,
        tables._UNFOLLOWED,
        tables._PRESENT,
        housekeeping._OLD,
    ],
)
def test_nothing_is_found_by_looking_at_everything(query: str) -> None:
    """Generations that are over cost nothing but their place."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema.TABLES)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", (0,) * query.count("?")).fetchall()
    steps_of_plan = [row[3] for row in plan]
    whole = [step for step in steps_of_plan if re.fullmatch(r"SCAN (generations|jobs|ledger)", step)]
    assert whole == [], steps_of_plan
    connection.close()


V1 = "CREATE TABLE a(x INTEGER); INSERT INTO a VALUES (1)"
V2 = "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7; CREATE INDEX a_by_y ON a(y)"


def test_every_older_version_is_brought_forward(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x", isolation_level=None)
    migrate(connection, [V1])
    migrate(connection, [V1, V2])
    migrate(connection, [V1, V2])
    assert connection.execute("SELECT * FROM a").fetchall() == [(1, 7)]
    with pytest.raises(StateUnusable, match="newer version"):
        migrate(connection, [V1])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_migration_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x", isolation_level=None)
    migrate(connection, [V1])
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, [V1, f"{V2}; nonsense"])
    assert connection.execute("SELECT * FROM a").fetchall() == [(1,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    migrate(connection, [V1, V2])
    connection.close()


def test_a_file_of_version_1_is_of_this_version_after_opening(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite3"
    connection = sqlite3.connect(file, isolation_level=None)
    migrate(connection, schema.MIGRATIONS[:1])
    connection.close()
    open_sqlite(file)
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.close()


# --- beside a running service -----------------------------------------------------------------------------------------


async def test_a_backup_of_a_file_that_is_being_written(file: Path, tmp_path: Path) -> None:
    state = await opened(file, exclusive=True)
    await state.set_limits([dollars("all", 10**15)])
    copy = tmp_path / "copy.sqlite3"
    writing = True

    async def write() -> None:
        while writing:
            await Life(state).to("done")

    writers = [asyncio.create_task(write()) for _ in range(4)]
    copies = []
    for _ in range(3):
        await Life(state).to("accepted")
        await state.backup(copy)
        copies.append(await total(state))
        restored = open_sqlite(copy)
        everything = await restored.everything()
        assert problems(everything) == []
        assert sum(job.state == "accepted" for job in everything.jobs) >= len(copies)
        await restored.close()
    writing = False
    await asyncio.gather(*writers)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    await state.close()


async def test_a_backup_that_cant_be_written(file: Path, tmp_path: Path) -> None:
    state = await opened(file)
    with pytest.raises(StateUnavailable, match="can't be written"):
        await state.backup(tmp_path / "no" / "such" / "copy")
    await state.close()
    memory = open_sqlite(None)
    with pytest.raises(StateUnavailable, match="memory"):
        await memory.backup(tmp_path / "copy")
    await memory.close()


async def test_limits_written_by_a_command_hold_at_once(file: Path) -> None:
    state, command = await opened(file, exclusive=True), open_sqlite(file)
    await Life(state).to("done")
    await command.set_limits([dollars("all", 1)])
    assert not hasattr(await state.start(wanted()), "generation")
    await command.set_limits([])
    await Life(state).to("done")
    await command.close()
    await state.close()


async def test_a_command_recovers_only_its_own_jobs_and_serve_those_of_dead_ones(file: Path) -> None:
    wall = Wall()
    state = await opened(file, exclusive=True, wall=wall)
    command = open_sqlite(file, wall=wall)
    await command.register("command")
    served = await Life(state).to("accepted")
    left = await Life(command).to("intended", holder="command")
    assert (await command.recover("command", [])).released == 1
    left = await Life(command).to("intended", holder="command")
    assert (await state.recover(ME, [served.job])).released == 0
    wall.now += LEASE_MS / 1000
    assert (await state.recover(ME, [served.job])).released == 1
    wall.now -= 1  # a clock that is set back makes nobody alive again
    assert not await command.beat("command")
    wall.now += 1
    assert await command.start(wanted(holder="command")) == NotLiving("command")
    assert not (await command.end(left.job, 0, "release")).applied
    assert await command.submit(left.job, 0, "command", ROUTE) == (False, "released", 1, "again", None)
    await command.close()
    await state.close()


async def test_nobody_else_ends_anything(file: Path) -> None:
    state = await opened(file)
    told: list[str] = []
    state.on_ended(told.extend)
    await Life(state).to("done")
    assert told == []
    await state.close()


async def test_who_has_the_lock_needs_no_beat(file: Path) -> None:
    wall = Wall()
    state = await opened(file, exclusive=True, wall=wall)
    wall.now += LEASE_MS / 1000
    assert await state.beat(ME)
    await Life(state).to("done")
    await state.close()


async def test_the_event_loop_goes_on_while_another_process_holds_the_file(file: Path) -> None:
    state = await opened(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pending = asyncio.ensure_future(state.start(wanted()))
    turns = 0
    for _ in range(20):
        await asyncio.sleep(0.002)
        turns += 1
    assert (turns, pending.done()) == (20, False)
    assert (await state.everything()).jobs == ()  # reading goes on
    other.execute("ROLLBACK")
    assert not isinstance(await pending, NotLiving)
    other.close()
    await state.close()


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_what_comes_at_once_is_written_at_once(file: Path) -> None:
    groups: list[int] = []
    state = await opened(file, observe=lambda size, _seconds: groups.append(size))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    starts_asked = [asyncio.ensure_future(state.start(wanted())) for _ in range(100)]
    await asyncio.sleep(0.01)
    other.execute("ROLLBACK")
    await asyncio.gather(*starts_asked)
    other.close()
    await state.close()
    assert sum(groups) == 101
    assert len(groups) <= 3 + 1  # the first, what came while it waited, and the rest


async def test_what_nobody_waits_for_is_written_all_the_same(file: Path) -> None:
    state = await opened(file)
    life = await Life(state).to("done")
    told = state.deliver(life.job.generation, 0)
    assert state.pending == 1
    assert await told
    last = state.leave(life.job.generation, 0)
    await state.close()
    assert await last


async def test_what_can_wait_among_what_cant(file: Path) -> None:
    state = await opened(file)
    generation = (await Life(state).to("accepted")).job.generation
    told = []
    for _ in range(100):
        told.append(state.leave(generation, 0))
        await asyncio.gather(*(state.beat(ME) for _ in range(3)))
        await asyncio.sleep(0.001)
    assert await asyncio.gather(*told) == [True] * 100
    await state.close()


async def test_a_failing_observer_ends_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def observe(_size: int, _seconds: float) -> None:
        raise ValueError("observer")

    state = await opened(file, observe=observe)
    await Life(state).to("done")
    await state.close()
    assert "observer failed" in caplog.text


def move(source: Path, target: Path) -> None:
    source.rename(target)


async def test_a_file_that_was_moved_away_is_not_written_on(file: Path) -> None:
    """What is written to a file without a name would be gone after the next start."""
    state = await opened(file)
    await Life(state).to("done")
    move(file, file.with_name("elsewhere"))
    with pytest.raises(StateUnusable, match="moved"):
        await state.start(wanted())
    move(file.with_name("elsewhere"), file)
    await Life(state).to("done")
    await state.close()


async def test_a_write_that_nobody_waits_for_fails_in_silence(file: Path) -> None:
    """Whoever asked for it is told; what only woke the thread up has nobody to complain to."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    state = await opened(file)
    generation = (await Life(state).to("done")).job.generation
    move(file, file.with_name("elsewhere"))
    with pytest.raises(StateUnusable, match="moved"):
        await state.deliver(generation, 0)
    await state.close()
    gc.collect()
    assert complaints == []


async def test_an_operation_that_fails_takes_nothing_with_it(file: Path) -> None:
    state = await opened(file)
    poor: Any = wanted(request=object())
    outcomes = await asyncio.gather(
        *(state.start(poor if number == 3 else wanted()) for number in range(8)), return_exceptions=True
    )
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [3]
    assert len((await state.everything()).generations) == 7
    assert (await total(state)).reserved_pictures == 7
    await state.close()


async def test_a_cancelled_wait_leaves_the_write(file: Path) -> None:
    state = await opened(file)
    start = wanted()
    waiting = asyncio.ensure_future(state.start(start))
    waiting.cancel()
    assert (await state.end(JobId(start.id, 0), 0, "release")).applied
    assert waiting.cancelled()
    await state.close()


async def test_the_file_shrinks_when_much_has_gone(file: Path) -> None:
    wall = Wall()
    state = await opened(file, wall=wall)
    starts = [wanted(request="x" * 2000, submit=1) for _ in range(200)]
    await asyncio.gather(*(state.start(start) for start in starts))
    await asyncio.gather(*(state.finish(JobId(start.id, 0), 0, "p") for start in starts))
    wall.now += 1000
    while (await state.sweep(result_ms=1000, limit=50)).more:
        pass
    free = sqlite3.connect(file)
    pages = free.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(5):
        await state.sweep(result_ms=1000)
    assert free.execute("PRAGMA freelist_count").fetchone()[0] <= max(0, pages - 5 * 32)
    free.close()
    await state.close()
