"""The only module that speaks HTTP to providers: each call is sent once, and bounded in time and bytes.

aiohttp repeats idempotent methods by itself after a dropped connection, and Prodia's former submit is a GET that buys a
picture. The middleware below turns such drops into failures of ours before aiohttp sees them. Only calls declared safe
go without it; those may be sent twice.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from pydantic_core import to_json

from proxy import __version__
from proxy.errors import ProviderBadResponse, ProviderBadResult
from proxy.providers.boundary import Call, Reply
from proxy.providers.multipart import Parts
from proxy.upstream.addresses import AddressRefused, ResultAddresses, public_socket
from proxy.upstream.bodies import body_of
from proxy.upstream.incoming import Draft, Incoming, NotWhole, unstorable

CONNECT_S = 3.0
STALL_S = 15.0
"""Longest silence within a body."""
FETCH_S = 30.0
"""Longest silence of a host that a picture is fetched from; also the whole time for a small picture."""
MAX_ANSWER = 524_288
"""An answer may repeat the prompt: 32,000 characters, up to twelve bytes each as JSON."""
MAX_CATALOGUE = 1_048_576
MAX_PICTURE = 52_428_800
_KEEPALIVE_S = 15.0
"""Below servers' own limits (nginx: 75 s): a submit on a connection that is just being closed would end as unknown.
https://nginx.org/en/docs/http/ngx_http_core_module.html#keepalive_timeout
"""
_PICTURE_TYPES = ("image/", "application/octet-stream", "binary/octet-stream")


class NotSent(Exception):
    """The call provably never reached the provider: name, connection or TLS failed."""


class Interrupted(Exception):
    """The call was, or may have been, sent, and no complete answer came back."""


class ResultNotReady(ProviderBadResult):
    """A result could not be fetched now; its host may have it a moment later. ``answered``: the status that it said."""

    answered: int | None = None


class TooLarge(ProviderBadResponse):
    """An answer exceeds its limit of bytes."""

    def __init__(self) -> None:
        super().__init__("The provider's answer is larger than any expected.")


@dataclass(slots=True)
class Traffic:
    """Bytes received from one provider so far, in bodies within their limits."""

    received: int = 0


_CONNECTING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ClientProxyConnectionError,
)
"""What aiohttp raises while nothing of the call has been sent yet. It repeats no call after these by itself."""


async def _never_repeat(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    try:
        return await handler(request)
    except _CONNECTING:  # first: they are ClientErrors, too
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise Interrupted(type(error).__name__) from error


class Upstream:
    """The connections to one provider.

    API calls go wherever the operator's configuration points. Results are fetched over a second pool, which checks
    the address of every connection, because the provider's answer chooses it. ``credentials`` are headers of the
    first pool only. ``draft`` opens what a picture is written into, or returns None when memory must do; it raises
    OSError when neither will.
    """

    def __init__(
        self,
        draft: Callable[[], Draft | None],
        results: ResultAddresses,
        http_proxy: str = "",
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self._draft = draft
        self.traffic = Traffic()
        self._results = results
        self._http_proxy = http_proxy or None
        self._credentials = credentials or {}
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

        Raises NotSent, Interrupted, TooLarge, and NotWhole for a picture that came cut off. Raises StateUnavailable
        before anything is sent when the answer may be a picture that comes only once and it cannot be stored.
        """
        if self._api_session is None:
            self._api_session = _session(None, self._credentials)
        limit = MAX_PICTURE if call.picture else max_bytes
        return self._exchange(self._api_session, call, timeout_s, limit)

    def check_result(self, address: str) -> str:
        """Return the address of a result in its normal form. Raises ProviderBadResult when it isn't allowed."""
        return self._results.check(address)

    async def fetch(self, address: str, timeout_s: float = FETCH_S) -> Path | bytes:
        """Fetch a result picture and return its file, or its bytes when no file can be written.

        Raises ResultNotReady and NotWhole, after which another fetch may work, and ProviderBadResult.
        """
        url = self._results.check(address)
        if self._result_session is None:
            # A configured proxy is the peer of every connection, and its own address may well be private.
            self._result_session = _session(None if self._results.allow_private or self._http_proxy else public_socket)
        call = Call("GET", url, headers={"accept": "image/*"}, picture=True, safe=True)
        try:
            reply = await self._exchange(self._result_session, call, timeout_s, MAX_PICTURE)
        except (NotSent, Interrupted) as error:
            kind = ProviderBadResult if _leads_inside(error) else ResultNotReady
            raise kind("The finished picture could not be fetched from the provider.") from error
        except TooLarge:
            message = "The finished picture could not be fetched: it is larger than any that is accepted."
            raise ProviderBadResult(message) from None
        if reply.picture is not None:
            return reply.picture
        message = "The finished picture's address does not lead to a picture."
        # Not followed: the address that a redirect names would be yet another one to check.
        if 300 <= reply.status < 400:
            raise ProviderBadResult(message)
        if reply.status < 300:
            raise NotWhole(message)
        not_ready = ResultNotReady(message, retry_after=reply.retry_after)
        not_ready.answered = reply.status
        raise not_ready

    async def _exchange(self, session: aiohttp.ClientSession, call: Call, timeout_s: float, limit: int) -> Reply:
        # Opened before the call is sent: a picture that cannot be stored must not be bought.
        incoming = self._incoming(call) if call.picture else None
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
                timeout=_timeout(timeout_s, FETCH_S if call.picture and call.safe else None),
                middlewares=() if call.safe else None,
            ) as response:
                if incoming is not None and response.status == 200 and _looks_like_picture(response.headers):
                    await self._drain(response, incoming.write, limit)
                    picture = incoming.finish()
                    kept = True
                    return Reply(response.status, response.headers, picture=picture)
                if incoming is not None and response.status == 200 and call.picture_part and _is_form(response.headers):
                    parts = Parts(response.headers["content-type"], call.picture_part, incoming.write)
                    await self._drain(response, parts.feed, limit)
                    parts.finish()
                    output = incoming.finish() if parts.found else None
                    kept = parts.found
                    return Reply(response.status, response.headers, picture=output, parts=parts.kept)
                return Reply(response.status, response.headers, await self._body(response, limit))
        except _CONNECTING as error:  # first: they are ClientErrors or TimeoutErrors, too
            raise NotSent(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Interrupted(type(error).__name__) from error
        finally:
            if incoming is not None and not kept:
                incoming.discard()

    def _incoming(self, call: Call) -> Incoming:
        try:
            return Incoming(self._draft())
        except OSError as error:
            # What can be fetched again may come into memory; a submit must not be sent on that chance.
            if not call.safe:
                raise unstorable() from error
            return Incoming(None)

    async def _body(self, response: ClientResponse, limit: int) -> bytes:
        accepted = 200 <= response.status < 300
        if not accepted:
            limit = min(limit, MAX_ANSWER)
        if response.content.is_eof():  # it arrived together with its headers, as most answers to a poll do
            whole = response.content.read_nowait()
            if accepted and len(whole) > limit:
                raise TooLarge
            self.traffic.received += min(limit, len(whole))
            return whole[:limit]
        body = bytearray()
        try:
            await self._drain(response, body.extend, limit)
        except ProviderBadResponse:
            # An error's status means the same however long its page is: that must not end a running job.
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
                    raise TooLarge
                write(chunk)
                stall.reschedule(loop.time() + STALL_S)
        self.traffic.received += total


@lru_cache(maxsize=64)
def _timeout(total_s: float, silence_s: float | None) -> aiohttp.ClientTimeout:
    # Connecting must time out before the whole call does: only then is it known that nothing was sent.
    return aiohttp.ClientTimeout(total=total_s, connect=min(CONNECT_S, total_s * 0.9), sock_read=silence_s)


def _session(
    socket_factory: Callable[[Any], socket.socket] | None, credentials: Mapping[str, str] = MappingProxyType({})
) -> aiohttp.ClientSession:
    # No limit on the pool: jobs are limited by their slots; a wait in here would count against the call's timeout.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, socket_factory=socket_factory)
    return aiohttp.ClientSession(
        connector=connector,
        # No cookies and no HTTP_PROXY or ~/.netrc: a call depends on nothing but the configuration.
        # https://docs.aiohttp.org/en/stable/client_reference.html#aiohttp.ClientSession
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        middlewares=(_never_repeat,),
        headers={"user-agent": f"images-proxy/{__version__}", **credentials},
        json_serialize_bytes=to_json,
    )


def _leads_inside(error: BaseException | None) -> bool:
    """Whether a connection failed because its address was refused."""
    while error is not None and not isinstance(error, AddressRefused):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_form(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def _looks_like_picture(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith(_PICTURE_TYPES)
