"""POST /v1/images/generations, and the jobs that were handed over."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from proxy.api.body import read_json
from proxy.api.holding import Desk, job_status
from proxy.api.visit import Visit
from proxy.errors import InvalidRequest, NotFound
from proxy.flights import Flight


async def create_image(request: Request) -> ASGIApp:
    """Make pictures from a prompt."""
    desk: Desk = request.app.state.desk
    visit: Visit = request.state.visit
    desk.admit(request)
    settings = desk.engine.settings
    values = await read_json(request, settings.server.max_body)
    if visit.deployment:
        values.setdefault("model", visit.deployment)
    order = desk.engine.order(values, owner=visit.owner)
    if order.request.stream:
        raise InvalidRequest("Streaming is not offered.", param="stream", code="unknown_parameter")
    return await desk.serve(request, order)


async def get_job(request: Request) -> ASGIApp:
    """Tell how a job is doing; in the end, its answer."""
    desk: Desk = request.app.state.desk
    flight = _flight(request)
    if not flight.done:
        return job_status(flight, request)
    answer = desk.answer(request, flight)
    flight.delivered_at = desk.engine.clock.monotonic()
    return answer


async def delete_job(request: Request) -> Response:
    """Stop following a job and forget it; the provider may finish it all the same."""
    desk: Desk = request.app.state.desk
    desk.engine.flights.abandon(_flight(request))
    return Response(status_code=204)


def _flight(request: Request) -> Flight:
    desk: Desk = request.app.state.desk
    flight = desk.engine.flights.find(request.path_params["id"], request.state.visit.owner)
    if flight is None:
        raise NotFound("There is no such job, or no longer.")
    flight.handed_over = True
    return flight
