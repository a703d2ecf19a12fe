"""Who may call: API keys; for a service without keys, the web pages and host names it answers to.

Without keys a service spends its owner's money for whoever reaches it, including any web page in the owner's browser:
a form post needs no preflight, and DNS can be rebound to this machine. So a foreign Origin or Host is refused.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from proxy.config import ServerSettings, is_loopback
from proxy.errors import NotAuthenticated, OriginNotAllowed

_MAX_SHOWN = 100
_HOST = re.compile(r"(?P<name>[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?\Z", re.ASCII | re.IGNORECASE)
_BLANKS = " \t"  # no others: read as Latin-1, the last byte of a UTF-8 key may look like a no-break space
_NO_KEY = b","
"""Matches no configured key, since commas separate those: a wrong key, as opposed to none."""


class Access:
    """The rules of one service. Keys are kept as SHA-256 digests only."""

    def __init__(self, key_digests: Iterable[bytes], server: ServerSettings) -> None:
        self._digests = tuple(key_digests)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in server.cors_origins)
        self._hosts = frozenset(host.lower() for host in server.allowed_hosts)
        self._public_host = urlsplit(server.public_url).netloc.lower()

    def owner(self, headers: Headers, *, basic: bool = False) -> str:
        """Return a short name for the caller's key, empty on a service without keys.

        ``basic``: the key may also come as the password of HTTP Basic. Raises NotAuthenticated, OriginNotAllowed.
        """
        if not self._digests:
            return ""
        password = _password(headers) if basic else None
        if password is not None:
            # A browser that knows a password adds it to the calls of any page, unlike a key: RFC 7617, 2.2.
            self.check_origin(origin_of(headers), headers.get("host", ""), ambient=True)
        key = _key(headers) if password is None else password
        if not key:
            raise NotAuthenticated("No API key was given. Send it as 'Authorization: Bearer KEY'.")
        digest = hashlib.sha256(key).digest()
        # All are compared, each in constant time: how long this takes shows neither which one matched nor how nearly.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            # LiteLLM recognises a wrong key by these words of OpenAI's.
            raise NotAuthenticated("Incorrect API key provided: it is not known here.", code="invalid_api_key")
        return digest.hex()[:16]

    def check_host(self, host: str) -> None:
        """Raise OriginNotAllowed unless the raw Host header is one this service answers to."""
        if self._digests and not self._hosts:
            return
        if not self._is_ours(host.lower()):
            message = f"This service does not answer to the host '{_shown(host)}'. Add it to server.allowed_hosts."
            raise OriginNotAllowed(message)

    def check_origin(self, origin: str | None, host: str, *, ambient: bool = False) -> None:
        """Raise OriginNotAllowed when a page of another origin calls a service without keys.

        ``ambient``: or one with keys, if the browser may have added the key without the page knowing it.
        """
        if (self._digests and not ambient) or origin is None or self._is_known_origin(origin.lower(), host.lower()):
            return
        message = f"Pages of the origin '{_shown(origin)}' may not call this service. Add it to server.cors_origins."
        raise OriginNotAllowed(message)

    def cors(self, origin: str | None, host: str) -> str | None:
        """Return the value of Access-Control-Allow-Origin for an answer to ``origin``; None for no header."""
        if self._digests and not self._origins:  # harmless: a browser never adds the key, so the page must know it
            return "*"
        if origin is None:
            return None
        known = origin.lower() in self._origins or (
            not self._digests and self._is_known_origin(origin.lower(), host.lower())
        )
        return origin if known else None

    def _is_known_origin(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        # "null" too ends here: sandboxed frames send it, and so may any page (RFC 6454, 7.3).
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return False
        # Equal to Host is not enough: under DNS rebinding both are the attacker's name.
        own = parts.netloc == host and self._is_ours(host)
        return is_loopback(parts.hostname) or own or parts.netloc == self._public_host

    def _is_ours(self, host: str) -> bool:
        match = _HOST.match(host)
        if match is None:
            return False
        name = match["name"].strip("[]")
        return is_loopback(name) or (bool(host) and host in (*self._hosts, self._public_host)) or name in self._hosts


def _key(headers: Headers) -> bytes:
    """Return the key of ``Authorization: Bearer`` (any case, extra blanks) or ``api-key`` (Azure's clients)."""
    # Of two headers of a kind a proxy in front may have checked the other one, so neither is accepted.
    given = headers.getlist("authorization")
    if given:
        scheme, _, value = given[0].strip(_BLANKS).partition(" ")
        return value.strip(_BLANKS).encode("latin-1") if len(given) == 1 and scheme.lower() == "bearer" else _NO_KEY
    keys = headers.getlist("api-key")
    return keys[0].strip(_BLANKS).encode("latin-1") if len(keys) == 1 else b""


def _password(headers: Headers) -> bytes | None:
    """Return the password of ``Authorization: Basic`` (RFC 7617), or its user if that is all; None for another scheme.

    Automatic1111 asks for both: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
    """
    given = headers.getlist("authorization")
    scheme, _, value = given[0].strip(_BLANKS).partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value.strip(_BLANKS), validate=True).partition(b":")
    except ValueError:
        return _NO_KEY
    return password or user


def origin_of(headers: Headers) -> str | None:
    """Return the Origin of a call. Two of them joined are no known origin; an empty one says no more than none."""
    return ", ".join(headers.getlist("origin")) or None


def _shown(value: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in value)[:_MAX_SHOWN]
