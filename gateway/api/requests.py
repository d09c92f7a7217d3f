"""/v1/requests: what runs and what has run, as it stands, as a feed of events, its result, and its end.

A caller sees the requests of its tenant; others' are not there.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal, get_args

import msgspec
from litestar import get, post
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send
from sse_starlette import ServerSentEvent

from compat.canonical.error import Conflict, GatewayError, InsufficientStorage, NotFound, Overloaded
from gateway.answers.answer import Answer
from gateway.api.detached import pieces, result_anew
from gateway.api.feed import event, feed
from gateway.api.resource import PAGE, PAGE_MAX, Asked, cursor_of, foreign_cursor, grant_of, number, page, word
from gateway.artifacts.resigning import signed_anew
from gateway.house import House
from gateway.requests import TOO_LARGE, TOO_LARGE_SAID, Place, RequestStatus, Status, shown
from gateway.visit import Visit

LOOK_S = 0.1
"""How often a feed looks at its request: nothing is done for it on the way of the request itself."""
FAR_S = 1.0
"""The same of one that another process works on."""
END_S = 2.0
"""How long a cancelled request may take to end before its standing is told as it is."""
FAR_END_S = 5.0
_SCOPE = "inference"


class RequestList(msgspec.Struct, frozen=True):
    """A page of requests."""

    object: Literal["list"]
    data: list[RequestStatus]
    next_cursor: str | None
    """For the page after this one; null on the last."""


def routes(house: House) -> list[Any]:
    requests = house.requests

    async def found(request: Asked, id_: str) -> RequestStatus:
        standing = await requests.standing(_tenant(request), id_)
        if standing is None:
            raise _absent(id_)
        return standing

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
        "first, whichever process answered them, as far back as `requests.history_days`.",
    )
    async def list_requests(request: Asked) -> RequestList:
        limit = number(request, "limit", PAGE, PAGE_MAX, least=1)
        wanted: Any = word(request, "status", get_args(Status))
        shown_, place = await requests.page(_tenant(request), limit, wanted, _place(request))
        following = None if place is None else _cursor(place)
        return RequestList(**page(shown_, limit, following))

    @get(
        "/v1/requests/{request_id:str}",
        opt={"scope": _SCOPE},
        summary="Get a request",
        description="How a request stands: by the `x-request-id` of its answer, which its client may have chosen.  Of "
        "one that was answered 202, with its `result` once it is done.",
    )
    async def get_request(request: Asked, request_id: FromPath[str]) -> RequestStatus:
        standing = await found(request, request_id)
        return await result_anew(house, _tenant(request), standing)

    @get(
        "/v1/requests/{request_id:str}/events",
        opt={"scope": _SCOPE, "events": "RequestStatus"},
        summary="Watch a request",
        description="Server-sent events, each with the whole standing: `queued`, `loading`, `running`, `progress` at "
        "each step of a picture or a mesh, and in the end `done`, `failed` or `cancelled`.  The first comes at once; "
        "the stream ends with the request.",
    )
    async def watch_request(request: Asked, request_id: FromPath[str]) -> ASGIApp:
        tenant = _tenant(request)
        if (visit := requests.here(tenant, request_id)) is not None:
            return feed(request, house, _events(visit))
        return feed(request, house, _far_events(house, tenant, await found(request, request_id)))

    @get(
        "/v1/requests/{request_id:str}/result",
        opt={"scope": _SCOPE, "answer": "The answer: JSON, or the whole of a stream."},
        summary="Get a request's result",
        description="The answer as it would have been sent, status and content type included: of a request with "
        "`Prefer: respond-async`, or with an `Idempotency-Key` that was answered well.  A stream comes whole.  While "
        "the request runs it is a conflict, `request_unfinished`.",
    )
    async def get_result(request: Asked, request_id: FromPath[str]) -> ASGIApp:
        tenant = _tenant(request)
        answer = await house.cabinet.answers.get(tenant, requests.written(request_id))
        if answer is not None and answer.http_status is not None:  # whatever else has had its id since
            if answer.body is None:
                raise InsufficientStorage(TOO_LARGE_SAID, code=TOO_LARGE)
            return _again(answer, await signed_anew(house, tenant, answer.body))
        standing = await found(request, request_id)
        if standing.ended_at is None:
            raise Conflict(
                f"The request is {standing.status}; its result is here when it is done.",
                code="request_unfinished",
                retry_after_s=1.0,
            )
        if standing.result_url is None or standing.error is None:
            raise NotFound(
                "The answer of this request is not kept, or not any more: it is for those who send 'Prefer: "
                "respond-async' or an 'Idempotency-Key'.",
                code="result_not_kept",
            )
        error: GatewayError = Overloaded(standing.error.message, code=standing.error.code)
        error.final = True
        raise error

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
        tenant = _tenant(request)
        if (visit := requests.here(tenant, request_id)) is not None:
            house.cancel(visit)
            await _over(visit)
            return shown(visit)
        standing = await found(request, request_id)
        if standing.ended_at is None and await house.cabinet.answers.cancel(tenant, standing.id):
            loop = asyncio.get_running_loop()
            end = loop.time() + FAR_END_S
            while standing.ended_at is None and loop.time() < end:
                await asyncio.sleep(LOOK_S)
                standing = await found(request, request_id)
        elif standing.status != "cancelled":
            raise Conflict(f"The request is {standing.status}: there is nothing to cancel.")
        return standing

    return [list_requests, get_request, watch_request, get_result, cancel_request]


def _tenant(request: Asked) -> str:
    return grant_of(request).principal.tenant


def _absent(id_: str) -> NotFound:
    return NotFound(f"There is no request of the id '{id_[:100]}'; GET /v1/requests lists them all.")


def _again(answer: Answer, body: bytes) -> ASGIApp:
    """An answer that is kept, as it was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        headers += ((b"content-length", b"%d" % len(body)), (b"x-content-type-options", b"nosniff"))
        await send({"type": "http.response.start", "status": answer.http_status or 200, "headers": headers})
        async for piece in pieces(body):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def _events(visit: Visit) -> AsyncGenerator[ServerSentEvent, None]:
    """A request's standing whenever it has changed, until it is over."""
    told: Any = None
    while True:
        standing = shown(visit)
        if (news := _news(standing)) != told:
            told = news
            yield event(_name(standing), msgspec.json.encode(standing))
        if standing.ended_at is not None:
            return
        await asyncio.sleep(LOOK_S)


async def _far_events(house: House, tenant: str, first: RequestStatus) -> AsyncGenerator[ServerSentEvent, None]:
    """The same of one that does not run here."""
    told: Any = None
    standing: RequestStatus | None = first
    while standing is not None:
        standing = msgspec.structs.replace(standing, result=None)
        if (news := _news(standing)) != told:
            told = news
            yield event(_name(standing), msgspec.json.encode(standing))
        if standing.ended_at is not None:
            return
        await asyncio.sleep(FAR_S)
        standing = await house.requests.standing(tenant, first.id)


def _news(standing: RequestStatus) -> RequestStatus:
    # Its times pass anyway.
    return msgspec.structs.replace(standing, timing=None, eta_s=standing.eta_s and int(standing.eta_s))


def _name(standing: RequestStatus) -> str:
    return "progress" if standing.status == "running" and standing.progress is not None else standing.status


async def _over(visit: Visit) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + END_S
    while not visit.ended and loop.time() < end:
        await asyncio.sleep(0.005)


def _cursor(place: Place) -> str:
    return f"{place.live:d} {place.at!r} {place.id} {place.asof!r} {place.born!r}"


def _place(request: Asked) -> Place | None:
    given = cursor_of(request)
    if given is None:
        return None
    try:
        live, at, id_, asof, born = given.split(" ")
        return Place(live == "1", float(at), id_, float(asof), float(born))
    except ValueError as e:
        raise foreign_cursor() from e
