"""What is known of a route before it is asked: its limits, its defaults, and what it is."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from msgspec import json

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


def status(route: Route, estate: Estate) -> str | None:
    """How the model stands now; None: nobody knows."""
    overview = getattr(route.backend, "overview", None)
    if overview is not None and (stands := overview().get(route.model)) is not None:
        return str(stands[0])
    if _is_here(route, estate):
        return "unloaded"
    known = estate.registry.known(route.backend.name, route.model)
    return None if known is None else known.status


def limits(route: Route, body: Body, estate: Estate) -> Mapping[str, Json]:
    """By parameter, what this very model allows of it."""
    own = _bounded(route, estate)[0]
    out: dict[str, Json] = {}
    for name in parameters(body):
        bare = name.rpartition(".")[2]
        if bare in own:
            out[name] = own[bare]
    if body.dialect == "completions" and not relays(route.backend, body.peek(json.encode(body.start)), route.model):
        # A text that is read and never gone on from has no translation.
        out["max_tokens"] = {"minimum": 1}
    return out


def defaults(route: Route, body: Body, estate: Estate) -> Mapping[str, Any]:
    """By parameter, what the model takes where the client says nothing."""
    said = _bounded(route, estate)[1]
    return {name: said[bare] for name in parameters(body) if (bare := name.rpartition(".")[2]) in said}


def _is_here(route: Route, estate: Estate) -> bool:
    return route.model in estate.local.get(route.backend.name, {})


def _bounded(route: Route, estate: Estate) -> tuple[dict[str, Json], dict[str, Any]]:
    backend = route.backend
    if not isinstance(backend, Bounded) or not _is_here(route, estate):
        return {}, {}
    return backend.bounds(route.model), backend.defaults(route.model)
