from typing import Any

import pytest

from tests.time_skip import backend


@pytest.fixture
def anyio_backend(full: bool) -> tuple[str, dict[str, Any]]:
    return backend(skip=not full)
