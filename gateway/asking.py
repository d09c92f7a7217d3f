"""The port through which a backend asks the house's own text models: a request within a request.

It goes the way of any other: routes, attempts, health, metering.  It is asked in the name of whoever sent the
request it is part of, on the configuration that one came in on, with the same accounts, and ends with it.  Its
tokens and its price count for the caller's limits and budgets, and stand in a usage row of its own, whose request id
begins with the other's; it is not counted as another request, which might wait for itself.  A key that may ask for a
model may have done for it what the configuration says, whatever other models it may name; backends it may not use
stay out of reach.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter
from typing import Protocol, cast

import msgspec

from backends.base import Call, Wait
from compat.canonical.error import GatewayError, InternalError, InvalidRequest
from compat.canonical.event import Event, Finished, Metered
from compat.canonical.request import Envelope, Request, TextRequest
from compat.openai.answer import parse_events
from compat.openai.chat import envelope_of
from gateway.accounts import served
from gateway.auth.principal import Grant
from gateway.house import Estate, House
from gateway.routing.attempt import Answer, Asked
from gateway.routing.router import NAME_MAX, Plan
from gateway.routing.selection import permitted
from gateway.visit import Visit, new_id

ROUTE = "ask"
"""What stands for an endpoint in its usage row and in metrics."""
_LEFT = 499, "client_gone"
"""Nobody waits for the answer any more."""


class Origin(Protocol):
    """The request that it is part of; `Call.origin` holds it."""

    @property
    def house(self) -> House: ...
    @property
    def estate(self) -> Estate: ...
    @property
    def visit(self) -> Visit: ...
    @property
    def grant(self) -> Grant: ...


async def ask(request: TextRequest, call: Call) -> AsyncGenerator[Event, None]:
    """The answer's events (`backends.ports.Ask`).  Raises GatewayError."""
    if call.origin is None:
        raise InternalError("A backend asked for what no request was sent for.")
    origin = cast(Origin, call.origin)
    visit = _visit(origin, request)
    try:
        async with aclosing(_answered(origin, request, call, visit)) as events:
            async for event in events:
                if isinstance(event, Metered):
                    visit.usage = event.usage
                elif isinstance(event, Finished):
                    visit.finish = event.raw_reason or event.reason
                yield event
        visit.status = 200
    except GatewayError as e:
        visit.status, visit.code, visit.said = e.status, e.word, e.message
        raise
    finally:
        if not visit.status:
            visit.status, visit.code = _LEFT
        if visit.lent:
            origin.house.archive.accounts.give_back(visit)
        origin.house.ledger.settle(visit)


async def _answered(origin: Origin, request: TextRequest, call: Call, visit: Visit) -> AsyncGenerator[Event, None]:
    house, estate, grant = origin.house, origin.estate, origin.grant
    envelope = envelope_of(request, stream=True)
    plan = await _planned(origin, request, visit)
    limiter = house.limiter
    given = None
    if not limiter.idle or grant.limit is not None:
        given = await limiter.enter(grant, plan, envelope, estate.prices, part=True)
        plan = given.plan
    whole = False
    try:
        answer = await house.dispatcher.answer(_asked(request, envelope, plan, call, visit))
        visit.answered_by = answer.tally.model
        async with aclosing(_events_of(answer, request)) as events:
            async for event in events:
                yield event
        whole = True
    finally:
        if given is not None:
            limiter.leave(given, visit, whole=whole)


async def _planned(origin: Origin, request: TextRequest, visit: Visit) -> Plan:
    """The routes that may answer it; not back through the backend that asks."""
    estate, accounts, grant = origin.estate, origin.house.archive.accounts, origin.grant
    own = None if accounts.idle else await accounts.of(visit, estate)
    plan = await estate.router.plan(request.model, "text", own, grant)
    if estate.prices.waits:
        await estate.prices.load()
    if grant.restricted:
        plan = permitted(plan, msgspec.structs.replace(grant, models=None))
    asker = origin.visit.backend
    routes = [route for route in plan.routes if route.backend.name != asker]
    if not routes:
        raise InvalidRequest(
            f"The model '{request.model[:NAME_MAX]}', which backend '{asker}' asks, leads back to that backend.",
            param="model",
            code="unsupported_value",
        )
    # Whoever asks is a route itself, and may be tried again: here each route is asked once.
    plan = msgspec.structs.replace(plan, routes=routes, retries=0, guard="off")
    visit.reason = plan.reason
    if own is not None or estate.demanding:
        plan = served(plan, own, estate.demanding, visit)
    return plan


def _asked(request: TextRequest, envelope: Envelope, plan: Plan, call: Call, visit: Visit) -> Asked:
    def parse(_: Envelope) -> Request:
        return request

    own = msgspec.structs.replace(
        call,
        request_id=visit.request_id,
        deadline=min(call.deadline, asyncio.get_running_loop().time() + plan.timeouts.total_s),
        timeouts=plan.timeouts,
        streamed=True,
        strict=False,
        dropped=[],
        headers=[],
    )
    return Asked(plan=plan, envelope=envelope, call=own, visit=visit, parse=parse, mode=visit.mode)


async def _events_of(answer: Answer, request: TextRequest) -> AsyncGenerator[Event, None]:
    if answer.events is not None:
        events = answer.events
    else:
        assert answer.frames is not None, "it was asked for as a stream"
        events = parse_events(answer.frames, request.sampling.stop)
    async with aclosing(events):
        async for event in events:
            yield event


def _visit(origin: Origin, request: TextRequest) -> Visit:
    """No guest of its own: it is there as long as the other."""
    of = origin.visit
    return Visit(
        request_id=new_id(of.request_id),
        method=of.method,
        path=of.path,
        route=ROUTE,
        began=perf_counter(),
        grant=of.grant,
        principal=of.principal,
        requested=request.model[:NAME_MAX],
        mode=of.mode,
        streamed=True,
        prices=origin.estate.prices,
        wait=Wait(),
    )
