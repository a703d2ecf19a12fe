"""Every engine there is: the contract is the same for all."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from proxy.state.checker import problems
from proxy.state.operations import State
from proxy.state.sqlite.engine import SqliteState, open_sqlite
from tests.state.parts import ME, Wall


@pytest.fixture
def wall() -> Wall:
    return Wall()


Open = Callable[[Path, Wall], SqliteState]
ENGINES: Final[dict[str, Open]] = {
    "file": lambda folder, wall: open_sqlite(folder / "state" / "state.sqlite3", wall=wall, exclusive=True),
    "memory": lambda _folder, wall: open_sqlite(None, wall=wall),
}


@pytest.fixture(params=ENGINES)
async def state(request: pytest.FixtureRequest, tmp_path: Path, wall: Wall) -> AsyncIterator[State]:
    """An engine with one holder; afterwards every balance must agree with its rows."""
    engine = ENGINES[request.param](tmp_path, wall)
    await engine.register(ME)
    yield engine
    assert problems(await engine.everything()) == []
    await engine.close()
