"""Prodia v1: POST /sd/… or /sdxl/… starts a job, GET /job/{id} asks how it is; key in ``X-Prodia-Key``.

Sources disagree about the ranges (docs/providers.md); these are the narrower ones, so that what we send is accepted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import ProviderBadResponse
from proxy.providers.boundary import (
    Base64,
    Call,
    Finished,
    Handle,
    Job,
    Model,
    Operation,
    Pending,
    Range,
    Reply,
    UnreadableReply,
    failed_job,
    job_id,
)
from proxy.providers.checkpoints import CHECKPOINTS, SAMPLERS, SDXL_CHECKPOINTS, STYLE_PRESETS, short_name
from proxy.providers.settings import ProviderSettings
from proxy.providers.shapes import FixedShapes, FreeShapes, Shape, Shapes
from proxy.providers.titles import title

_JOB = "job"
_MAX_LISTED = 2000
_NAME = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?\Z")
"""Printable ASCII, since the names of models go into headers of our answers."""
_PATHS: dict[Operation, str] = {"generate": "generate", "edit": "transform", "inpaint": "inpainting"}
_SD_SHAPES = FreeShapes(low=64, high=1024, step=8, default_width=512, default_height=512)
_SDXL_SHAPES = FixedShapes(
    [
        Shape(width, height, {"width": width, "height": height})
        for width, height in (
            (1024, 1024),
            (1152, 896),
            (1216, 832),
            (1344, 768),
            (1536, 640),
            (640, 1536),
            (768, 1344),
            (832, 1216),
        )
    ]
)


def _model(checkpoint: str, family: str) -> Model:
    shapes: Shapes = _SDXL_SHAPES if family == "sdxl" else _SD_SHAPES
    return Model(
        name=checkpoint,
        shapes=shapes,
        operations=frozenset({"generate", "edit", "inpaint"}),
        numbers={
            "steps": Range(1, 25, 20),
            "cfg": Range(1, 20, 7, whole=False),
            "strength": Range(0, 1, 0.7, whole=False),
            "seed": Range(0, 4_294_967_295),
        },
        choices={"sampler": SAMPLERS, "style_preset": STYLE_PRESETS},
        texts=frozenset({"negative_prompt"}),
        max_images=1,
        aliases=(short_name(checkpoint),),
        family=family,
        wire={"cfg": "cfg_scale", "strength": "denoising_strength"},
        price_dollars=0,
        seconds=4.0,
        title=title(short_name(checkpoint)),
    )


_MODELS = (
    *(_model(name, "sdxl") for name in SDXL_CHECKPOINTS),
    *(_model(name, "sd") for name in CHECKPOINTS),
)


@dataclass(frozen=True, slots=True)
class ProdiaV1:
    """The dialect at ``base_url`` (no trailing slash) with ``key``."""

    base_url: str
    key: str = field(repr=False)
    image_hosts: Sequence[str] = ("images.prodia.xyz",)

    @classmethod
    def build(cls, settings: ProviderSettings, key: str) -> "ProdiaV1":
        """Bind the dialect to the address of ``settings``."""
        return cls(settings.base_url.rstrip("/"), key)

    def models(self) -> Sequence[Model]:
        """Return the checkpoints known without asking the provider."""
        return _MODELS

    def catalogue(self) -> Sequence[Call]:
        """Return the calls that list both families."""
        return (self._get("/sdxl/models"), self._get("/sd/models"))

    def read_catalogue(self, replies: Sequence[Reply]) -> Sequence[Model]:
        """Read both lists of checkpoint names. Raises ProviderBadResponse."""
        models: list[Model] = []
        for reply, family in zip(replies, ("sdxl", "sd"), strict=True):
            names = reply.json()
            if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
                raise UnreadableReply
            models += (_model(name, family) for name in names[:_MAX_LISTED] if _NAME.match(name))
        if not models:
            raise UnreadableReply
        return models

    def credentials(self) -> Mapping[str, str]:
        """Return the key's header."""
        return {"x-prodia-key": self.key}

    def probe(self) -> Call:
        """Ask for a list of models: it is free, and refused without a valid key."""
        return self._get("/sd/models")

    def submit(self, job: Job) -> Call:
        """Return the POST that starts (and bills) the job."""
        body: dict[str, Any] = {"model": job.model.name, "prompt": job.prompt}
        for word, value in job.settings.items():
            body[job.model.wire.get(word, word)] = value
        if job.images:
            body["imageData"] = Base64(job.images[0].data)
        if job.mask:
            body["maskData"] = Base64(job.mask.data)
        headers = {"content-type": "application/json", "accept": "application/json"}
        url = f"{self.base_url}/{job.model.family}/{_PATHS[job.operation]}"
        return Call("POST", url, headers=headers, json=body)

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
            address = answer.get("imageUrl")
            if not isinstance(address, str) or not address:
                raise ProviderBadResponse("The provider calls the job done but names no picture.")
            return Finished(address)
        # By the first id, should a later answer name another.
        return Pending(Handle(_JOB, asked.id or job), "queued" if status == "queued" else "generating")

    def refusal(self, reply: Reply) -> str:
        """Return the body's text: v1 refuses in plain text."""
        return reply.body.decode("utf-8", "replace")

    def _get(self, path: str) -> Call:
        return Call("GET", f"{self.base_url}{path}", headers={"accept": "application/json"}, safe=True)
