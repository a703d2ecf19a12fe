"""What a request would do, before anything is bought: at each of its routes, what it becomes and how long it takes."""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.accounts.prices import Price
from proxy.jobs.schedule import Schedule, classify
from proxy.requests.resolve import Candidate, ResolvedRequest


@dataclass(frozen=True, slots=True)
class RouteForecast:
    """One picture as one route would make it.

    ``width`` and ``height`` in pixels, as they would be asked for. ``mapped`` and ``dropped``: what becomes of
    parameters, as in a ``Translation``. ``seconds``: the usual time, measured here or else published; None if unknown.
    """

    provider: str
    model: str
    width: int
    height: int
    mapped: tuple[str, ...]
    dropped: tuple[str, ...]
    price: Price
    seconds: float | None


def forecast(
    resolved: ResolvedRequest, schedule: Schedule, price: Callable[[Candidate], Price]
) -> tuple[RouteForecast, ...]:
    """Return what each route would do, in the order in which they would be tried."""
    return tuple(_at(candidate, schedule, price(candidate)) for candidate in resolved.candidates)


def _at(candidate: Candidate, schedule: Schedule, price: Price) -> RouteForecast:
    route, translation = candidate.route, candidate.translation
    settings = translation.settings
    size = settings.get("width"), settings.get("height")
    learned = schedule.usual_s(classify(route.provider, route.model.name, *size, settings.get("steps")))
    return RouteForecast(
        route.provider,
        route.model.name,
        translation.shape.width,
        translation.shape.height,
        translation.mapped,
        translation.dropped,
        price,
        learned if learned is not None else route.model.seconds,
    )
