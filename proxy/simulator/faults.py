"""Faults as data: which answer replaces the right one, and how often. Each dialect adds its own rows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from proxy.simulator.jobs import Job
from proxy.simulator.replies import Cut, Drop, Hang, challenge, gateway_page, text
from proxy.simulator.simulation import Simulation, Submission
from proxy.simulator.words import Fault, Words

_HALF_JSON = b'{"job": "0f4c6b0e-0d3b-4e7e-9f57-3a5b0c0a9d11", "task_id": "0f4c6b0e", "status": "generating"}'


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One fault's answer.

    ``times``: on how many calls it happens unless the word says so by its number at ``position``. ``needs`` and
    ``unless`` are arguments that must or must not be there. ``when`` it happens: on the first calls, only on the
    call that the number names, or on all calls after it. ``charged``: whether the job began all the same.
    """

    reply: Callable[[Fault], ASGIApp]
    times: float = math.inf
    position: int = 0
    needs: str = ""
    unless: str = ""
    when: Literal["first", "only", "after"] = "first"
    charged: Callable[[Fault], bool] = lambda _: False

    def applies(self, fault: Fault, nth: int) -> bool:
        """Whether the fault happens on the n-th call (from 1)."""
        if self.needs and self.needs not in fault.arguments:
            return False
        if self.unless and self.unless in fault.arguments:
            return False
        limit = fault.number(self.position, self.times)
        return {"first": nth <= limit, "only": nth == limit, "after": nth > limit}[self.when]


Behaviours = Mapping[str, Behaviour]


def plain(status: int, body: str) -> Behaviour:
    """Return a fault that answers with plain text."""
    return Behaviour(lambda _: text(body, status))


def as_json(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return JSONResponse(value, status)


def _overloaded(fault: Fault) -> ASGIApp:
    if fault.status(504) == 503:
        body = {"error": "queue full", "message": "All workers are busy, please try again shortly."}
    else:
        body = {"error": "timeout", "message": "The result is not ready, please retry in a moment."}
    return JSONResponse(body, fault.status(504), {"retry-after": "2"})


def _busy(fault: Fault) -> ASGIApp:
    return text("Too Many Requests", 429, {"retry-after": f"{fault.number(0, 5):g}"})


def _always(_: Fault) -> bool:
    return True


SUBMIT_FAULTS: Behaviours = {
    "drop": Behaviour(lambda _: Drop(), charged=_always),
    "hang": Behaviour(lambda _: Hang(), charged=_always),
    "500": plain(500, "Internal Server Error"),
    "503": plain(503, "Service Unavailable"),
    "401": plain(401, "Unauthorized"),
    "402": plain(402, "Payment Required"),
    # Facts, section 7, F31: quota is charged although a timeout is answered; a full queue charges nothing.
    "F31": Behaviour(_overloaded, charged=lambda fault: fault.status(504) == 504),
    "F29": Behaviour(lambda _: Cut(_HALF_JSON, "application/json"), needs="submit", charged=_always),
}
"""Faults that every dialect shows on a submit."""

POLL_FAULTS: Behaviours = {
    "F28": Behaviour(lambda fault: gateway_page(fault.status(502)), times=1),
    "F29": Behaviour(lambda _: Cut(_HALF_JSON, "application/json"), times=1, unless="type"),
    "reset-poll": Behaviour(lambda _: Drop(), times=1),
    "retryafter": Behaviour(_busy, times=1, position=1),
    "gone": Behaviour(lambda _: text("Not Found", 404), times=0, when="after"),
}
"""Faults that every dialect shows on a poll."""

CHALLENGE_ON_SUBMIT = Behaviour(lambda fault: challenge(fault.status(403)), unless="poll")
CHALLENGE_ON_POLL = Behaviour(lambda fault: challenge(fault.status(403)), times=1, needs="poll", when="only")


def submit_fault(simulation: Simulation, submission: Submission, behaviours: Behaviours) -> ASGIApp | None:
    """Return the answer that a submit's words choose instead of the right one."""
    chosen = _chosen(behaviours, submission.words, submission.nth)
    if chosen is None:
        return None
    fault, behaviour = chosen
    if behaviour.charged(fault):
        simulation.tally.add("started", submission.words.tag)
    return behaviour.reply(fault)


def poll_fault(simulation: Simulation, job: Job, behaviours: Behaviours) -> ASGIApp | None:
    """Count a poll and return the answer that the job's words choose instead of the right one."""
    chosen = _chosen(behaviours, job.words, simulation.poll(job))
    return chosen and chosen[1].reply(chosen[0])


def address(request: Request) -> str:
    """Return the origin under which the caller reached us; every address we hand out begins with it."""
    return f"{request.url.scheme}://{request.headers.get('host', 'localhost')}"


def result_address(request: Request, job: Job) -> str:
    """Return where the job's picture lies, or what ``[fault:badurl:…]`` says instead."""
    bad = job.words.fault("badurl")
    return bad.text if bad else f"{address(request)}/pictures/{job.id}.png"


def _chosen(behaviours: Behaviours, words: Words, nth: int) -> tuple[Fault, Behaviour] | None:
    for fault in words.faults:
        behaviour = behaviours.get(fault.name)
        if behaviour is not None and behaviour.applies(fault, nth):
            return fault, behaviour
    return None
