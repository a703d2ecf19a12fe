"""Everything behind the HTTP surface, put together. The command line uses it, too."""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from proxy import background
from proxy.accounts.accounts import NO_CALLER, Accounts, Caller
from proxy.accounts.keys import Keys
from proxy.accounts.refusals import price_unknown
from proxy.accounts.spending import Spending
from proxy.clock import Clock, Deadline
from proxy.config import Configuration
from proxy.errors import InvalidRequest, ProviderBadResponse
from proxy.generations.journal import Journal
from proxy.generations.making import PictureMaking
from proxy.generations.results import Picture, Results
from proxy.generations.runner import Generations
from proxy.jobs.forecast import RouteForecast, forecast
from proxy.jobs.run import Jobs
from proxy.jobs.runtime import Limits
from proxy.jobs.schedule import Schedule
from proxy.metrics import Metrics
from proxy.pictures.choice import store_for
from proxy.pictures.codec import Converter
from proxy.providers.boundary import InputPicture, Operation, Provider
from proxy.providers.registry import build
from proxy.requests.image_request import parse
from proxy.requests.resolve import CheckedRequest, ResolvedRequest, resolve
from proxy.requests.routing import ModelCatalogue, Routing
from proxy.runtimes import Runtimes
from proxy.state.settings import open_state
from proxy.upstream.client import Interrupted, NotSent

_log = logging.getLogger("proxy")
_SOONEST_BACK_S, _LATEST_BACK_S = 2.0, 10.0


class Engine:
    """The service without its HTTP surface. ``open`` before use, ``close`` after."""

    def __init__(self, configuration: Configuration, clock: Clock | None = None) -> None:
        self.configuration = configuration
        self.settings = settings = configuration.settings
        self.clock = clock = clock or Clock()
        self.metrics = Metrics()
        timeouts = settings.timeouts
        self.directory = configuration.directory
        self.store = store_for(settings.images, self.directory, clock, self._may_sweep)
        self._providers = Runtimes(configuration, clock, self.metrics, self.store.draft)
        self.runtimes = self._providers.current
        self.catalogues = {name: self._catalogue(name) for name in settings.providers}
        self.routing = Routing(settings.models, list(self.catalogues.values()), configuration.listed)
        self.schedule = Schedule(worth_s=timeouts.poll_worth, random=clock.random, now=clock.monotonic)
        self.converter = Converter()
        self._results = Results(
            self.store,
            self.converter,
            clock,
            always_copy=settings.images.copies == "always",
            max_pixels=settings.images.max_pixels,
        )
        self._told_prices: dict[str, int] = {}
        self._spending = Spending(self.metrics.money)
        self.accounts = Accounts(
            Keys(configuration.given, clock.wall, reopened=settings.server.allow_anonymous),
            settings.limits.limits(),
            clock.monotonic,
            self._spending.refused,
        )
        self.journal = Journal(clock, self.metrics.state, self._spending)
        self.jobs = self._make_jobs()
        self.generations = self._make_generations()
        self._listed_names = frozenset(name for name in settings.models if not name.endswith("*"))
        self._fingerprint_key = secrets.token_bytes(32)
        self._drained = Deadline.after(clock, 0.0)
        self._background: list[asyncio.Task[None]] = []
        self._told_of_store = False
        self._told_bytes = dict.fromkeys(self.runtimes, 0)

    async def open_state(self, *, serving: bool = True, patience_s: float = 0.0) -> None:
        """Open the state; ``patience_s``: how long to wait for another process that serves from it.

        Raises proxy.state.operations.StateUnavailable.
        """
        state = await open_state(
            self.settings.state,
            self.configuration.state_file,
            self.clock,
            serving=serving,
            database_url=self.configuration.database_url,
            patience_s=patience_s,
            observe=self.metrics.state.observe,
        )
        self.journal.open(state)
        self._fingerprint_key = await state.fingerprint_key()
        self._told_prices.update(await state.prices())
        await self.accounts.open(state, self._fingerprint_key, serving=serving)

    async def open(self, *, serving: bool = True) -> None:
        """Prepare the folder, carry on with what an earlier process left, start the background tasks.

        ``serving`` false: for one command beside a service that runs. Raises OSError,
        proxy.state.operations.StateUnavailable.
        """
        if not self.journal.is_open:
            await self.open_state(serving=serving)
        # A state in a file has one process that serves; what is in memory says nothing about others.
        alone = serving and self.configuration.state_file is not None and not self.journal.state.shared
        await self.store.prepare(alone=alone)
        background.load_learned(self.schedule, self.directory)
        await self.generations.open()
        await self._divide()
        loop = asyncio.get_running_loop()
        work = (
            background.sweep(self.clock, self.generations.sweep, self.store.sweep),
            background.refresh_catalogues(
                self.clock, self.runtimes, self.catalogues, timeout_s=self.settings.timeouts.submit
            ),
            background.watch_loop(self.clock, self.metrics.loop_lag_seconds.set),
            background.beat(self.clock, self._beat),
            background.read_keys(self.clock, self.accounts.refresh),
            background.sweep_state(
                self.clock,
                self.journal,
                result_s=self.settings.timeouts.result,
                keep_ledger_days=self.settings.state.keep_ledger,
            ),
        )
        self._background = [loop.create_task(task) for task in work]

    async def close(self) -> None:
        """Stop every job and background task, close the connections, save what the schedule has learned."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        # Before the connections: a job whose connection is taken away would end as unknown.
        await self.generations.close()
        await self.journal.close()
        await self._providers.close()
        self.converter.close()
        await self.store.close()
        background.save_learned(self.schedule, self.directory)

    @property
    def draining(self) -> bool:
        """Whether new work is refused."""
        return self.generations.draining

    @property
    def ready(self) -> bool:
        """Whether new work is accepted: not draining, and at least one provider is usable and not failing."""
        return not self.draining and any(runtime.submit_breaker.state != "open" for runtime in self.runtimes.values())

    @property
    def busy(self) -> bool:
        """Whether a stop would lose something: a job that no other process could carry on with.

        With a state in memory every running job is one, and so is an end that was handed over and not asked for yet.
        """
        if self.configuration.state_file is not None or self.configuration.database_url:
            return not self.generations.resumable
        return self.generations.running > 0 or self.generations.uncollected > 0

    @property
    def listed_names(self) -> frozenset[str]:
        """The configured public names: few enough to be labels of metrics."""
        # https://prometheus.io/docs/practices/naming/#labels warns of labels with unbounded values.
        return self._listed_names

    def drain(self, patience_s: float) -> None:
        """Refuse new work from now on. Whoever still waits after ``patience_s`` seconds is told to repeat the call."""
        self.generations.draining = True
        self._drained = Deadline.after(self.clock, patience_s)
        asyncio.get_running_loop().call_later(patience_s, self._send_all_away)

    @property
    def come_back_s(self) -> float:
        """Seconds after which a call that is refused while draining should be repeated.

        A repeat that comes too early is refused as well, and the callers' SDKs make only a few.
        """
        return min(_LATEST_BACK_S, max(_SOONEST_BACK_S, self._drained.remaining / 2))

    def figures(self) -> bytes:
        """Return the metrics page, with the gauges brought up to date."""
        for runtime in self.runtimes.values():
            self.metrics.breaker.labels(runtime.name, "submit").set(runtime.submit_breaker.state == "open")
            self.metrics.breaker.labels(runtime.name, "poll").set(runtime.poll_breaker.state == "open")
            received = runtime.upstream.traffic.received
            self.metrics.received_bytes.labels(runtime.name).inc(received - self._told_bytes[runtime.name])
            self._told_bytes[runtime.name] = received
        self.metrics.state_pending.set(self.journal.pending)
        self.metrics.stored_bytes.set(self.store.used_bytes)
        return self.metrics.page()

    def resolve(
        self,
        values: Mapping[str, Any],
        operation: Operation = "generate",
        caller: Caller = NO_CALLER,
        ignored: Sequence[str] = (),
        pictures_param: str = "image",
        images: tuple[InputPicture, ...] = (),
        mask: InputPicture | None = None,
        strict: bool | None = None,
    ) -> ResolvedRequest:
        """Check a request's ``values`` and pictures and find its routes. Raises Failure, before any call.

        ``ignored``: unknown names that are not in ``values``. ``pictures_param``: the parameter that the pictures came
        in. They are not decoded. ``caller``: who asks. ``strict``: another answer than the configuration's to whether a
        parameter that can't be honoured is refused.
        """
        arrived = self.clock.monotonic()
        request, unknown = parse(values)
        account = self.accounts.account(caller, request.user or request.safety_identifier)
        pace = caller.key.pace(account.user)
        checked = CheckedRequest(request, (*unknown, *ignored), operation, images, mask, account, pace, arrived)
        public = self.routing.resolve(request.model or self.settings.server.default_model)
        self.accounts.check_model(caller, public.name, *public.full_names())
        able = [] if operation == "generate" else self.able_to(operation)
        strict = self.settings.server.strict_params if strict is None else strict
        resolved = resolve(checked, public, self._fingerprint_key, strict=strict, able=able)
        self._refuse_larger(pictures_param, images)
        self._refuse_larger("mask", (mask,) if mask else ())
        return self.with_prices(resolved, caller)

    def with_prices(self, resolved: ResolvedRequest, caller: Caller) -> ResolvedRequest:
        """Leave out the routes whose price isn't known if a budget in dollars holds, unless none would be left."""
        if not self.accounts.in_dollars(caller):
            return resolved
        routes = self._making.routes(resolved)
        priced = [each for each in resolved.candidates if routes[each.place].price is not None]
        return replace(resolved, candidates=tuple(priced)) if priced else resolved

    def check_prices(self, resolved: ResolvedRequest, caller: Caller) -> None:
        """Raise PriceUnknown when a budget in dollars holds and no route's price is known."""
        if not self.accounts.in_dollars(caller):
            return
        routes = self._making.routes(resolved)
        if all(route.price is None for route in routes.values()):
            raise price_unknown(resolved.public.name, tuple(routes))

    def _refuse_larger(self, param: str, pictures: Sequence[InputPicture]) -> None:
        limit = self.settings.images.max_pixels
        if any(picture.width * picture.height > limit for picture in pictures):
            message = f"A picture in '{param}' is too large: at most {limit} pixels are accepted."
            raise InvalidRequest(message, param=param, code="invalid_image_file")

    def able_to(self, operation: Operation) -> list[str]:
        """Return the configured public names that have a usable route for ``operation``."""
        names = []
        for name, settings in self.routing.configured():
            if not name.endswith("*") and any(self._does(route, operation) for route in settings.routes):
                names.append(name)
        return names

    async def probe(self, name: str) -> str:
        """Ask one provider for a sign of life. Returns what is wrong, empty if nothing is."""
        runtime = self.runtimes[name]
        try:
            reply = await runtime.upstream.send(runtime.provider.probe(), self.settings.timeouts.submit)
        except NotSent as error:
            return f"cannot be reached ({error})"
        except (Interrupted, ProviderBadResponse) as error:
            return f"gave no readable answer ({error})"
        if reply.status in (401, 402, 403):
            key_env = self.settings.providers[name].key_variable
            return (
                f"refuses the key in {key_env}" if key_env else "refuses this service (a front end's challenge page?)"
            )
        # An API's own 404 (for a task that doesn't exist) is a sign of life; a front end's page is not.
        alive = reply.status < 500 and (reply.status != 404 or reply.content_type == "application/json")
        return "" if alive else f"answers with status {reply.status}"

    def forecast(self, resolved: ResolvedRequest) -> tuple[RouteForecast, ...]:
        """Return what ``resolved`` would do at each of its routes, in their order. Nothing is sent."""
        return forecast(resolved, self.schedule, self.jobs.price)

    def check_store(self, resolved: ResolvedRequest) -> None:
        """Refuse what needs a file of ours on every route while none can be written. Raises StateUnavailable."""
        self._results.check_store(resolved, resolved.candidates, by_writing=False)

    def _pin(self, picture: Picture) -> None:
        if picture.stored is not None:
            self.store.pin(picture.stored.name)

    def _release(self, picture: Picture) -> None:
        if picture.stored is not None:
            self.store.release(picture.stored.name)

    async def _beat(self) -> None:
        """Tell that this process lives, and take up what others have left. Raises operations.StateUnavailable."""
        await self.generations.beat()
        await self._divide()

    async def _divide(self) -> None:
        """Share the providers with the replicas that live."""
        living, holder = self.journal.living, self.journal.holder
        if len(living) > 1 and not self.settings.images.store and not self._told_of_store:
            self._told_of_store = True
            _log.warning("other processes share the database, but not this one's pictures: see images.store")
        if holder in living:
            for runtime in self.runtimes.values():
                await runtime.divide(living.index(holder), len(living))

    async def _may_sweep(self) -> bool:
        """Return whether what all replicas share is this one's to sweep."""
        return self.journal.is_oldest

    def _send_all_away(self) -> None:
        for generation in self.generations:
            generation.release("late")

    def _does(self, route: str, operation: Operation) -> bool:
        provider, _, name = route.partition("/")
        model = self.catalogues[provider].by_name.get(name)
        return model is not None and operation in model.operations and not self.catalogues[provider].why_not

    def _make_jobs(self) -> Jobs:
        timeouts = self.settings.timeouts
        return Jobs(
            self.runtimes,
            self.schedule,
            Limits(timeouts.submit, timeouts.poll, timeouts.lifetime),
            self.clock,
            self.metrics,
            # By writing: it is the last check before a submit, and only a write shows what is wrong with a disk.
            check_store=partial(self._results.check_store, by_writing=True),
            told=self._told_prices,
        )

    def _make_generations(self) -> Generations:
        settings, clock = self.settings, self.clock
        timeouts = settings.timeouts
        self._making = making = PictureMaking(
            self.jobs, self._results, self._providers, clock, self.metrics, lifetime_s=timeouts.lifetime
        )
        return Generations(
            making,
            self.journal,
            clock,
            hold_s=timeouts.hold,
            result_s=timeouts.result,
            kinds={name: provider.kind for name, provider in settings.providers.items()},
            pin=self._pin,
            release=self._release,
        )

    def _catalogue(self, name: str) -> ModelCatalogue:
        catalogue = ModelCatalogue(name, self.configuration.why_not(name))
        runtime = self.runtimes.get(name)
        provider: Provider = runtime.provider if runtime else build(self.settings.providers[name], "")
        catalogue.offer(provider.models())
        return catalogue
