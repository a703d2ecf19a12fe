"""The real connections to a provider, before pretended answers (``web``) or real sockets."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import ClientResponse
from aiohttp.abc import AbstractStreamWriter
from aioresponses import aioresponses

from proxy.pictures.drafts import Drafts
from proxy.upstream.addresses import ResultAddresses
from proxy.upstream.client import Upstream

Connect = Callable[..., Upstream]


class _Response(ClientResponse):
    """What aiohttp ≥ 3.14 asks for and aioresponses 0.7.9 doesn't give: the writer of a request that was sent."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, stream_writer=Mock(AbstractStreamWriter, output_size=0), **named)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Answers to calls without any socket. It stands in for the session's request, so middlewares don't run."""
    monkeypatch.setattr("aioresponses.core.ClientResponse", _Response)
    with aioresponses() as pretended:
        yield pretended


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """Make real connections that stream pictures into the test's folder and may fetch from the loopback."""
    store = Drafts(tmp_path)
    made: list[Upstream] = []

    def make(**more: Any) -> Upstream:
        made.append(Upstream(store.draft, ResultAddresses(allow_private=True), **more))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def upstream(connect: Connect) -> Upstream:
    """Real connections without credentials."""
    return connect()
