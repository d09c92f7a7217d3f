"""GET /openapi.json and /docs: the gateway describing itself, without a request to anybody else.

Litestar describes its own handlers; the generating endpoints are plain ASGI, so their paths are added
here, with the very schemas of their bodies that /v1/schema tells of.
"""

import re
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.params import FromPath
from litestar.routes import HTTPRoute
from msgspec import Struct

from compat import native
from compat.canonical.error import NotFound
from compat.mesh import MeshAnswer
from gateway.api import session_turns
from gateway.api.described import ALONE, ALSO, ANSWERS
from gateway.api.operations import ANSWERED, ASKED, COUNT, ERRORS, GENERATING, HEADERS, LATER, SCHEMA, WHOLE
from gateway.api.resource import estate_of
from gateway.api.security import secure
from gateway.api.spelling import operation_id, spelled
from gateway.auth.guard import PUBLIC
from gateway.house import House
from gateway.schema.bodies import BODIES, REFS, components
from gateway.settings import Auth

VERSION = "0.1.0"
_ASSETS = Path(__file__).parent / "swagger"
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "page.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_TAGS: dict[str, tuple[str, ...]] = {
    "OpenAI": (
        "/v1/chat/",
        "/v1/completions",
        "/v1/responses",
        "/v1/conversations",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/images/",
    ),
    "Anthropic": ("/v1/messages",),
    "Native": ("/v1/generate", "/v1/3d/"),
    "Sessions": ("/v1/sessions",),
    "Models": ("/v1/models", "/v1/schema", "/v1/storage", "/v1/providers"),
    "Keys and usage": ("/v1/keys", "/v1/credentials", "/v1/limits", "/v1/usage"),
    "Requests": ("/v1/requests",),
    "Artifacts": ("/v1/artifacts",),
    "Jobs": ("/v1/jobs",),
    "Operating": ("/v1/audit", "/health", "/ready", "/metrics"),
}
"""The groups of paths, by how these begin, as the docs show them."""
_FILE = {"type": "string", "format": "binary"}
_BYTES = {"application/octet-stream": {"schema": _FILE}}
"""Of any media type, in the one that generators of clients know."""
_ANSWER = {"application/json": {"schema": {}}, "text/event-stream": {"schema": {"type": "string"}}}
_FEED = {"schema": {"type": "string", "description": "Server-sent events."}}
_FLAGS = ("all", "files", "force", "include_revoked")
_QUERY: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1},
    **{name: {"type": "boolean"} for name in _FLAGS},
}
"""The parameters of queries that are no words."""
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles of its own
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""Nothing from elsewhere, and in nobody's frame."""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pluggably API</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/page.js"></script>
</body>
</html>
"""


class _Page(OpenAPIRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return _PAGE.encode()


class _Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return _encoded(request)


def _encoded(request: Request[Any, Any, Any]) -> bytes:
    return msgspec.json.encode(document(request.app, estate_of(request).config.auth))


def _fenced(response: Response[Any]) -> Response[Any]:
    # Litestar has an HTML page for what is not there.
    if response.status_code == 404:
        raise NotFoundException
    response.headers.update({"content-security-policy": _POLICY, "x-content-type-options": "nosniff"})
    return response


def config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Pluggably",
        version=VERSION,
        description="One OpenAI-compatible gateway for commercial providers, public APIs and local models.",
        render_plugins=[_Page(path="/", favicon=""), _Json()],
        openapi_router=Router(
            "/docs", route_handlers=[], opt={"scope": PUBLIC}, include_in_schema=False, after_request=_fenced
        ),
        use_handler_docstrings=False,
        operation_id_creator=lambda handler, method, _: operation_id(handler.handler_name, method),
    )


def document(app: Litestar, auth: Auth) -> dict[str, Any]:
    """The whole OpenAPI 3.1 document."""
    base = app.openapi_schema.to_schema()
    _, answers = msgspec.json.schema_components([MeshAnswer, native.Generation, native.Regenerate], ref_template=REFS)
    known = base.setdefault("components", {}).setdefault("schemas", {})
    known.update(answers)
    # Copied one level deep: what is said of whole bodies below is said here only.
    known.update({name: {**schema} for name, schema in components().items()})
    for name, about in ASKED.items():
        known[name] |= {"additionalProperties": True, "description": about}
    for name, about in ANSWERED.items():
        known[name] = {"type": "object", "description": about, "additionalProperties": True}
    known |= {"TokenCount": COUNT, "Schema": SCHEMA} | ERRORS
    requests = {body.path: body.name for body in BODIES} | {"/v1/messages/count_tokens": "MessagesRequest"}
    requests |= {session_turns.GENERATE: requests["/v1/generate"], session_turns.REGENERATE: "Regenerate"}
    base["paths"] |= {path: _generating(path, requests[path]) for path in GENERATING}
    _describe(app, base)
    base["paths"] = dict(sorted(base["paths"].items()))
    for path, operations in base["paths"].items():
        tags = [tag for tag, beginnings in _TAGS.items() if path.startswith(beginnings)]
        error = "AnthropicError" if path.startswith("/v1/messages") else "Error"
        for operation in operations.values():
            operation["tags"] = tags
            # Litestar describes errors of its own, which `errors` never lets out.
            said = {status: said for status, said in operation["responses"].items() if status < "4"}
            also = {status: other for (id_, status), other in ALSO.items() if id_ == operation["operationId"]}
            said |= {status: _response("Another answer.", _name(other)) for status, other in also.items()}
            operation["responses"] = said | {"default": {"$ref": f"#/components/responses/{error}"}}
    base["tags"] = [{"name": tag} for tag in _TAGS]
    base["components"]["responses"] = {name: _response("An error.", name) for name in ("Error", "AnthropicError")}
    secure(base, app, auth)
    return spelled(base)


def _describe(app: Litestar, base: dict[str, Any]) -> None:
    """Add what handlers do by themselves, as their opt says: `body`, a struct that is read; `query`, names and their
    meaning; `events`, the name of the struct that each event of a feed holds; `takes`, the media types of a body that
    is a file; `file`, what an answer is that is one.
    """
    handlers = [
        (route.path_format, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
    ]
    structs = [handler.opt["body"] for _, handler in handlers if "body" in handler.opt]
    structs += [one for one in (*ANSWERS.values(), *ALSO.values(), *ALONE) if not isinstance(one, str)]
    _, read = msgspec.json.schema_components(structs, ref_template=REFS)
    # Of these, each parameter is told of in the one that is there already.
    documented = components()
    base["components"]["schemas"] |= {name: one for name, one in read.items() if name not in documented}
    for path, handler in handlers:
        for method in handler.http_methods:
            operation = base["paths"].get(path, {}).get(method.lower())
            if operation is None:
                continue
            if "body" in handler.opt:
                schema = {"$ref": REFS.format(name=handler.opt["body"].__name__)}
                operation["requestBody"] = {
                    "required": any(field.required for field in msgspec.structs.fields(handler.opt["body"])),
                    "content": {"application/json": {"schema": schema}},
                }
            if (answer := ANSWERS.get(operation["operationId"])) is not None:
                said = next(said for status, said in operation["responses"].items() if status < "3")
                said["content"] = _response("", _name(answer))["content"]
            if "takes" in handler.opt:
                kinds = f"The bytes of a file: {', '.join(handler.opt['takes'])}."
                operation["requestBody"] = {"required": True, "description": kinds, "content": _BYTES}
            if "file" in handler.opt:
                operation["responses"] = _files(handler.opt["file"])
            if "answer" in handler.opt:
                operation["responses"] = {"200": {"description": handler.opt["answer"], "content": _ANSWER}}
            if "events" in handler.opt:
                operation["responses"] = {"200": _events(handler.opt["events"])}
            for name, meaning in handler.opt.get("query", {}).items():
                operation.setdefault("parameters", []).append(
                    {
                        "name": name,
                        "in": "query",
                        "required": False,
                        "description": meaning,
                        "schema": _QUERY.get(name, {"type": "string"}),
                    }
                )


def _generating(path: str, request: str) -> dict[str, Any]:
    id_, summary, description, answer = GENERATING[path]
    bodies: dict[str, Any] = {"application/json": {"schema": {"$ref": REFS.format(name=request)}}}
    if path == "/v1/images/edits":
        bodies["multipart/form-data"] = {"schema": _edit_form()}
    ok = _response("The answer.", answer)
    if path not in WHOLE:
        ok = _response("The answer; a stream of server-sent events when `stream` is true.", answer)
        ok["content"]["text/event-stream"] = _FEED
    return {
        "post": {
            "summary": summary,
            "description": description,
            "operationId": id_,
            "parameters": [
                *(
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in re.findall(r"\{(\w+)\}", path)
                ),
                *({"in": "header", "required": False, **header} for header in HEADERS),
            ],
            "requestBody": {"required": True, "content": bodies},
            "responses": {"200": ok, "202": _response(LATER, "RequestStatus")},
        }
    }


def _edit_form() -> dict[str, Any]:
    """The body of an edit as a form: pictures are files, the rest is as in JSON, spelled out."""
    said = components()["ImageEditRequest"]["properties"]
    image = {"description": "One file; several are sent as `image[]`.", "type": "array", "items": _FILE}
    fields = {name: schema for name, schema in said.items() if name != "images"}
    return {
        "type": "object",
        "required": ["image", "prompt"],
        "properties": {"image": image, **fields, "mask": _FILE},
        "additionalProperties": True,
    }


def _name(schema: type[Struct] | str) -> str:
    return schema if isinstance(schema, str) else schema.__name__


def _files(described: str) -> dict[str, Any]:
    return {
        "200": {"description": described, "content": _BYTES},
        "206": {"description": "The part of it that was asked for.", "content": _BYTES},
        "304": {"description": "The client has it already."},
        "307": {"description": "The store hands it out itself, at another URL."},
    }


def _events(name: str) -> dict[str, Any]:
    described = f"Server-sent events; the data of each is a `{name}`."
    return {"description": described, "content": {"text/event-stream": _FEED}}


def _response(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": REFS.format(name=schema)}}},
    }


def routes(house: House) -> list[Any]:  # noqa: ARG001
    @get("/openapi.json", opt={"scope": PUBLIC}, include_in_schema=False)
    async def openapi_json(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(_encoded(request), media_type=MediaType.JSON)

    @get("/docs/assets/{name:str}", opt={"scope": PUBLIC}, include_in_schema=False)
    async def asset(name: FromPath[str]) -> Response[bytes]:
        if name not in _TYPES:
            raise NotFound("There is no such file.")
        body = (_ASSETS / name).read_bytes()
        return Response(body, media_type=_TYPES[name], headers={"cache-control": "public, max-age=86400"})

    return [openapi_json, asset]
