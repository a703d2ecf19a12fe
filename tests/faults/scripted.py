"""An upstream that says what a test wants, in the dialect of Prodia's former web interface, and remembers the calls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.server.process import serving
from tests.service import Service, running

JOB = "0f4c6b0e-0d3b-4e7e"


@dataclass
class Upstream:
    """``submit``, ``polls`` (in order, the last for ever) and ``picture`` are ASGI answers."""

    submit: ASGIApp = field(default_factory=lambda: JSONResponse({"job": JOB, "status": "queued"}))
    polls: list[ASGIApp] = field(default_factory=list)
    picture: ASGIApp | None = None
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        path = scope["path"]
        self.paths.append(path)
        if path == "/generate":
            await self.submit(scope, receive, send)
        elif path.startswith("/job/") and self.polls:
            await (self.polls.pop(0) if len(self.polls) > 1 else self.polls[0])(scope, receive, send)
        elif self.picture is not None and path.startswith("/pictures/"):
            await self.picture(scope, receive, send)
        else:
            await JSONResponse([], 404)(scope, receive, send)

    def calls(self) -> list[str]:
        """Return the paths that were called, without the questions for models."""
        return [path for path in self.paths if not path.endswith("/models")]


@asynccontextmanager
async def before(upstream: Upstream, **tables: Any) -> AsyncIterator[Service]:
    """Run the service before ``upstream``."""
    async with serving(upstream) as port:
        origin = f"http://127.0.0.1:{port}"
        changes = {"base_url": origin, "image_base_url": f"{origin}/pictures", **tables.pop("providers", {})}
        async with running(providers=changes, **tables) as service:
            yield service
