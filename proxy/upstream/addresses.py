"""Where result pictures may come from. A provider's answer names the address, so it is not trusted (OWASP: SSRF).

``ipaddress.is_global`` alone is not enough: it is true for multicast, for NAT64, for deprecated site-local and
IPv4-compatible addresses, and on older Pythons for 6to4, the local NAT64 prefix and the protocol assignments.
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from aiohappyeyeballs import AddrInfoType
from yarl import URL

from proxy.errors import ProviderBadResult

_MAX_LENGTH = 2048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052, 2.1
_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1
# Site-local (RFC 3879), local NAT64 (RFC 8215), IETF protocol assignments (RFC 6890, 2.2.2).
_SPECIAL = tuple(map(ipaddress.ip_network, ("fec0::/10", "64:ff9b:1::/48", "192.0.0.0/24")))
_HOST_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z][a-z0-9-]{0,62}\Z")
"""A last label that begins with a digit is another spelling of an IPv4 address (``2130706433``, ``127.1``)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(OSError):
    """A connection would have gone to a private, loopback, multicast or otherwise special address."""


def is_public(address: Address) -> bool:
    """Whether ``address``, and any address wrapped in it, is an ordinary one on the public internet."""
    if address.is_multicast or not address.is_global or any(address in network for network in _SPECIAL):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return all(is_public(inner) for inner in _wrapped(address))


def _wrapped(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _COMPATIBLE:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [wrapped for wrapped in inner if wrapped is not None]


def public_socket(info: AddrInfoType) -> socket.socket:
    """Create the socket for one connection attempt; raises AddressRefused unless its address is public.

    aiohttp calls this with the final address of every attempt, literals included, so DNS cannot be rebound
    between the check and the connection.
    """
    family, kind, protocol, _, destination = info
    # What follows "%" is the zone of a link-local address (RFC 4007, 11).
    if not is_public(ipaddress.ip_address(destination[0].partition("%")[0])):
        raise AddressRefused(f"refusing to connect to {destination[0]}")
    return socket.socket(family, kind, protocol)


@dataclass(frozen=True, slots=True)
class ResultAddresses:
    """The rule for one provider. ``hosts``: lower-case names, any if empty. ``allow_private``: private and http too."""

    hosts: Sequence[str] = ()
    allow_private: bool = False

    def check(self, address: str) -> str:
        """Return ``address`` in its normal form if a result may come from there. Raises ProviderBadResult."""
        try:
            url = URL(address)
            allowed = len(address) <= _MAX_LENGTH and self._allows(url)
        except ValueError:
            allowed = False
        if not allowed:
            raise ProviderBadResult("The provider names a picture at an address that is not allowed.")
        return str(url)

    def _allows(self, url: URL) -> bool:
        # Credentials in an address would be sent on, and shown to the caller.
        host = url.host
        if not host or url.user is not None or url.password is not None or url.scheme not in ("http", "https"):
            return False
        if _is_private(url.raw_host or host):
            return self.allow_private
        if self.hosts and host not in self.hosts:
            return False
        return self.allow_private or (url.scheme == "https" and url.port == 443)


@lru_cache(maxsize=256)
def _is_private(host: str) -> bool:
    # RFC 6761, 6.3; and a dot at the end spells the same name so that no list would recognise it.
    if host == "localhost" or host.endswith((".localhost", ".")):
        return True
    try:
        return not is_public(ipaddress.ip_address(host))
    except ValueError:
        return not _HOST_NAME.match(host)
