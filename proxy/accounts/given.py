"""The keys that stand in environment variables: those of callers, the admin key, and the key for metrics."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_NAMED: Final = re.compile(r"(?P<name>[a-z0-9_-]{1,32})=(?P<key>[^=].{7,})\Z", re.DOTALL)
_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}\Z")
_LEAST_ADMIN: Final = 16


def key_digest(key: str) -> bytes:
    """Return what is kept of a key: its SHA-256 digest. Bytes that are not UTF-8 count as they are.

    ``surrogateescape`` is how Python reads such bytes from the environment (PEP 383).
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """Keys as digests. ``callers``: with their names, empty for those without one. ``admin``, ``metrics``: empty
    without one. ``admin_asks``: the admin key alone already means that callers need a key."""

    callers: Mapping[bytes, str]
    admin: bytes = b""
    metrics: bytes = b""
    admin_asks: bool = True

    @property
    def ask(self) -> bool:
        """Whether callers need a key for the sake of these."""
        return bool(self.callers) or bool(self.admin and self.admin_asks)

    def is_admin(self, digest: bytes) -> bool:
        """Compare in constant time."""
        return bool(self.admin) and hmac.compare_digest(digest, self.admin)

    def is_for_metrics(self, digest: bytes) -> bool:
        """Compare in constant time."""
        return bool(self.metrics) and hmac.compare_digest(digest, self.metrics)


NONE_GIVEN: Final = GivenKeys({})


def read_given(callers: str, admin: str, metrics: str, variables: tuple[str, str, str]) -> tuple[GivenKeys, list[str]]:
    """Return the keys that variables hold, and a line for each thing that is doubtful about them.

    ``callers``: separated by commas, each with or without a name in front (``ann=…``). ``variables``: their names, in
    the same order. No line repeats a key.
    """
    named: dict[bytes, str] = {}
    problems: list[str] = []
    for number, text in enumerate(filter(None, (key.strip() for key in callers.split(","))), 1):
        name, key = _name_of(text)
        if key is None:
            problems.append(
                f"{variables[0]}: key {number} has a '=' and may be meant to have a name: write "
                "name=key, the name in a-z, 0-9, _ and - (at most 32), the key at least 8 characters"
            )
            continue
        digest = key_digest(key)
        if named.get(digest, name) != name:
            problems.append(f"{variables[0]}: key {number} stands there twice, with different names")
        if name and name in (other for known, other in named.items() if known != digest):
            problems.append(f"{variables[0]}: two keys have the name '{name}'")
        named[digest] = name
    given = GivenKeys(named, key_digest(admin) if admin else b"", key_digest(metrics) if metrics else b"")
    if admin and len(admin) < _LEAST_ADMIN:
        problems.append(f"{variables[1]}: the admin key needs at least {_LEAST_ADMIN} characters")
    if admin and given.admin in named:
        problems.append(f"{variables[1]}: the admin key must differ from every other key")
    if metrics and (given.metrics in named or given.metrics == given.admin):
        problems.append(f"{variables[2]}: the key for metrics must differ from every other key")
    return given, problems


def _name_of(text: str) -> tuple[str, str | None]:
    """Return a key's name, empty for none, and the key; None for the key if it is doubtful which part is which."""
    if "=" not in text:
        return "", text
    found = _NAMED.match(text)
    if found is not None:
        return found["name"], found["key"]
    # Base64 ends in "=": that is no name, unless all in front of it could be one.
    bare = text.rstrip("=")
    return ("", text) if "=" not in bare and not _NAME.match(bare) else ("", None)
