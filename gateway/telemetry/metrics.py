"""Prometheus metrics.  Labels are bounded: names from the configuration and our own words, never a client's."""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.openmetrics import exposition as openmetrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each other one, that nobody looks at

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FINE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """One registry, so that two houses in one process (tests) do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[Any, ...], Any] = {}
        r = self.registry
        self.requests = Counter("pluggably_requests", "Requests answered.", ["route", "backend", "status"], registry=r)
        self.errors = Counter("pluggably_errors", "Errors by code.", ["route", "backend", "code"], registry=r)
        self.tokens = Counter("pluggably_tokens", "Tokens metered.", ["backend", "direction"], registry=r)
        self.cost = Counter(
            "pluggably_cost_usd", "Cost of what was answered, where its price is known.", ["backend"], registry=r
        )
        self.attempts = Counter("pluggably_attempts", "Attempts at a backend.", ["backend", "outcome"], registry=r)
        self.resumed = Counter(
            "pluggably_streams_resumed",
            "Broken streams that a backend went on with.",
            ["backend", "outcome"],
            registry=r,
        )
        self.skipped = Counter(
            "pluggably_events_skipped", "Malformed events left out of streams.", ["backend"], registry=r
        )
        self.limited = Counter(
            "pluggably_limit_refusals",
            "Requests refused by a limit or a budget, by the error's code.",
            ["code"],
            registry=r,
        )
        self.unauthorized = Counter(
            "pluggably_auth_failures",
            "Requests whose sender may not make them, by the error's code.",
            ["code"],
            registry=r,
        )
        self.reloads = Counter(
            "pluggably_config_reloads", "New configurations, accepted or refused.", ["outcome"], registry=r
        )
        self.refusals = {401: self.unauthorized, 403: self.unauthorized, 429: self.limited}
        """By the status with which a request is refused before a backend has seen it."""
        for outcome in ("accepted", "refused"):
            self.reloads.labels(outcome)
        ProcessCollector(registry=r)
        self.tasks = Gauge("pluggably_tasks", "Tasks of the event loop.", registry=r)
        self.tasks.set_function(_tasks)
        self.duration = Histogram(
            "pluggably_request_seconds", "Whole request.", ["route"], buckets=_SECONDS, registry=r
        )
        self.first_token = Histogram(
            "pluggably_first_token_seconds", "From request to first content.", ["backend"], buckets=_SECONDS, registry=r
        )
        self.queue = Histogram(
            "pluggably_queue_seconds", "Waited for a place at a backend.", ["backend"], buckets=_SECONDS, registry=r
        )
        self.load = Histogram(
            "pluggably_load_seconds", "Waited for a local model to load.", ["backend"], buckets=_SECONDS, registry=r
        )
        self.overhead = Histogram(
            "pluggably_overhead_seconds",
            "From the request's arrival to its hand-over to a backend: the gateway's own time.",
            ["route"],
            buckets=_FINE,
            registry=r,
        )

    def child(self, metric: Any, *labels: str) -> Any:
        """The metric with these labels.  Looking it up costs more than counting, so it is kept: labels are few."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All of them, and their media type: OpenMetrics, with exemplars, for those who accept that."""
        if "application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no loop runs
        return 0
