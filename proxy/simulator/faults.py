"""Faults as data: their names, which answer replaces the right one, and how often.

Each dialect puts the common faults (a refusal, say) into its own form, and ignores those that it cannot show.
"""

import base64
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from proxy.simulator.replies import CHALLENGE, cut, drop, hang
from proxy.simulator.scene import measure
from proxy.simulator.simulation import Job, Simulation
from proxy.simulator.words import Fault, Words

_STATUSES = (401, 402, 404, 500, 503)
FAULTS: tuple[tuple[str, str], ...] = (
    ("busy", "429 with Retry-After. busy:2:0.5 is busy twice and says to wait half a second"),
    ("no-capacity", "429 without Retry-After"),
    ("overloaded", "503 with Retry-After; nothing begins"),
    ("invalid", "400, a parameter is refused. invalid:detail and invalid:detail:object name it in other forms (v2)"),
    ("unsafe", "the prompt is refused for its content, in the provider's way"),
    ("no-async", "400, this kind of job cannot be asynchronous (v2)"),
    *((str(status), f"{status} {HTTPStatus(status).phrase}; nothing begins") for status in _STATUSES),
    ("504", "504 with Retry-After, although the job has begun and is billed"),
    ("drop", "the connection is reset; the job has begun and is billed"),
    ("hang", "no answer ever comes; the job has begun and is billed"),
    ("silent", "no answer ever comes, and nothing begins"),
    ("challenge", "403 with a page for browsers only. challenge:503 is a 503, challenge:poll:2 the second poll"),
    ("gateway", "a poll gets a gateway's HTML page. gateway:2:524 says 524, twice"),
    ("cut", "an answer breaks off in the middle: a poll's, the picture's in v2, or with cut:submit the submit's"),
    ("gone", "the job is unknown to every poll (404). gone:2 after two polls"),
    ("not-json", "200 with an HTML page. not-json:empty with nothing at all"),
    ("wrong-type", "right answers are labelled text/html"),
    ("no-job", "the submit is accepted without naming a job. no-job:missing leaves the field out (ImageLabs)"),
    ("no-picture", "the job ends well and names no picture"),
    ("failed", "the job fails"),
    ("stuck", "the job never ends. stuck:queued never begins"),
    ("slow", "the job waits three minutes before it begins. slow:9 waits nine seconds"),
    ("odd-status", "the status is null. odd-status:missing has none, odd-status:unknown an unknown word (ImageLabs)"),
    ("early-picture", "the picture is there while the status still says that the job runs (ImageLabs)"),
    ("broken-multipart", "the answer lacks its output; or :job, :boundary; or has :several outputs, a :text (v2)"),
    ("expired", "the picture's address answers 404. expired:tiny answers with a few bytes"),
    ("bad-url", "the picture's address is what follows: bad-url:http://10.0.0.1/x.png"),
    ("slow-body", "the picture drips in over 20 seconds. slow-body:5 over five"),
    ("huge", "the picture never ends. huge:json: the JSON never ends"),
    ("pixels", "the picture's header promises 30,000 x 30,000 pixels"),
    ("not-a-picture", "an HTML page is sent as the picture"),
)
"""What can be typed as ``[fault:NAME]``, and what it does.

A fault happens on every submit, or with ``:poll`` after its name on one poll of each job; a number sets how many.
"""

_HALF_JSON = b'{"job": "0f4c6b0e-0d3b-4e7e-9f57-3a5b0c0a9d11", "task_id": "0f4c6b0e", "status": "generating"}'

Place = Literal["submit", "poll"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One fault's answer.

    ``place``: where it happens unless the word names another place. ``polls``: on as many of the first polls as the
    number says, only on the poll of that number, or on all after it. ``billed``: whether the submit still begins a job.
    """

    reply: Callable[[Fault], ASGIApp]
    billed: bool = False
    place: Place = "submit"
    polls: Literal["first", "only", "after"] = "first"

    def applies(self, fault: Fault, place: Place, nth: int) -> bool:
        """Whether the fault happens on the n-th call (from 1) there."""
        named = {"submit", "poll"} & set(fault.arguments)
        if place not in (named or {self.place}):
            return False
        if place == "submit":
            return nth <= fault.number(0, math.inf)
        limit = fault.number(0, 0 if self.polls == "after" else 1)
        return {"first": nth <= limit, "only": nth == limit, "after": nth > limit}[self.polls]


Behaviours = Mapping[str, Behaviour]


def plain(status: int, body: str) -> Behaviour:
    """Return a fault that answers with plain text."""
    return Behaviour(lambda _: PlainTextResponse(body, status))


def _busy(fault: Fault) -> ASGIApp:
    return PlainTextResponse("capacity reached", 429, {"retry-after": f"{fault.number(1, 2):g}"})


def _hinted(status: int, error: str) -> Behaviour:
    body = {"error": error, "message": "Please try again shortly."}
    return Behaviour(lambda _: JSONResponse(body, status, {"retry-after": "2"}), billed=status == 504)


def _gateway(status: int) -> ASGIApp:
    return HTMLResponse(f"<html><head><title>{status} Bad Gateway</title></head><body>cloudflare</body></html>", status)


def _page(fault: Fault) -> ASGIApp:
    return HTMLResponse("" if "empty" in fault.arguments else "<!DOCTYPE html><html><title>Welcome</title></html>")


COMMON: Behaviours = {
    "busy": Behaviour(_busy),
    "no-capacity": plain(429, "no capacity for this job type"),
    "overloaded": _hinted(503, "queue full"),
    "invalid": plain(400, "Invalid Generation Parameters"),
    **{str(status): plain(status, HTTPStatus(status).phrase) for status in _STATUSES},
    "504": _hinted(504, "timeout"),
    "drop": Behaviour(lambda _: drop, billed=True),
    "hang": Behaviour(lambda _: hang, billed=True),
    "silent": Behaviour(lambda _: hang),
    "challenge": Behaviour(lambda fault: HTMLResponse(CHALLENGE, fault.status(403)), polls="only"),
    "gateway": Behaviour(lambda fault: _gateway(fault.status(502)), place="poll"),
    "cut": Behaviour(lambda _: cut(_HALF_JSON, "application/json"), billed=True, place="poll"),
    "gone": Behaviour(lambda _: PlainTextResponse("Not Found", 404), place="poll", polls="after"),
    "not-json": Behaviour(_page),
    "no-job": Behaviour(lambda _: JSONResponse({"status": "queued"}), billed=True),
}
"""The faults that replace an answer, in the form of every dialect that has none of its own."""

_NAMES = [name for name, _ in FAULTS]


class Dialect(ABC):
    """One provider's interface. ``behaviours`` are the faults that replace its answers, in its own words.
    ``key``: the right one, empty where none is needed. ``hosted``: its pictures lie at the public host.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    key: ClassVar[str] = ""
    hosted: ClassVar[bool] = True
    behaviours: ClassVar[Behaviours] = COMMON
    unknown_job: ClassVar[Response] = PlainTextResponse("Not Found", 404)

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.right_key = simulation.keys.get(self.name, self.key)

    @abstractmethod
    def _refusal(self, request: Request) -> ASGIApp | None:
        """Return the answer to a call without the right key; None if the key is right or none is needed."""

    def admit(self, request: Request, *texts: str) -> tuple[Words, ASGIApp | None]:
        """Count a submit; return its words, and the answer to give instead of the right one, if any.

        ``texts`` may contain words; the prompt comes first.
        """
        words, nth = self.simulation.arrive(*texts)
        reply = self._refusal(request)
        unknown = [fault.name for fault in words.faults if fault.name not in _NAMES]
        if unknown and reply is None:
            reply = PlainTextResponse(f"There is no [fault:{unknown[0]}]. There are: {', '.join(_NAMES)}.", 400)
        if reply is None and (chosen := self._chosen(words, "submit", nth)):
            fault, behaviour = chosen
            if behaviour.billed:
                self.simulation.count("started", words.tag)
            reply = behaviour.reply(fault)
        return words, reply

    def ask(self, request: Request, job_id: str) -> Job | ASGIApp:
        """Count a poll; return the job, or the answer to give instead: a refusal, a fault, 404 for an unknown job."""
        job, reply = self.simulation.find(job_id, self.name), self._refusal(request)
        if job is None or reply:
            self.simulation.count("polls", job.words.tag if job else "")
            return reply or self.unknown_job
        if chosen := self._chosen(job.words, "poll", self.simulation.poll(job)):
            return chosen[1].reply(chosen[0])
        return job

    def _chosen(self, words: Words, place: Place, nth: int) -> tuple[Fault, Behaviour] | None:
        for fault in words.faults:
            behaviour = self.behaviours.get(fault.name)
            if behaviour is not None and behaviour.applies(fault, place, nth):
                return fault, behaviour
        return None


def picture_address(request: Request, job: Job, end: str = "") -> str:
    """Return the address of the job's picture as the caller sees it, or the one that ``[fault:bad-url:…]`` gives."""
    if not end and (bad := job.words.fault("bad-url")):
        return bad.text
    return f"{request.url.scheme}://{request.headers.get('host', 'localhost')}/pictures/{job.id}{end}.png"


async def json_object(request: Request) -> Mapping[str, Any]:
    """Return the body's JSON object; an empty one if the body is no JSON object."""
    try:
        value = await request.json()
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def decoded(value: str) -> bytes | None:
    """Return a base64 picture's bytes, None if it is no picture. Decodes it whole, so never on the event loop."""
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:
        return None
    return data if measure(data) else None
