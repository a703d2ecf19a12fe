"""Prodia's former web job API: GET /generate starts a job, GET /job/{id} asks how it is, a public address shows it.

Its server went dark in January 2025; the dialect stays for compatible servers and for the demo. The submit is a GET
that buys a picture: it is not marked ``safe``, so ``upstream`` sends it only once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from proxy.errors import ProviderBadResponse
from proxy.providers.boundary import Call, Finished, Handle, Job, Model, Pending, Range, Reply, failed_job, job_id
from proxy.providers.checkpoints import CHECKPOINTS, DEFAULT_CHECKPOINT, SAMPLERS, short_name
from proxy.providers.settings import ProviderSettings
from proxy.providers.shapes import FixedShapes, Shape
from proxy.providers.titles import title

_JOB = "job"
_IMAGE_BASE_URL = "https://images.prodia.xyz"
# Those of its web page, as its clients sent them (docs/providers.md).
_HEADERS = {
    "accept": "*/*",
    "accept-language": "en-US,en;q=0.9",
    "origin": "https://app.prodia.com",
    "referer": "https://app.prodia.com/",
    "user-agent": (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36"
    ),
}

SHAPES = FixedShapes(
    [
        Shape(512, 512, {"aspect_ratio": "square"}),
        Shape(512, 768, {"aspect_ratio": "portrait"}),
        Shape(768, 512, {"aspect_ratio": "landscape"}),
        Shape(1024, 1024, {"aspect_ratio": "square", "upscale": True}),
        Shape(1024, 1536, {"aspect_ratio": "portrait", "upscale": True}),
        Shape(1536, 1024, {"aspect_ratio": "landscape", "upscale": True}),
    ]
)


def _model(checkpoint: str) -> Model:
    default = ("default",) if checkpoint == DEFAULT_CHECKPOINT else ()
    return Model(
        name=checkpoint,
        shapes=SHAPES,
        numbers={
            "steps": Range(1, 25, 20),
            "cfg": Range(0, 20, 7, whole=False),
            "seed": Range(0, 4_294_967_295),
        },
        choices={"sampler": SAMPLERS},
        texts=frozenset({"negative_prompt"}),
        aliases=(short_name(checkpoint), *default),
        price_dollars=0,
        seconds=4.0,
        title=title(short_name(checkpoint)),
    )


_MODELS = tuple(_model(name) for name in (DEFAULT_CHECKPOINT, *(c for c in CHECKPOINTS if c != DEFAULT_CHECKPOINT)))


class ProdiaLegacySettings(ProviderSettings):
    """The settings of this kind. ``image_base_url``: where a job's picture is if the answer doesn't say."""

    image_base_url: str = Field(default="", pattern=r"^(https?://[^\s]+)?$")


@dataclass(frozen=True, slots=True)
class ProdiaLegacy:
    """The dialect at ``base_url``; pictures without an address are at ``image_base_url``. No trailing slashes."""

    base_url: str
    image_base_url: str = _IMAGE_BASE_URL
    image_hosts: Sequence[str] = ("images.prodia.xyz",)

    @classmethod
    def build(cls, settings: ProdiaLegacySettings, _key: str) -> "ProdiaLegacy":
        """Bind the dialect to the addresses of ``settings``."""
        images = settings.image_base_url or _IMAGE_BASE_URL
        return cls(settings.base_url.rstrip("/"), images.rstrip("/"))

    def models(self) -> Sequence[Model]:
        """Return the 65 checkpoints, the default first."""
        return _MODELS

    def credentials(self) -> Mapping[str, str]:
        """Return nothing: there is no key."""
        return {}

    def probe(self) -> Call:
        """Ask for the list of models."""
        return self._get("/models")

    def submit(self, job: Job) -> Call:
        """Return the GET that starts (and bills) the job."""
        settings = job.settings
        query = {
            "new": "true",
            "prompt": job.prompt,
            "model": job.model.name,
            "negative_prompt": settings.get("negative_prompt", ""),
            "steps": str(settings.get("steps", 20)),
            "cfg": f"{settings.get('cfg', 7):g}",
            "seed": str(settings["seed"]),
            "sampler": settings.get("sampler", "DPM++ 2M Karras"),
            "aspect_ratio": settings["aspect_ratio"],
        }
        if settings.get("upscale"):
            query["upscale"] = "true"
        return Call("GET", f"{self.base_url}/generate", headers=_HEADERS, query=query)

    def ask(self, handle: Handle) -> Call:
        """Return the call that asks how a job is. Raises ValueError."""
        if handle.step != _JOB:
            raise ValueError("no step of this dialect")
        return self._get(f"/job/{handle.id}")

    def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
        """Read a job: the answers to a submit and to a poll look alike. Raises ProviderFailure."""
        answer = reply.json_object()
        job = job_id(answer.get("job"))
        status = answer.get("status", "queued")
        if status == "failed":
            raise failed_job(str(answer.get("error", "")))
        if status == "succeeded":
            return Finished(self._picture(job, answer.get("imageUrl")))
        # By the first id, should a later answer name another.
        return Pending(Handle(_JOB, asked.id or job), "queued" if status == "queued" else "generating")

    def refusal(self, reply: Reply) -> str:
        """Return the body's text."""
        return reply.body.decode("utf-8", "replace")

    def _picture(self, job: str, address: object) -> str:
        if address is None:
            return f"{self.image_base_url}/{job}.png"
        if isinstance(address, str) and address:
            return address
        raise ProviderBadResponse("The provider calls the job done but names no picture.")

    def _get(self, path: str) -> Call:
        return Call("GET", f"{self.base_url}{path}", headers=_HEADERS, safe=True)
