"""What the resources of the native API share: reading a request, and writing lists page by page."""

import asyncio
import base64
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request

from compat.body import read, read_fields, whole_number
from compat.canonical.error import InvalidRequest
from gateway.api.reading import Disconnected, read_json
from gateway.auth.principal import Grant
from gateway.auth.registrar import By
from gateway.house import Estate
from gateway.visit import Visit

Asked = Request[Any, Any, Any]
T = TypeVar("T")

PAGE, PAGE_MAX = 50, 500
"""Rows a page: unless the client says, and at most."""
WORD_MAX = 300
"""Characters of a filter."""


def visit_of(request: Asked) -> Visit:
    visit: Visit = request.scope["visit"]  # type: ignore[typeddict-item]
    return visit


def estate_of(request: Asked) -> Estate:
    estate: Estate = request.scope["estate"]  # type: ignore[typeddict-item]
    return estate


def grant_of(request: Asked) -> Grant:
    grant = visit_of(request).grant
    assert grant is not None, "the guard lets nobody in without one"
    return grant


def could_be_id(id_: str) -> bool:
    """Whether it could be an id: what PostgreSQL would refuse, or cannot be one, is not looked for."""
    return 0 < len(id_) <= 200 and id_.isprintable()


def by_of(request: Asked) -> By:
    """Who asks, as what they change is signed."""
    visit, grant = visit_of(request), grant_of(request)
    return By(actor=grant.principal.id, key_id=grant.key_id, request_id=visit.request_id)


async def decoded(request: Asked, decoder: msgspec.json.Decoder[T], *, may_hold_credentials: bool = False) -> T:
    """The request's body.  Litestar's own reading answers 500 to some malformed ones.

    may_hold_credentials: `api_key` and `base_url` are what this body is about.
    Raises InvalidRequest, TooLarge, UnsupportedMedia or Disconnected.
    """
    body = b"{}"
    # Some clients give a type to a body that they do not send.
    if (b"content-length", b"0") not in request.scope["headers"]:
        limit = estate_of(request).config.server.body_limit_bytes
        body = await read_json(request.scope, request.receive, limit) or body
    read_fields(body, credentials=may_hold_credentials)
    return read(body, decoder)


async def attended(request: Asked, work: Coroutine[Any, Any, T]) -> T:
    """What the work returns, unless the client leaves, which ends it.  Raises Disconnected."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Disconnected
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _leaves(request: Asked) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def number(request: Asked, name: str, default: int, most: int, *, least: int = 0) -> int:
    """A whole number from the query.  Raises InvalidRequest."""
    given = request.query_params.get(name)
    if given is None:
        return default
    found = whole_number(given, most)
    if found is None or found < least:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected {least} to {most}.", param=name, code="invalid_value"
        )
    return found


def word(request: Asked, name: str, allowed: Collection[str] = ()) -> str | None:
    """A text from the query; None when it is missing or empty.

    allowed: what it may be; empty is anything printable.
    Raises InvalidRequest.
    """
    given: str | None = request.query_params.get(name)
    if not given:
        return None
    # Control characters among others: PostgreSQL takes no NUL.
    if not given.isprintable() or len(given) > WORD_MAX or (allowed and given not in allowed):
        cure = f"expected {' or '.join(allowed)}" if allowed else f"expected up to {WORD_MAX} printable characters"
        raise InvalidRequest(f"Invalid value for '{name}': {cure}.", param=name, code="invalid_value")
    return given


def cursor_of(request: Asked) -> str | None:
    """The place a list goes on from: what `page` gave out.  Raises InvalidRequest."""
    given = request.query_params.get("cursor")
    if not given:
        return None
    try:
        place = base64.b64decode(given.encode() + b"=" * (-len(given) % 4), b"-_", validate=True).decode()
        if not place.isprintable():
            raise ValueError
    except ValueError as e:
        raise InvalidRequest(
            "Invalid value for 'cursor': use the 'next_cursor' of a list.", param="cursor", code="invalid_value"
        ) from e
    return place


def foreign_cursor() -> InvalidRequest:
    """The error for a cursor that `page` may have given out, but not for this list."""
    return InvalidRequest(
        "Invalid value for 'cursor': use the 'next_cursor' of this list.", param="cursor", code="invalid_value"
    )


def page(rows: Sequence[T], limit: int, place: str | None) -> dict[str, Any]:
    """A list's answer.

    rows: at most `limit` of them.  place: of the last row, where there are more behind it.
    """
    cursor = None if place is None else base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    return {"object": "list", "data": list(rows[:limit]), "next_cursor": cursor}
