"""The metrics, in Prometheus's terms.

Label values come from the configuration or from closed lists: each new one is a series that Prometheus keeps
(https://prometheus.io/docs/practices/naming/#labels).
"""

import platform
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from proxy import __version__

_SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_LAG = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6)
_ADDED = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """The metrics that every job of a provider changes, looked up once: ``labels()`` costs more than counting."""

    jobs_in_flight: Gauge
    queue: Gauge
    submits: Counter
    polls: Counter
    polls_per_job: Histogram
    detection_lag: Histogram
    job_seconds: Histogram


@dataclass(frozen=True, slots=True)
class StateFigures:
    """The metrics of what is written into the state. ``resumed`` by outcome, ``unknown`` by cause."""

    resumed: Counter
    unknown: Counter
    batch: Histogram
    commit_seconds: Histogram

    def observe(self, operations: int, seconds: float) -> None:
        """Count a group of operations that was written as one; called in the state's own thread."""
        self.batch.observe(operations)
        self.commit_seconds.observe(seconds)


@dataclass(frozen=True, slots=True)
class MoneyFigures:
    """The metrics of money, by key, provider and model; ``refusals`` by the scope of the limit."""

    spent: Counter
    reserved: Gauge
    unknown: Counter
    pictures: Counter
    refusals: Counter


class Metrics:
    """One process's metrics, in a registry of their own, so that tests can have several."""

    def __init__(self) -> None:
        # Else each counter and histogram has a second series with its time of creation, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._name_requests()
        self._name_jobs()
        self.state = self._name_state()
        started = Gauge("images_proxy_start_time_seconds", "Start of this process, Unix time.", registry=self.registry)
        started.set_to_current_time()
        self.money = self._name_money()
        Info("images_proxy_build", "Version of this service.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()}
        )

    def _name_requests(self) -> None:
        registry = self.registry
        self.requests = Counter(
            "images_proxy_requests",
            "Requests answered. 499: the caller left.",
            ("route", "model", "provider", "status", "code"),
            registry=registry,
        )
        self.hold_seconds = Histogram(
            "images_proxy_hold_seconds", "How long requests were held.", ("route",), buckets=_SECONDS, registry=registry
        )
        self.added_seconds = Histogram(
            "images_proxy_added_seconds",
            "Time this service added to a picture: from the request, read, to the submit (the wait for a slot "
            "included), and from the finished job to the picture in the form that was asked for.",
            buckets=_ADDED,
            registry=registry,
        )
        self.requests_in_flight = Gauge("images_proxy_requests_in_flight", "Requests held now.", registry=registry)
        self.reattached = Counter(
            "images_proxy_reattached",
            "Requests answered from a generation that an earlier request started.",
            ("how",),
            registry=registry,
        )
        self.orphans_rescued = Counter(
            "images_proxy_orphans_rescued", "Jobs whose caller had left and that a repeat took over.", registry=registry
        )
        self.duplicates_avoided = Counter(
            "images_proxy_duplicate_submits_avoided",
            "Pictures that a repeat would have bought again.",
            registry=registry,
        )
        self.loop_lag_seconds = Gauge(
            "images_proxy_event_loop_lag_seconds",
            "Longest delay of the event loop within the last ten seconds.",
            registry=registry,
        )

    def _name_jobs(self) -> None:
        registry = self.registry
        self.submits = Counter(
            "images_proxy_submits",
            "Calls that start a job, by what came of them.",
            ("provider", "outcome"),
            registry=registry,
        )
        self.polls = Counter(
            "images_proxy_polls", "Polls, those of jobs that failed included.", ("provider",), registry=registry
        )
        self.polls_per_job = Histogram(
            "images_proxy_polls_per_job",
            "Polls that a finished job took.",
            ("provider",),
            buckets=(0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 48),
            registry=registry,
        )
        self.detection_lag = Histogram(
            "images_proxy_detection_lag_seconds",
            "Estimated time from a job being done to this service knowing it.",
            ("provider",),
            buckets=_LAG,
            registry=registry,
        )
        self.job_seconds = Histogram(
            "images_proxy_job_seconds",
            "From submit to the finished job.",
            ("provider", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._name_providers(registry)

    def _name_providers(self, registry: CollectorRegistry) -> None:
        self.jobs_in_flight = Gauge(
            "images_proxy_jobs_in_flight", "Jobs running at a provider.", ("provider",), registry=registry
        )
        self.queue = Gauge(
            "images_proxy_queue", "Jobs waiting for a provider's slot.", ("provider",), registry=registry
        )
        self.breaker = Gauge(
            "images_proxy_breaker_open",
            "1 while the circuit breaker refuses calls.",
            ("provider", "operation"),
            registry=registry,
        )
        self.received_bytes = Counter(
            "images_proxy_provider_received_bytes",
            "Bytes of the provider's answers and pictures.",
            ("provider",),
            registry=registry,
        )
        self.stored_bytes = Gauge("images_proxy_stored_bytes", "Bytes of stored pictures.", registry=registry)

    def _name_money(self) -> MoneyFigures:
        registry, by = self.registry, ("key", "provider", "model")
        return MoneyFigures(
            spent=Counter(
                "images_proxy_spent_dollars",
                "Dollars settled, for pictures bought and lost too.",
                by,
                registry=registry,
            ),
            reserved=Gauge(
                "images_proxy_reserved_dollars",
                "Dollars held for jobs that this process follows.",
                by,
                registry=registry,
            ),
            unknown=Counter(
                "images_proxy_unknown_dollars", "Dollars of jobs whose outcome became unknown.", by, registry=registry
            ),
            pictures=Counter("images_proxy_pictures", "Pictures that were paid for.", by, registry=registry),
            refusals=Counter(
                "images_proxy_limit_refusals",
                "Requests refused by a limit of: key, owner, user, service (money or pictures), pace.",
                ("scope",),
                registry=registry,
            ),
        )

    def _name_state(self) -> StateFigures:
        registry = self.registry
        self.state_pending = Gauge(
            "images_proxy_state_pending", "Writes of the state that wait, those it refused included.", registry=registry
        )
        return StateFigures(
            resumed=Counter(
                "images_proxy_jobs_resumed",
                "Jobs of an earlier process, by what came of them: done, or the failure's code.",
                ("outcome",),
                registry=registry,
            ),
            unknown=Counter(
                "images_proxy_jobs_unknown",
                "Jobs of which nobody knows whether they were bought. crash: a process ended meanwhile.",
                ("cause",),
                registry=registry,
            ),
            batch=Histogram(
                "images_proxy_state_batch_size",
                "Operations written in one transaction.",
                buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
                registry=registry,
            ),
            commit_seconds=Histogram(
                "images_proxy_state_commit_seconds",
                "How long transactions of the state took.",
                buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
                registry=registry,
            ),
        )

    def of_provider(self, name: str) -> ProviderFigures:
        """Return one provider's metrics of accepted and finished jobs."""
        return ProviderFigures(
            jobs_in_flight=self.jobs_in_flight.labels(name),
            queue=self.queue.labels(name),
            submits=self.submits.labels(name, "accepted"),
            polls=self.polls.labels(name),
            polls_per_job=self.polls_per_job.labels(name),
            detection_lag=self.detection_lag.labels(name),
            job_seconds=self.job_seconds.labels(name, "finished"),
        )

    def page(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)
