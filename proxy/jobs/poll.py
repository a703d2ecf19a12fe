"""Follows an accepted job: polls by schedule until it is finished or given up, whatever becomes of its caller."""

from collections import Counter
from dataclasses import dataclass, field

from proxy.clock import Clock, Deadline
from proxy.errors import (
    GenerationTimeout,
    JobLost,
    ProviderAuth,
    ProviderBadResponse,
    ProviderBadResult,
    ProviderFailure,
)
from proxy.jobs.refusals import is_challenge
from proxy.jobs.runtime import Limits, ProviderRuntime
from proxy.jobs.schedule import LAST_POLL_S, Pace
from proxy.jobs.steps import Steps
from proxy.providers.boundary import Finished, Pending, Reply, UnreadableReply
from proxy.upstream.client import FETCH_S, Interrupted, NotSent, TooLarge
from proxy.upstream.incoming import NotWhole

_STRIKES = 3
"""An accepted job ends after so many answers in a row that look final (job unknown, key refused).

One alone may come from a replica of the provider that lags behind, or from a deployment under way.
"""
_BUSY_S = 2.0
"""The pause after a 429 without Retry-After."""
_POLL_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 8.0
_LAST_SHARE = 0.1
"""The last poll that leaves time for a slow answer comes at most this share of the lifetime before its end."""
_ASIDE_S = 2.0
"""A picture that is ready doesn't wait longer than this for what would only be good to know."""
_INSTANT_S = 0.005
"""Timers fire a little late or early: closer than this to a last poll's moment, that poll has just been made."""


@dataclass(slots=True)
class Follower:
    """Asks for one job's state until it is finished."""

    runtime: ProviderRuntime
    pace: Pace
    steps: Steps
    limits: Limits
    clock: Clock
    deadlines: tuple[float, ...]
    polls: int = 0
    _strikes: Counter[str] = field(default_factory=Counter)
    _troubles: int = 0

    async def follow(self, pending: Pending, lifetime: Deadline) -> Finished:
        """Return the finished job. Raises ProviderFailure; GenerationTimeout after ``lifetime``."""
        at_least_s = 0.0
        while True:
            preview = self._checked(pending.preview) if pending.preview else None
            self.steps.progress(pending.state, pending.progress, preview)
            if not pending.at_once or at_least_s:
                now = self.clock.monotonic()
                wait_s = self.pace.next_wait(
                    now=now,
                    state=None if at_least_s else pending.state,
                    progress=pending.progress,
                    at_least_s=max(at_least_s, self.runtime.poll_breaker.wait_s),
                    deadlines=self.deadlines,
                )
                await self.clock.sleep(self._within(lifetime, now, wait_s))
            # A job that is done is collected even then: that brings the picture, a next step, or a failed try that
            # ends it here.
            if lifetime.passed and not (pending.at_once and not at_least_s):
                raise GenerationTimeout("The picture was not ready within the time a job is followed.")
            answer = await self._answer(pending, lifetime)
            if isinstance(answer, Finished):
                return answer
            if isinstance(answer, Pending):
                pending, at_least_s, self._troubles = answer, 0.0, 0
                self._strikes.clear()
            else:
                at_least_s = answer

    async def _answer(self, pending: Pending, lifetime: Deadline) -> Pending | Finished | float:
        """Poll once, like ``_ask``. Where the answer isn't needed, what comes instead of it is no trouble."""
        if pending.otherwise is None:
            return await self._ask(pending, lifetime)
        try:
            answer = await self._ask(pending, lifetime)
        except ProviderFailure:
            answer = 0.0
        return Pending(pending.otherwise, pending.state, at_once=True) if isinstance(answer, float) else answer

    async def _ask(self, pending: Pending, lifetime: Deadline) -> Pending | Finished | float:
        """Poll once. A float means that the answer said nothing, and is the least number of seconds to wait."""
        self.polls += 1
        # Takes the probe. A refusal is ignored: ``wait_s`` was waited for, and the job is paid for anyway.
        self.runtime.poll_breaker.allow()
        call = self.runtime.provider.ask(pending.handle)
        # An answer that is late still counts: the job may be done, and it is paid for.
        limit_s = max(FETCH_S, lifetime.remaining) if call.picture else self.limits.poll_s
        if pending.otherwise is not None:
            limit_s = min(limit_s, _ASIDE_S)
        try:
            reply = await self.runtime.upstream.send(call, limit_s)
            if 200 <= reply.status < 300:
                answer = self.runtime.read(pending.handle, reply)
                self.runtime.poll_breaker.succeeded()
                return answer
        except (NotSent, Interrupted, UnreadableReply):
            self.runtime.poll_breaker.failed()
            return self._backoff_s()
        except TooLarge:
            if call.picture:
                raise ProviderBadResult("The finished picture is larger than any that is accepted.") from None
            self.runtime.poll_breaker.failed()
            return self._backoff_s()
        except NotWhole as failure:
            # The call itself went well. The picture may be damaged at its source, so this isn't tried for ever.
            self.runtime.poll_breaker.skipped()
            self._strike("cut", failure)
            return self._backoff_s()
        except ProviderFailure:
            self.runtime.poll_breaker.succeeded()  # it answered properly: the job failed, not the provider
            raise
        return self._unanswered(reply)

    def _within(self, lifetime: Deadline, now: float, wait_s: float) -> float:
        """Return ``wait_s``, or less: no backoff or Retry-After may push the last polls past the lifetime."""
        left_s = lifetime.at - now
        whole_answer_s = min(self.limits.poll_s, self.limits.lifetime_s * _LAST_SHARE)
        for before_s in sorted((whole_answer_s, LAST_POLL_S), reverse=True):
            if _INSTANT_S < left_s - before_s < wait_s:
                return left_s - before_s
        return min(wait_s, max(0.0, left_s))

    def _checked(self, preview: str) -> str | None:
        """Return a preview's address if it is allowed: it is passed on to the caller. A job never fails for one."""
        try:
            return self.runtime.upstream.check_result(preview)
        except ProviderFailure:
            return None

    def _unanswered(self, reply: Reply) -> float:
        # A 4xx is about this job or this key; only what is left over says that the provider itself is failing.
        if reply.status == 429:
            self.runtime.poll_breaker.skipped()
            return reply.retry_after or _BUSY_S
        if reply.status in (404, 410):
            self._strike("lost", JobLost("The provider no longer knows the job."))
            self.runtime.poll_breaker.skipped()
        elif reply.status in (401, 402, 403) and not is_challenge(reply):
            self._strike("auth", ProviderAuth("The provider refused this service's credentials while the job ran."))
            self.runtime.poll_breaker.skipped()
        elif 400 <= reply.status < 500 and not is_challenge(reply):
            self._strike("bad", ProviderBadResponse("The provider refused to tell how the job is doing."))
            self.runtime.poll_breaker.skipped()
        else:
            self.runtime.poll_breaker.failed()
        return self._backoff_s()

    def _strike(self, kind: str, failure: ProviderFailure) -> None:
        self._strikes[kind] += 1
        if self._strikes[kind] >= _STRIKES:
            raise failure

    def _backoff_s(self) -> float:
        # "Equal jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        longest = min(_LONGEST_BACKOFF_S, _POLL_BACKOFF_S * 2**self._troubles)
        self._troubles += 1
        return self.clock.random.uniform(longest / 2, longest)
