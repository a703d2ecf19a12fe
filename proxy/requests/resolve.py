"""A checked request with every route that can serve it, in order: what a generation starts from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic_core import to_json

from proxy.errors import InvalidRequest
from proxy.providers.boundary import InputPicture, Operation
from proxy.requests.image_request import ImageRequest
from proxy.requests.parameters import Translation, refuse_unless_able, translate
from proxy.requests.routing import PublicModel, Route
from proxy.requests.summary import Form, Origin, RequestSummary, estimated_tokens, pixel_tokens, showable
from proxy.state.outcomes import Pace
from proxy.state.records import Account

_NOT_IN_FINGERPRINT = {"model", "response_format", "stream", "partial_images", "user", "safety_identifier"}
"""What makes no difference to the picture. Model and form count as resolved: a name left out equals the default's."""


_GPT_ONLY = frozenset(
    {
        "background",
        "moderation",
        "output_format",
        "output_compression",
        "partial_images",
        "input_fidelity",
        "complexity",
        "frame_count",
        "frame_duration_ms",
        "svg",
    }
)
"""Parameters that OpenAI's dall-e models never had."""
ANONYMOUS: Final = Account()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One route, and the request in that model's parameters."""

    route: Route
    translation: Translation

    @property
    def place(self) -> tuple[str, str]:
        """The provider and its model."""
        return self.route.provider, self.route.model.name

    def origin(self) -> Origin:
        """Return the origin of the pictures that it makes."""
        route, translation, seeds = self.route, self.translation, self.translation.seeds
        return Origin(
            route.provider,
            route.model.name,
            translation.shape.width,
            translation.shape.height,
            translation.quality,
            None if seeds is None else (int(seeds.low), int(seeds.high)),
            None,
            translation.mapped,
            translation.dropped,
        )


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """What a caller wants, checked but not yet routed. ``account``: who is charged for it. ``pace``: how many
    generations may be started so.

    ``arrived``: the moment on the monotonic clock at which the request had been read. ``note``: what the HTTP surface
    wants to read back with the generation: text without the prompt, for it is written down.
    """

    request: ImageRequest
    unknown: tuple[str, ...] = ()
    operation: Operation = "generate"
    images: tuple[InputPicture, ...] = field(default=(), repr=False)
    mask: InputPicture | None = None
    account: Account = ANONYMOUS
    pace: tuple[Pace, ...] = ()
    arrived: float = field(default=0.0, compare=False)
    note: str = field(default="", compare=False, repr=False)

    @property
    def owner(self) -> str:
        """The id of the caller's key: whose generations it may repeat."""
        return self.account.key


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request with its routes. ``form``: the field in which each picture is answered."""

    checked: CheckedRequest
    public: PublicModel
    candidates: Sequence[Candidate]
    form: Form
    fingerprint: bytes = field(repr=False)

    def summary(self) -> RequestSummary:
        """Return what an answer needs to know of it."""
        request, checked = self.request, self.checked
        unknown = showable(checked.unknown)
        return RequestSummary(
            model=self.public.name,
            n=request.n,
            form=self.form,
            origins=tuple(candidate.origin() for candidate in self.candidates),
            output_format=request.output_format,
            output_compression=request.output_compression,
            partial_images=request.partial_images,
            text_tokens=estimated_tokens(request.prompt),
            image_tokens=sum(pixel_tokens(image.width, image.height) for image in checked.images),
            unknown=unknown,
            unshown=len(checked.unknown) - len(unknown),
            note=checked.note,
        )

    def with_mask(self, mask: InputPicture) -> "ResolvedRequest":
        """Return it with its mask as the providers read it."""
        return replace(self, checked=replace(self.checked, mask=mask))

    def with_note(self, note: str) -> "ResolvedRequest":
        """Return it with what the HTTP surface wants to read back."""
        return replace(self, checked=replace(self.checked, note=note))

    @property
    def request(self) -> ImageRequest:
        """The caller's request."""
        return self.checked.request


def resolve(
    checked: CheckedRequest, public: PublicModel, secret: bytes, *, strict: bool, able: Sequence[str] = ()
) -> ResolvedRequest:
    """Return ``checked`` with its routes: those of ``public`` that can serve it.

    ``secret``: the key of the fingerprints, so that a digest tells nobody what was asked.
    ``strict``: a route that would drop a parameter can't. ``able``: public names to recommend when no route can do the
    operation. Raises InvalidRequest when no route is left.
    """
    # Names are cut where they are quoted: they are the caller's, and of any length.
    if strict and checked.unknown:
        name = checked.unknown[0]
        raise InvalidRequest(f"Unknown parameter: '{name[:64]}'.", param=name[:64], code="unknown_parameter")
    candidates, refusals = [], []
    for route in public.routes:
        try:
            refuse_unless_able(checked.request, route.model, checked.operation, len(checked.images))
            translation = translate(checked.request, route.model, public.defaults, checked.operation)
            if strict and translation.dropped:
                name = translation.dropped[0]
                message = f"The parameter '{name}' cannot be honoured by this model."
                raise InvalidRequest(message, param=name, code="unknown_parameter")
        except InvalidRequest as refusal:  # by this route only: another one may take the request
            refusals.append((checked.operation in route.model.operations, refusal))
        else:
            candidates.append(Candidate(route, translation))
    if not candidates:
        raise _none_left(checked, public, refusals, able)
    form = _form(checked, public)
    return ResolvedRequest(checked, public, tuple(candidates), form, _fingerprint(checked, public.name, form, secret))


def _form(checked: CheckedRequest, public: PublicModel) -> Form:
    """Return the form of the answer. A request without a model that only OpenAI's GPT models accept gets theirs."""
    request = checked.request
    if request.stream:  # OpenAI's events carry base64 only
        return "b64_json"
    for_gpt = checked.operation != "generate" or not _GPT_ONLY.isdisjoint({*request.model_fields_set, *checked.unknown})
    return request.response_format or public.form(like_gpt=request.model is None and for_gpt)


def _none_left(
    checked: CheckedRequest, public: PublicModel, refusals: Sequence[tuple[bool, InvalidRequest]], able: Sequence[str]
) -> InvalidRequest:
    # If a route could do the operation, what it objects to is of more use than a list of other models.
    for does_operation, refusal in refusals:
        if does_operation:
            return refusal
    names = ", ".join(f"'{name}'" for name in able)
    hint = f" Models that can: {names}." if names else " No usable model can."
    message = f"The model '{public.name}' cannot do this ({_OPERATIONS[checked.operation]}).{hint}"
    return InvalidRequest(message, param="model")


_OPERATIONS: dict[Operation, str] = {
    "generate": "make a picture from a prompt alone",
    "edit": "edit a picture",
    "inpaint": "edit a picture within a mask",
}


def _fingerprint(checked: CheckedRequest, model: str, form: str, secret: bytes) -> bytes:
    """Return a digest of the account and what is wanted: equal for equal calls of one key, and where it counts its end
    users, of one end user only."""
    # Of parsed values, not of the body: multipart's boundary changes from one repeat to the next.
    told = [checked.account.key, checked.account.user, checked.operation, model, form]
    digest = hashlib.blake2b(to_json(told), key=secret, digest_size=16)
    digest.update(checked.request.model_dump_json(exclude_none=True, exclude=_NOT_IN_FINGERPRINT).encode())
    for picture in (*checked.images, *((checked.mask,) if checked.mask else ())):
        digest.update(picture.digest or hashlib.blake2b(picture.data).digest())
    return digest.digest()
