"""What a picture costs: told by the provider, configured, published, or told for one like it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from proxy.dollars import nano_dollars
from proxy.providers.boundary import Model
from proxy.requests.resolve import Candidate

Source = Literal["provider", "config", "table", "unknown"]
"""Who says what a job costs, the surest first: its provider, of this very job · the operator · a table · nobody.

A price that was told for an earlier job of the same kind is a table's as well: ``provider`` promises that the provider
named it for this job, and whoever compares our figures with its bill can rely on those rows alone.
"""

_SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True, slots=True)
class Price:
    """What one picture costs, in whole nano-dollars; None where nobody knows.

    ``name``: jobs of one name cost the same, so that what a provider tells of one is remembered for the others.
    """

    amount: int | None = None
    source: Source = "unknown"
    name: str = ""

    def settled(self, told: int | None) -> "Price":
        """Return what the finished job cost: what its provider ``told``, else this price, known before."""
        return self if told is None else replace(self, amount=told, source="provider")


UNKNOWN = Price()


def price_of(amount: int | None, source: str) -> Price:
    """Return a price that was written down: nano-dollars, and who said so. Of unknown ones the amount says nothing."""
    known: Source = next((each for each in _SOURCES if each == source), "unknown")
    return UNKNOWN if amount is None or known == "unknown" else Price(amount, known)


def total(prices: Sequence[Price]) -> Price:
    """Return the price of several pictures together, with the weakest of their sources; unknown if one of them is."""
    amounts = [price.amount for price in prices if price.amount is not None]
    if not amounts or len(amounts) < len(prices):
        return UNKNOWN
    return Price(sum(amounts), max((price.source for price in prices), key=_SOURCES.index))


def known_price(candidate: Candidate, configured: Mapping[str, int], told: Mapping[str, int]) -> Price:
    """Return the price of a picture by this route, as far as it is known before it is made.

    ``configured``: the provider's ``prices`` by model; any of its names will do. ``told``: what providers last told, by
    ``Price.name``. Both in nano-dollars. The operator's word counts most, then what the provider has published.
    """
    name = price_name(candidate)
    price = replace(stated_price(candidate.route.model, configured), name=name)
    return Price(told[name], "table", name) if price.amount is None and name in told else price


def stated_price(model: Model, configured: Mapping[str, int]) -> Price:
    """Return what a picture of ``model`` costs by the operator's word or else the provider's, whatever its size."""
    for each in (model.name, *model.aliases):
        if each in configured:
            return Price(configured[each], "config")
    return UNKNOWN if model.price_dollars is None else Price(nano_dollars(model.price_dollars), "table")


def price_name(candidate: Candidate) -> str:
    """Return the name that all jobs of one price share: ``provider/model|pixels|steps``, pixels as a power of two.

    Prodia's own names of its prices have a model, a class of sizes and the steps in them, as in
    ``inference-flux-schnell-large-steps-4`` (https://docs.prodia.com/reference/price).
    """
    route, translation = candidate.route, candidate.translation
    pixels = translation.shape.width * translation.shape.height
    usual = route.model.numbers.get("steps")
    steps = translation.settings.get("steps", usual and usual.default)
    size = 1 << round(math.log2(pixels)) if pixels > 0 else "-"
    return f"{route}|{size}|{'-' if steps is None else f'{steps:g}'}"
