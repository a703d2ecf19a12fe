"""Our own base URL as the caller sees it, for the addresses of pictures and jobs."""

import ipaddress
import re

from starlette.types import Scope

from proxy.api.headers import RequestHeaders
from proxy.config import ServerSettings

_HOST = re.compile(r"[A-Za-z0-9._\-\[\]:]{1,255}\Z")


def base_of(scope: Scope, headers: RequestHeaders, server: ServerSettings) -> str:
    """Return ``public_url``, else scheme and host of the request; forwarded ones only from a trusted proxy."""
    if server.public_url:
        return server.public_url.rstrip("/")
    own_scheme, own_host = scope.get("scheme", "http"), headers.first("host")
    scheme, host = own_scheme, own_host
    if "x-forwarded-host" in headers or "x-forwarded-proto" in headers:
        client = scope.get("client")
        if client and _is_trusted(client[0], server):
            scheme = (headers.first("x-forwarded-proto") or scheme).partition(",")[0].strip().lower()
            host = (headers.first("x-forwarded-host") or host).partition(",")[0].strip()
    if scheme not in ("http", "https"):
        scheme = own_scheme
    host = next((name for name in (host, own_host) if _HOST.match(name)), None) or _bound(scope)
    return f"{scheme}://{host}"


def _bound(scope: Scope) -> str:
    """Return the address that the request came to, for callers who name no host."""
    name, port = scope.get("server") or ("127.0.0.1", None)
    name = f"[{name}]" if ":" in name else name
    return f"{name}:{port}" if port else name


def _is_trusted(client: str, server: ServerSettings) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(trusted, strict=False) for trusted in server.trusted_proxies)
