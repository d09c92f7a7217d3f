"""A name → the routes that may answer it, in order, and why.

`BACKEND/MODEL` addresses one backend.  A bare name is looked for among the configured names, then
their globs, then local models, then what the providers list.
"""

import random
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from backends.base import Backend, Timeouts
from compat.canonical.error import ModelNotFound
from gateway.config import ModelEntry
from gateway.registry import Registry


class Route(Struct, frozen=True):
    backend: Backend
    model: str
    """The backend's own name for the model."""
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.backend.name}/{self.model}"


class Plan(Struct, frozen=True, kw_only=True):
    requested: str
    routes: Sequence[Route]
    """In the order they are tried."""
    reason: str
    """Why these, in words."""
    retries: int = 0
    """Further attempts once each route has failed."""
    timeouts: Timeouts = Timeouts()


class Router:
    def __init__(self, entries: Mapping[str, ModelEntry], backends: Mapping[str, Backend], registry: Registry) -> None:
        self._backends = backends
        self._registry = registry
        self._exact: dict[str, Plan] = {}
        self._weighted: set[str] = set()
        self._globs: list[tuple[str, ModelEntry]] = []
        for name, entry in entries.items():
            if "*" in name:
                self._globs.append((name, entry))
            else:
                self._exact[name] = self._planned(name, entry, f"configured as '{name}'")
            if entry.strategy == "weighted":
                self._weighted.add(name)

    async def plan(self, requested: str) -> Plan:
        """The routes for a name; an empty one means `auto`.  Raises ModelNotFound."""
        name = requested or "auto"
        plan = self._exact.get(name)
        if plan is not None:
            return _drawn(plan) if name in self._weighted else plan
        for pattern, entry in self._globs:
            if fnmatchcase(name, pattern):
                plan = self._planned(name, entry, f"configured as '{pattern}'")
                return _drawn(plan) if pattern in self._weighted else plan
        backend_name, slash, model = name.partition("/")
        backend = self._backends.get(backend_name)
        if slash and model and backend is not None:
            if self._registry.is_closed(backend_name) and not self._registry.has_local(backend_name, model):
                raise self._unknown(requested)
            return Plan(requested=name, routes=(Route(backend, model),), reason="addressed as BACKEND/MODEL", retries=2)
        found = await self._registry.find(name)
        if found is None:
            raise self._unknown(requested)
        return Plan(
            requested=name,
            routes=(Route(self._backends[found.backend], found.name),),
            reason="a local model" if found.status == "ready" else f"listed by backend '{found.backend}'",
            retries=2,
        )

    def _planned(self, name: str, entry: ModelEntry, reason: str) -> Plan:
        routes = []
        for target in entry.routes:
            to, weight = (target, 1.0) if isinstance(target, str) else (target.to, target.weight)
            backend, _, model = to.partition("/")
            routes.append(Route(self._backends[backend], model.replace("*", name), weight))
        return Plan(requested=name, routes=tuple(routes), reason=reason, retries=entry.retries, timeouts=entry.timeouts)

    def _unknown(self, requested: str) -> ModelNotFound:
        shown = requested if len(requested) <= 200 else requested[:200] + "…"
        return ModelNotFound(f"The model '{shown}' does not exist. GET /v1/models lists what there is.")


def _drawn(plan: Plan) -> Plan:
    """Weighted order: the first route is drawn by weight, the rest follow by the same draw."""
    rest, order = list(plan.routes), []
    while rest:
        chosen = random.choices(rest, [max(route.weight, 0.0) or 1e-9 for route in rest])[0]  # noqa: S311
        rest.remove(chosen)
        order.append(chosen)
    return Plan(
        requested=plan.requested, routes=tuple(order), reason=plan.reason, retries=plan.retries, timeouts=plan.timeouts
    )
