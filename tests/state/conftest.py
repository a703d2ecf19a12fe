"""Every engine there is: the contract is the same for all."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from proxy.state.checker import problems
from proxy.state.operations import State
from proxy.state.sqlite.engine import open_sqlite
from tests.state import database
from tests.state.parts import ME, Wall


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture(scope="session")
def database_url() -> str:
    """Of a PostgreSQL database for this worker; whoever opens it finds what the test before has left."""
    return database.database()


Open = Callable[[pytest.FixtureRequest, Path, Wall], Awaitable[State]]


async def open_file(_request: pytest.FixtureRequest, folder: Path, wall: Wall) -> State:
    return open_sqlite(folder / "state" / "state.sqlite3", wall=wall, exclusive=True)


async def open_memory(_request: pytest.FixtureRequest, _folder: Path, wall: Wall) -> State:
    return open_sqlite(None, wall=wall)


async def open_database(request: pytest.FixtureRequest, _folder: Path, wall: Wall) -> State:
    return await database.emptied(request.getfixturevalue("database_url"), wall)


ENGINES: Final[dict[str, Open]] = {"file": open_file, "memory": open_memory, "postgres": open_database}


@pytest.fixture(params=ENGINES)
async def state(request: pytest.FixtureRequest, tmp_path: Path, wall: Wall) -> AsyncIterator[State]:
    """An engine with one holder; afterwards every balance must agree with its rows."""
    engine = await ENGINES[request.param](request, tmp_path, wall)
    await engine.register(ME)
    yield engine
    assert problems(await engine.everything()) == []
    await engine.close()
