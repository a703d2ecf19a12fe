"""The boundary: what goes to a provider and what comes back, as plain values.

A provider is a pure translator. It describes HTTP calls and reads replies; it does no I/O, keeps no state and knows
no clock, so it cannot forget a deadline, block the event loop or repeat a billed call. ``jobs`` does all of that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse
from proxy.providers.shapes import Shapes

Operation = Literal["generate", "edit", "inpaint"]
State = Literal["queued", "generating"]

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{8,64}\Z")
"""A job id becomes part of poll paths and picture addresses, so a slash or dot in one could lead elsewhere."""

_CONTENT_WORDS = re.compile(r"nsfw|content.?policy|safety|moderat|inappropriate|prohibited|sensitive", re.IGNORECASE)
"""No provider documents how it refuses content, so these words count as that (docs/providers.md)."""


class UnreadableReply(ProviderBadResponse):
    """A reply that is not in the provider's dialect: a front end's page, or cut off. A poll may be sent again."""

    def __init__(self) -> None:
        super().__init__("The provider's answer could not be read.")


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers a provider accepts for a setting; ``default`` None: the provider chooses when nothing is sent."""

    low: float
    high: float
    default: float | None = None
    whole: bool = True

    def clamp(self, value: float) -> float:
        """Return the nearest number in the range."""
        nearest = min(self.high, max(self.low, value))
        return int(nearest) if self.whole else nearest


@dataclass(frozen=True, slots=True)
class Model:
    """One of a provider's own models (Prodia v2 calls it a job type) and everything it accepts, as data.

    ``numbers``: the settings steps, cfg, seed, strength and their ranges. ``choices``: settings with a closed list,
    such as sampler and style_preset. ``texts``: free text settings, such as negative_prompt. ``prompt``: shortest and
    longest prompt in characters; the longest is None where no limit is known. ``max_images``: pictures that an edit
    may have. ``family``: the group of the model, where a dialect's calls differ by groups; only the dialect reads it.
    ``wire``: the provider's names for settings, where they differ from ours. ``in_answer``: the picture comes in an
    answer of the provider's, not at a public address.
    ``price_dollars`` and ``seconds`` are published figures for one picture, None where none is known.
    ``title``: its name for people.
    """

    name: str
    shapes: Shapes
    operations: frozenset[Operation] = frozenset({"generate"})
    numbers: Mapping[str, Range] = field(default_factory=dict)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    prompt: tuple[int, int | None] = (1, None)
    max_images: int = 0
    aliases: tuple[str, ...] = ()
    family: str = ""
    in_answer: bool = False
    wire: Mapping[str, str] = field(default_factory=dict)
    price_dollars: float | None = None
    seconds: float | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class InputPicture:
    """A picture that the caller sent: verified bytes and the type found in them (``png``, ``jpeg``, ``webp``).

    ``data`` may be a view into a file, so that large uploads don't fill the memory. ``digest`` stands for the data
    when requests are compared.
    """

    data: bytes | memoryview = field(repr=False)
    format: str
    width: int
    height: int
    digest: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to be made, in our words; a provider turns them into its own.

    ``settings`` holds only what the model accepts, already within its ranges: steps, cfg, seed, strength, sampler,
    style_preset, negative_prompt, and those of the chosen shape (width and height in pixels,
    aspect_ratio, upscale, size …). ``output_format`` is the wanted type (``png``, ``jpeg``, ``webp``). ``durable``: if
    the dialect can start it in two ways, it is to be the one that answers with a handle, so that our own crash loses
    nothing; see ``StartsEitherWay``.
    """

    model: Model
    operation: Operation
    prompt: str = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    output_format: str = "png"
    images: tuple[InputPicture, ...] = ()
    mask: InputPicture | None = None
    durable: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """One part of a multipart call; ``part`` is its name there, ``name`` its file name."""

    part: str
    name: str
    content_type: str
    data: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Base64:
    """A picture as a text in a call's JSON: ``before``, then the base64 of ``data``, encoded while it is sent."""

    data: bytes | memoryview = field(repr=False)
    before: str = ""


@dataclass(frozen=True, slots=True)
class Handle:
    """What is needed to ask for a job again: plain data without secrets, which can be stored and read back.

    ``step``: which of the dialect's calls comes next. ``id``: the provider's id of the job. ``name``: which of the
    job's files to fetch, where it has several. ``told``: what an earlier step told of the job, for the dialect's own
    use when it reads the last one.
    """

    step: str
    id: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    told: str = field(default="", repr=False)

    def dump(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Handle":
        """Read what ``dump`` returned. Raises ValueError."""
        values = json.loads(text)
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise ValueError("not a handle")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError("not a handle") from error


SUBMIT = Handle("submit")
"""Stands for the call that starts a job, when its reply is read; a dialect that has two such calls names the other."""


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP call to be made, without credentials: ``upstream`` adds them. Query and body hold prompts, so ``repr``
    shows neither.

    ``json``: plain values, and ``Base64`` among the object's own. ``picture``: the reply may be a picture, so it is
    read up to the picture limit and not the small one; ``picture_part`` is the part that holds it in a multipart reply.
    ``safe``: it changes nothing at the provider (RFC 9110, 9.2.1), so a GET may be sent a second time when its
    connection is dropped. ``handle``: with which the reply is to be read.
    """

    method: Literal["GET", "POST"]
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    files: tuple[File, ...] = field(default=(), repr=False)
    picture: bool = False
    picture_part: str = ""
    safe: bool = False
    handle: Handle = SUBMIT


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Header names are in lower case.

    ``picture`` is the file a picture was streamed to, or its bytes if no file could be written (then ``body`` is
    empty); other bodies are in ``body``. ``parts``: name and first 512 KiB of each part of a multipart reply to a call
    with ``picture``, except the picture's.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    picture: Path | bytes | None = field(default=None, repr=False)
    parts: Sequence[tuple[str, bytes]] = field(default=(), repr=False)

    @property
    def content_type(self) -> str:
        """The media type, lower-case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float | None:
        """Seconds the provider asks to wait; None when absent or not a number of seconds."""
        value = self.headers.get("retry-after", "")
        # The date that RFC 9110 (10.2.3) also allows is not read: it would need a clock, and theirs to be right.
        try:
            seconds = float(value)
        except ValueError:
            return None
        return seconds if 0 <= seconds < float("inf") else None

    def json(self) -> Any:
        """Return the decoded body whatever its content type; raises UnreadableReply."""
        # Lenient where nothing depends on it: a byte order mark, or half a surrogate pair in an echoed prompt.
        try:
            return json.loads(self.body.decode("utf-8", "surrogatepass").removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            raise UnreadableReply from None

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object; raises UnreadableReply."""
        value = self.json()
        if not isinstance(value, dict):
            raise UnreadableReply
        return value


@dataclass(frozen=True, slots=True)
class Pending:
    """The job goes on, and ``handle`` asks for it next. ``progress`` is 0–1, ``preview`` the address of an
    unfinished picture.

    ``at_once``: the job itself is done and ``handle`` collects it, so there is nothing to wait for. ``expires_s``:
    seconds from now after which the provider may have forgotten the job, None where it doesn't say. ``otherwise``: what
    ``handle`` would bring is not needed for the picture: it is asked once, and without a good answer this goes on.
    """

    handle: Handle
    state: State
    progress: float | None = None
    preview: str | None = None
    at_once: bool = False
    expires_s: float | None = None
    otherwise: Handle | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done. ``image``: an address, or the bytes, or the file they were streamed to.

    ``elapsed_s``: the provider's own figure for how long the job took. ``seed``: the one it says it used. ``cost``:
    what it says that this picture costs, in nano-dollars.
    """

    image: str | bytes | Path = field(repr=False)
    elapsed_s: float | None = None
    seed: int | None = None
    cost: int | None = None


class Provider(Protocol):
    """One dialect, bound to an address and a key.

    A reply is read together with the handle of its call (``Call.handle`` for the first one): some answers, such as a
    bare word for a job's state, name neither their step nor their job.
    """

    @property
    def image_hosts(self) -> Sequence[str]:
        """Hosts at which this provider's pictures may be; empty: any public host over https."""
        ...

    def models(self) -> Sequence[Model]:
        """Return the models known without asking the provider."""
        ...

    def credentials(self) -> Mapping[str, str]:
        """Return the headers that ``upstream`` adds to calls of the API, and never to those of other addresses."""
        ...

    def probe(self) -> Call:
        """Return a call that shows whether the provider answers, and costs nothing."""
        ...

    def submit(self, job: Job) -> Call:
        """Return the call that starts (and bills) the job."""
        ...

    def ask(self, handle: Handle) -> Call:
        """Return the call of a later step. Raises ValueError for a handle that is not this dialect's."""
        ...

    def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
        """Read a good reply (2xx) to the submit or to ``ask(asked)``. Raises ProviderFailure."""
        ...

    def refusal(self, reply: Reply) -> str:
        """Return the words in which the provider explains a refusal; no caller sees them: they may quote a prompt."""
        ...


@runtime_checkable
class ListsModels(Protocol):
    """A dialect whose provider lists its models."""

    def catalogue(self) -> Sequence[Call]:
        """Return the calls that list the provider's present models."""
        ...

    def read_catalogue(self, replies: Sequence[Reply]) -> Sequence[Model]:
        """Read the replies to ``catalogue()``. Raises ProviderFailure."""
        ...


@runtime_checkable
class StartsEitherWay(Protocol):
    """A dialect that can start a job by a call that answers with the picture, or by one that answers with a handle.

    The first is quicker; what the second has started survives this process. ``Job.durable`` says which is wanted.
    """

    def only_at_once(self, reply: Reply) -> bool:
        """Whether a refused ``durable`` submit says that this model's jobs can only be started the first way."""
        ...


def failed_job(reason: str = "") -> ContentRefused | GenerationFailed:
    """Return the failure of a job that the provider gave up; ``reason`` decides which, and is not shown to callers."""
    if _CONTENT_WORDS.search(reason):
        return ContentRefused("The provider refused this picture for its content.")
    return GenerationFailed("The provider could not make this picture.")


def job_id(value: Any) -> str:
    """Return ``value`` if it can be a job id; raises ProviderBadResponse."""
    if isinstance(value, str) and _JOB_ID.match(value):
        return value
    raise ProviderBadResponse("The provider's answer names no job.")
