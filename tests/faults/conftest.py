from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from proxy.jobs.breaker import Breaker
from tests.service import Service, running
from tests.time_skip import backend

_numbers = count()


@pytest.fixture(scope="package")
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    """One loop for all, so that one service can serve them."""
    return backend(skip=not full)


@pytest.fixture(scope="package")
async def shared(anyio_backend: str) -> AsyncIterator[Service]:  # noqa: ARG001 (it chooses the loop)
    async with running(server={"max_body": 65_536}) as service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    """A service with the default limits, whose breakers remember nothing."""
    for runtime in shared.engine.runtimes.values():
        runtime.submit_breaker, runtime.poll_breaker = Breaker(shared.engine.clock), Breaker(shared.engine.clock)
    return shared


@pytest.fixture
def tag() -> str:
    """A tag for the simulator's counts that no other test uses."""
    return f"t{next(_numbers)}"
