"""Generations read back from the state: what another process, or this one before its start, has written."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from pydantic_core import from_json, to_json

from proxy.accounts.prices import price_of
from proxy.clock import Clock, Deadline
from proxy.errors import (
    ContentRefused,
    Failure,
    GenerationFailed,
    GenerationTimeout,
    JobLost,
    Overloaded,
    ProviderAuth,
    ProviderBadResponse,
    ProviderBadResult,
    ProviderBusy,
    ProviderFailure,
    ProviderRejected,
    ProviderUnavailable,
    SubmitOutcomeUnknown,
)
from proxy.generations.record import Generation
from proxy.generations.results import Picture
from proxy.jobs.steps import JobState, Progress
from proxy.pictures.codec import Facts
from proxy.pictures.store import StoredPicture
from proxy.requests.summary import RequestSummary
from proxy.state import records
from proxy.state.records import JobRow
from proxy.state.transitions import OPEN

_log = logging.getLogger("proxy")
_FAILURES: Final[dict[str, tuple[type[ProviderFailure], str]]] = {
    str(kind.code): (kind, message)
    for kind, message in (
        (ContentRefused, "The provider refused this picture for its content."),
        (GenerationFailed, "The provider could not make this picture."),
        (GenerationTimeout, "The picture was not ready within the time a job is followed."),
        (ProviderAuth, "The provider refused this service's credentials while the job ran."),
        (ProviderBadResponse, "The provider's answer could not be read."),
        (ProviderBadResult, "The provider's picture cannot be used."),
        (ProviderBusy, "The provider is busy; nothing was started there."),
        (ProviderRejected, "The provider refused this request's parameters."),
        (ProviderUnavailable, "The provider cannot be reached; nothing was sent."),
    )
}
"""What a repeat hears of a failure whose own words were not kept."""

_STATES: Final[dict[str, JobState]] = {
    "intended": "waiting",
    "submitting": "queued",
    "accepted": "queued",
    "done": "done",
}


def restored(found: records.Generation, number: int, clock: Clock, tell: Callable[[Generation], bool]) -> Generation:
    """Return a generation from its rows, without a task. ``tell``: whether somebody wants its pictures.

    Moments before now count as now: while no process was there, nobody could repeat anything.
    """
    row = found.row
    request = RequestSummary.load(row.request)
    generation = Generation(
        id=row.id,
        number=number,
        request=request,
        fingerprint=row.fingerprint or b"",
        account=row.account,
        seed=row.seed,
        hold=Deadline.after(clock, 0.0),
        created=row.created // 1000,
        key=row.idempotency_key,
        attempt=row.attempt,
        claim=row.claim,
        delivered_at=None if row.delivered is None else clock.monotonic(),
    )
    generation.written.set()
    generation.progress = [Progress(generation.changed, lambda: tell(generation)) for _ in found.jobs]
    show(found, generation)
    return generation


def show(found: records.Generation, generation: Generation) -> None:
    """Show a generation's jobs as they stand in its rows."""
    for job, progress in zip(found.jobs, generation.progress, strict=True):
        progress.submits = job.submits
        progress.submitted = job.state not in ("intended", "released")
        progress.provider = job.provider if job.submits else ""
        progress.progress(_STATES.get(job.state, "failed"))


def pictures_of(jobs: tuple[JobRow, ...], request: RequestSummary) -> dict[int, Picture]:
    """Return the finished pictures by number; one whose description can't be read is missing."""
    pictures: dict[int, Picture] = {}
    for job in jobs:
        if job.state == "done" and job.picture:
            try:
                pictures[job.number] = load_picture(job.picture, request)
            except ValueError:
                _log.error("the picture of the job %s cannot be read in the state", job.id)
    return pictures


def failures_of(jobs: tuple[JobRow, ...], pictures: Mapping[int, Picture]) -> dict[int, Failure]:
    """Return why the jobs that have ended and are not among ``pictures`` have none, by number."""
    return {job.number: _failure(job) for job in jobs if job.state not in OPEN and job.number not in pictures}


def _failure(job: JobRow) -> Failure:
    kind, message = _FAILURES.get(job.failure, (JobLost, "The picture was bought, and is lost."))
    if job.state == "unknown" and kind is not ProviderBadResponse:
        return SubmitOutcomeUnknown(
            f"The provider '{job.provider}' was sent this job and its answer was lost; it may have made a picture."
        )
    if job.state == "released" and kind is JobLost:
        return Overloaded("This service stopped before the picture was asked for; nothing was bought.", retry_after=1.0)
    return kind(message)


def dump_picture(picture: Picture) -> str:
    """Return a picture as JSON text, without what its request says already."""
    stored = picture.stored
    values = {
        "provider": picture.origin.provider,
        "model": picture.origin.model,
        "seed": picture.origin.seed,
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "url": picture.url,
        "name": stored and stored.name,
        "bytes": stored and stored.size_bytes,
        "cost": picture.price.amount,
        "priced_by": picture.price.source,
    }
    return to_json({name: value for name, value in values.items() if value is not None}).decode()


def load_picture(text: str, request: RequestSummary) -> Picture:
    """Read what ``dump_picture`` has written. Raises ValueError."""
    values = from_json(text)
    try:
        width, height, file_format = values["width"], values["height"], values.get("format")
        origin = replace(request.origin(values["provider"], values["model"]), seed=values.get("seed"))
        stored = None
        if "name" in values:
            stored = StoredPicture(values["name"], Facts(file_format, width, height), values["bytes"])
        price = price_of(values.get("cost"), str(values.get("priced_by")))
        return Picture(origin, width, height, file_format, values.get("url"), stored, price)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no picture") from error
