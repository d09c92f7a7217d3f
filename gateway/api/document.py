"""GET /openapi.json and /docs: the gateway describing itself, without a request to anybody else.

Litestar describes its own handlers; the generating endpoints are plain ASGI, so their paths are added
here, from the very structs that read their bodies.
"""

from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath

from compat import native
from compat.canonical.error import NotFound
from compat.openai.chat import ChatRequest
from compat.openai.completions import CompletionRequest
from compat.openai.embeddings import EmbeddingsRequest
from gateway.auth.apikey import PUBLIC
from gateway.house import House

VERSION = "0.1.0"
_ASSETS = Path(__file__).parent / "swagger"
_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
_REFS = "#/components/schemas/{name}"

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
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
<script>
SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});
</script>
</body>
</html>
"""


class _Page(OpenAPIRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return _PAGE.encode()


class _Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return msgspec.json.encode(document(request.app))


def config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Pluggably",
        version=VERSION,
        description="One OpenAI-compatible gateway for commercial providers, public APIs and local models.",
        render_plugins=[_Page(path="/", favicon=""), _Json()],
        openapi_router=Router("/docs", route_handlers=[], opt={"scope": PUBLIC}, include_in_schema=False),
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "x-api-key": SecurityScheme(type="apiKey", name="x-api-key", security_scheme_in="header"),
                "api-key": SecurityScheme(type="apiKey", name="api-key", security_scheme_in="header"),
            }
        ),
        security=[{"bearer": []}, {"x-api-key": []}, {"api-key": []}],
        use_handler_docstrings=False,
    )


def document(app: Litestar) -> dict[str, Any]:
    """The whole OpenAPI 3.1 document."""
    base = app.openapi_schema.to_schema()
    structs = [ChatRequest, CompletionRequest, EmbeddingsRequest, native.Generate, native.Generation]
    _, components = msgspec.json.schema_components(structs, ref_template=_REFS)
    known = base.setdefault("components", {}).setdefault("schemas", {})
    known.update(components)
    for name in ("ChatRequest", "CompletionRequest", "EmbeddingsRequest"):
        known[name]["additionalProperties"] = True
        known[name]["description"] = "OpenAI's request.  Fields not listed here reach the provider as they are."
    for name in ("ChatCompletion", "Completion", "Embeddings"):
        known[name] = {"type": "object", "description": "OpenAI's answer.", "additionalProperties": True}
    known["Error"] = _ERROR
    base["paths"] |= {
        "/v1/chat/completions": _generating(
            "Create a chat completion", "OpenAI's chat completions.", "ChatRequest", "ChatCompletion"
        ),
        "/v1/completions": _generating(
            "Create a completion", "OpenAI's legacy completions.", "CompletionRequest", "Completion"
        ),
        "/v1/embeddings": _generating("Create embeddings", "OpenAI's embeddings.", "EmbeddingsRequest", "Embeddings"),
        "/v1/generate": _generating("Generate", "The gateway's own dialect.", "Generate", "Generation"),
    }
    base["paths"] = dict(sorted(base["paths"].items()))
    for operations in base["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", _response("An error.", "Error"))
    return base


def _generating(summary: str, description: str, request: str, answer: str) -> dict[str, Any]:
    ok = _response("The answer; a stream of server-sent events when `stream` is true.", answer)
    ok["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "post": {
            "summary": summary,
            "description": description,
            "operationId": summary.title().replace(" ", ""),
            "parameters": [
                {
                    "name": "x-request-timeout",
                    "in": "header",
                    "required": False,
                    "description": "Seconds the whole request may take.",
                    "schema": {"type": "number", "exclusiveMinimum": 0},
                }
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": _REFS.format(name=request)}}},
            },
            "responses": {"200": ok},
        }
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": _REFS.format(name=schema)}}},
    }


def routes(house: House) -> list[Any]:  # noqa: ARG001
    @get("/openapi.json", opt={"scope": PUBLIC}, include_in_schema=False)
    async def openapi_json(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(msgspec.json.encode(document(request.app)), media_type=MediaType.JSON)

    @get("/docs/assets/{name:str}", opt={"scope": PUBLIC}, include_in_schema=False)
    async def asset(name: FromPath[str]) -> Response[bytes]:
        if name not in _TYPES:
            raise NotFound("There is no such file.")
        body = (_ASSETS / name).read_bytes()
        return Response(body, media_type=_TYPES[name], headers={"cache-control": "public, max-age=86400"})

    return [openapi_json, asset]
