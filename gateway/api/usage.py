"""GET /v1/usage: what requests cost, one by one or summed up, as JSON or CSV.

Who has the scope `inference` sees their own; `admin` sees everybody's.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from litestar import Response, get
from litestar.response import Stream

from compat.canonical.error import Forbidden, InvalidRequest, Overloaded, TimedOut
from gateway.api.reading import Disconnected
from gateway.api.reply import CLIENT_GONE
from gateway.api.resource import PAGE, PAGE_MAX, Asked, attended, cursor_of, grant_of, number, page, word
from gateway.db.query import Unfinished
from gateway.db.usage import FIRST, GROUPS, UsageRows, Which
from gateway.house import House
from gateway.telemetry.report import (
    DAYS,
    GROUPS_MAX,
    Told,
    columns,
    csv_lines,
    groups,
    instant,
    shown,
    stretches,
    summed,
)

CATCH_UP_S = 2.0
"""How long an answer waits for what was requested just before to be written."""
PLACES = 2
"""How many reports the database works on at a time."""
WAIT_S = 10.0
"""How long one waits for its turn."""
_SKIP_DIGITS = 8
T = TypeVar("T")


class Desk:
    """Where reports take turns: however many are wanted, the database has time and connections for what is urgent."""

    def __init__(self, places: int, wait_s: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._wait_s = wait_s

    @asynccontextmanager
    async def turn(self, *, begun: bool = False) -> AsyncGenerator[None, None]:
        """begun: of an answer under way, which can no longer be refused.  Raises Overloaded or TimedOut."""
        try:
            async with asyncio.timeout(None if begun else self._wait_s):
                await self._places.acquire()
        except TimeoutError as e:
            raise Overloaded(
                "Too many reports of usage are asked for now; try again.",
                code="reports_busy",
                retry_after_s=self._wait_s,
            ) from e
        try:
            yield
        except Unfinished as e:
            error = TimedOut(
                "This report takes too long. Narrow it: a shorter time by 'from' and 'to', or fewer groups.",
                code="report_timeout",
            )
            error.final = True
            raise error from e
        finally:
            self._places.release()

    async def in_turn(self, pieces: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Each piece has a turn of its own: whoever reads slowly holds up nobody."""
        begun = False
        while True:
            async with self.turn(begun=begun):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece
            begun = True


def routes(house: House) -> list[Any]:
    desk = Desk(PLACES, WAIT_S)

    @get(
        "/v1/usage",
        opt={
            "scope": "inference",
            "query": {
                "from": f"From this time on: ISO 8601, UTC unless it has a zone; {DAYS} days before `to` unless said.",
                "to": "Before this time; now unless said.",
                "group_by": f"Sums instead of single requests, by up to {GROUPS_MAX} of {', '.join(GROUPS)}.",
                "model": "Only of this model: as it was asked for, or as its backend calls it.",
                "backend": "Only of this backend.",
                "key": "Only by this key: its id, or its name in the configuration.",
                "user": "Only by this user.  For others than oneself: scope `admin`.",
                "tenant": "Only by this tenant.  For another than one's own: scope `admin`.",
                "limit": f"Rows a page, {PAGE} unless said, {PAGE_MAX} at most; CSV has all unless said.",
                "cursor": "The `next_cursor` of the page before.",
                "format": "`csv` or `json`; the header `accept: text/csv` does it as well.",
            },
        },
        summary="List usage",
        description="What requests took and cost, newest first, or sums of it.  `cost_usd` is null where it is not "
        "known; sums leave such requests out and count them in `unpriced_requests`.",
    )
    async def list_usage(request: Asked) -> Response[Any]:
        try:
            return await attended(request, answer(request))
        except Disconnected:
            return Response(None, status_code=CLIENT_GONE)

    async def answer(request: Asked) -> Response[Any]:
        which, by, as_csv = _which(request), _groups(request), _wants_csv(request)
        await house.ledger.caught_up(CATCH_UP_S)
        if as_csv:
            limit = number(request, "limit", 0, PAGE_MAX, least=1) or None
            pieces = desk.in_turn(stretches(house.archive.usage, which, by, limit))
            first: list[Told] = await anext(pieces, [])  # while an error can still be told
            return Stream(
                csv_lines(columns(by), _from(first, pieces)),
                media_type="text/csv",
                headers={"content-disposition": 'attachment; filename="usage.csv"'},
            )
        limit = number(request, "limit", PAGE, PAGE_MAX, least=1)
        if by:
            skip = _skipped(request)
            async with desk.turn():
                return Response(await _summed(house.archive.usage, which, by, limit, skip))
        place = _place(request)
        async with desk.turn():
            rows = await house.archive.usage.page(which, limit + 1, place)
        last = rows[limit - 1] if len(rows) > limit else None
        following = None if last is None else f"{last['created_at']!r} {last['id']}"
        return Response(page([shown(row) for row in rows], limit, following))

    return [list_usage]


async def _from(first: list[Told], others: AsyncGenerator[list[Told], None]) -> AsyncGenerator[list[Told], None]:
    yield first
    async for piece in others:
        yield piece


async def _summed(rows: UsageRows, which: Which, by: tuple[str, ...], limit: int, skip: int) -> dict[str, Any]:
    found = await rows.groups(which, by, limit + 1, skip)
    body = page([summed(row) for row in found], limit, str(skip + limit) if len(found) > limit else None)
    return body | {"totals": summed(await rows.totals(which))}


def _which(request: Asked) -> Which:
    """What may be seen of what is asked for.  Raises InvalidRequest or Forbidden."""
    asker = grant_of(request).principal
    tenant, user = word(request, "tenant"), word(request, "user")
    if "admin" not in asker.scopes:
        for name, given, own in (("tenant", tenant, asker.tenant), ("user", user, asker.id)):
            if given not in (None, own):
                raise Forbidden(f"Usage of another {name} takes the scope 'admin'.", param=name)
        tenant, user = asker.tenant, asker.id
    now = time.time()
    # What was over just now is among it: two clocks have been read.
    until = min(_time(request, "to", now + 1), now + 1)
    since = _time(request, "from", until - DAYS * 86_400)
    if since >= until:
        raise InvalidRequest("Invalid value for 'from': it must be before 'to'.", param="from", code="invalid_value")
    return Which(
        since=max(since, FIRST),
        until=max(until, FIRST),
        tenant=tenant,
        owner=user,
        key=word(request, "key"),
        model=word(request, "model"),
        backend=word(request, "backend"),
    )


def _time(request: Asked, name: str, otherwise: float) -> float:
    given = word(request, name)
    if given is None:
        return otherwise
    try:
        return instant(given)
    except ValueError as e:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected a date or a time like 2026-11-22T08:00:00Z.",
            param=name,
            code="invalid_value",
        ) from e


def _groups(request: Asked) -> tuple[str, ...]:
    given = word(request, "group_by")
    try:
        return groups(given) if given else ()
    except ValueError as e:
        raise InvalidRequest(f"Invalid value for 'group_by': {e}.", param="group_by", code="invalid_value") from e


def _wants_csv(request: Asked) -> bool:
    said = word(request, "format", ("csv", "json"))
    return said == "csv" or (said is None and "text/csv" in request.headers.get("accept", ""))


def _place(request: Asked) -> tuple[float, str] | None:
    given = cursor_of(request)
    if given is None:
        return None
    at, _, id_ = given.partition(" ")
    try:
        return float(at), id_.replace("\0", "")
    except ValueError as e:
        raise _lost() from e


def _skipped(request: Asked) -> int:
    given = cursor_of(request) or "0"
    if not given.isascii() or not given.isdecimal() or len(given) > _SKIP_DIGITS:
        raise _lost()
    return int(given)


def _lost() -> InvalidRequest:
    return InvalidRequest("Invalid value for 'cursor': use the 'next_cursor' of this list.", param="cursor")
