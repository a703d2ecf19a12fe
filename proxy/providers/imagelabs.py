"""ImageLabs: POST /txt2img starts a job, POST /progress asks how it is. No key; the headers of its own web editor.

The dialect is known only from its clients (docs/providers.md). It never sends a model name: ``sdxl-turbo`` is what
those clients call it. That a reference picture goes as a data URL is not documented; its editor's field names
suggest it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from proxy.errors import ProviderBadResponse
from proxy.providers.boundary import (
    SUBMIT,
    Base64,
    Call,
    Finished,
    Handle,
    InputPicture,
    Job,
    Model,
    Pending,
    Range,
    Reply,
    failed_job,
)
from proxy.providers.settings import ProviderSettings
from proxy.providers.shapes import FreeShapes

_MODEL = Model(
    name="sdxl-turbo",
    # Clients send 512 to 1344 pixels a side; 1152x896 is the default of the one of 2025.
    shapes=FreeShapes(low=256, high=1536, step=8, default_width=1152, default_height=896),
    operations=frozenset({"generate", "edit"}),
    numbers={"seed": Range(0, 4_294_967_295)},
    texts=frozenset({"negative_prompt"}),
    max_images=1,
    price_dollars=0,
    seconds=8.0,
    title="SDXL Turbo",
)
_MAX_TASK_ID = 200
_PROGRESS = "progress"
_USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"


@dataclass(frozen=True, slots=True)
class ImageLabs:
    """The dialect at ``base_url`` (no trailing slash)."""

    base_url: str
    image_hosts: Sequence[str] = ()

    @classmethod
    def build(cls, settings: ProviderSettings, _key: str) -> "ImageLabs":
        """Bind the dialect to the address of ``settings``."""
        return cls(settings.base_url.rstrip("/"))

    def models(self) -> Sequence[Model]:
        """Return the one model."""
        return (_MODEL,)

    def credentials(self) -> Mapping[str, str]:
        """Return nothing: there is no key."""
        return {}

    def probe(self) -> Call:
        """Ask for the progress of a task that doesn't exist: it is free, and a service that works answers in JSON."""
        return self.ask(Handle(_PROGRESS, "00000000"))

    def submit(self, job: Job) -> Call:
        """Return the POST that starts the job."""
        settings = job.settings
        seed = int(settings["seed"])
        reference = job.images[0] if job.images else None
        # Every field that the web editor sends, with its values for those that nobody here can set.
        return self._post(
            "/txt2img",
            {
                "prompt": job.prompt,
                "seed": str(seed),
                "subseed": str(seed),
                "attention": 0,
                "width": settings["width"],
                "height": settings["height"],
                "tiling": False,
                "negative_prompt": settings.get("negative_prompt", ""),
                "reference_image": Base64(reference.data, _before(reference)) if reference else "",
                "reference_image_type": f"image/{reference.format}" if reference else None,
                "reference_strength": 30,
            },
        )

    def ask(self, handle: Handle) -> Call:
        """Return the question for a task's progress. Raises ValueError."""
        if handle.step != _PROGRESS:
            raise ValueError("no step of this dialect")
        return self._post("/progress", {"task_id": handle.id}, safe=True)

    def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
        """Read the answer to a submit or to a question for progress. Raises ProviderFailure."""
        answer = reply.json_object()
        if asked.step != SUBMIT.step:
            return self._progress(asked, answer)
        task = answer.get("task_id")
        # Nothing says whether it is a text or a number; in Python a boolean would pass for a number.
        if isinstance(task, int) and not isinstance(task, bool):
            task = str(task)
        if not isinstance(task, str) or not 0 < len(task) <= _MAX_TASK_ID or not task.isprintable():
            raise ProviderBadResponse("The provider took the call but named no task.")
        return Pending(Handle(_PROGRESS, task), "queued")

    def refusal(self, reply: Reply) -> str:
        """Return the body's text."""
        return reply.body.decode("utf-8", "replace")

    def _progress(self, asked: Handle, answer: dict[str, Any]) -> Pending | Finished:
        status = answer.get("status")
        status = status if isinstance(status, str) else ""
        final = answer.get("final_image_url")
        # The address counts whatever the status says: of its words only "Done" is known (docs/providers.md).
        if isinstance(final, str) and final:
            return Finished(self._address(final))
        if "error" in status.lower():
            raise failed_job(" ".join(value for value in answer.values() if isinstance(value, str)))
        if status == "Done":
            raise ProviderBadResponse("The provider calls the job done but names no picture.")
        preview = answer.get("current_image_url")
        preview = self._address(preview) if isinstance(preview, str) and preview else None
        progress = answer.get("progress")
        progress = float(progress) if isinstance(progress, int | float) and 0 <= progress <= 1 else None
        running = bool(preview or progress)
        return Pending(asked, "generating" if running else "queued", progress, preview)

    def _address(self, address: str) -> str:
        try:
            return urljoin(f"{self.base_url}/", address)
        except ValueError:  # not an address at all; ``upstream`` checks and refuses it
            return address

    def _post(self, path: str, body: dict[str, Any], *, safe: bool = False) -> Call:
        headers = {
            "accept": "*/*",
            "accept-language": "en-US,en;q=0.9",
            "cache-control": "no-cache",
            "content-type": "application/json",
            "origin": self.base_url,
            "referer": f"{self.base_url}/",
            "x-requested-with": "XMLHttpRequest",
            "user-agent": _USER_AGENT,
        }
        return Call("POST", f"{self.base_url}{path}", headers=headers, json=body, safe=safe)


def _before(picture: InputPicture) -> str:
    return f"data:image/{picture.format};base64,"
