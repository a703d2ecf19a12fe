"""Prodia v2: one POST /job that answers with the picture, or the same job followed through /job/async.

``Accept`` asks for the documented multipart form, the job's JSON beside its outputs, because only there does the price
stand: https://docs.prodia.com/reference/price. The picture's bytes stream straight into a file all the same. A bare
picture is read as well.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from proxy.dollars import nano_dollars
from proxy.errors import ProviderBadResponse
from proxy.providers.boundary import (
    Call,
    File,
    Finished,
    Handle,
    Job,
    Model,
    Pending,
    Reply,
    UnreadableReply,
    failed_job,
    job_id,
)
from proxy.providers.multipart import Parts
from proxy.providers.prodia_types import TYPES
from proxy.providers.settings import KeyedSettings

_IMAGE_HOSTS = ("images.prodia.xyz",)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")
_PICTURE_NAMES = (".png", ".jpg", ".jpeg", ".webp")
_TEXT_NAMES = (".txt", ".json")
# "processed" in job.state.current is "completed" in job.json; "succeeded" is v1's word, and costs nothing to know.
_DONE = {"processed", "completed", "succeeded"}
_FAILED = {"failed", "cancelled", "canceled"}
_LONGEST_JOB_S = 86_400.0
"""A day: more can't be one job's time, and a huge number would distort the metrics."""
_KEPT_S = 300.0
"""A job can be fetched for five minutes: https://docs.prodia.com/reference/async."""
_BEGUN = Handle("begun")
"""Stands for the submit to /job/async."""
_STATE, _DETAILS, _PRICE, _OUTPUT, _PICTURE = "state", "details", "price", "output", "picture"
_PATHS = {
    _STATE: "job.state.current",
    _DETAILS: "job.json",
    _PRICE: "job.json",
    _OUTPUT: "output",
    _PICTURE: "output/",
}
_WITH_PRICE = {"price": "true"}
_ONLY_AT_ONCE = re.compile(r"\basync", re.IGNORECASE)
"""How a type's refusal to be asynchronous is told from others; the exact words are not documented."""

_LARGEST_SEED = 2**63

Mode = Literal["sync", "async", "auto"]


class ProdiaSettings(KeyedSettings):
    """The settings of this kind. ``sync``: one call that answers with the picture; ``async``: start, ask, fetch;
    ``auto``: asynchronous where the loss of the answer would cost something."""

    mode: Mode = "auto"


@dataclass(frozen=True, slots=True)
class Prodia:
    """The dialect at ``base_url`` (no trailing slash) with ``token``; ``mode`` as in the configuration."""

    base_url: str
    token: str = field(repr=False)
    mode: Mode = "auto"
    image_hosts: Sequence[str] = _IMAGE_HOSTS

    @classmethod
    def build(cls, settings: ProdiaSettings, key: str) -> "Prodia":
        """Bind the dialect to the address and mode of ``settings``."""
        return cls(settings.base_url.rstrip("/"), key, settings.mode)

    def models(self) -> Sequence[Model]:
        """Return the job types."""
        return TYPES

    def credentials(self) -> Mapping[str, str]:
        """Return the token's header."""
        return {"authorization": f"Bearer {self.token}"}

    def probe(self) -> Call:
        """Return the smallest legal job, a ping."""
        return Call("POST", f"{self.base_url}/job", headers={"accept": "application/json"}, json=_PING)

    def submit(self, job: Job) -> Call:
        """Return the POST that starts (and bills) the job: JSON, or multipart when it has input pictures."""
        config: dict[str, Any] = {"prompt": job.prompt}
        for word, value in job.settings.items():
            config[job.model.wire.get(word, word)] = value
        if self.mode == "async" or (self.mode == "auto" and job.durable):
            url, headers = f"{self.base_url}/job/async", {"accept": "application/json"}
            call = Call("POST", url, headers, _WITH_PRICE, handle=_BEGUN)
        else:
            headers = {"accept": f"multipart/form-data; image/{job.output_format}"}
            call = Call("POST", f"{self.base_url}/job", headers, _WITH_PRICE, picture=True, picture_part=_OUTPUT)
        if not job.images:
            return replace(call, json={"type": job.model.name, "config": config})
        files = [
            File("input", f"image{number}.{image.format}", f"image/{image.format}", image.data)
            for number, image in enumerate(job.images)
        ]
        names = [file.name for file in files]
        if job.mask:
            files.append(File("input", f"mask.{job.mask.format}", f"image/{job.mask.format}", job.mask.data))
            config["mask"] = files[-1].name
        config.update({"image": names[0]} if job.model.family == "image" else {"images": names})
        part = json.dumps({"type": job.model.name, "config": config}).encode()
        files.insert(0, File("job", "job.json", "application/json", part))
        return replace(call, files=tuple(files))

    def ask(self, handle: Handle) -> Call:
        """Return a call that follows or collects an asynchronous job. Raises ValueError."""
        if handle.step not in _PATHS:
            raise ValueError("no step of this dialect")
        url = f"{self.base_url}/job/async/{handle.id}/{_PATHS[handle.step]}{handle.name}"
        if handle.step == _PICTURE:
            return Call("GET", url, {"accept": "*/*"}, picture=True, picture_part=_OUTPUT, safe=True)
        return Call("GET", url, {"accept": "*/*"}, _WITH_PRICE if handle.step == _PRICE else {}, safe=True)

    def read(self, asked: Handle, reply: Reply) -> Pending | Finished:
        """Read a picture, a multipart answer, or one of the asynchronous calls' answers. Raises ProviderFailure."""
        # Before the plain picture: the job's part may say that the job failed although a picture came with it.
        if reply.content_type == "multipart/form-data":
            return _read_multipart(reply)
        if reply.picture is not None:
            return _finished(reply.picture, asked.told)
        if asked.step == _STATE:
            return _read_state(asked.id, reply)
        if asked.step == _OUTPUT:
            return _read_output(asked, reply)
        answer = reply.json_object()
        if asked.step == _PRICE:
            return Pending(Handle(_OUTPUT, asked.id, told=json.dumps(_facts(answer))), "generating", at_once=True)
        _raise_if_failed(answer)
        if asked.step == _DETAILS:  # fetched only after the state said that the job failed
            raise failed_job(_reason(answer))
        if asked == _BEGUN:
            return Pending(Handle(_STATE, job_id(answer.get("id"))), "queued", expires_s=_KEPT_S)
        if reason := _reason(answer):
            raise failed_job(reason)
        raise ProviderBadResponse("The provider answered without a picture.")

    def only_at_once(self, reply: Reply) -> bool:
        """Whether a refusal says that the type can't be asynchronous, and ``mode`` leaves the choice."""
        return self.mode == "auto" and reply.status == 400 and bool(_ONLY_AT_ONCE.search(self.refusal(reply)))

    def refusal(self, reply: Reply) -> str:
        """Return the words of a refusal: ``detail``, ``error`` or ``message`` of a JSON or multipart job, or text."""
        body = reply.body
        if reply.content_type == "multipart/form-data":
            try:
                body = next((data for name, data in _parts_of_refusal(reply) if name == "job"), b"")
            except ProviderBadResponse:
                return ""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return body.decode("utf-8", "replace")
        return _reason(answer) if isinstance(answer, dict) else str(answer)


_PING = {"type": "inference.ping.v1"}


def _read_state(job: str, reply: Reply) -> Pending:
    word = reply.body.decode("utf-8", "replace").strip().strip('"').lower()
    if word in _FAILED:  # the state is a bare word; job.json has the reason
        return Pending(Handle(_DETAILS, job), "generating", at_once=True)
    if word in _DONE:
        return Pending(Handle(_PRICE, job), "generating", at_once=True, otherwise=Handle(_OUTPUT, job))
    if not word.isalpha():  # a front end's page; any other single word means that the job still runs
        raise UnreadableReply
    return Pending(Handle(_STATE, job), "queued" if word == "queued" else "generating")


def _read_output(asked: Handle, reply: Reply) -> Pending | Finished:
    listed = reply.json()
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    # Some types put a text (message.txt) beside the picture, before it or after.
    others = (name for name in names if not name.lower().endswith(_TEXT_NAMES))
    name = next((name for name in names if name.lower().endswith(_PICTURE_NAMES)), next(others, ""))
    if name.startswith(("https://", "http://")):
        return _finished(name, asked.told)
    if not _FILE_NAME.match(name):
        raise ProviderBadResponse("The provider calls the job done but names no picture.")
    return Pending(Handle(_PICTURE, asked.id, name, asked.told), "generating", at_once=True)


def _read_multipart(reply: Reply) -> Finished:
    """Return the picture among the outputs; an error in the job's part counts for more than any output."""
    job = next((data for name, data in reply.parts if name == "job"), None)
    if job is None:
        raise ProviderBadResponse("The provider's answer has no job part.")
    try:
        answer = json.loads(job)
    except (ValueError, RecursionError):
        raise UnreadableReply from None
    if not isinstance(answer, dict):
        raise UnreadableReply
    _raise_if_failed(answer)
    if reply.picture is None:
        raise ProviderBadResponse("The provider's answer has no picture among its outputs.")
    return Finished(reply.picture, **_facts(answer))


def _facts(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a finished job's JSON tells beside its picture, as ``Finished`` names it."""
    return {"elapsed_s": _elapsed(answer), "seed": _seed(answer), "cost": _cost(answer)}


def _finished(picture: str | bytes | Path, told: str) -> Finished:
    """Return the end of an asynchronous job; ``told``: what an earlier step told, as the handle carried it."""
    return Finished(picture, **json.loads(told)) if told else Finished(picture)


def _parts_of_refusal(reply: Reply) -> Sequence[tuple[str, bytes]]:
    """Return name and bytes of each part of a short body. Raises UnreadableReply."""
    parts = Parts(reply.headers.get("content-type", ""), "", lambda _: None)
    parts.feed(reply.body)
    parts.finish()
    return parts.kept


def _raise_if_failed(answer: dict[str, Any]) -> None:
    state = answer.get("state")
    word = state.get("current") if isinstance(state, dict) else None
    # Only these two show that a job failed: its history may hold messages although all went well.
    if answer.get("error") or (isinstance(word, str) and word in _FAILED):
        raise failed_job(_reason(answer))


def _reason(answer: dict[str, Any]) -> str:
    """Return the first of ``detail``, ``error``, ``message`` and the last message of the job's history."""
    for key in ("detail", "error", "message"):
        if answer.get(key):
            return str(answer[key])
    state = answer.get("state")
    history = state.get("history") if isinstance(state, dict) else None
    last = history[-1] if isinstance(history, list) and history else None
    return str(last["message"]) if isinstance(last, dict) and last.get("message") else ""


def _cost(answer: Mapping[str, Any]) -> int | None:
    """Return the price in nano-dollars; some types have none, and then ``price`` is null or missing."""
    price = answer.get("price")
    try:
        return nano_dollars(price.get("dollars") if isinstance(price, dict) else None, exact=False)
    except ValueError:
        return None


def _seed(answer: Mapping[str, Any]) -> int | None:
    config = answer.get("config")
    seed = config.get("seed") if isinstance(config, dict) else None
    # A boolean is an int to isinstance().
    return seed if type(seed) is int and 0 <= seed <= _LARGEST_SEED else None


def _elapsed(answer: Mapping[str, Any]) -> float | None:
    metrics = answer.get("metrics")
    elapsed = metrics.get("elapsed") if isinstance(metrics, dict) else None
    return float(elapsed) if isinstance(elapsed, int | float) and 0 <= elapsed <= _LONGEST_JOB_S else None
