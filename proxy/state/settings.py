"""The ``[state]`` table, and what it leads to."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.clock import Clock, Deadline
from proxy.state.operations import State, StateInUse, StateUnavailable, StateUnusable
from proxy.state.sqlite.engine import open_sqlite

IN_MEMORY: Final = ":memory:"
_LOOK_AGAIN_S: Final = 0.2


class StateSettings(BaseModel):
    """The ``[state]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = ""
    database_url_env: str = "IMAGES_PROXY_DATABASE_URL"
    keep_ledger: int = Field(default=0, ge=0, le=36_500)
    synchronous: Literal["full", "normal"] = "full"

    def database_url(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the address of the PostgreSQL database, empty if there is none."""
        return environment.get(self.database_url_env, "").strip() if self.database_url_env else ""

    def file(self, environment: Mapping[str, str] = os.environ) -> Path | None:
        """Return the path of the SQLite file; None if there is none: a database, or nothing survives the process."""
        if self.path == IN_MEMORY or self.database_url(environment):
            return None
        if self.path:
            return Path(self.path).expanduser()
        # https://specifications.freedesktop.org/basedir-spec/latest/
        base = environment.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser() / "images-proxy" / "state.sqlite3"


async def open_state(
    settings: StateSettings,
    file: Path | None,
    clock: Clock,
    *,
    serving: bool,
    database_url: str = "",
    patience_s: float = 0.0,
    observe: Callable[[int, float], None] | None = None,
) -> State:
    """Open the state: the database if there is one, else the file. ``serving``: as a process that serves from it.

    ``patience_s``: how long to wait for another one that is about to let go of the file. Raises StateUnavailable,
    StateUnusable.
    """
    if database_url:
        return await _open_database(settings, database_url, serving=serving, observe=observe)
    until = Deadline.after(clock, patience_s)
    while True:
        try:
            return await asyncio.to_thread(
                open_sqlite,
                file,
                wall=clock.wall,
                exclusive=serving,
                synchronous=settings.synchronous,
                observe=observe,
            )
        except StateInUse:
            if until.passed:
                raise
            await clock.sleep(_LOOK_AGAIN_S)


async def _open_database(
    settings: StateSettings, url: str, *, serving: bool, observe: Callable[[int, float], None] | None
) -> State:
    try:
        try:
            from proxy.state.postgres.engine import open_postgres  # noqa: PLC0415 (an extra, for those who use it)
        except ModuleNotFoundError as error:
            if error.name != "asyncpg":
                raise
            raise StateUnusable("PostgreSQL needs the extra: pip install 'images-proxy[postgres]'") from None
        return await open_postgres(url, adopt=serving, observe=observe)
    except StateUnavailable as error:
        error.setting = settings.database_url_env
        raise
