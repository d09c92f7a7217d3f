"""What is known of a route before it is asked: its limits, its defaults, and what it is."""

from collections.abc import Mapping
from typing import Any

from backends.ports import Local
from gateway.house import Estate
from gateway.routing.router import Route
from gateway.schema.bodies import Body, Json, parameters

_TOKENS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})


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
    if _local(route, estate) is not None:
        return "unloaded"
    known = estate.registry.known(route.backend.name, route.model)
    return None if known is None else known.status


def limits(route: Route, body: Body, estate: Estate) -> Mapping[str, Json]:
    """By parameter, what this very model allows of it."""
    local = _local(route, estate)
    own = {} if local is None else _made(local)
    out: dict[str, Json] = {}
    for name in parameters(body):
        bare = name.rpartition(".")[2]
        if bare in _TOKENS and route.context_length is not None:
            out[name] = {"maximum": route.context_length}
        elif bare in own and body.modality in ("image", "3d"):
            out[name] = own[bare]
        elif bare == "dimensions" and local is not None and (width := local.traits.width):
            settings = _settings(local, estate)
            cuts = settings is not None and settings.matryoshka
            out[name] = {"maximum": width} if cuts else {"minimum": width, "maximum": width, "examples": [width]}
    return out


def defaults(route: Route, body: Body, estate: Estate) -> Mapping[str, Any]:
    """By parameter, what the model takes where the client says nothing."""
    local = _local(route, estate)
    if local is None:
        return {}
    settings = _settings(local, estate)
    said = local.defaults if settings is None else local.defaults | settings.defaults
    return {name: said[bare] for name in parameters(body) if (bare := name.rpartition(".")[2]) in said}


def _local(route: Route, estate: Estate) -> Local | None:
    return estate.local.get(route.backend.name, {}).get(route.model)


def _settings(local: Local, estate: Estate) -> Any:
    """What the configuration says of this one model; None: its backend has no such settings."""
    entry = estate.config.backends.get(local.model.backend)
    of = getattr(None if entry is None else entry.settings, "of", None)
    return None if of is None else of(local.name)


def _made(local: Local) -> dict[str, Json]:
    """What may be said of pictures or meshes, from the very table that orders are held to."""
    if local.model.modality not in ("image", "3d"):
        return {}
    from backends.local import order

    out: dict[str, Json] = {}
    for name, rule in order.parameters(local).items():
        if words := getattr(rule, "words", ()):
            out[name] = {"enum": list(words)}
        elif (least := getattr(rule, "least", None)) is not None:
            out[name] = {"minimum": least, "maximum": getattr(rule, "most", None)}
    if local.model.modality == "image":
        from backends.local.studio import PIXELS_MAX, SIDE_MAX

        out["size"] = {"side_multiple_of": order.SIDE_STEP, "side_maximum": SIDE_MAX, "pixels_maximum": PIXELS_MAX}
    return out
