"""The service in a process that kills itself at a named point: ``python -m tests.durability.points POINT serve …``."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from proxy.api.renderings import ImagesResponse
from proxy.cli import main
from proxy.generations.journal import Journal
from proxy.generations.recorded import RecordedSteps
from proxy.generations.runner import Generations
from proxy.jobs.poll import Follower
from proxy.pictures.directory import PictureDirectory
from proxy.state.sqlite.engine import SqliteState


def die() -> NoReturn:
    """Be killed, as by a power cut of this process alone: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def before(owner: Any, name: str) -> None:
    """Die when ``owner.name`` is called."""
    setattr(owner, name, lambda *_, **__: die())


def after(owner: Any, name: str) -> None:
    """Die when the coroutine function ``owner.name`` is about to return."""
    real = getattr(owner, name)

    async def last(*arguments: Any, **values: Any) -> None:
        await real(*arguments, **values)
        die()

    setattr(owner, name, last)


def begun(_: object) -> None:
    """Die in the middle of an answer."""

    async def half(self: ImagesResponse, _scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(self._body.length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        die()

    ImagesResponse.__call__ = half  # type: ignore[assignment, method-assign]


POINTS: dict[str, Callable[[object], None]] = {
    "start asked": lambda _: before(Journal, "start"),
    "start written": lambda _: after(Journal, "start"),
    "submit written": lambda _: after(RecordedSteps, "submitting"),
    "answered": lambda _: before(SqliteState, "accept"),
    "accepted": lambda _: after(RecordedSteps, "accepted"),
    "polled": lambda _: after(Follower, "_ask"),
    "fetched": lambda _: before(PictureDirectory, "publish"),
    "stored": lambda _: after(PictureDirectory, "publish"),
    "finish asked": lambda _: before(SqliteState, "finish"),
    "finished": lambda _: after(RecordedSteps, "done"),
    "answering": begun,
    "delivered": lambda _: before(Generations, "deliver"),
}
"""In the order of a job's life."""


if __name__ == "__main__":
    POINTS[sys.argv[1]](None)
    main(sys.argv[2:])
