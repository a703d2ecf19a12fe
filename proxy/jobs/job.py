"""A job before it is submitted: what it is, what kind it is, and in which of two ways it is started."""

from proxy.accounts.prices import Price
from proxy.jobs.schedule import Key, classify
from proxy.providers.boundary import Job
from proxy.requests.resolve import Candidate, ResolvedRequest

_DEAR, _SLOW_S = 10_000_000, 2.0
"""A cent, in nano-dollars, and the seconds: from here on a picture that is lost with our process is missed."""


def job_of(candidate: Candidate, resolved: ResolvedRequest, seed: int) -> Job:
    """Return one picture of a request, to be made by this route from ``seed``."""
    checked = resolved.checked
    return Job(
        model=candidate.route.model,
        operation=checked.operation,
        prompt=checked.request.prompt,
        settings=candidate.translation.with_seed(seed),
        output_format=resolved.request.output_format or "png",
        images=checked.images,
        mask=checked.mask,
    )


def kind_of(provider: str, job: Job) -> Key:
    """Return the kind of a job: the durations of all jobs of one kind are learned together."""
    size = job.settings.get("width"), job.settings.get("height")
    return classify(provider, job.model.name, *size, job.settings.get("steps"))


def would_be_missed(price: Price, usual_s: float | None) -> bool:
    """Whether a picture that is lost with our process costs somebody something: a cent, or two seconds.

    A price that nobody knows may be high. ``usual_s``: how long such a picture takes; None, not known, counts as quick.
    """
    return price.amount is None or price.amount >= _DEAR or (usual_s is not None and usual_s >= _SLOW_S)
