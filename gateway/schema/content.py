"""The content of a schema: parameters that are alike, once, and the endpoints that take them.

It has a version, which is the hash of all that is in it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from compat.canonical.model import Modality
from gateway.house import Estate
from gateway.routing.router import Route
from gateway.schema import facts
from gateway.schema.bodies import BODIES, Body, Json, components, parameters, word
from gateway.schema.carriage import Carriage
from gateway.schema.naming import REF, named, referred

DIGITS = 16
"""Of a version, hexadecimal."""
_LIMITS = ("minimum", "maximum")

Taken = Sequence[tuple[Body, Sequence[tuple[Route, Mapping[str, Carriage]]]]]
"""The bodies that a name can be asked with, and what each of its routes makes of their parameters."""


def general(package: str) -> Json:
    """Of everything that can be asked of the gateway."""
    rows = [(body, _parameter(body, name, schema)) for body in BODIES for name, schema in parameters(body).items()]
    return _whole({"parameters": _grouped(rows), "endpoints": _endpoints(BODIES)}, package)


def of_model(name: str, taken: Taken, estate: Estate, package: str) -> Json:
    """Of one name that clients can ask for."""
    rows: list[tuple[Body, Json]] = []
    routes: dict[str, Json] = {}
    for body, carriers in taken:
        own = [(route, facts.limits(route, body, estate), facts.defaults(route, body, estate)) for route, _ in carriers]
        for route, limits, defaults in own:
            row = routes.setdefault(route.name, facts.facts(route, estate) | {"modalities": [], "endpoints": []})
            row["modalities"] = _with(row["modalities"], body.modality)
            row["endpoints"] = _with(row["endpoints"], body.path)
            if defaults:
                row["defaults"] = row.get("defaults", {}) | dict(defaults)
            if limits:
                row["limits"] = row.get("limits", {}) | dict(limits)
        for parameter, schema in parameters(body).items():
            out = _parameter(body, parameter, schema)
            _narrow(out, [limits.get(parameter) for _, limits, _ in own])
            said = [defaults.get(parameter) for _, _, defaults in own]
            if said[0] is not None and all(one == said[0] for one in said):
                out["default"] = said[0]
            out["carried"] = {route.name: found[parameter].carried for route, found in carriers}
            losses = {route.name: loss for route, found in carriers if (loss := found[parameter].loss) is not None}
            if losses:
                out["not_carried"] = msgspec.to_builtins(losses)
            rows.append((body, out))
    content = {
        "model": name,
        "routes": list(routes.values()),
        "parameters": _grouped(rows),
        "endpoints": _endpoints([body for body, _ in taken]),
    }
    return _whole(content, package)


def filtered(content: Json, endpoint: str | None, modality: Modality | None) -> Json:
    """Of a schema, what concerns an endpoint, a modality, or both."""
    if endpoint is None and modality is None:
        return content
    kept = {
        path: one
        for path, one in content["endpoints"].items()
        if endpoint in (None, path) and (modality is None or modality in one["modalities"])
    }
    names: dict[str, list[str]] = {path: [] for path in kept}
    out = []
    for one in content["parameters"]:
        paths = [path for path in one["endpoints"] if path in kept]
        if paths and (modality is None or modality in one["modalities"]):
            out.append(one | {"endpoints": paths})
            for path in paths:
                names[path] = _with(names[path], one["name"])
    endpoints = {path: one | {"parameters": names[path]} for path, one in kept.items()}
    rest = content | {"parameters": out, "endpoints": endpoints}
    if "routes" in content:
        rest["routes"] = [
            one
            for one in content["routes"]
            if not kept.keys().isdisjoint(one["endpoints"]) and (modality is None or modality in one["modalities"])
        ]
    return rest


def _whole(content: Json, package: str) -> Json:
    # The hash is of what is said, in whatever order it was found.
    said = msgspec.json.encode([package, content], order="sorted")
    return {"object": "schema", "version": hashlib.sha256(said).hexdigest()[:DIGITS]} | content


def _parameter(body: Body, name: str, schema: Json) -> Json:
    types = _types(schema)
    out: Json = {"name": name, "type": types[0] if len(types) == 1 else types}
    if "enum" in schema:
        out["enum"] = [value for value in schema["enum"] if value is not None]
    out |= {key: referred(schema[key]) for key in (*_LIMITS, "items", "anyOf", "$ref") if key in schema}
    out["default"] = schema.get("default")
    out["required"] = name in components()[body.name]["required"]
    out["description"] = schema["description"]
    out["examples"] = schema.get("examples", [])
    if about := word(body, name).beside:
        out["requires"] = list(about)
    return out


def _types(schema: Json) -> list[str]:
    if "anyOf" in schema:
        found = [kind for one in schema["anyOf"] for kind in _types(one)]
    elif "type" in schema:
        found = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    else:
        found = ["string" if "enum" in schema else "object"]
    return [kind for kind in dict.fromkeys(found) if kind != "null"]


def _narrow(parameter: Json, limits: Sequence[Json | None]) -> None:
    """Hold a parameter to what all of its routes allow; where they differ, to what at least one does."""
    known = [one for one in limits if one is not None]
    if not known or len(known) < len(limits):
        return
    for name in known[0]:
        values: list[Any] = [one[name] for one in known if name in one]
        if len(values) < len(known):
            continue
        loosest: Any = values[0]
        if name == "enum":
            loosest = list(dict.fromkeys(word for value in values for word in value))
        elif name == "minimum":
            loosest = min(values)
        elif all(isinstance(value, (int, float)) for value in values):
            loosest = max(values)
        if name in _LIMITS and name in parameter:
            loosest = max(loosest, parameter[name]) if name == "minimum" else min(loosest, parameter[name])
        parameter[name] = loosest


def _grouped(rows: Sequence[tuple[Body, Json]]) -> list[Json]:
    """Those of which the same is to be said stand there once."""
    out: dict[bytes, Json] = {}
    for body, parameter in rows:
        key = msgspec.json.encode(parameter)
        one = out.setdefault(key, parameter | {"endpoints": [], "modalities": []})
        one["endpoints"] = _with(one["endpoints"], body.path)
        one["modalities"] = _with(one["modalities"], body.modality)
    return list(out.values())


def _endpoints(bodies: Sequence[Body]) -> Json:
    out: dict[str, Json] = {}
    for body in bodies:
        one = out.setdefault(
            body.path,
            {
                "modalities": [],
                "parameters": [],
                "required": components()[body.name]["required"],
                "body": {"$ref": f"/openapi.json{REF}{named(body.name)}"},
            },
        )
        one["modalities"] = _with(one["modalities"], body.modality)
        for name in parameters(body):
            one["parameters"] = _with(one["parameters"], name)
    return out


def _with(known: list[str], one: str) -> list[str]:
    return known if one in known else [*known, one]
