"""Kept responses: an hour, a bounded number, by their owner."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from proxy.api.responses import kept
from proxy.api.responses.kept import Responses, Said
from proxy.clock import Clock, Deadline
from proxy.errors import JobLost
from proxy.generations.journal import Journal
from proxy.generations.record import Generation
from proxy.generations.runner import Generations
from proxy.requests.summary import RequestSummary
from proxy.state.records import Account

pytestmark = pytest.mark.anyio


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(monotonic=lambda: self.now)


def responses(time: Time) -> Responses:
    """Return what keeps responses, before any generation."""
    nothing: Any = None  # no generation is started here
    journal = Journal(time.clock, nothing, nothing)
    return Responses(Generations(nothing, journal, time.clock, hold_s=1, result_s=1, kinds={}), time.clock)


def generation(time: Time, number: int = 0) -> Generation:
    """Return a generation that runs."""
    request = RequestSummary("m", 1, "b64_json", ())
    return Generation(f"imggen_{number}", number, request, b"", Account("me"), 1, Deadline.after(time.clock, 1), 0)


def end(ended: Generation) -> None:
    """End a generation with a failure."""
    ended.failure, ended.ended_at = JobLost("It is lost."), 0.0
    ended.changed()


async def test_it_is_kept_for_an_hour_and_without_its_prompt() -> None:
    time = Time()
    all_kept, running = responses(time), generation(time)
    all_kept.keep(Said("m"), running)
    found = await all_kept.find("resp_0", "me")
    assert found is not None
    assert (found.status, found.generation) == ("queued", running)
    assert await all_kept.find("ig_0", "me") is found
    assert await all_kept.find("resp_0", "you") is None
    assert await all_kept.find("resp_1", "me") is None
    end(running)
    assert (found.status, found.generation, found.failure) == ("failed", None, running.failure)
    time.now = 3599
    assert await all_kept.find("resp_0", "me") is found
    time.now = 3600
    assert await all_kept.find("resp_0", "me") is None


async def test_a_repeat_gets_the_same_one_and_begins_its_hour_anew() -> None:
    time = Time()
    all_kept, ended = responses(time), generation(time)
    end(ended)
    said = Said("m")
    first = all_kept.keep(said, ended)
    time.now = 1000
    assert all_kept.keep(said, ended).said == first.said
    time.now = 4599
    assert await all_kept.find("resp_0", "me") is not None


async def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 2)
    time = Time()
    all_kept = responses(time)
    for number in range(3):
        all_kept.keep(Said("m"), generation(time, number))
    await asyncio.sleep(0)
    assert [await all_kept.find(f"resp_{number}", "me") is not None for number in range(3)] == [False, True, True]


async def test_one_of_another_process_is_read_back() -> None:
    time = Time()
    all_kept, found = responses(time), generation(time)
    said = Said("m", tools=[{"type": "image_generation"}], metadata={"a": "b"}, text="the caller's words", edited=True)
    assert "words" not in said.dump()
    found.request = RequestSummary("m", 1, "b64_json", (), note=said.dump())
    all_kept._generations._registry.add(found)
    kept = await all_kept.find("resp_0", "me")
    assert kept is not None
    assert kept.said == replace(said, text="")
    assert await all_kept.find("resp_0", "you") is None


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"else": 1}', "no JSON"])
async def test_a_generation_of_another_surface_is_no_response(note: str) -> None:
    time = Time()
    all_kept, found = responses(time), generation(time)
    found.request = RequestSummary("m", 1, "b64_json", (), note=note)
    all_kept._generations._registry.add(found)
    assert await all_kept.find("resp_0", "me") is None
