"""How the OpenAPI document says who may ask: the ways to prove it, and which of them each route wants."""

from typing import Any

from litestar import Litestar
from litestar.routes import HTTPRoute

from gateway.auth.guard import PUBLIC
from gateway.settings import Auth

Json = dict[str, Any]


def secure(document: Json, app: Litestar, auth: Auth) -> None:
    """Put the security schemes into a document, and into its operations the scopes they want."""
    schemes = _schemes(auth)
    in_force = _in_force(auth)
    for name, scheme in schemes.items():
        if name not in in_force:
            scheme["description"] += f" Not in force: auth.mode is {auth.mode}."
    schemes["signature"] = {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "Of a URL that the gateway has signed, with its other parameters as they are.",
    }
    document["components"]["securitySchemes"] = schemes
    document["security"] = [{name: []} for name in in_force] or [{}]
    opts = {
        (route.path_format, method.lower()): handler.opt
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            opt = opts.get((path, method), {})
            scope = opt.get("scope", "inference")
            if scope == PUBLIC:
                operation["security"] = []
            elif in_force:
                signed: list[dict[str, list[str]]] = [{"signature": []}] if "signed" in opt else []
                operation["security"] = [*({name: [scope]} for name in in_force), *signed]


def _schemes(auth: Auth) -> dict[str, Json]:
    issuer = "of the identity provider"
    if auth.jwt is not None:
        issuer = f"of {auth.jwt.issuer}, for the audience {' or '.join(sorted(auth.jwt.audiences))}"
    schemes: dict[str, Json] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as OpenAI's clients send it."},
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": f"A JSON Web Token {issuer}.",
        },
    }
    for header, client in (("x-api-key", "Anthropic"), ("api-key", "Azure")):
        said = f"The same, key or token, as {client}'s clients send it."
        schemes[header] = {"type": "apiKey", "in": "header", "name": header, "description": said}
    if auth.jwt is not None and auth.jwt.jwks_url is None:
        schemes["oidc"] = {
            "type": "openIdConnect",
            "openIdConnectUrl": auth.jwt.discovery_url,
            "description": f"A token {issuer}, where to get one included.",
        }
    return schemes


def _in_force(auth: Auth) -> list[str]:
    if auth.mode == "local":
        return []
    found = ["bearer"] if auth.takes_keys else []
    if auth.takes_tokens:
        found.append("token")
        if auth.jwt is not None and auth.jwt.jwks_url is None:
            found.append("oidc")
    return [*found, "x-api-key", "api-key"]
