"""Behind PgBouncer in transaction mode: each statement may run on another connection of the server."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from proxy.state.checker import problems
from proxy.state.operations import StateUnavailable, StateUnusable
from proxy.state.postgres.client import connect
from proxy.state.postgres.engine import PostgresState, open_postgres
from tests.state import database
from tests.state.parts import ME, Life, Wall, dollars
from tests.state.test_replicas import during

pytestmark = [pytest.mark.anyio, pytest.mark.kill]
_SETTINGS = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
logfile = {folder}/log
pidfile = {folder}/pid
client_tls_sslmode = {tls}
client_tls_key_file = {folder}/key.pem
client_tls_cert_file = {folder}/certificate.pem
"""
_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 "
    "-keyout {folder}/key.pem -out {folder}/certificate.pem"
)


@pytest.fixture
async def pooled_url(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of the tests' database through a pooler with fewer connections than its clients have.

    With the parameter "require" it asks for TLS; its certificate is in ``certificate.pem`` in the folder of the URL's
    ``sslrootcert``.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    await (await database.emptied(database_url, Wall())).close()
    parts = urlsplit(database_url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="images-proxy-pooler-"))
    host = parse_qs(parts.query)["host"][0]
    tls = getattr(request, "param", "disable")
    (folder / "settings").write_text(_SETTINGS.format(host=host, port=port, folder=folder, tls=tls))
    certify(folder)
    user = "pgserver" if os.geteuid() == 0 else None  # it doesn't run as root
    if user is not None:
        for owned in ("", "settings", "key.pem", "certificate.pem"):
            shutil.chown(folder / owned, user)
    pooler = start_pooler(program, folder, user)
    checked = f"?sslmode=verify-full&sslrootcert={folder}/certificate.pem" if tls == "require" else ""
    yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}{checked}"
    pooler.kill()
    pooler.wait()
    shutil.rmtree(folder)


def certify(folder: Path) -> None:
    """Make a certificate for the pooler."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    subprocess.run(_CERTIFICATE.format(folder=folder).split(), check=True, capture_output=True)


def start_pooler(program: str, folder: Path, user: str | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([program, str(folder / "settings")], stderr=subprocess.DEVNULL, user=user)


async def opened(url: str) -> PostgresState:
    for _ in range(100):
        try:
            return await open_postgres(url, patience_s=1)
        except StateUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the pooler doesn't start")


async def test_two_replicas_behind_a_pooler(pooled_url: str) -> None:
    states = [await opened(pooled_url) for _ in range(2)]

    async def change() -> None:
        await states[1].set_limits([dollars("all", 10**15)])
        other = await connect(pooled_url)
        for _ in range(10):  # whose transactions push the others to and fro between the server's connections
            await other.execute("BEGIN; SELECT pg_sleep(0.01)")
            await asyncio.sleep(0.01)
            await other.execute("COMMIT")
        await other.close()

    made = await during(states, change)
    everything = await states[0].everything()
    assert problems(everything) == []
    assert sum(row.spent_pictures for row in everything.spend) == made
    held = [one for state in states for one in (state._executor.held, state._rest)]
    assert not all(one._prepares for one in held)  # it was found out
    for state in states:
        await state.close()


async def test_what_others_tell_doesnt_come_through_and_nothing_breaks(pooled_url: str) -> None:
    state = await opened(pooled_url)
    told: list[str] = []
    state.on_ended(told.extend)
    await state.register(ME)
    await Life(state).to("done")
    await asyncio.sleep(0.05)
    await Life(state).to("done")
    await state.close()


@pytest.mark.parametrize("pooled_url", ["require"], indirect=True)
async def test_the_certificate_is_what_the_url_asks_for(pooled_url: str, tmp_path: Path) -> None:
    """The pooler ends TLS here: the tests' server was built without it."""
    state = await opened(pooled_url)
    await state.register(ME)
    await Life(state).to("done")
    await state.close()
    with pytest.raises(StateUnavailable):
        await open_postgres(pooled_url.split("?", maxsplit=1)[0] + "?sslmode=disable", patience_s=0)
    certify(tmp_path)  # another one
    with pytest.raises(StateUnusable, match="certificate"):
        await open_postgres(
            f"{pooled_url.split('?', maxsplit=1)[0]}?sslmode=verify-full&sslrootcert={tmp_path}/certificate.pem"
        )
