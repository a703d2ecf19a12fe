"""A database for the replicas of each test, empty, and a store that all of them can read."""

from collections.abc import Iterator

import pytest

from proxy.state.postgres.client import connect
from tests.object_store import ObjectStore, object_store
from tests.state import database


@pytest.fixture(scope="session")
def server_url() -> str:
    """Of this worker's database."""
    return database.database()


async def _empty(url: str) -> str:
    connection = await connect(url)
    await connection.execute("DROP SCHEMA IF EXISTS images_proxy CASCADE")
    await connection.close()
    return url


@pytest.fixture
async def database_url(server_url: str) -> str:
    """Of a database without our tables."""
    return await _empty(server_url)


@pytest.fixture(scope="module")
async def module_url(anyio_backend: object, server_url: str) -> str:  # noqa: ARG001 (it chooses the loop)
    """Of another database without our tables, for a whole module."""
    return await database.create(
        database.start(database.shared_folder()), f"{server_url.split('/')[3].split('?', maxsplit=1)[0]}_2"
    )


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server, to which this process's environment leads."""
    with object_store(tmp_path_factory.mktemp("objects")) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running
