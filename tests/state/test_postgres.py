"""What is PostgreSQL's own: its errors, versions, groups, notifications, and connections that break."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from proxy.state import schema
from proxy.state.checker import problems
from proxy.state.money import Limit
from proxy.state.operations import LEASE_MS, StateUnavailable, StateUnusable
from proxy.state.outcomes import Exists, NotLiving, OverLimit, OverPace, Pace, Started
from proxy.state.postgres import repeats
from proxy.state.postgres.client import connect
from proxy.state.postgres.connection import Held
from proxy.state.postgres.engine import PostgresState, open_postgres
from proxy.state.postgres.schema import migrate, row_type, script
from proxy.state.records import Account, JobId
from tests.state import database
from tests.state.parts import ANN, ME, PRICE, ROUTE, Life, Wall, dollars, pictures, total, wanted
from tests.state.test_keys import key

pytestmark = pytest.mark.anyio
V2 = "ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'; CREATE INDEX jobs_by_colour ON jobs(colour)"


@pytest.fixture
async def state(database_url: str) -> AsyncIterator[PostgresState]:
    """A replica, with the database's clock."""
    await (await database.emptied(database_url, Wall())).close()
    state = await open_postgres(database_url)
    await state.register(ME)
    yield state
    assert problems(await state.everything()) == []
    await state.close()


@pytest.fixture
async def other(database_url: str, state: PostgresState) -> AsyncIterator[PostgresState]:
    """A second replica."""
    other = await open_postgres(database_url)
    await other.register("other")
    for each, holder in ((state, ME), (other, "other")):  # both are connected, and know the limits
        await Life(each).start(holder=holder, what="something else")
    yield other
    await other.close()


@pytest.fixture
async def fresh_url(database_url: str) -> AsyncIterator[str]:
    """The URL of a database in which there is nothing."""
    name = f"{named(database_url)}_fresh"
    connection = await connect(database_url)
    await connection.execute(f"CREATE DATABASE {name}")
    yield database_url.replace(f"/{database_url.split('/')[3].split('?', maxsplit=1)[0]}?", f"/{name}?")
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


def named(url: str) -> str:
    """Return the name of a URL's database."""
    return url.split("/")[3].split("?", maxsplit=1)[0]


async def sql(url: str, *statements: str) -> None:
    connection = await connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mysql://localhost/state", "postgresql://localhost:port/state"])
async def test_a_url_that_cant_be_read(url: str) -> None:
    with pytest.raises(StateUnusable, match=r"postgresql://user:password@host:5432/database") as raised:
        await open_postgres(url.replace("localhost", "me:secret@localhost"))
    assert "secret" not in str(raised.value)


async def test_a_database_that_isnt_there(database_url: str) -> None:
    nowhere = database_url.replace("?", "_not_there?")
    with pytest.raises(StateUnusable, match="does not exist"):
        await open_postgres(nowhere)


async def test_a_server_that_doesnt_answer() -> None:
    with pytest.raises(StateUnavailable, match="can't be used now") as raised:
        await open_postgres("postgresql://me:secret@127.0.0.1:1/state", patience_s=0.1)
    assert not isinstance(raised.value, StateUnusable)
    assert "secret" not in str(raised.value)


async def test_a_certificate_that_cant_be_had() -> None:
    with pytest.raises(StateUnavailable, match="No such file"):
        await open_postgres("postgresql://127.0.0.1:1/s?sslmode=verify-full&sslrootcert=/nowhere.pem", patience_s=0)


async def test_the_least_grants(fresh_url: str) -> None:
    """The right to make a schema, or a schema of its own."""
    await sql(fresh_url, "DROP ROLE IF EXISTS poor", "CREATE ROLE poor LOGIN")
    poor = fresh_url.replace("postgres:@", "poor:@")
    with pytest.raises(StateUnusable, match="schema images_proxy"):
        await open_postgres(poor)
    await sql(fresh_url, "CREATE SCHEMA images_proxy AUTHORIZATION poor")
    state = await open_postgres(poor)
    await state.register(ME)
    await Life(state).to("done")
    await state.close()
    await sql(fresh_url, "DROP OWNED BY poor", "DROP ROLE poor")


async def test_many_replicas_start_on_an_empty_database_at_once(fresh_url: str) -> None:
    states = await asyncio.gather(*(open_postgres(fresh_url) for _ in range(5)))
    assert len({await state.fingerprint_key() for state in states}) == 1
    for state in states:
        await state.close()


async def test_a_newer_version_beside_this_one(fresh_url: str) -> None:
    """During a rolling deploy: the older one works on, and may even start again, until a version rules that out."""
    old = await open_postgres(fresh_url)
    await old.register(ME)
    before = await Life(old).to("accepted")
    connection = await connect(fresh_url)
    await migrate(connection, [*schema.MIGRATIONS, V2])
    assert (await before.finish()).applied
    again = await open_postgres(fresh_url)
    await Life(again).to("done")
    newer = row_type("jobs", schema.VERSION + 1)
    assert await connection.fetchval(f"SELECT count(*) FROM {newer} WHERE colour = 'red'") == 2  # noqa: S608
    assert problems(await again.everything()) == []
    await connection.execute(
        "UPDATE images_proxy.meta SET value = $1 WHERE name = 'least'", str(schema.VERSION + 1).encode()
    )
    with pytest.raises(StateUnusable, match="newer version"):
        await open_postgres(fresh_url)
    for each in (old, again, connection):
        await each.close()


async def test_a_migration_that_fails_leaves_all_as_it_was(fresh_url: str) -> None:
    await (await open_postgres(fresh_url)).close()
    connection = await connect(fresh_url)
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await migrate(connection, [*schema.MIGRATIONS, f"{V2}; nonsense"])
    assert (
        await connection.fetchval("SELECT value FROM images_proxy.meta WHERE name = 'version'")
        == str(schema.VERSION).encode()
    )
    await migrate(connection, [*schema.MIGRATIONS, V2])
    await connection.close()


def test_every_table_is_translated() -> None:
    made = "\n".join(script(1, schema.TABLES))
    assert not {"WITHOUT ROWID", " INTEGER", " BLOB", "ledger_days"} & {
        word for word in ("WITHOUT ROWID", " INTEGER", " BLOB", "ledger_days") if word in made
    }


async def test_an_old_server(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.postgres.schema._LEAST_SERVER", 990_000)
    with pytest.raises(StateUnusable, match="too old"):
        await open_postgres(database_url)


async def test_there_is_no_backup_of_a_database(state: PostgresState, tmp_path: Any) -> None:
    with pytest.raises(StateUnavailable, match="pg_dump"):
        await state.backup(tmp_path / "copy")


async def test_a_closed_state(database_url: str) -> None:
    state = await open_postgres(database_url)
    await state.close()
    with pytest.raises(StateUnavailable, match="closed"):
        await state.start(wanted())
    with pytest.raises(StateUnavailable, match="closed"):
        await state.prices()


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_a_lease_runs_out_by_the_clock_of_the_database(database_url: str) -> None:
    wall = Wall()
    await (await database.emptied(database_url, wall)).close()
    state, other = [await open_postgres(database_url, wall=wall) for _ in range(2)]
    await state.register(ME)
    await other.register("other")
    intended = (await Life(state).to("intended")).job
    wall.now += LEASE_MS / 1000 - 0.001
    assert await other.beat("other")
    assert (await other.recover("other", [])).released == 0
    wall.now += 0.001
    assert await state.submit(intended, 0, ME, ROUTE) == NotLiving(ME)
    assert await state.start(wanted()) == NotLiving(ME)
    assert not await state.beat(ME)
    assert (await other.recover("other", [])).released == 1
    wall.now -= 5  # a clock that is set back makes nobody alive again
    assert not await state.beat(ME)
    assert await state.start(wanted()) == NotLiving(ME)
    for each in (state, other):
        await each.close()


async def test_a_lease_that_ends_between_look_and_write(database_url: str) -> None:
    """The write itself is conditional on it."""

    wall = Wall()
    await (await database.emptied(database_url, wall)).close()
    state = await open_postgres(database_url, wall=wall)
    await state.register(ME)
    await Life(state).start()
    lock = await connect(database_url)
    await lock.execute("BEGIN; LOCK TABLE images_proxy.ledger IN SHARE MODE")
    started = asyncio.ensure_future(state.start(wanted()))
    for _ in range(500):  # until it waits
        if await lock.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            break
        await asyncio.sleep(0.01)
    await lock.execute("DELETE FROM images_proxy.holders; COMMIT")
    assert await started == NotLiving(ME)
    assert len((await state.everything()).generations) == 1
    await lock.close()
    await state.close()


async def test_commands_adopt_nothing(state: PostgresState, database_url: str) -> None:
    accepted = await Life(state).to("accepted")
    command = await open_postgres(database_url, adopt=False)
    await command.register("command")
    await state.retire(ME)
    await Life(command).to("intended", holder="command")
    recovered = await command.recover("command", [])
    assert (recovered.jobs, recovered.released) == ((), 1)
    await state.register("next")
    assert (await state.recover("next", [])).jobs == (accepted.job,)
    await command.close()


# --- two replicas -----------------------------------------------------------------------------------------------------


async def told_of(ids: list[str], number: int) -> None:
    for _ in range(200):
        if len(ids) >= number:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(ids)


async def ended_elsewhere(state: PostgresState) -> Life:
    """End a generation for which somebody waits at another replica."""
    life = await Life(state).to("accepted")
    assert await state.claim(life.job.generation, 0, 0, "other") == 1
    assert (await life.finish()).applied
    return life


async def test_others_are_told_what_has_ended(state: PostgresState, other: PostgresState) -> None:
    told: list[str] = []
    other.on_ended(told.extend)
    for _ in range(200):  # until it listens
        life = await ended_elsewhere(state)
        if told:
            break
    told.clear()
    starts = [wanted(submit=1) for _ in range(160)]
    await asyncio.gather(*(state.start(start) for start in starts))
    await asyncio.gather(*(other.claim(start.id, 0, 0, "other") for start in starts))
    own = await Life(state).to("done")
    await asyncio.gather(*(state.finish(JobId(start.id, 0), 0, "p") for start in starts))
    await told_of(told, 160)
    assert set(told) >= {start.id for start in starts}
    assert life.job.generation not in told[-160:]
    assert own.job.generation not in told, "nobody waits for it elsewhere"


async def test_a_listener_that_is_cut_listens_again(
    state: PostgresState, other: PostgresState, database_url: str
) -> None:
    told: list[str] = []
    other.on_ended(told.extend)
    for cut in (False, True):
        if cut:
            await sql(database_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            told.clear()
        for _ in range(300):
            await ended_elsewhere(state)
            if told:
                break
        assert told


async def test_a_picture_of_one_replica_is_finished_by_another(state: PostgresState, other: PostgresState) -> None:
    """What a replica remembers of its rows is checked when it writes."""
    await state.set_limits([dollars("all", 100 * PRICE)])
    life = await Life(state).to("accepted")
    several = (await state.start(wanted(n=2, submit=2))).generation.row.id  # type: ignore[union-attr]
    assert (await other.finish(life.job, 0, "p.png")).applied
    assert (await life.finish("p.png")).applied  # what it finds is its own
    assert not (await life.finish("another.png")).applied
    first, second = (JobId(several, number) for number in range(2))
    changes = await asyncio.gather(state.finish(first, 0, "a"), other.finish(second, 0, "b"))
    assert sorted(str(change.end) for change in changes) == ["None", "ok"]
    found = await state.generation(several)
    assert found is not None
    assert found.row.ended_as == "ok"


async def test_an_idempotency_key_is_taken_by_one_of_two(state: PostgresState, other: PostgresState) -> None:
    for number in range(10):
        outcomes = await asyncio.gather(
            state.start(wanted(idempotency_key=f"k{number}")),
            other.start(wanted(idempotency_key=f"k{number}", holder="other")),
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Exists", "Started"]
    assert len((await state.everything()).generations) == 12


@pytest.mark.parametrize("limit", [dollars("all", 10 * PRICE), pictures("owner:family", 10)])
async def test_a_budget_that_another_has_used_up_in_between(
    state: PostgresState, other: PostgresState, limit: Limit
) -> None:
    used = (await total(state)).reserved_pictures
    for more in range(10, 40, 10):
        allowed = used + more if limit.unit == "pictures" else (used + more) * PRICE
        await state.set_limits([limit._replace(amount=allowed)])
        outcomes = await asyncio.gather(
            *(each.start(wanted(holder=holder)) for each, holder in ((state, ME), (other, "other")) for _ in range(20))
        )
        assert sum(isinstance(outcome, Started) for outcome in outcomes) == 10
        assert sum(isinstance(outcome, OverLimit) for outcome in outcomes) == 30
        assert (await total(state)).reserved_pictures == used + more


async def test_the_same_picture_is_inherited_once(state: PostgresState, other: PostgresState) -> None:
    for number in range(10):
        what = f"fox {number}"
        first = (await state.start(wanted(what=what, n=2, submit=2))).generation.row.id  # type: ignore[union-attr]
        await state.finish(JobId(first, 0), 0, "p")
        await state.end(JobId(first, 1), 0, "not_started")
        anew = await asyncio.gather(
            state.start(wanted(what=what, n=2)), other.start(wanted(what=what, n=2, holder="other"))
        )
        inherited = [job.inherited for outcome in anew for job in outcome.generation.jobs]  # type: ignore[union-attr]
        assert sorted(map(str, inherited)) == sorted(["None", "None", "None", first])


async def test_sweeping_is_one_replicas_work_at_a_time(database_url: str) -> None:
    wall = Wall()
    state = await database.emptied(database_url, wall)
    await state.register(ME)
    for _ in range(3):
        await Life(state).to("done")
    wall.now += 3 * 86_400
    connection = await connect(database_url)
    await connection.execute("BEGIN; SELECT FROM images_proxy.meta WHERE name = 'sweep' FOR UPDATE")
    assert await state.sweep(result_ms=1000, keep_ledger_days=1) == (0, 0, False)
    await connection.execute("COMMIT")
    swept = await asyncio.gather(*(state.sweep(result_ms=1000, keep_ledger_days=1) for _ in range(2)))
    assert sum(one.generations for one in swept) == 3
    assert sum(one.entries for one in swept) == 6
    assert problems(await state.everything()) == []
    await connection.close()
    await state.close()


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_what_comes_at_once_is_written_at_once(database_url: str) -> None:
    groups: list[int] = []
    await (await database.emptied(database_url, Wall())).close()
    state = await open_postgres(database_url, observe=lambda size, _seconds: groups.append(size))
    await state.register(ME)
    waiting = [state.start(wanted()) for _ in range(300)]
    assert state.pending == 300
    await asyncio.gather(*waiting)
    await state.close()
    assert groups == [256, 44]


async def test_a_failing_observer_ends_nothing(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    def observe(_size: int, _seconds: float) -> None:
        raise ValueError("observer")

    state = await open_postgres(database_url, observe=observe)
    await state.register(ME)
    await Life(state).to("done")
    await state.close()
    assert "observer failed" in caplog.text


async def test_an_operation_that_fails_takes_nothing_with_it(state: PostgresState) -> None:
    poor: Any = wanted(request=object())
    wrong: Any = wanted(n="many")
    told = wanted(submit=1)
    await state.start(told)
    await state.finish(JobId(told.id, 0), 0, "p")
    delivered = state.deliver(told.id, 0)
    outcomes = await asyncio.gather(
        *(state.start({3: poor, 5: wrong}.get(number, wanted())) for number in range(8)), return_exceptions=True
    )
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [3, 5]
    assert len((await state.everything()).generations) == 7
    assert await delivered


async def test_a_cancelled_wait_leaves_the_write(state: PostgresState) -> None:
    start = wanted()
    waiting = asyncio.ensure_future(state.start(start))
    waiting.cancel()
    assert (await state.end(JobId(start.id, 0), 0, "release")).applied
    assert waiting.cancelled()


async def test_what_was_not_expected_is_looked_for(state: PostgresState, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operation will look at is only foreseen to save a second look."""
    for name in ("expect_start", "expect_job", "expect_key", "expect_generation", "expect_account"):
        monkeypatch.setattr(repeats, name, lambda *_: repeats.expect_nothing)
    await state.set_limits([dollars("all", 9 * PRICE), pictures("owner:family", 9, "day")])
    pace = (Pace("key:k1", per_minute=9, at_once=2), Pace("user:k1:u", at_once=1))
    first = wanted(Account("k1", "ann", "family", "u"), n=2, submit=2, idempotency_key="once", pace=pace)
    assert isinstance(await state.start(first), Started)
    assert isinstance(await state.start(wanted(first.account, pace=pace)), OverPace)
    assert isinstance(await state.start(wanted(idempotency_key="once")), Exists)
    assert (await state.finish(JobId(first.id, 0), 0, "p")).applied
    assert (await state.end(JobId(first.id, 1), 0, "not_started")).end == "again"
    assert not (await state.end(JobId(first.id, 2), 0, "not_started")).applied
    anew = await state.start(wanted(n=2))
    assert isinstance(anew, Started)
    assert [job.inherited for job in anew.generation.jobs] == [first.id, None]
    assert await state.generation("imggen_none") is None
    assert [one.balance.reserved_pictures for one in await state.standing(ANN)] == [1, 1]


async def test_what_nobody_waits_for_is_written_all_the_same(state: PostgresState) -> None:
    life = await Life(state).to("done")
    told = state.deliver(life.job.generation, 0)
    assert state.pending == 1
    assert await told
    both = [state.leave(life.job.generation, 0), state.deliver(life.job.generation, 0), state.deliver("none", 0)]
    await Life(state).to("intended")  # it goes along
    assert await asyncio.gather(*both) == [True, True, False]


async def test_a_mark_on_a_row_that_its_group_writes(state: PostgresState) -> None:
    life = await Life(state).to("accepted")
    told = state.leave(life.job.generation, 0)
    assert (await life.finish()).end == "ok"
    assert await told
    found = await state.generation(life.job.generation)
    assert found is not None
    assert not found.waited_for


@pytest.mark.usefixtures("state")
async def test_commits_are_durable_whatever_the_database_is_set_to(database_url: str) -> None:
    name = named(database_url)
    await sql(database_url, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    late = await open_postgres(database_url)
    await late.register("late")
    connection = await connect(database_url)
    for _ in range(5):
        before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
        life = await Life(late).to("intended", holder="late")
        assert await connection.fetchval("SELECT pg_current_wal_flush_lsn() > $1::pg_lsn", before)
        before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
        assert await late.claim(life.job.generation, 0, 1, "late")
        assert await connection.fetchval("SELECT pg_current_wal_flush_lsn() > $1::pg_lsn", before)
    await connection.close()
    await late.close()
    await sql(database_url, f'ALTER DATABASE "{name}" RESET synchronous_commit')


# --- connections ------------------------------------------------------------------------------------------------------

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
CUT_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


async def test_operations_go_on_after_their_connection_was_cut(database_url: str, state: PostgresState) -> None:
    life = await Life(state).to("accepted")
    for _ in range(3):
        await sql(database_url, CUT)
        assert (await life.finish()).applied
        assert await state.prices() == {}
        assert await state.generation(life.job.generation) is not None
        life = await Life(state).to("accepted")
    assert (await total(state)).spent_pictures == 3


async def test_a_write_whose_answer_was_lost_is_recognised(
    state: PostgresState, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = Held.row, [0]

    async def losing(self: Held, sql: str, *arguments: Any) -> Any:
        row = await real(self, sql, *arguments)
        if "guard AS" in sql and lost[0]:
            lost[0] -= 1
            raise ConnectionResetError
        return row

    monkeypatch.setattr(Held, "row", losing)
    await state.set_limits([dollars("all", 10 * PRICE)])
    for event, ends in (("doubt", "unknown"), ("not_started", "again"), ("lose", "lost")):
        lost[0] = 1
        life = await Life(state).to("submitting")
        lost[0] = 1
        change = await state.end(life.job, 0, event)  # type: ignore[arg-type]
        assert (change.applied, change.end, lost[0]) == (True, ends, 0)
        assert not (await state.end(life.job, 0, "release")).applied
    assert (await total(state)).reserved_pictures == 0


async def test_a_database_that_stays_away_is_unavailable_and_then_there_again(
    fresh_url: str, database_url: str
) -> None:
    name = named(fresh_url)
    state = await open_postgres(fresh_url, patience_s=0.2)
    await state.register(ME)
    life = await Life(state).to("accepted")
    await sql(database_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", CUT_ALL.format(name))
    told = state.deliver(life.job.generation, 0)
    outcomes = await asyncio.gather(life.finish(), state.prices(), told, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StateUnavailable] * 3
    with pytest.raises(StateUnavailable):
        await life.finish()
    await sql(database_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (await life.finish()).applied
    await state.close()


async def test_a_key_that_was_written_before_its_answer_was_lost(state: PostgresState) -> None:
    await state.create_key(key(), [], "me")
    await state.create_key(key(), [], "me")
    assert len(await state.key_changes(key().id)) == 1


async def test_an_account_with_many_users(state: PostgresState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.postgres.look._MOST_ACCOUNTS", 2)
    monkeypatch.setattr("proxy.state.postgres.executor._MOST_KNOWN", 2)
    await state.set_limits([pictures("users:k1", 1)])
    for number in range(5):
        user = Account("k1", "ann", "family", f"u{number}")
        assert isinstance(await state.start(wanted(user)), Started)
        assert isinstance(await state.start(wanted(user)), OverLimit)
