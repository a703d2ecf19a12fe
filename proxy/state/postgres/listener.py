"""What other replicas tell: one notification for each group that has ended generations.

Behind a pooler in transaction mode nothing comes through; who waits reads anew each second in any case.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

import asyncpg

from proxy.state.operations import StateUnavailable
from proxy.state.postgres.client import Connection, connect
from proxy.state.postgres.connection import LOST
from proxy.state.postgres.statement import CHANNEL

_log = logging.getLogger(__name__)
Told = Callable[[Collection[str]], None]
"""Is given ids of generations that have ended."""
_PAUSE_S: Final = 1.0
_LOST: Final = (StateUnavailable, *LOST, asyncpg.PostgresError)


class Listener:
    """A held connection that only listens, made anew when it is lost."""

    def __init__(self, url: str, told: Told) -> None:
        self._url = url
        self._told = told
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Listen no more."""
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening

    async def _listen(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await connect(self._url)
                lost = asyncio.Event()
                connection.add_termination_listener(partial(_end, lost))
                await connection.add_listener(CHANNEL, self._heard)
                await lost.wait()
            except _LOST as error:
                _log.debug("The database doesn't tell what others do: %s", type(error).__name__)
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(_PAUSE_S)

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._told(str(payload).split())


def _end(lost: asyncio.Event, _connection: Any) -> None:
    lost.set()
