"""End users behind a key: whom a request is made for, as it may be written down."""

import hashlib
from collections.abc import Iterable
from typing import Final

NOBODY: Final = "-"
"""The end user of requests that name none."""
OTHERS: Final = "*"
"""All end users beyond the most that a key may have."""
MOST_USERS: Final = 10_000
_LONGEST: Final = 128


def user_digest(secret: bytes, user: str) -> str:
    """Return what stands for an end user in the state: the same for the same name in one state, telling nobody the
    name. ``secret``: the state's."""
    name = user.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, key=secret, digest_size=12, person=b"end user").hexdigest()


class EndUsers:
    """The end users seen behind each key. Names can be invented, so they are bounded."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def knows(self, key: str) -> bool:
        """Whether the users of a key have been loaded."""
        return key in self._seen

    def load(self, key: str, users: Iterable[str]) -> None:
        """Take over those that the state knows."""
        self._seen.setdefault(key, set()).update(users)

    def name(self, key: str, user: str | None, secret: bytes, *, shown: bool) -> str:
        """Return the end user as it is written down; ``shown``: by its name, else as a digest."""
        if not user:
            return NOBODY
        name = user[:_LONGEST] if shown and user not in (NOBODY, OTHERS) else user_digest(secret, user)
        seen = self._seen.setdefault(key, set())
        if name not in seen:
            if len(seen) >= MOST_USERS:
                return OTHERS
            seen.add(name)
        return name
