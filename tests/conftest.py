"""The sizes of the suite: as it is run between edits, and ``--full`` as it is run for a long time."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples each time: a change is to blame for what fails between edits. Nor is a busy machine.
settings.register_profile("short", derandomize=True, deadline=None)
settings.register_profile("full", deadline=None, max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``, and what the soak is made from."""
    parser.addoption("--full", action="store_true", help="full sizes, new examples, and no time is skipped")
    parser.addoption("--soak-requests", type=int, help="requests of the soak; else by its size")
    parser.addoption("--soak-seed", type=int, default=20261121, help="seed of the soak's callers")
    parser.addoption("--soak-burners", type=int, default=0, help="processes that burn the processor meanwhile")


def pytest_configure(config: pytest.Config) -> None:
    """Choose Hypothesis' profile."""
    settings.load_profile("full" if config.getoption("--full") else "short")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether everything runs at full size."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="module", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test starts may find the state of whoever runs it, nor what another module's tests have left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("IMAGES_PROXY_DATABASE_URL", raising=False)
        yield


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, which is what the service runs on."""
    return "asyncio"
