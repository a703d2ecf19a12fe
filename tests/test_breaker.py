"""The circuit breaker, with a clock that only the test moves."""

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.clock import Clock
from proxy.jobs.breaker import Breaker


class _Middle(Random):
    """Draws the middle of every range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@dataclass
class Scene:
    """A breaker and its time."""

    now: float = 100.0

    def __post_init__(self) -> None:
        self.breaker = Breaker(Clock(monotonic=lambda: self.now, random=_Middle()))

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed()

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.succeeded()

    def reopen(self) -> float:
        """Wait for the half-open state, fail the probe, and return the new pause in seconds."""
        self.now += self.breaker.wait_s
        assert self.breaker.allow()
        self.breaker.failed()
        return self.breaker.wait_s


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_new_breaker_lets_everything_through(scene: Scene) -> None:
    assert (scene.breaker.state, scene.breaker.wait_s) == ("closed", 0.0)
    assert all(scene.breaker.allow() for _ in range(20))


def test_five_failures_in_a_row_open_it(scene: Scene) -> None:
    scene.fail(4)
    assert scene.breaker.state == "closed"
    scene.fail()
    assert (scene.breaker.state, scene.breaker.wait_s) == ("open", 5.0)
    assert not scene.breaker.allow()


def test_a_success_breaks_the_row(scene: Scene) -> None:
    scene.fail(4)
    scene.succeed()
    scene.fail(4)
    assert scene.breaker.state == "closed"


def test_half_of_ten_in_the_window_open_it(scene: Scene) -> None:
    for _ in range(4):
        scene.succeed()
        scene.fail()
    scene.succeed()
    assert scene.breaker.allow()
    scene.fail()
    assert scene.breaker.state == "open"


def test_less_than_half_does_not(scene: Scene) -> None:
    for _ in range(20):
        scene.succeed(2)
        scene.fail()
    assert scene.breaker.state == "closed"


def test_what_is_older_than_the_window_does_not_count(scene: Scene) -> None:
    for _ in range(4):
        scene.fail()
        scene.succeed()
    scene.now += 30.1
    scene.succeed()
    scene.fail()
    assert scene.breaker.state == "closed"


def test_one_probe_is_let_through_after_the_pause(scene: Scene) -> None:
    scene.fail(5)
    scene.now += 4.9
    assert not scene.breaker.allow()
    scene.now += 0.2
    assert (scene.breaker.state, scene.breaker.wait_s) == ("half-open", 0.0)
    assert scene.breaker.allow()
    assert not scene.breaker.allow()


def test_a_probe_that_succeeds_closes_it_and_forgets(scene: Scene) -> None:
    scene.fail(5)
    assert scene.reopen() == 10.0
    scene.now += 10
    assert scene.breaker.allow()
    scene.succeed()
    assert scene.breaker.state == "closed"
    scene.fail(4)
    assert scene.breaker.state == "closed"
    scene.fail()
    assert scene.breaker.wait_s == 5.0


def test_a_probe_that_says_nothing_may_be_taken_again(scene: Scene) -> None:
    scene.fail(5)
    scene.now += 5
    assert scene.breaker.allow()
    scene.breaker.skipped()
    assert scene.breaker.state == "half-open"
    assert scene.breaker.allow()


def test_pauses_double_up_to_a_minute(scene: Scene) -> None:
    scene.fail(5)
    assert [scene.reopen() for _ in range(5)] == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_calls_made_before_it_opened_do_not_lengthen_the_pause(scene: Scene) -> None:
    """With 100 jobs at once, 100 failures of one outage are one outage."""
    scene.fail(100)
    assert scene.breaker.wait_s == 5.0
    assert scene.reopen() == 10.0


def test_a_late_success_closes_it(scene: Scene) -> None:
    scene.fail(5)
    scene.succeed()
    assert scene.breaker.state == "closed"
    assert scene.breaker.allow()


def test_the_pause_has_jitter() -> None:
    pauses = set()
    for seed in range(50):
        breaker = Breaker(Clock(monotonic=lambda: 0.0, random=Random(seed)))  # noqa: S311 - repeatable, not secret
        for _ in range(5):
            breaker.failed()
        pauses.add(breaker.wait_s)
    assert len(pauses) > 40
    assert all(4.0 <= pause <= 6.0 for pause in pauses)


@given(st.lists(st.sampled_from(["allow", "fail", "succeed", "skip", "wait"]), max_size=60))
@settings(max_examples=60, deadline=None)
def test_it_never_shuts_for_good_nor_lets_two_probes_through(steps: list[str]) -> None:
    scene = Scene()
    probes = 0
    for step in steps:
        if step == "allow":
            probing = scene.breaker.state == "half-open"
            if scene.breaker.allow() and probing:
                probes += 1
        elif step == "wait":
            scene.now += 7
        else:
            {"fail": scene.breaker.failed, "succeed": scene.breaker.succeeded, "skip": scene.breaker.skipped}[step]()
            probes = 0 if step == "skip" or scene.breaker.state != "half-open" else probes
        assert probes <= 1
        assert 0 <= scene.breaker.wait_s <= 60
    scene.breaker.skipped()
    scene.now += 60
    assert scene.breaker.allow()
