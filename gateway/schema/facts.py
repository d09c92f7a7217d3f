"""What is known of a route before it is asked: its limits, its defaults, and what it is."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from msgspec import json

from backends.base import Backend
from gateway.house import Estate
from gateway.routing.dispatch import relays
from gateway.routing.router import Route
from gateway.schema.bodies import Body, Json, parameters


@runtime_checkable
class Bounded(Protocol):
    """A backend that knows what each of its models allows, and takes where nothing is said."""

    def bounds(self, model: str) -> dict[str, Json]: ...
    def defaults(self, model: str) -> dict[str, Any]: ...


def facts(route: Route, estate: Estate) -> Json:
    """What a route is, as far as that does not change from one moment to the next."""
    entry = estate.config.backends.get(route.backend.name)
    known = estate.registry.known(route.backend.name, route.model)
    return {
        "name": route.name,
        "backend": route.backend.name,
        "kind": None if entry is None else entry.kind,
        "model": route.model,
        "modality": route.modality,
        "capabilities": list(route.capabilities),
        "context_length": route.context_length,
        "price": route.price,
        "size_bytes": None if known is None else known.size_bytes,
        "quantization": None if known is None else known.quantization,
    }


def standings(backend: Backend) -> Mapping[str, tuple[str, int | None]]:
    """How those of a backend's models stand that were ever wanted, and the memory each takes or would take."""
    overview = getattr(backend, "overview", None)
    return {} if overview is None else overview()


def status(route: Route, estate: Estate) -> str | None:
    """How the model stands now; None: nobody knows."""
    if (stands := standings(route.backend).get(route.model)) is not None:
        return stands[0]
    if _is_here(route, estate):
        return "unloaded"
    known = estate.registry.known(route.backend.name, route.model)
    return None if known is None else known.status


def limits(route: Route, body: Body, estate: Estate) -> Mapping[str, Json]:
    """By parameter, what this very model allows of it."""
    backend = _bounded(route, estate)
    out: dict[str, Json] = {} if backend is None else _placed(backend.bounds(route.model), body)
    if body.dialect == "completions" and not relays(route.backend, body.peek(json.encode(body.start)), route.model):
        # A text that is read and never gone on from has no translation.
        out["max_tokens"] = {"minimum": 1}
    return out


def defaults(route: Route, body: Body, estate: Estate) -> Mapping[str, Any]:
    """By parameter, what the model takes where the client says nothing."""
    backend = _bounded(route, estate)
    return {} if backend is None else _placed(backend.defaults(route.model), body)


def _is_here(route: Route, estate: Estate) -> bool:
    return route.model in estate.local.get(route.backend.name, {})


def _bounded(route: Route, estate: Estate) -> Bounded | None:
    return route.backend if isinstance(route.backend, Bounded) and _is_here(route, estate) else None


def _placed(said: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """What is said of bare names, by the names that a body has for them."""
    return {name: said[bare] for name in parameters(body) if (bare := name.rpartition(".")[2]) in said}
