"""The one check that every route passes: bound to the handler, not to the URL, and closed by default."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from compat.canonical.error import Forbidden
from gateway.auth.apikey import PUBLIC
from gateway.visit import Visit


# A coroutine, because Litestar runs a plain function in a thread: 300 µs of CPU a request.
async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the caller pass if the route is public or its scope is theirs.

    Raises Unauthenticated, Forbidden or InvalidRequest.
    """
    scope = handler.opt.get("scope")
    visit: Visit = connection.scope["visit"]  # type: ignore[typeddict-item]
    visit.route = handler.opt.get("route") or connection.scope.get("path_template") or ""
    if scope == PUBLIC:
        return
    if scope is None:
        raise Forbidden("This route declares no scope, so nobody may use it.")
    principal = visit.principal or connection.scope["authenticate"]()  # type: ignore[typeddict-item]
    visit.principal = principal
    if scope not in principal.scopes:
        raise Forbidden(f"This API key lacks the scope '{scope}'.")
