"""Turns a finished job's picture into the form its caller asked for: an address, or a complete file of our own.

The picture is paid for, so no passing trouble ends the job: fetching and storing are tried again, less and less often,
until the job's lifetime is over.
"""

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from yarl import URL

from proxy.accounts.prices import UNKNOWN, Price
from proxy.clock import Backoff, Clock, Deadline
from proxy.errors import GenerationTimeout, ProviderBadResult
from proxy.jobs.steps import FinishedJob
from proxy.pictures.codec import Converter, Facts, Format, NotAPicture, inspect_open
from proxy.pictures.completeness import is_cut
from proxy.pictures.drafts import remove
from proxy.pictures.store import PictureStore, StoredPicture, off_the_loop
from proxy.requests.resolve import Candidate, ResolvedRequest
from proxy.requests.summary import Origin, RequestSummary
from proxy.upstream.client import ResultNotReady
from proxy.upstream.incoming import NotWhole, unstorable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_LEAST_FETCH_S = 10.0
"""A picture that is ready only just within its lifetime still gets this long to be fetched."""
_FETCHES_OF_CUT_ONES = 3
"""One cut answer may be the network's fault; three times the same means that the file itself is damaged."""
_FETCHING_IS_LATE = 2
"""So many failures to fetch a picture, and the log says so: hosts often have a new one a moment late."""
_STORING_IS_LATE = 2
"""After so many failures to store a picture, waiting callers are told to come back: it may take a person to fix it."""
_FORMATS: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_log = logging.getLogger("proxy")


@dataclass(frozen=True, slots=True)
class Picture:
    """One deliverable picture: either ``url`` (the provider's public address) or ``stored``.

    ``width`` and ``height`` in pixels: read from the picture if we have it, else as asked of the provider.
    ``format`` is None if the provider's address doesn't show it. ``price``: what it cost.
    """

    origin: Origin
    width: int
    height: int
    format: Format | None
    url: str | None = None
    stored: StoredPicture | None = None
    price: Price = UNKNOWN

    @property
    def name(self) -> str:
        """Where it is: its name in our store, or the provider's address."""
        return self.stored.name if self.stored is not None else str(self.url)


class Results:
    """Turns what providers return into deliverable pictures."""

    def __init__(
        self,
        store: PictureStore,
        converter: Converter,
        clock: Clock,
        *,
        always_copy: bool,
        max_pixels: int,
    ) -> None:
        self._store = store
        self._converter = converter
        self._clock = clock
        self._always_copy = always_copy
        self._max_pixels = max_pixels
        self._storable = True

    def check_store(self, resolved: ResolvedRequest, candidates: Sequence[Candidate], *, by_writing: bool) -> None:
        """Refuse a request that would need a file of ours on each of ``candidates`` while none can be written.

        ``by_writing``: write a test file, as is right before a submit. Raises StateUnavailable, which promises that
        nothing was sent: so call this before a submit only.
        """
        if not all(self._may_need_file(resolved, candidate) for candidate in candidates):
            return
        try:
            self._store.check(by_writing=by_writing)
        except OSError as error:
            if self._storable:  # once for each outage, not once for each request
                _log.error("pictures cannot be stored (%s); what needs a file is refused", error.strerror)
            self._storable = False
            raise unstorable() from error
        self._storable = True

    async def deliverable(
        self, request: RequestSummary, finished_job: FinishedJob, late: Callable[[], None] = lambda: None
    ) -> Picture:
        """Return the picture of ``finished_job`` in the form that ``request`` wants.

        ``late`` is called when storing it takes long. Raises ProviderBadResult, or GenerationTimeout when the picture
        could not be stored within the job's lifetime.
        """
        image, origin = finished_job.finished.image, finished_job.origin
        if isinstance(image, str) and request.form == "url" and not self._always_copy:
            address = finished_job.upstream.check_result(image)
            # Its address is all that is known of a picture that isn't fetched.
            named = _format_of(address)
            if request.output_format in (None, named) and request.output_compression is None:
                size = origin.width, origin.height
                return Picture(origin, *size, named, url=address, price=finished_job.price)
        try:
            stored = await self._stored(request, finished_job, late)
        except NotAPicture:
            raise ProviderBadResult("The provider's picture cannot be used: it is no picture, or too large.") from None
        facts = stored.facts
        return Picture(origin, facts.width, facts.height, facts.format, stored=stored, price=finished_job.price)

    def _may_need_file(self, resolved: ResolvedRequest, candidate: Candidate) -> bool:
        """Whether the provider's own address may turn out not to do as the answer."""
        request = resolved.request
        return (
            self._always_copy
            or resolved.form == "b64_json"
            or request.output_format is not None  # the provider's own type is known only from its answer
            or request.output_compression is not None
            or candidate.route.model.in_answer
        )

    async def _stored(
        self, request: RequestSummary, finished_job: FinishedJob, late: Callable[[], None]
    ) -> StoredPicture:
        """Store the picture in the type asked for. Raises NotAPicture, ProviderBadResult, GenerationTimeout."""
        image = finished_job.finished.image
        if isinstance(image, str):
            image = await self._fetch(finished_job, image)
        elif isinstance(image, bytes) and await off_the_loop(len(image), lambda: is_cut(image)):
            raise NotAPicture("the picture is cut off or damaged")
        try:
            with closing(_open(image)) as file:
                bought = await self._bring_into_form(request, image, file)
        finally:
            if isinstance(image, Path):  # gone already if it was published: that renames it
                remove(image)
        return (
            bought
            if isinstance(bought, StoredPicture)
            else await self._store_bytes(*bought, finished_job.lifetime, late)
        )

    async def _bring_into_form(
        self, request: RequestSummary, image: Path | bytes, file: BinaryIO
    ) -> StoredPicture | tuple[bytes, Facts]:
        """Return the picture in its final form: stored, or as bytes still to be stored. Raises NotAPicture."""
        facts = inspect_open(file)
        # OpenAI's default is png as well: https://platform.openai.com/docs/api-reference/images/create
        wanted = request.output_format or ("png" if request.form == "b64_json" else None)
        quality = request.output_compression if wanted in ("jpeg", "webp") else None
        if wanted is not None and (quality is not None or wanted != facts.format):
            # Decoding takes some four bytes a pixel, whatever the file's size.
            if facts.width * facts.height > self._max_pixels:
                raise NotAPicture("the picture has too many pixels to be converted")
            converted = await self._converter.convert(file, wanted, quality)
            return converted, Facts(wanted, facts.width, facts.height)
        if isinstance(image, bytes):
            return image, facts
        try:
            return await self._store.publish(image, facts)
        except OSError:
            return file.read(), facts  # still readable while it is open, even if its folder was removed

    async def _fetch(self, finished_job: FinishedJob, address: str) -> Path | bytes:
        """Fetch a paid picture, repeatedly until its host is ready. Raises ProviderBadResult."""
        backoff = Backoff(self._clock, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        cut = failures = 0
        while True:
            at_least_s, said = 0.0, "no whole picture"
            try:
                return await finished_job.upstream.fetch(address, max(_LEAST_FETCH_S, finished_job.lifetime.remaining))
            except NotWhole as failure:
                cut += 1
                if cut == _FETCHES_OF_CUT_ONES:
                    raise ProviderBadResult(failure.message) from failure
                reason = failure.message
            except ResultNotReady as failure:  # may be early, not wrong: some hosts serve a picture a little later
                at_least_s, reason = failure.retry_after or 0.0, failure.message
                said = "no answer" if failure.answered is None else f"status {failure.answered}"
            failures += 1
            if failures == _FETCHING_IS_LATE:
                name = finished_job.origin.provider
                _log.warning("a finished picture of %s cannot be fetched (%s); it is tried again", name, said)
            if not await backoff.pause(finished_job.lifetime, at_least_s):
                raise ProviderBadResult(reason)

    async def _store_bytes(
        self, data: bytes, facts: Facts, lifetime: Deadline, late: Callable[[], None]
    ) -> StoredPicture:
        """Store a paid picture, repeatedly until that works. Raises GenerationTimeout."""
        backoff = Backoff(self._clock, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        failures = 0
        while True:
            try:
                return await self._store.publish_bytes(data, facts)
            except OSError as error:
                failures += 1
                if failures == 1:
                    _log.error("a finished picture cannot be stored (%s); it is tried again", error.strerror)
            if failures >= _STORING_IS_LATE:
                late()  # the callers go, and this goes on: their repeats find what it stores in the end
            if not await backoff.pause(lifetime):
                raise GenerationTimeout("The picture was made, but could not be stored in the time a job is followed.")


def _open(image: Path | bytes) -> BinaryIO:
    return image.open("rb") if isinstance(image, Path) else io.BytesIO(image)


def _format_of(address: str) -> Format | None:
    return _FORMATS.get(URL(address).suffix.lower())
