"""The OpenAPI document as generators of clients take it: what JSON Schema can say in several ways is said in the one
that all of them know, and every schema has a name that reads well in a program.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from gateway.schema.naming import REF, named

Json = dict[str, Any]

_KINDS = {bool: "boolean", int: "integer", str: "string", type(None): "null"}


def operation_id(name: str, method: str) -> str:
    """Of a handler, in the manner of OpenAI's: `list_jobs` is `listJobs`; of its HEAD, `headListJobs`."""
    first, *rest = f"head_{name}".split("_") if method == "HEAD" else name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def spelled(given: Json) -> Json:
    """A document written anew; what it says stays."""
    document = deepcopy(given)  # parts of it are what others tell of parameters
    schemas = document["components"]["schemas"]
    names = {name: named(name) for name in schemas}
    assert len(set(names.values())) == len(names), "two schemas of one name"
    document["components"]["schemas"] = {names[name]: schemas[name] for name in sorted(schemas, key=names.__getitem__)}
    for node in nodes(document):
        if isinstance(ref := node.get("$ref"), str) and ref.startswith(REF):
            node["$ref"] = REF + names[ref.removeprefix(REF)]
        plain(node)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for answer in (one for operation in operations for one in operation["responses"].values()):
        for media in answer.get("content", {}).values():
            kinds = media["schema"].get("oneOf", ())
            if len(kinds) == 2 and kinds[1] == {"type": "null"}:
                # What handlers write to clients that have left; nobody ever reads it.
                media["schema"] = kinds[0]
    for name, schema in document["components"]["schemas"].items():
        if "title" in schema:
            schema["title"] = name
    return document


def plain(node: Json) -> None:
    """Write one schema so, not those within it."""
    if "default" in node and node["default"] is None:
        del node["default"]  # which some generators take for a promise that it is there
    kind = node.get("type")
    only = node.get("enum")
    if isinstance(only, list) and len(only) == 1:
        # One value is no choice; generators know constants that are texts.
        [value] = node.pop("enum")
        if isinstance(value, str):
            node["const"] = value
        elif not isinstance(value, bool):
            node |= {"minimum": value, "maximum": value}
        kind = node.setdefault("type", _KINDS[type(value)])
    elif isinstance(only, list) and None in only:
        # A choice, or nothing.
        node["anyOf"] = [{"type": "string", "enum": [one for one in only if one is not None]}, {"type": "null"}]
        del node["enum"]
        node.pop("type", None)
        return
    elif isinstance(only, list) and all(isinstance(one, str) for one in only):
        node.setdefault("type", "string")
    if kind == "array" and "prefixItems" in node and node.get("items") is False:
        # A tuple; those here are of one kind throughout.
        first, *others = node.pop("prefixItems")
        node["items"] = first if all(one == first for one in others) else {}
    elif isinstance(kind, str | list) and "array" in kind and "items" not in node:
        node["items"] = {}


def nodes(node: Any) -> Iterator[Json]:
    """All schemas within a part of a document, itself included."""
    if isinstance(node, dict):
        yield node
        for name, value in node.items():
            if name not in ("example", "examples", "default", "enum", "const"):
                yield from nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value)
