"""Errors outside the generating endpoints, in the shape of the path's dialect: Litestar's own are in none."""

from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import ExceptionHandlersMap

from compat.canonical.error import (
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMedia,
)
from gateway.api.door import error_headers
from gateway.api.shape import mask, render_error, unavailable
from gateway.db.engine import FAILURES, is_full
from gateway.telemetry.logging import logger
from gateway.visit import Visit


def of_gateway(request: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    visit: Visit = request.scope["visit"]  # type: ignore[typeddict-item]
    visit.code = error.word
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    mask(error, visit, request.app.state.redact)
    return Response(render_error(error, visit), status_code=error.status, headers=headers, media_type=MediaType.JSON)


def of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    # Nothing of what was asked is quoted: who has no key would be shown which of their words are masked.
    if isinstance(error, MethodNotAllowedException):
        allow = _allowed(error)
        return of_gateway(request, MethodNotAllowed(f"This method is not allowed here; use {allow}.", allow=allow))
    if isinstance(error, NotFoundException):
        return of_gateway(request, NotFound("Unknown request URL. GET /docs shows what there is."))
    if error.status_code == 413:
        return of_gateway(request, TooLarge(error.detail))
    if error.status_code == 415:
        return of_gateway(request, UnsupportedMedia(error.detail))
    if error.status_code < 500:
        return of_gateway(request, InvalidRequest(error.detail))
    return of_any(request, error)


def of_database(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    visit: Visit = request.scope["visit"]  # type: ignore[typeddict-item]
    return of_gateway(request, unavailable(error, visit))


def of_system(request: Request[Any, Any, Any], error: OSError) -> Response[bytes]:
    return of_database(request, error) if is_full(error) else of_any(request, error)


def of_any(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    visit: Visit = request.scope["visit"]  # type: ignore[typeddict-item]
    logger().error("request_failed", request_id=visit.request_id, exc_info=error)
    return of_gateway(request, InternalError("The gateway failed to handle this request."))


HANDLERS: ExceptionHandlersMap = {
    GatewayError: of_gateway,
    HTTPException: of_http,
    **dict.fromkeys(FAILURES, of_database),
    OSError: of_system,
    Exception: of_any,
}


def _allowed(error: HTTPException) -> str:
    # Litestar spells the header in two ways.
    return next((value for name, value in (error.headers or {}).items() if name.lower() == "allow"), "")
