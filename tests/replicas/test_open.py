"""What opens the state: the database that the environment names, else the file."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import Clock
from proxy.config import compose
from proxy.engine import Engine
from proxy.state.operations import StateUnusable
from proxy.state.settings import StateSettings, open_state
from tests.durability.process import ROOT
from tests.time_skip import backend

pytestmark = [pytest.mark.anyio, pytest.mark.realtime]

NAMED = {"IMAGES_PROXY_DATABASE_URL": "postgresql://me:secret@127.0.0.1:9/none"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Other processes are waited for."""
    return backend(skip=False)


async def test_a_database_takes_the_place_of_the_file(database_url: str, tmp_path: Path) -> None:
    environment = {"IMAGES_PROXY_DATABASE_URL": database_url, "XDG_STATE_HOME": str(tmp_path)}
    engine = Engine(compose({"images": {"directory": str(tmp_path / "pictures")}}, environment))
    await engine.open()
    assert engine.journal.shared
    assert not engine.busy
    await engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]  # noqa: ASYNC240


def test_its_pictures_are_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    configuration = compose({}, NAMED)
    assert (configuration.state_file, configuration.database_url) == (None, NAMED["IMAGES_PROXY_DATABASE_URL"])
    assert configuration.directory == tmp_path / "images-proxy"


def test_the_variable_can_have_another_name() -> None:
    other = {"state": {"database_url_env": "MY_DATABASE"}}
    assert compose(other, NAMED).database_url == ""
    assert compose(other, {"MY_DATABASE": " postgresql:///x "}).database_url == "postgresql:///x"
    assert compose({"state": {"database_url_env": ""}}, NAMED).state_file is not None


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["keys", "list"]])
async def test_a_database_that_cannot_be_used_is_one_line(command: list[str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "proxy", *command),
        cwd=ROOT,
        env={**os.environ, **NAMED, "IMAGES_PROXY_DATABASE_URL": "mysql://me:secret@x/y", "HOME": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    lines = told.decode().splitlines()
    assert (process.returncode, len(lines)) == (2, 1), lines
    assert lines[0].startswith("images-proxy: IMAGES_PROXY_DATABASE_URL: The database URL can't be read.")
    assert "secret" not in lines[0]


async def test_the_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in [name for name in sys.modules if name.startswith("proxy.state.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(StateUnusable, match=r"images-proxy\[postgres\]") as told:
        await open_state(StateSettings(), None, Clock(), serving=True, database_url="postgresql:///x")
    assert told.value.setting == "IMAGES_PROXY_DATABASE_URL"
