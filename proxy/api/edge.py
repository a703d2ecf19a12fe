"""What every request passes first and every answer last: id, address, access, CORS, log line, metrics.

Plain ASGI: behind Starlette's BaseHTTPMiddleware a handler would not see its caller leave
(https://github.com/encode/starlette/discussions/2094).
"""

from collections.abc import Iterator, Sequence

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.api.access import Access, gate_of, origin_of
from proxy.api.body import CallerLeft
from proxy.api.context import RequestContext, canonical, client_address
from proxy.api.errors import respond
from proxy.api.log_lines import log_request
from proxy.api.renderings import AnswerBroken
from proxy.clock import Clock
from proxy.config import ServerSettings
from proxy.errors import Failure, InternalError, UnsupportedContentEncoding
from proxy.metrics import Metrics

# Without this list a page's script can read none of them: https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name
_EXPOSED = (
    b"x-request-id, openai-processing-ms, x-should-retry, retry-after, location, x-images-provider, x-images-model, "
    b"x-images-mapped, x-images-dropped, x-images-attempts, x-images-reattached, x-images-generation, "
    b"x-images-fallback, x-images-seed, x-images-cost, x-images-cost-source, x-images-dry-run, "
    b"x-images-budget-remaining"
)
_UNMATCHED = "unmatched"
_HEALTH = frozenset({"/healthz", "/readyz"})
# Balancers and readers of the API's description have no key, and a person types it into the page.
_WITHOUT_KEY = _HEALTH | {"/", "/usage", "/openapi.json", "/favicon.ico"}
_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_USUAL_HEADERS = "authorization, content-type, api-key, idempotency-key, prefer"


class Edge:
    """The outermost part of the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[Route],
        access: Access,
        server: ServerSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._routes = routes
        self._names = {route.endpoint: route.name for route in routes}
        self._access = access
        self._server = server
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext.of(scope, self._clock.monotonic(), self._server)
        scope["path"], context.deployment = canonical(scope["path"])
        scope.setdefault("state", {})["context"] = context
        answer = _Answer(self, scope, context, send)
        try:
            if scope["method"] == "OPTIONS":
                context.route = "preflight"
            self._admit(scope, context)
            if scope["method"] == "OPTIONS":
                await self._preflight(context.asked)(scope, receive, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        except CallerLeft:
            context.left = True
        except AnswerBroken as broken:
            context.failed(broken.failure)
            raise
        except Failure as failure:
            context.failed(failure)
            await self._fail(failure, scope, receive, answer)
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets JSON and the log the cause)
            context.code, context.cause = "internal_error", error
            await self._fail(InternalError(), scope, receive, answer)
        finally:
            self._close(scope, context)

    def allow_origin(self, scope: Scope, headers: Headers) -> str | None:
        """Return the value of Access-Control-Allow-Origin for this request's answer."""
        if scope["path"].startswith("/images/"):
            return "*"
        return self._access.cors(headers.get("origin") or None, headers.get("host", ""))

    def processing_ms(self, context: RequestContext) -> int:
        """Return the milliseconds since the request came."""
        return round((self._clock.monotonic() - context.started) * 1000)

    def _admit(self, scope: Scope, context: RequestContext) -> None:
        headers = context.asked
        path, host = scope["path"], headers.get("host", "")
        # <img> can send no key, and the name cannot be guessed.
        picture = path.startswith("/images/") and scope["method"] in ("GET", "HEAD")
        if not picture and path not in _HEALTH:
            self._access.check_host(host)
            self._access.check_origin(origin_of(headers), host)
        if scope["method"] == "OPTIONS" or picture or path in _WITHOUT_KEY or path.startswith("/page/"):
            return
        gate = gate_of(path)
        if gate != "use":
            context.address = client_address(scope, headers, self._server)
        basic = path.startswith("/sdapi/")
        context.caller = self._access.caller(headers, gate, context.address, basic=basic)
        if headers.get("content-encoding", "").lower() not in ("", "identity"):
            raise UnsupportedContentEncoding("Compressed request bodies are not accepted.")

    @staticmethod
    def _preflight(headers: Headers) -> Response:
        asked = headers.get("access-control-request-headers")
        answer = {
            "access-control-allow-methods": _METHODS,
            # By name: a "*" would not cover Authorization (https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name).
            "access-control-allow-headers": asked or _USUAL_HEADERS,
            # A day, the most that a browser accepts (Firefox; Chromium stops at two hours).
            "access-control-max-age": "86400",
            "allow": _METHODS,
        }
        # Chromium asks before a page may call into a private network: https://wicg.github.io/private-network-access/
        if headers.get("access-control-request-private-network") == "true":
            answer["access-control-allow-private-network"] = "true"
        return Response(status_code=204, headers=answer)

    async def _fail(self, failure: Failure, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if answer.started:
            # Too late for a status. Raised, it cuts the connection, so nobody takes half an answer for a whole one.
            raise failure
        await respond(failure)(scope, receive, answer.send)

    def _close(self, scope: Scope, context: RequestContext) -> None:
        context.closed = True
        context.route = context.route or self._route(scope)
        # 499 is nginx's number for a caller who left before the answer.
        status = 499 if context.left or not context.status else context.status
        self._metrics.requests.labels(context.route, context.model, context.provider, str(status), context.code).inc()
        log_request(context, scope["method"], status, self.processing_ms(context))

    def _route(self, scope: Scope) -> str:
        """Return the name of the request's URL route, even if the request was refused before it got there."""
        if "endpoint" in scope:
            return self._names.get(scope["endpoint"], _UNMATCHED)
        matching = (route.name for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        return next(matching, _UNMATCHED)


class _Answer:
    """Adds to an answer's first message the headers that every answer carries."""

    __slots__ = ("_context", "_edge", "_scope", "_send", "started")

    def __init__(self, edge: Edge, scope: Scope, context: RequestContext, send: Send) -> None:
        self._edge, self._scope, self._context, self._send = edge, scope, context, send
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._context.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._common()]
        await self._send(message)

    def _common(self) -> Iterator[tuple[bytes, bytes]]:
        context = self._context
        yield b"x-request-id", context.request_id.encode()
        yield b"openai-processing-ms", str(self._edge.processing_ms(context)).encode()
        for name, value in context.headers.items():
            yield name.encode(), value.encode("latin-1")
        origin = self._edge.allow_origin(self._scope, context.asked)
        if context.code == "origin_not_allowed":  # else the page's author would see only "Failed to fetch"
            origin = "*"
        if origin is not None:
            yield b"access-control-allow-origin", origin.encode("latin-1")
            yield b"access-control-expose-headers", _EXPOSED
            if origin != "*":  # or a cache would give this answer to pages of another origin
                yield b"vary", b"origin"
