"""/v1/requests: what runs and what has just run, as it stands, as a feed of events, and its end.

A caller sees the requests of its tenant; others' are not there.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal, get_args

import msgspec
from litestar import get, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from sse_starlette import ServerSentEvent

from compat.canonical.error import Conflict, NotFound
from gateway.api.feed import event, feed
from gateway.api.resource import PAGE, PAGE_MAX, Asked, cursor_of, foreign_cursor, grant_of, number, page, word
from gateway.house import House
from gateway.requests import KEPT, RequestStatus, Status, place, shown, status
from gateway.visit import Visit

LOOK_S = 0.1
"""How often a feed looks at its request: nothing is done for it on the way of the request itself."""
END_S = 2.0
"""How long a cancelled request may take to end before its standing is told as it is."""
_SCOPE = "inference"


class RequestList(msgspec.Struct, frozen=True):
    """A page of requests."""

    object: Literal["list"]
    data: list[RequestStatus]
    next_cursor: str | None
    """For the page after this one; null on the last."""


def routes(house: House) -> list[Any]:
    def found(request: Asked, id_: str) -> Visit:
        visit = house.requests.find(grant_of(request).principal.tenant, id_)
        if visit is None:
            raise NotFound(
                f"There is no request of the id '{id_[:100]}' that runs or was among the last; GET /v1/requests lists "
                "them all."
            )
        return visit

    @get(
        "/v1/requests",
        opt={
            "scope": _SCOPE,
            "query": {
                "status": f"Only those that stand so: {', '.join(get_args(Status))}.",
                "limit": f"Requests a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
            },
        },
        summary="List requests",
        description="The tenant's generating requests: those that run, then those that are over, each the newest "
        f"first.  Of the latter the last {KEPT} are remembered, by the process that answered them; all are in "
        "/v1/usage.",
    )
    async def list_requests(request: Asked) -> RequestList:
        limit, wanted, after = (
            number(request, "limit", PAGE, PAGE_MAX, least=1),
            word(request, "status", get_args(Status)),
            _place(request),
        )
        visits = [
            visit
            for visit in house.requests.of(grant_of(request).principal.tenant)
            if (after is None or place(visit) < after) and wanted in (None, status(visit))
        ]
        last = visits[limit - 1] if len(visits) > limit else None
        following = None if last is None else "{:d} {!r} {}".format(*place(last))
        return RequestList(**page([shown(visit) for visit in visits[:limit]], limit, following))

    @get(
        "/v1/requests/{request_id:str}",
        opt={"scope": _SCOPE},
        summary="Get a request",
        description="How a request stands: by the `x-request-id` of its answer, which its client may have chosen.",
    )
    async def get_request(request: Asked, request_id: FromPath[str]) -> RequestStatus:
        return shown(found(request, request_id))

    @get(
        "/v1/requests/{request_id:str}/events",
        opt={"scope": _SCOPE, "events": "RequestStatus"},
        summary="Watch a request",
        description="Server-sent events, each with the whole standing: `queued`, `loading`, `running`, `progress` at "
        "each step of a picture or a mesh, and in the end `done`, `failed` or `cancelled`.  The first comes at once; "
        "the stream ends with the request.",
    )
    async def watch_request(request: Asked, request_id: FromPath[str]) -> ASGIApp:
        return feed(request, house, _events(found(request, request_id)))

    @post(
        "/v1/requests/{request_id:str}/cancel",
        opt={"scope": _SCOPE},
        status_code=200,
        summary="Cancel a request",
        description="End a request in whatever phase it is: its place in a queue, its slot, its provider's stream are "
        "free within a second.  Its client gets the error `request_cancelled` (status 499, or inside the stream that "
        "has begun).  One that is over is a conflict, unless it was cancelled already.",
    )
    async def cancel_request(request: Asked, request_id: FromPath[str]) -> RequestStatus:
        visit = found(request, request_id)
        if not visit.ended:
            house.cancel(visit)
            await _over(visit)
        elif status(visit) != "cancelled":
            raise Conflict(f"The request is {status(visit)}: there is nothing to cancel.")
        return shown(visit)

    return [list_requests, get_request, watch_request, cancel_request]


async def _events(visit: Visit) -> AsyncGenerator[ServerSentEvent, None]:
    """A request's standing whenever it has changed, until it is over."""
    told: Any = None
    while True:
        standing = shown(visit)
        # Its times pass anyway.
        news = msgspec.structs.replace(standing, timing=None, eta_s=standing.eta_s and int(standing.eta_s))
        if news != told:
            told = news
            yield event(_name(standing), msgspec.json.encode(standing))
        if standing.ended_at is not None:
            return
        await asyncio.sleep(LOOK_S)


def _name(standing: RequestStatus) -> str:
    return "progress" if standing.status == "running" and standing.progress is not None else standing.status


async def _over(visit: Visit) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + END_S
    while not visit.ended and loop.time() < end:
        await asyncio.sleep(0.005)


def _place(request: Asked) -> tuple[bool, float, str] | None:
    given = cursor_of(request)
    if given is None:
        return None
    live, _, rest = given.partition(" ")
    began, _, id_ = rest.partition(" ")
    try:
        return live == "1", float(began), id_
    except ValueError as e:
        raise foreign_cursor() from e
