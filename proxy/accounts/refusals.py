"""What a caller hears when a limit leaves no room: which one, how much of it is used, and when it begins anew."""

from typing import Final

from proxy.accounts.amounts import in_words, shown_day
from proxy.dollars import decimal_text
from proxy.errors import Failure, PriceUnknown, RateLimited, ServiceSpendLimitReached, SpendLimitReached
from proxy.state.outcomes import OverLimit, OverPace
from proxy.state.records import Account

BUDGET_REMAINING: Final = "x-images-budget-remaining"
"""A header: dollars left under the tightest limit."""
_PERIODS: Final = {"day": "today", "week": "this week", "month": "this month", "total": "in all"}


def over_limit(outcome: OverLimit, account: Account) -> Failure:
    """Return the failure for a limit in dollars or pictures; what is reserved or unknown counts as used."""
    resets = shown_day(outcome.resets)
    again = f"It begins anew at {resets} (UTC)." if resets else "It does not begin anew by itself."
    message = (
        f"{_whose(outcome.scope, account)} may use {in_words(outcome.limit, outcome.unit)} "
        f"{_PERIODS[outcome.period]}, and {in_words(outcome.used, outcome.unit)} "
        f"{'is' if outcome.unit == 'dollars' or outcome.used == 1 else 'are'} used, which leaves too little for this "
        f"call. {again}"
    )
    headers = {}
    if outcome.unit == "dollars":
        headers[BUDGET_REMAINING] = decimal_text(max(0, outcome.limit - outcome.used))
    kind = ServiceSpendLimitReached if outcome.scope == "all" else SpendLimitReached
    return kind(message, headers=headers)


def over_pace(outcome: OverPace, account: Account) -> Failure:
    """Return the failure for a limit on requests."""
    whose = _whose(outcome.scope, account)
    if outcome.retry_after_ms is None:
        return RateLimited(f"{whose} may make pictures for {outcome.limit} requests at once, and as many are open.")
    message = f"{whose} may start {outcome.limit} requests for pictures a minute, and has."
    return RateLimited(message, retry_after=outcome.retry_after_ms / 1000)


def price_unknown(model: str, routes: tuple[tuple[str, str], ...]) -> Failure:
    """Return the failure for a model none of whose routes (provider and model) has a known price."""
    settings = " or ".join(f'providers.{provider}.prices = {{ "{name}" = … }}' for provider, name in routes[:3])
    return PriceUnknown(
        f"A budget in dollars holds here, and nobody knows what a picture by '{model[:100]}' costs. "
        f"Set its price (dollars a picture): {settings}."
    )


def _whose(scope: str, account: Account) -> str:
    kind = scope.partition(":")[0]
    if kind == "key":
        return f"The key '{account.key_name}'"
    if kind == "owner":
        return f"All keys of '{account.owner}' together"
    return "Each end user of this key" if kind == "user" else "This service"
