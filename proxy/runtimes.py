"""The providers in operation: those of the configuration, and those that jobs of an earlier one were submitted to."""

from collections.abc import Callable

from proxy.clock import Clock
from proxy.config import Configuration
from proxy.jobs.breaker import Breaker
from proxy.jobs.runtime import ProviderRuntime
from proxy.metrics import Metrics
from proxy.providers.registry import build, settings_of_old
from proxy.providers.settings import ProviderSettings
from proxy.state.records import Route
from proxy.upstream.addresses import ResultAddresses
from proxy.upstream.client import Upstream
from proxy.upstream.incoming import Draft


class Runtimes:
    """Builds what runs jobs at a provider. ``current``: by the names that the configuration gives the usable ones.

    ``draft``: makes the files that pictures are streamed to.
    """

    def __init__(
        self, configuration: Configuration, clock: Clock, metrics: Metrics, draft: Callable[[], Draft | None]
    ) -> None:
        self._configuration = configuration
        self._clock = clock
        self._metrics = metrics
        self._draft = draft
        keys, settings = configuration.provider_keys, configuration.settings.providers
        self.current = {
            name: self._runtime(name, table, keys.get(name, ""))
            for name, table in settings.items()
            if not configuration.why_not(name)
        }
        self._past: dict[tuple[str, ...], ProviderRuntime] = {}

    def route(self, provider: str, model: str) -> Route:
        """Return a route as it is written down: with the address and the account that a job is submitted to now."""
        settings = self._configuration.settings.providers[provider]
        return Route(provider, model, settings.base_url, settings.key_variable)

    def of(self, route: Route, kind: str) -> ProviderRuntime:
        """Return what speaks to the address that a job was submitted to, with the account of then.

        Raises ValueError when the provider's dialect is not known.
        """
        runtime = self.current.get(route.provider)
        settings = self._configuration.settings.providers.get(route.provider)
        account = (kind, route.base_url, route.key_env)
        if runtime and settings and (settings.kind, settings.base_url, settings.key_variable) == account:
            return runtime
        past = (route.provider, *account)
        if past not in self._past:
            # Breakers and connections of its own: what an address of old does is nothing to those in use.
            table = settings_of_old(kind, route.base_url, route.key_env, settings)
            self._past[past] = self._runtime(route.provider, table, self._configuration.secret(route.key_env))
        return self._past[past]

    async def close(self) -> None:
        """Close all connections."""
        for runtime in (*self.current.values(), *self._past.values()):
            await runtime.upstream.close()

    def _runtime(self, name: str, settings: ProviderSettings, key: str) -> ProviderRuntime:
        provider = build(settings, key)
        addresses = ResultAddresses(settings.image_hosts or provider.image_hosts, settings.allow_private_hosts)
        upstream = Upstream(self._draft, addresses, settings.http_proxy, provider.credentials())
        return ProviderRuntime(
            name,
            provider,
            upstream,
            settings.max_jobs,
            submit_breaker=Breaker(self._clock),
            poll_breaker=Breaker(self._clock),
            figures=self._metrics.of_provider(name),
            polls_per_second=settings.polls_per_second,
            prices=settings.prices,
        )
