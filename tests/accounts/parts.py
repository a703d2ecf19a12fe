"""What the tests of accounts share: keys made in a running service, and what the state says of the money."""

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.accounts.changes import Budgets, KeyAdmin
from proxy.state.checker import problems
from proxy.state.money import NANO
from proxy.state.outcomes import Usage
from tests.service import Service

MODEL = "prodia/inference.flux-fast.schnell.txt2img.v2"
FREE = "imagelabs/sdxl-turbo"
PRICE = NANO // 400
ADMIN = "admin-key-for-tests-1"
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def new_key(
    service: Service, name: str = "ann", budgets: Mapping[str, Sequence[str]] | None = None, **fields: Any
) -> dict[str, str]:
    """Make a key, and return the headers that send it."""
    engine = service.engine
    admin = KeyAdmin(engine.journal.state, "test", lambda: engine.accounts.keys.now, lambda _: False)
    *_, secret = await admin.create(name, Budgets(**(budgets or {})), **fields)
    await engine.accounts.refresh()
    return bearer(secret)


async def used(service: Service, by: Any = "key") -> dict[str, Usage]:
    """Return what was used, by name; afterwards the state must agree with itself."""
    state = service.engine.journal.state
    assert problems(await state.everything()) == []
    return {usage.name: usage for usage in await state.usage(by, 0)}
