"""A round-robin front: a TCP balancer that gives each connection to the next replica that takes it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_CONNECT_S = 1.0


class Front:
    """``ports``: where the replicas are at this moment."""

    def __init__(self, ports: Callable[[], list[int]]) -> None:
        self._ports = ports
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways, until either side ends it."""
        behind = await self._connect()
        if behind is None:
            writer.close()
            return
        ways = [
            asyncio.create_task(_pass(reader, behind[1])),
            asyncio.create_task(_pass(behind[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for side in (writer, behind[1]):
                side.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        ports = self._ports()
        for _ in ports:
            self._next += 1
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_S):
                    return await asyncio.open_connection("127.0.0.1", ports[self._next % len(ports)])
        return None


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def front(ports: Callable[[], list[int]]) -> AsyncIterator[str]:
    """Run one; yields its address."""
    server = await asyncio.start_server(Front(ports).serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
