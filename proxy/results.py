"""A finished job's picture brought into the form its caller asked for: an address, or a complete file of our own."""

from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from proxy.clock import Clock
from proxy.errors import ProviderBadResult
from proxy.image_store import ImageStore, StoredPicture
from proxy.jobs import Made
from proxy.orders import Order
from proxy.pictures import Converter, Facts, Format, NotAPicture, inspect, inspect_file
from proxy.upstream import ResultNotReady

_FETCHES = 3
_BETWEEN_FETCHES_S = 0.5
_FORMATS: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One deliverable picture: either ``url`` (the provider's public address) or ``stored``.

    ``width`` and ``height`` in pixels: read from the picture where we have it, else what was asked of the provider.
    ``format`` is None where the provider's address doesn't tell.
    """

    made: Made
    width: int
    height: int
    format: Format | None
    url: str | None = None
    stored: StoredPicture | None = None


class Results:
    """Turns what providers return into deliverable pictures."""

    def __init__(self, store: ImageStore, converter: Converter, clock: Clock, *, always_copy: bool) -> None:
        self._store = store
        self._converter = converter
        self._clock = clock
        self._always_copy = always_copy

    async def deliverable(self, order: Order, made: Made) -> Picture:
        """Return the picture of ``made`` in the form that ``order`` wants. Raises ProviderBadResult."""
        image = made.finished.image
        if isinstance(image, str) and order.form == "url" and not self._always_copy:
            address = made.outlet.upstream.check_result(image)
            named = _format_of(address)
            if order.request.output_format in (None, named) and order.request.output_compression is None:
                shape = made.candidate.translation.shape
                return Picture(made, shape.width, shape.height, named, url=address)
        try:
            stored = await self._stored(order, made)
        except NotAPicture:
            raise ProviderBadResult("The provider's picture cannot be used: it is no picture, or too large.") from None
        return Picture(made, stored.facts.width, stored.facts.height, stored.facts.format, stored=stored)

    async def _stored(self, order: Order, made: Made) -> StoredPicture:
        """Have the picture as a file of the wanted type. Raises NotAPicture, ProviderBadResult."""
        image = made.finished.image
        wanted = order.request.output_format or ("png" if order.form == "b64_json" else None)
        quality = order.request.output_compression if wanted in ("jpeg", "webp") else None
        if isinstance(image, bytes):
            facts = inspect(image)
            if quality is None and wanted in (None, facts.format):
                return self._store.write(image, facts)
            draft = self._store.write_draft(image)
        else:
            draft = await self._fetch(made, image) if isinstance(image, str) else image
        try:
            facts = inspect_file(draft)
            if quality is None and wanted in (None, facts.format):
                return self._store.publish(draft, facts)
            target: Format = wanted or facts.format
            converted = await self._converter.convert(draft, target, quality)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        draft.unlink()
        return self._store.write(converted, Facts(target, facts.width, facts.height))

    async def _fetch(self, made: Made, address: str) -> Path:
        """Fetch a paid picture, trying again when its host isn't ready. Raises ProviderBadResult."""
        made.outlet.upstream.check_result(address)
        for attempt in range(1, _FETCHES + 1):
            try:
                return await made.outlet.upstream.fetch(address)
            except ResultNotReady:
                if attempt == _FETCHES or made.lifetime.passed:
                    raise
                await self._clock.sleep(_BETWEEN_FETCHES_S * attempt)
        raise AssertionError


def _format_of(address: str) -> Format | None:
    return _FORMATS.get(URL(address).suffix.lower())
