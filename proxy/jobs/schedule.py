"""When to poll next, learned from how long pictures take.

Let ``rho`` be the seconds of lag that one poll is worth, and ``h`` the hazard: the chance per second that a job which
is still running finishes now. Then lag + rho * polls is least at sqrt(h / 2 rho) polls per second: J. B. Keller,
"Optimum checking schedules for systems subject to random failure", Management Science 21 (1974), 256-260. A budget acts
as a price: where jobs want q times as many polls as there are, rho is q * q times as high and each gap q times as long.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import accumulate, pairwise
from random import Random
from typing import Any, Literal

from proxy.jobs.poll_budget import Budget

SHORTEST_S, LONGEST_S, JITTER = 0.2, 5.0, 0.1
LAST_POLL_S = 0.5  # before a deadline, so that the answer is back in time
WARM = 8  # samples from which on a histogram is believed

# Few predictions of each job: a slow one that was polled often must not drown all the others.
_BINS, _MOST_KEYS, _MOST_PREDICTIONS = 80, 512, 16
_KEEP = 0.965  # weight that older samples keep with each newer one: some 30 jobs; 100 learn a new pace too slowly
_EDGES = [0.0, *(0.1 * 1.12**i for i in range(_BINS))]
_WIDTHS = [high - low for low, high in pairwise(_EDGES)]
_PRIOR = 0.01 / _BINS  # share of the jobs expected in any bin whatever was seen, so that no hazard is zero
_TAIL = _PRIOR / math.log(1.12)  # share always left, so that a job slower than all before has the hazard 1 / elapsed


@dataclass(frozen=True, slots=True)
class Key:
    """Jobs that take about the same time. ``pixels`` and ``steps`` are powers of two, -1 where unknown."""

    provider: str
    model: str
    pixels: int = -1
    steps: int = -1


def classify(provider: str, model: str, width: float | None, height: float | None, steps: float | None) -> Key:
    """Return the key of a job from its pixels and steps, None where the provider decides."""
    area = (width or 0) * (height or 0)
    return Key(provider, model, *(round(math.log2(n)) if n and n > 0 else -1 for n in (area, steps)))


class Histogram:
    """Durations in seconds in 80 bins (0.1 s to 774 s, each 12 % wider) that fade with newer samples and idle hours.

    Three running sums at the bins' edges answer every question: the polls due at rho 1 (the integral of
    sqrt(h / 2)), the share of jobs not yet done, and what those will still cost in polls and lag at rho 1.
    """

    __slots__ = ("_at", "_bins", "_cost", "_sums", "_weight", "samples")

    def __init__(self) -> None:
        self._bins, self._weight, self._at, self.samples = [0.0] * _BINS, 1.0, 0.0, 0
        self._sums: tuple[list[float], list[float]] | None = None
        self._cost: list[float] | None = None

    def add(self, value: float, now: float) -> None:
        """Count a sample. All others then weigh 3.5 % less, and half as much for each hour since the last one."""
        # The new one weighs more instead of all others less, which is cheaper. ``most`` bounds what idle hours do: a
        # key that is used twice a day keeps what it has learned.
        most = max(1.0, sum(self._bins) / self._weight / WARM)
        self._weight *= min(2 ** min(60.0, max(0.0, now - self._at) / 3600), most) / _KEEP
        if self._weight > 1e9:  # before the old bins vanish in a float's rounding
            self._bins, self._weight = [each / self._weight for each in self._bins], 1.0
        # Smoothed over the neighbours: a gap between two bins that happened to be hit would look like a pause.
        middle = _bin(value)
        self._bins[max(0, middle - 1)] += self._weight / 4
        self._bins[middle] += self._weight / 2
        self._bins[min(_BINS - 1, middle + 1)] += self._weight / 4
        self._at, self.samples = now, self.samples + 1
        if self.samples < 64 or self.samples % 4 == 0:  # computing the sums costs as much as ten look-ups in them
            self._sums = None

    def gap(self, elapsed: float, root: float) -> float:
        """Return how long after ``elapsed`` the next poll is due at sqrt(rho) = ``root``; inf where never."""
        polls = self._figures()[0]
        due = _at(polls, elapsed) + root
        i = bisect_right(polls, due) - 1
        if i >= _BINS:
            return math.inf
        return _EDGES[i] + _WIDTHS[i] * (due - polls[i]) / (polls[i + 1] - polls[i]) - elapsed

    def cost(self, elapsed: float) -> float:
        """Return what a job not done at ``elapsed`` will still cost in polls and lag, at rho 1."""
        polls, alive = self._figures()
        if self._cost is None:
            # Twice: at the best rate the lag costs exactly as much as the polls.
            each = [
                2 * (high - low) * max(left, _TAIL) for left, (low, high) in zip(alive, pairwise(polls), strict=False)
            ]
            self._cost = list(accumulate(reversed(each), initial=0.0))[::-1]
        return _at(self._cost, elapsed) / max(_at(alive, elapsed), _TAIL)

    def quantile(self, share: float) -> float:
        """Return the duration within which ``share`` of the jobs were done."""
        # Negated because bisect wants values that grow, and the share still running falls.
        return _EDGES[bisect_left(self._figures()[1], share - 1, key=lambda alive: -alive)]

    def middle(self) -> float:
        """Return the duration within which half of the jobs were done, without computing any sums that are kept."""
        half, below = sum(self._bins) / 2, 0.0
        for i, weight in enumerate(self._bins):
            if weight and below + weight >= half:
                return _EDGES[i] + _WIDTHS[i] * (half - below) / weight
            below += weight
        return _EDGES[-1]

    def _figures(self) -> tuple[list[float], list[float]]:
        if self._sums is None:
            bins, total, left = self._bins, sum(self._bins), 0.0
            polls, alive = [0.0] * _BINS, [0.0] * (_BINS + 1)
            for i in range(_BINS - 1, -1, -1):
                share = bins[i] / total
                alive[i] = left = left + share
                polls[i] = math.sqrt((share + _PRIOR) * _WIDTHS[i] / max(left, _TAIL) / 2)
            self._sums, self._cost = (list(accumulate(polls, initial=0.0)), alive), None
        return self._sums

    def dump(self, now: float) -> list[Any]:
        """Return the histogram as JSON values: samples, seconds since the last one, and the bins that aren't empty."""
        bins = [[i, weight] for i, each in enumerate(self._bins) if (weight := round(each / self._weight, 3))]
        return [self.samples, round(max(0.0, now - self._at)), bins]

    @classmethod
    def load(cls, data: Any, now: float) -> "Histogram":
        """Return what ``dump`` wrote. Raises ValueError, TypeError, LookupError or OverflowError for anything else."""
        loaded, (samples, idle_s, bins) = cls(), data
        for i, weight in bins:
            loaded._bins[i] = float(weight)
        whole = type(samples) is int and 0 <= samples < 1e12 and 0 <= idle_s < 1e9
        if not whole or not all(0 <= each < 1e6 for each in loaded._bins) or any(loaded._bins) != (samples > 0):
            raise ValueError("not a histogram")
        loaded.samples, loaded._at = samples, now - idle_s
        return loaded


def _bin(value: float) -> int:
    return max(0, min(_BINS, bisect_right(_EDGES, value)) - 1)


def _at(sums: Sequence[float], elapsed: float) -> float:
    i = _bin(elapsed)
    return sums[i] + (sums[i + 1] - sums[i]) * min(1.0, max(0.0, elapsed - _EDGES[i]) / _WIDTHS[i])


_Learned = tuple[Histogram, Histogram, Histogram]
"""Three durations: from submit to done; from the start of generation to done; and the time that was left, as a multiple
of what the provider's progress predicted."""


class Pace:
    """When to poll one job. Made by ``Schedule.watch`` once the provider has accepted the job."""

    def __init__(self, learned: _Learned, root: float, chance: Random, budget: Budget | None, now: float) -> None:
        self._learned, self._root, self._random, self._budget = learned, root, chance, budget
        self._start = self._seen = self._sent = now
        self._began: float | None = None
        self._left_s: float | None = None
        self._predictions: list[tuple[float, float]] = []
        self._polls = self._failures = 0

    def next_wait(
        self,
        *,
        now: float,
        state: Literal["queued", "generating"] | None,
        progress: float | None = None,
        at_least_s: float = 0.0,
        deadlines: Sequence[float] = (),
    ) -> float:
        """Return the seconds to wait before the next poll, after the reply that arrived at ``now``.

        ``state`` None: the poll failed and says nothing. ``progress``: the provider's figure, 0-1. ``at_least_s``:
        its Retry-After. ``deadlines``: moments before which a last poll is wanted. The wait is 0.2-5 s, shorter
        only before a deadline, longer only for ``at_least_s`` or a budget.
        """
        self._observe(now, state, progress)
        price = self._budget.price(now) if self._budget else 1.0
        longest = LONGEST_S * price
        wait = min(longest, max(SHORTEST_S, self._gap(price)))
        # Jobs that were submitted together must not be polled in step for ever.
        wait = self._random.uniform(max(SHORTEST_S, wait * (1 - JITTER)), min(longest, wait * (1 + JITTER)))
        if at_least_s > 0:  # jitter only upwards: a provider's Retry-After is a minimum
            wait = max(wait, at_least_s * self._random.uniform(1, 1 + JITTER))
        for deadline in deadlines:
            last = deadline - LAST_POLL_S - now
            if max(0.0, at_least_s) < last < wait:
                wait = last
        if self._budget:
            # The rate it would like at price 1: with the priced rate, a price that works would lower itself.
            wanted_s = min(LONGEST_S, max(SHORTEST_S, self._gap(1.0)))
            wait = self._budget.book(now + wait, 1 / wanted_s, self._random) - now
        self._polls += 1
        self._sent = now + wait
        return wait

    def finished(self, now: float, elapsed_s: float | None = None) -> float:
        """Learn from the reply at ``now`` that the job succeeded. Returns the lag in seconds, as well as it is known.

        ``elapsed_s``, the provider's own figure, is used if it fits what was seen (some leave out the time in the
        queue); else the middle between the last "not done" and the first "done".
        """
        (total, generation, progress), low, high = self._learned, self._seen, self._looked(now)
        took_s = _sample(low - self._start, high - self._start, elapsed_s)
        total.add(took_s, now)
        if self._began is not None:
            generation.add(_sample(low - self._began, high - self._began, elapsed_s), now)
        elif generation.samples >= WARM:
            # Begun and done between two polls. If only slower jobs counted, the wait while queued would grow, and
            # with it the number of jobs that are missed like this one.
            generation.add(min(high - low, generation.quantile(0.5)), now)
        for at, left_s in self._predictions[-_MOST_PREDICTIONS:]:
            progress.add((self._start + took_s - at) / left_s, now)
        return now - self._start - took_s

    def _looked(self, now: float) -> float:
        """Return when the provider answered: about half-way between the poll and its reply."""
        return max(self._seen, (self._sent + now) / 2 if self._sent < now else now)

    def _observe(self, now: float, state: str | None, progress: float | None) -> None:
        if state is None:
            self._failures += 1
            return
        before, self._seen, self._failures, self._left_s = self._seen, self._looked(now), 0, None
        # It began somewhere between the last poll that saw it queued and this one; the middle is the best guess.
        if state == "generating" and self._began is None:
            self._began = (before + self._seen) / 2
        if self._began is not None and progress is not None and 0 < progress < 1 and self._seen > self._began:
            self._left_s = max(0.01, (self._seen - self._began) * (1 - progress) / progress)
            self._predictions.append((self._seen, self._left_s))

    def _gap(self, price: float) -> float:
        if self._failures:  # nothing was learned from the answer: double the wait
            return 0.5 * 2.0 ** min(self._failures - 1, 10)
        total, generation, progress = self._learned
        source, elapsed, root = total, self._seen - self._start, self._root * price
        # Out of the queue, the time that generating takes predicts more than the time that everything takes.
        if self._began is not None and generation.samples >= WARM:
            source, elapsed = generation, self._seen - self._began
        if source.samples < WARM:  # nothing learned yet: half a second, then ever longer
            return 0.5 * 1.3 ** min(self._polls, 20) * price
        gap = source.gap(elapsed, root)
        if self._left_s and progress.samples >= WARM:
            # Providers' progress bars are often wrong: one is used only if, going by its record, it costs less.
            scale = math.sqrt(self._left_s)
            if progress.cost(0) * scale < source.cost(elapsed):
                gap = progress.gap(0, root / scale) * self._left_s
        # A job still in the queue can't be done before the quickest one would be: a poll until then is wasted.
        if self._began is None and generation.samples >= WARM:
            return max(gap, 0.8 * generation.quantile(0.05))
        return gap


def _sample(low: float, high: float, elapsed_s: float | None) -> float:
    return elapsed_s if elapsed_s is not None and low <= elapsed_s <= high else (low + high) / 2


class Schedule:
    """What was learned, and the providers' poll budgets. ``worth_s``: the seconds of lag that one poll is worth."""

    def __init__(self, *, worth_s: float, random: Random, now: Callable[[], float]) -> None:
        self._root, self._random, self._now = math.sqrt(worth_s), random, now
        self._learned: dict[Key, _Learned] = {}
        self._budgets: dict[str, Budget] = {}

    def watch(self, key: Key, budget_per_s: float = 0.0) -> Pace:
        """Return the pace of a job accepted just now. ``budget_per_s``: polls the provider allows; 0: any number."""
        learned = self._of(key)
        budget = self._budgets.get(key.provider) if budget_per_s > 0 else None
        if budget_per_s > 0 and (budget is None or budget.per_s != budget_per_s):
            budget = self._budgets[key.provider] = Budget(budget_per_s)
        return Pace(learned, self._root, self._random, budget, self._now())

    def learn(self, key: Key, took_s: float) -> None:
        """Count a job that was made in one call and not followed: it took so many seconds."""
        self._of(key)[0].add(took_s, self._now())

    def _of(self, key: Key) -> _Learned:
        # Taken out and put in again, so that the key unused for the longest time is the first to be dropped.
        learned = self._learned.pop(key, None) or (Histogram(), Histogram(), Histogram())
        self._learned[key] = learned
        if len(self._learned) > _MOST_KEYS:
            del self._learned[next(iter(self._learned))]
        return learned

    def usual_s(self, key: Key) -> float | None:
        """Return the median seconds from submit to done of a kind of job; None while too few have been seen."""
        total = self._learned[key][0] if key in self._learned else None
        return total.middle() if total is not None and total.samples >= WARM else None

    def dump(self) -> dict[str, Any]:
        """Return what was learned as JSON values."""
        now, learned = self._now(), self._learned.items()
        return {"version": 1, "keys": [[asdict(key), *(each.dump(now) for each in three)] for key, three in learned]}

    def load(self, data: Any) -> None:
        """Replace what was learned by what ``dump`` returned. Anything else in ``data`` is left out, without error."""
        self._learned.clear()
        entries = data.get("keys") if isinstance(data, dict) and data.get("version") == 1 else None
        for entry in entries[-_MOST_KEYS:] if isinstance(entries, list) else ():
            try:
                name, total, generation, progress = entry
                key, now, load = Key(**name), self._now(), Histogram.load
                three = load(total, now), load(generation, now), load(progress, now)
            except (ArithmeticError, LookupError, TypeError, ValueError):
                continue
            # By exact type, since isinstance would take JSON's ``true`` for an int.
            if [type(each) for each in astuple(key)] == [str, str, int, int]:
                self._learned[key] = three
