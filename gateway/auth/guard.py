"""The one check that every route passes: bound to the handler, not to the URL, and closed by default."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from compat.canonical.error import Forbidden
from gateway.auth.apikey import PUBLIC
from gateway.visit import Visit


# A coroutine, because Litestar runs a plain function in a thread: 300 µs of CPU a request.
async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the caller pass if the route is public or its scope is theirs.

    Raises Unauthenticated, Forbidden or InvalidRequest.
    """
    visit: Visit = connection.scope["visit"]  # type: ignore[typeddict-item]
    visit.route = handler.opt.get("route") or connection.scope.get("path_template") or ""
    admit(connection.scope, handler.opt.get("scope"))


def admit(scope: Scope, required: str | None) -> None:
    """Establish who asks, and hold their scopes against the route's.  Raises as `guard` does."""
    if required == PUBLIC:
        return
    if required is None:
        raise Forbidden("This route declares no scope, so nobody may use it.")
    visit: Visit = scope["visit"]  # type: ignore[typeddict-item]
    visit.principal = principal = scope["authenticate"]()  # type: ignore[typeddict-item]
    if required not in principal.scopes:
        raise Forbidden(f"This API key lacks the scope '{required}'.")
