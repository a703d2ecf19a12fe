"""The only module that speaks HTTP to providers: one session each, every call bounded in time and bytes, sent once.

aiohttp repeats idempotent methods on its own after a dropped connection; Prodia's former submit is a GET that buys a
picture. The middleware below turns such drops into failures of ours before aiohttp can repeat them; only calls that
are declared safe go without it, and may reach a provider that drops connections twice.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from pydantic_core import to_json

from proxy import __version__
from proxy.addresses import ResultAddresses, public_socket
from proxy.bodies import body_of
from proxy.errors import Overloaded, ProviderBadResponse, ProviderBadResult
from proxy.multipart import Parts
from proxy.provider import Call, Reply

CONNECT_S = 3.0
STALL_S = 15.0
"""Longest silence inside a body."""
FETCH_S = 30.0
_LONG_RETRY_S = 30.0
MAX_ANSWER = 65_536
MAX_CATALOGUE = 1_048_576
MAX_PICTURE = 52_428_800
_KEEPALIVE_S = 15.0
_PICTURE_TYPES = ("image/", "application/octet-stream", "binary/octet-stream")


class NotSent(Exception):
    """The call provably never reached the provider: name, connection or TLS failed."""


class Interrupted(Exception):
    """The call went out, and no complete answer came back."""


class NotWritten(Exception):
    """An answer could not be written to our own disk."""


class ResultNotReady(ProviderBadResult):
    """A result could not be fetched now; its host may have it a moment later."""


class Draft(Protocol):
    """A picture being written; nobody sees it until it is complete."""

    path: Path

    def write(self, data: bytes) -> None:
        """Add ``data``. Raises OSError."""
        ...

    def close(self) -> None:
        """End the writing."""
        ...

    def discard(self) -> None:
        """Remove it."""
        ...


@dataclass(slots=True)
class Traffic:
    """Bytes received from one provider so far, in bodies that were within their limits."""

    received: int = 0


_CONNECTING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ClientProxyConnectionError,
)
"""What aiohttp raises as long as nothing of the call has been sent; it repeats no call after these."""


async def _never_repeat(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    try:
        return await handler(request)
    except _CONNECTING:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise Interrupted(type(error).__name__) from error


class Upstream:
    """The connections to one provider.

    API calls may go wherever its owner's configuration points. Results are fetched over a second pool, which
    checks the address of every connection, because the provider's answer chooses them.
    """

    def __init__(self, draft: Callable[[], Draft], results: ResultAddresses, http_proxy: str = "") -> None:
        self._draft = draft
        self.traffic = Traffic()
        self._results = results
        self._http_proxy = http_proxy or None
        self._api_session: aiohttp.ClientSession | None = None
        self._result_session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close both pools."""
        for session in (self._api_session, self._result_session):
            if session is not None:
                await session.close()
        self._api_session = self._result_session = None

    def send(self, call: Call, timeout_s: float, max_bytes: int = MAX_ANSWER) -> Awaitable[Reply]:
        """Make ``call`` once and read its whole answer within ``timeout_s`` seconds.

        Raises NotSent, Interrupted, or ProviderBadResponse when the answer is over its limit of bytes.
        """
        if self._api_session is None:
            self._api_session = _session(None)
        limit = MAX_PICTURE if call.picture else max_bytes
        return self._exchange(self._api_session, call, timeout_s, limit)

    def check_result(self, address: str) -> str:
        """Return the address of a result in its normal form; raises ProviderBadResult when it isn't allowed."""
        return self._results.check(address)

    async def fetch(self, address: str, timeout_s: float = FETCH_S) -> Path:
        """Fetch a result picture into a file and return its path. Raises ProviderBadResult, ResultNotReady."""
        url = self._results.check(address)
        if self._result_session is None:
            self._result_session = _session(None if self._results.allow_private or self._http_proxy else public_socket)
        call = Call("GET", url, headers={"accept": "image/*"}, picture=True, safe=True)
        try:
            reply = await self._exchange(self._result_session, call, timeout_s, MAX_PICTURE)
        except (NotSent, Interrupted):
            raise ResultNotReady("The finished picture could not be fetched from the provider.") from None
        except ProviderBadResponse:
            message = "The finished picture could not be fetched: it is larger than any that is accepted."
            raise ProviderBadResult(message) from None
        if reply.picture is not None:
            return reply.picture
        message = "The finished picture's address does not lead to a picture."
        raise ProviderBadResult(message) if 200 <= reply.status < 400 else ResultNotReady(message)

    async def _exchange(self, session: aiohttp.ClientSession, call: Call, timeout_s: float, limit: int) -> Reply:
        # Before the call goes out: a picture that nobody can store must not be bought.
        draft = self._new_draft() if call.picture else None
        kept = False
        body = body_of(call)
        try:
            async with session.request(
                call.method,
                call.url,
                params=call.query or None,
                headers={**call.headers, **body.headers} if body else call.headers,
                json=None if body else call.json,
                data=body.pieces() if body else None,
                allow_redirects=False,
                proxy=self._http_proxy,
                timeout=_timeout(timeout_s),
                middlewares=() if call.safe else None,
            ) as response:
                if draft is not None and response.status == 200 and _looks_like_picture(response.headers):
                    picture = await self._stream(response, draft, limit)
                    kept = True
                    return Reply(call, response.status, response.headers, picture=picture)
                if draft is not None and response.status == 200 and call.picture_part and _is_form(response.headers):
                    parts = Parts(response.headers["content-type"], call.picture_part, partial(_write, draft))
                    await self._stream_parts(response, draft, parts, limit)
                    kept = parts.found
                    path = draft.path if kept else None
                    return Reply(call, response.status, response.headers, picture=path, parts=parts.kept)
                return Reply(call, response.status, response.headers, await self._body(response, limit))
        except _CONNECTING as error:
            raise NotSent(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Interrupted(type(error).__name__) from error
        finally:
            if draft is not None and not kept:
                draft.discard()

    async def _stream(self, response: ClientResponse, draft: Draft, limit: int) -> Path:
        with closing(draft):
            await self._drain(response, partial(_write, draft), limit)
        return draft.path

    async def _stream_parts(self, response: ClientResponse, draft: Draft, parts: Parts, limit: int) -> None:
        with closing(draft):
            await self._drain(response, parts.feed, limit)
        parts.finish()

    def _new_draft(self) -> Draft:
        try:
            return self._draft()
        except OSError as error:
            raise Overloaded("This service cannot store pictures now.", retry_after=_LONG_RETRY_S) from error

    async def _body(self, response: ClientResponse, limit: int) -> bytes:
        accepted = 200 <= response.status < 300
        if not accepted:
            limit = min(limit, MAX_ANSWER)
        if response.content.is_eof():  # it came whole behind its headers, as most answers to a poll do
            whole = response.content.read_nowait()
            if accepted and len(whole) > limit:
                raise _too_large()
            self.traffic.received += min(limit, len(whole))
            return whole[:limit]
        body = bytearray()
        try:
            await self._drain(response, body.extend, limit)
        except ProviderBadResponse:
            # A refusal's status says what it means however long its page is: it must not end a job that runs.
            if accepted:
                raise
        return bytes(body)

    async def _drain(self, response: ClientResponse, write: Callable[[bytes], Any], limit: int) -> None:
        loop = asyncio.get_running_loop()
        total = 0
        async with asyncio.timeout(STALL_S) as stall:
            async for chunk in response.content.iter_any():
                total += len(chunk)
                if total > limit:
                    raise _too_large()
                write(chunk)
                stall.reschedule(loop.time() + STALL_S)
        self.traffic.received += total


def _too_large() -> ProviderBadResponse:
    return ProviderBadResponse("The provider's answer is larger than any expected.")


@lru_cache(maxsize=64)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, connect=min(CONNECT_S, total_s * 0.9))


def _session(socket_factory: Callable[[Any], socket.socket] | None) -> aiohttp.ClientSession:
    # No pool limit: the number of jobs at once is bounded where they wait in order, not where they would time out.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, socket_factory=socket_factory)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        middlewares=(_never_repeat,),
        headers={"user-agent": f"images-proxy/{__version__}"},
        json_serialize_bytes=to_json,
    )


def _write(draft: Draft, data: bytes) -> None:
    try:
        draft.write(data)
    except OSError as error:
        raise NotWritten(error.strerror) from error


def _is_form(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def _looks_like_picture(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith(_PICTURE_TYPES)
