"""Prometheus metrics.  Labels are bounded: names from the configuration and our own words, never a client's."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FINE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """One registry, so that two houses in one process (tests) do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("pluggably_requests", "Requests answered.", ["route", "backend", "status"], registry=r)
        self.errors = Counter("pluggably_errors", "Errors by code.", ["route", "backend", "code"], registry=r)
        self.tokens = Counter("pluggably_tokens", "Tokens metered.", ["backend", "direction"], registry=r)
        self.attempts = Counter("pluggably_attempts", "Attempts at a backend.", ["backend", "outcome"], registry=r)
        self.in_flight = Gauge("pluggably_in_flight", "Requests under way.", registry=r)
        self.duration = Histogram(
            "pluggably_request_seconds", "Whole request.", ["route"], buckets=_SECONDS, registry=r
        )
        self.first_token = Histogram(
            "pluggably_first_token_seconds", "From request to first content.", ["backend"], buckets=_SECONDS, registry=r
        )
        self.overhead = Histogram(
            "pluggably_overhead_seconds",
            "From the request's arrival to its hand-over to a backend: the gateway's own time.",
            ["route"],
            buckets=_FINE,
            registry=r,
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
