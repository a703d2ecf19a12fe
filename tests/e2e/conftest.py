from typing import Any

import pytest

from tests.time_skip import backend


@pytest.fixture(scope="package")
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    """One loop for all, so that a module's service can serve all its tests."""
    return backend(skip=not full)
