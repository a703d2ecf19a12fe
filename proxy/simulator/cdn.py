"""The public host of results and previews: no key, ``/pictures/{job}.png`` and ``/pictures/{job}-preview.png``."""

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.simulator.jobs import Job
from proxy.simulator.pictures import picture_of, preview_of
from proxy.simulator.replies import deliver, text
from proxy.simulator.simulation import Simulation

_DIALECTS = ("prodia-legacy", "prodia-v1", "imagelabs")
_PREVIEW = "-preview"
_TINY = b"\x89PNG\r\n\x1a\nexpired"


class Cdn:
    """Serves the pictures of the dialects that hand out addresses."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def routes(self) -> list[Route]:
        """Return the host's one route."""
        return [Route("/{name}.png", self.picture, methods=["GET", "HEAD"])]

    async def picture(self, request: Request) -> ASGIApp:
        """Answer with a finished job's picture or a running one's preview; 404 for anything else."""
        name: str = request.path_params["name"]
        job = self._simulation.jobs.find(name.removesuffix(_PREVIEW), *_DIALECTS)
        if job is None:
            return text("Not Found", 404)
        if request.method == "GET":
            self._simulation.tally.add("fetches", job.words.tag)
        if name.endswith(_PREVIEW):
            return await self._preview(job)
        if job.state(self._simulation.clock.monotonic()) != "finished":
            return text("Not Found", 404)
        if expired := job.words.fault("F7"):
            tiny = "tiny" in expired.arguments
            return deliver(_TINY, "image/png", job.words, self._simulation.clock.sleep) if tiny else text("", 404)
        data, media_type = await picture_of(job, "png")
        headers = {}
        if request.query_params.get("download"):
            headers["content-disposition"] = f'attachment; filename="{job.id}.png"'
        return deliver(data, media_type, job.words, self._simulation.clock.sleep, headers)

    async def _preview(self, job: Job) -> ASGIApp:
        progress = job.progress(self._simulation.clock.monotonic())
        data = await preview_of(job, progress)
        return deliver(data, "image/png", job.words, self._simulation.clock.sleep)
