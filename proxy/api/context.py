"""What is known of one request: its path and headers, read once, and what its log line will say."""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from proxy.accounts.accounts import Caller
from proxy.config import ServerSettings
from proxy.errors import Failure, InvalidRequest
from proxy.logs import new_request_id

_SHORTEST_HOLD_S, _BEFORE_CALLER_S = 1.0, 2.0
# Long enough for every client's keys; each one is kept as long as its generation.
_MAX_KEY = 255
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?")
_HOST = re.compile(r"[A-Za-z0-9._\-\[\]:]{1,255}\Z")
_SLASHES = re.compile(r"/{2,}")
# Azure: /openai/deployments/dall-e-3/images/generations
_DEPLOYMENT = re.compile(r"(?:/v1)?(?:/openai)?/deployments/(?P<model>.+?)(?P<rest>/(?:images|chat)/.+)\Z")
# A base URL given with one part too many: /v1/v1/…, /api/v1/…, /openai/v1/…
_PREFIX = re.compile(r"\A(?:/(?:api|openai|v1))*/v1(?=/)")
# A base URL without its last slash, with the path put straight behind it: /v1images/generations
_GLUED = re.compile(r"\A/v1(?=(?:images|models|chat|responses|sdapi)(?:/|\Z))")
_MAX_PATH = 1024
"""No resource has a longer path, so a longer one is not worth matching against the expressions above."""
# Without a version; Azure's clients put /openai before those that aren't a deployment's.
_BARE = re.compile(
    r"(?:/openai)?(?P<rest>/(?:images/(?:generations(?:/[^/]+)?|edits|variations)|models(?:/.+)?|chat/completions"
    r"|responses(?:/[^/]+(?:/cancel)?)?))\Z"
)
DRY_RUN = "x-images-dry-run"
"""A request's header, and the one that marks its answer."""
_HAS_LEFT = "images_proxy.has_left"
"""An ASGI extension that our server offers: a function that says whether the peer has hung up."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class RequestContext:
    """One request: ``asked`` holds its headers, ``headers`` those that its answer gets besides the usual ones.

    ``has_left``: whether its caller has hung up, even if nobody has read that from the connection yet.
    ``origin`` is our base URL as the caller sees it; ``caller``: whose key it came with.
    ``address``: where it came from, on routes that can tell or change something.
    ``key`` is the Idempotency-Key as it came, ``attempt`` the SDK's retry counter, 0 where there is none.
    ``patience_s``: seconds the caller will wait, as far as it says. ``preferences``: those of ``Prefer``.
    """

    request_id: str
    started: float
    asked: Headers
    origin: str
    key: str | None
    attempt: int
    preferences: dict[str, str]
    patience_s: float
    has_left: Callable[[], bool] = lambda: False
    caller: Caller = field(default_factory=Caller)
    address: str = ""
    deployment: str = ""
    route: str = ""
    status: int = 0
    code: str = ""
    model: str = ""
    provider: str = ""
    attempts: int = 0
    generation: str = ""
    reattached: bool = False
    left: bool = False
    closed: bool = False
    cause: BaseException | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope, started: float, server: ServerSettings) -> "RequestContext":
        """Return the context of a request that came at ``started`` (monotonic seconds)."""
        headers = Headers(scope=scope)
        preferred = _preferences(headers)
        context = cls(
            new_request_id(),
            started,
            headers,
            base_url(scope, headers, server),
            headers.get("idempotency-key"),
            _attempt(headers),
            preferred,
            _patience_s(headers, preferred),
        )
        context.has_left = scope.get("extensions", {}).get(_HAS_LEFT, context.has_left)
        return context

    @property
    def owner(self) -> str:
        """The id of the caller's key, empty without one: whose generations it may join and see."""
        return self.caller.key.id

    @property
    def who(self) -> str:
        """Who makes a change, as it is kept with it."""
        return f"{self.caller.role} ({self.address})" if self.address else self.caller.role

    @property
    def idempotency_key(self) -> str | None:
        """The Idempotency-Key without quotes. Raises InvalidRequest when it is empty or too long."""
        if self.key is None:
            return None
        # The draft standard quotes it, most clients don't: draft-ietf-httpapi-idempotency-key-header, 2.1.
        key = self.key.strip().strip('"')
        if not key or len(key) > _MAX_KEY:
            message = f"The Idempotency-Key must have 1 to {_MAX_KEY} characters."
            raise InvalidRequest(message, param="Idempotency-Key")
        return key

    @property
    def dry_run(self) -> bool:
        """Whether the caller only wants to know what the call would do."""
        # Whatever isn't a plain no counts as a yes: in doubt nothing is bought.
        return self.asked.get(DRY_RUN, "").strip().lower() not in ("", "0", "false", "no")

    def name_model(self, values: dict[str, Any]) -> None:
        """Put the model that the path names into a request's values, unless they name one themselves."""
        if self.deployment and values.get("model") in (None, ""):
            values["model"] = self.deployment

    def failed(self, failure: Failure) -> None:
        """Note why the request failed."""
        self.code = failure.code or failure.type
        self.cause = failure.__cause__ if failure.status == 500 else None


def _attempt(headers: Headers) -> int:
    value = headers.get("x-stainless-retry-count", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 0


def _patience_s(headers: Headers, preferred: dict[str, str]) -> float:
    """Return the seconds to hold: two less than the caller says it will wait, at least one; else infinity."""
    # OpenAI's SDKs announce their timeout: the Python one in the first header, the Node one in the second.
    announced = [headers.get(name, "") for name in ("x-stainless-read-timeout", "x-stainless-timeout")]
    seconds = [float(value) for value in announced if _SECONDS.fullmatch(value.strip())]
    wait = preferred.get("wait", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 6:
        # The time after which the caller wants an answer (RFC 7240, 4.3), not one after which it hangs up.
        seconds.append(float(wait) + _BEFORE_CALLER_S)
    return min((max(_SHORTEST_HOLD_S, value - _BEFORE_CALLER_S) for value in seconds), default=math.inf)


def _preferences(headers: Headers) -> dict[str, str]:
    """Return the preferences of ``Prefer`` (RFC 7240), names in lower case."""
    found: dict[str, str] = {}
    for value in headers.getlist("prefer"):
        for part in value.split(","):
            name, _, setting = part.partition(";")[0].partition("=")
            # The first of several counts (RFC 7240, 2).
            found.setdefault(name.strip().lower(), setting.strip().strip('"'))
    return found


def base_url(scope: Scope, headers: Headers, server: ServerSettings) -> str:
    """Return ``public_url``, else the request's scheme and host; forwarded ones count only from a trusted proxy."""
    if server.public_url:
        return server.public_url.rstrip("/")
    own_scheme, own_host = scope.get("scheme", "http"), headers.get("host", "")
    scheme, host = own_scheme, own_host
    if "x-forwarded-host" in headers or "x-forwarded-proto" in headers:
        client = scope.get("client")
        if client and _is_trusted(client[0], server):
            # Each proxy of a chain adds its value at the end, so the first is what the client used.
            scheme = (headers.get("x-forwarded-proto") or scheme).partition(",")[0].strip().lower()
            host = (headers.get("x-forwarded-host") or host).partition(",")[0].strip()
    if scheme not in ("http", "https"):
        scheme = own_scheme
    host = next((name for name in (host, own_host) if _HOST.match(name)), None) or _bound(scope)
    return f"{scheme}://{host}"


def _bound(scope: Scope) -> str:
    """Return the address on which the request arrived, for callers who send no usable Host."""
    name, port = scope.get("server") or ("127.0.0.1", None)
    name = f"[{name}]" if ":" in name else name
    return f"{name}:{port}" if port else name


def _is_trusted(client: str, server: ServerSettings) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(trusted, strict=False) for trusted in server.trusted_proxies)


def client_address(scope: Scope, headers: Headers, server: ServerSettings) -> str:
    """Return the address of whoever sent a request, behind as many trusted proxies as there are."""
    client = scope.get("client")
    address = client[0] if client else ""
    # Each proxy adds at the end whom it was called by, so only what trusted ones have added can be believed.
    for each in reversed(headers.get("x-forwarded-for", "").split(",")):
        if not each.strip() or not _is_trusted(address, server):
            break
        address = each.strip()
    return address


def canonical(path: str) -> tuple[str, str]:
    """Return the path in the one form that is routed, and the model that the path names, if any.

    Clients differ in slashes, in whether their base URL ends in ``/v1``, and in whether the path names the model, as
    Azure's does. They are served without a redirect: some clients lose the body when they follow one.
    """
    if len(path) > _MAX_PATH or not path.isprintable():
        return path, ""
    path = _SLASHES.sub("/", path)
    if len(path) > 1:
        path = path.rstrip("/") or "/"
    deployment = _DEPLOYMENT.match(path)
    if deployment:
        return f"/v1{deployment['rest']}", deployment["model"]
    path = _GLUED.sub("/v1/", path, count=1)
    path = _PREFIX.sub("/v1", path, count=1)
    if path.startswith("/v1/sdapi/"):  # Automatic1111's API has no version, but users may give it the same base URL
        return path.removeprefix("/v1"), ""
    bare = _BARE.match(path)
    return (f"/v1{bare['rest']}" if bare else path), ""
