"""What is read off the house when somebody looks: how much is under way, and in what state.

Asked of the house's own objects at each scrape, so that nothing is counted twice and what a new configuration
has dropped is gone from the answer.
"""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from backends.base import IN_MEMORY, Loads
from gateway.storage.retention import KINDS

if TYPE_CHECKING:
    from gateway.house import House


@runtime_checkable
class Pooled(Protocol):
    """A backend whose models are loaded when they are wanted."""

    def standings(self) -> dict[str, int]:
        """How many models stand how."""
        ...


class Gauges(Collector):
    def __init__(self, house: "House") -> None:
        self._house = house

    def describe(self) -> Iterator[Metric]:
        """Nothing: asking the house is for when it is complete."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        house, estate = self._house, self._house.estate
        about = {"version": version("pluggably"), "python": platform.python_version()}
        yield InfoMetricFamily("pluggably_build", "What runs.", about)
        yield GaugeMetricFamily("pluggably_in_flight", "Requests under way.", len(house.guests))
        yield GaugeMetricFamily("pluggably_draining", "1 while the gateway is stopping.", float(house.draining))
        ledger = house.ledger
        yield GaugeMetricFamily("pluggably_usage_rows_queued", "Usage rows not yet in the database.", ledger.queued)
        yield CounterMetricFamily("pluggably_usage_rows_dropped", "Usage rows lost for want of room.", ledger.dropped)

        def per_backend(name: str, what: str, *more: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, what, labels=["backend", *more])

        busy = per_backend("pluggably_backend_in_flight", "Requests that a backend has.")
        away = per_backend("pluggably_breakers_open", "Routes left alone because of failures.")
        waiting = per_backend("pluggably_waiting", "Requests waiting for a backend.")
        places = per_backend("pluggably_places", "Requests that a backend may have at once.")
        models = per_backend("pluggably_local_models", "Local models by how they stand.", "state")
        for name, backend in estate.backends.items():
            busy.add_metric([name], house.book.busy(name))
            away.add_metric([name], house.book.open(name))
            if (gate := house.dispatcher.gates.get(name)) is not None:
                waiting.add_metric([name], gate.waiting)
            if (most := estate.config.backends[name].terms.concurrent) is not None:
                places.add_metric([name], most)
            if isinstance(backend, Pooled):
                for state, count in backend.standings().items():
                    models.add_metric([name, state], count)
            if isinstance(backend, Loads):
                waiting.add_metric([name], backend.counts()["waiting"])
        yield from (busy, away, waiting, places, models, *self._pools())
        left = per_backend("pluggably_quota_remaining", "Left of a provider's quota, of the model with least.", "unit")
        for (name, unit), amount in house.quotas.least().items():
            if name in estate.backends:
                left.add_metric([name, unit], amount)
        yield left
        routes = GaugeMetricFamily(
            "pluggably_route_state",
            "1 for the state that a configured route is in.",
            labels=["model", "route", "state"],
        )
        for model, entry in estate.config.models.items():
            for route in entry.leads_to():
                if "*" not in route:  # a client can make any number of models of a pattern
                    routes.add_metric([model, route, house.book.state(route)], 1.0)
        yield routes
        yield from self._storage()
        yield from self._artifacts()

    def _storage(self) -> Iterator[Metric]:
        """What downloaded models take of the disk, as it was looked at last: asking is not to read the disk."""
        if (storage := self._house.storage) is None:
            return
        sizes = GaugeMetricFamily(
            "pluggably_storage_bytes", "What downloaded models take of the disk, or may.", labels=["kind"]
        )
        for kind, size in storage.figures.items():
            sizes.add_metric([kind], size)
        gone = CounterMetricFamily(
            "pluggably_storage_removed", "Models, versions and leftovers removed from the disk.", labels=["kind"]
        )
        for kind in sorted(KINDS):
            gone.add_metric([kind], storage.removed[kind])
        yield from (sizes, gone)

    def _artifacts(self) -> Iterator[Metric]:
        """As they were counted last."""
        if (artifacts := self._house.artifacts) is None:
            return
        if artifacts.figures:
            yield GaugeMetricFamily("pluggably_artifacts", "Artifacts that are kept.", artifacts.figures["count"])
            size = artifacts.figures["bytes"]
            yield GaugeMetricFamily("pluggably_artifact_bytes", "What artifacts take of their store.", size)
        gone = CounterMetricFamily("pluggably_artifacts_removed", "Artifacts removed by themselves.", labels=["reason"])
        for reason, count in artifacts.removed.items():
            gone.add_metric([reason], count)
        yield gone

    def _pools(self) -> Iterator[Metric]:
        """What local models take, and what became of them.  Their names are files' of this machine: few."""
        estate = self._house.estate
        memory = GaugeMetricFamily(
            "pluggably_local_memory_bytes", "Memory that local models take, or may.", labels=["backend", "which"]
        )
        each = GaugeMetricFamily(
            "pluggably_local_model_memory_bytes", "Memory that a local model takes.", labels=["backend", "model"]
        )
        acts = CounterMetricFamily(
            "pluggably_local_acts", "Loads, evictions and crashes of local models.", labels=["backend", "act"]
        )
        for name, backend in estate.backends.items():
            if not isinstance(backend, Loads):
                continue
            counts = backend.counts()
            memory.add_metric([name, "used"], counts["memory_bytes"])
            memory.add_metric([name, "limit"], counts["memory_max_bytes"])
            for act in ("loads", "evictions", "crashes"):
                acts.add_metric([name, act], counts[act])
            for model in estate.local.get(name, ()):
                standing = backend.standing(model)
                if standing["status"] in IN_MEMORY:
                    each.add_metric([name, model], standing["memory_bytes"] or 0)
        yield from (memory, each, acts)
