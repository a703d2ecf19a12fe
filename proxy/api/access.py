"""Who may call: API keys; for a service without keys, the web pages and host names it answers to.

Without keys a service spends its owner's money for whoever reaches it, including any web page in the owner's browser:
a form post needs no preflight, and DNS can be rebound to this machine. So a foreign Origin or Host is refused.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from proxy.accounts.accounts import Caller
from proxy.accounts.keys import Key, Keys
from proxy.api.tries import Tries
from proxy.config import ServerSettings, is_loopback
from proxy.errors import AdminOnly, NotAuthenticated, NotFound, OriginNotAllowed

Gate = Literal["use", "own", "metrics", "admin"]
"""What a route is for: using the service · reading what concerns oneself, or with the admin key everything · metrics ·
administration."""
_MAX_SHOWN = 100
_HOST = re.compile(r"(?P<name>[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?\Z", re.ASCII | re.IGNORECASE)
_BLANKS = " \t"  # no others: read as Latin-1, the last byte of a UTF-8 key may look like a no-break space
_NO_KEY = b","
"""Matches no configured key, since commas separate those: a wrong key, as opposed to none."""
_USER_HEADER: Final = "x-openwebui-user-id"
_ADMIN: Final = Key(name="admin")
_METRICS: Final = Key(name="metrics")


class Access:
    """The rules of one service. Keys are kept as SHA-256 digests only. ``monotonic``: seconds that never step."""

    def __init__(self, keys: Keys, server: ServerSettings, monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._tries = Tries(monotonic)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in server.cors_origins)
        self._hosts = frozenset(host.lower() for host in server.allowed_hosts)
        self._public_host = urlsplit(server.public_url).netloc.lower()
        # An allowed name is parsed once. Refusals are exceptions, which the cache doesn't keep, so nobody can fill it.
        self._require_ours = lru_cache(maxsize=256)(self._refuse_unless_ours)

    def caller(self, headers: Headers, gate: Gate = "use", address: str = "", *, basic: bool = False) -> Caller:
        """Return who calls. ``address``: where from, for those who guess. ``basic``: the key may also come as the
        password of HTTP Basic.

        Raises NotAuthenticated, OriginNotAllowed, AdminOnly, NotFound (administration is off), RateLimited (too many
        wrong keys).
        """
        given = self._keys.given
        if gate == "admin" and not given.admin:
            raise NotFound("There is no such path.")
        password = _password(headers) if basic and self._keys.asked else None
        if password is not None:
            # A browser that knows a password adds it to the calls of any page, unlike a key: RFC 7617, 2.2.
            self.check_origin(origin_of(headers), headers.get("host", ""), ambient=True)
        key = _key(headers) if password is None else password
        if not key:
            if self._keys.asked or gate == "admin" or (gate == "metrics" and given.metrics):
                raise NotAuthenticated("No API key was given. Send it as 'Authorization: Bearer KEY'.")
            return Caller(header_user=headers.get(_USER_HEADER))
        digest = hashlib.sha256(key).digest()
        guarded = gate != "use" and bool(given.admin or given.metrics)
        if guarded:
            self._tries.check(address)
        if given.is_admin(digest) and gate != "use":
            self._check_page(headers)
            return Caller(_ADMIN, "admin")
        if given.is_for_metrics(digest) and gate == "metrics":
            return Caller(_METRICS, "metrics")
        return Caller(self._plain(digest, gate, address if guarded else None), header_user=headers.get(_USER_HEADER))

    def _plain(self, digest: bytes, gate: Gate, guessing: str | None) -> Key:
        """Return the key of a caller who is no administrator."""
        given = self._keys.given
        # By lookup: nobody can choose how much of a digest is right, so how long that takes tells nothing.
        key = self._keys.find(digest)
        if key is None:
            special = given.is_admin(digest) or given.is_for_metrics(digest)
            if not (self._keys.asked or special or gate == "admin" or (gate == "metrics" and given.metrics)):
                return Key()
            if guessing is not None:
                self._tries.failed(guessing)
            # LiteLLM recognises a wrong key by the first of these words, which are OpenAI's. The rest is the same for
            # every wrong key, or it would tell who has guessed the admin key.
            hint = " Neither the admin key nor the one for metrics makes pictures." if given.admin else ""
            message = f"Incorrect API key provided: it is not known here.{hint}"
            raise NotAuthenticated(message, code="invalid_api_key")
        if key.disabled or self._keys.over(key):
            why = "is disabled" if key.disabled else "has expired"
            raise NotAuthenticated(f"The key '{key.name}' {why}.", code="invalid_api_key")
        if gate == "admin":
            raise AdminOnly("This needs the admin key.")
        if gate == "metrics" and given.metrics:  # they tell what every key has spent
            raise AdminOnly("This needs the key for metrics.")
        return key

    def _check_page(self, headers: Headers) -> None:
        """Refuse the admin key from pages of other sites: nobody types it there but by mistake.

        Raises OriginNotAllowed.
        """
        origin, host = ", ".join(headers.getlist("origin")).lower(), headers.get("host", "").lower()
        if origin and not self._is_known_origin(origin, host) and origin not in (f"http://{host}", f"https://{host}"):
            raise self._foreign_page(origin)

    @staticmethod
    def _foreign_page(origin: str) -> OriginNotAllowed:
        message = f"Pages of the origin '{_shown(origin)}' may not call this service. Add it to server.cors_origins."
        return OriginNotAllowed(message)

    def check_host(self, host: str) -> None:
        """Raise OriginNotAllowed unless the raw Host header is one this service answers to."""
        if not self._keys.asked or self._hosts:
            self._require_ours(host)

    def _refuse_unless_ours(self, host: str) -> None:
        if not self._is_ours(host.lower()):
            message = f"This service does not answer to the host '{_shown(host)}'. Add it to server.allowed_hosts."
            raise OriginNotAllowed(message)

    def check_origin(self, origin: str | None, host: str, *, ambient: bool = False) -> None:
        """Raise OriginNotAllowed when a page of another origin calls a service without keys.

        ``ambient``: or one with keys, if the browser may have added the key without the page knowing it.
        """
        if (self._keys.asked and not ambient) or origin is None or self._is_known_origin(origin.lower(), host.lower()):
            return
        raise self._foreign_page(origin)

    def cors(self, origin: str | None, host: str) -> str | None:
        """Return the value of Access-Control-Allow-Origin for an answer to ``origin``; None for no header."""
        if self._keys.asked and not self._origins:  # harmless: a browser never adds the key, so the page must know it
            return "*"
        if origin is None:
            return None
        known = origin.lower() in self._origins or (
            not self._keys.asked and self._is_known_origin(origin.lower(), host.lower())
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


def gate_of(path: str) -> Gate:
    """Return what a path is for."""
    if path == "/metrics":
        return "metrics"
    if path in ("/v1/key", "/v1/usage", "/v1/ledger"):
        return "own"
    return "admin" if path.startswith(("/key/", "/v1/organization/", "/v1/ledger/")) else "use"
