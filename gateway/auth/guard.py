"""The one check that every route passes: bound to the handler, not to the URL, and closed by default."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from compat.canonical.error import Forbidden, MethodNotAllowed
from gateway.visit import Visit

PUBLIC = "public"
"""What a route declares that needs no key."""


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the caller pass if the route is public or its scope is theirs, or if what the route calls `signed` says so:
    it is given the connection's scope, and raises where a signature is there that is not good.  Who comes by one is
    nobody: there is no grant.

    Raises Unauthenticated, Forbidden, InvalidRequest, or MethodNotAllowed for OPTIONS, which Litestar would answer.
    """
    if connection.scope.get("method") == "OPTIONS":
        methods = {
            name
            for one in connection.app.routes
            if one.path_format == connection.scope.get("path_template")
            for name in getattr(one, "methods", ())
        }
        allow = ", ".join(sorted(methods - {"OPTIONS"}))
        raise MethodNotAllowed(f"This method is not allowed here; use {allow}.", allow=allow)
    visit: Visit = connection.scope["visit"]  # type: ignore[typeddict-item]
    visit.route = handler.opt.get("route") or connection.scope.get("path_template") or ""
    signed = handler.opt.get("signed")
    if signed is None or not signed(connection.scope):
        await admit(connection.scope, handler.opt.get("scope"))


async def admit(scope: Scope, required: str | None) -> None:
    """Establish who asks, and hold their scopes against the route's.  Raises as `guard` does."""
    if required == PUBLIC:
        return
    if required is None:
        raise Forbidden("This route declares no scope, so nobody may use it.")
    visit: Visit = scope["visit"]  # type: ignore[typeddict-item]
    visit.grant = grant = await scope["authenticate"]()  # type: ignore[typeddict-item]
    visit.principal = grant.principal
    if required not in grant.principal.scopes:
        raise Forbidden(f"Your API key or token lacks the scope '{required}'.")
