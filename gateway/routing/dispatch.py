"""Attempts: send a request along its plan until a route answers.

An answer may be swapped for another route's only until its first content: what a client has seen
cannot be taken back.  So a stream is held here until content has come, and handed out then.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import TypeGuard, TypeVar

import msgspec
from msgspec import Struct

from backends.base import Backend, Call, Relayed, Relays, Tally
from compat.canonical.error import BackendError, BadResponse, GatewayError, TimedOut, Unreachable
from compat.canonical.event import Event, Finished, Metered, Started, Usage
from compat.canonical.request import Envelope, Request
from gateway.routing.router import Plan, Route
from gateway.telemetry.metrics import Metrics
from gateway.visit import Visit

T = TypeVar("T")

BACKOFF_S = 0.25
BACKOFF_MAX_S = 8.0


class Answer(Struct, kw_only=True):
    """A route's answer that has begun.  Exactly one of `body`, `frames` and `events` is set.

    Whoever takes `frames` or `events` closes them, which stops the backend.
    """

    route: Route
    tally: Tally
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    frames: AsyncGenerator[bytes, None] | None = None
    events: AsyncGenerator[Event, None] | None = None


class Dispatcher:
    def __init__(self, metrics: Metrics) -> None:
        self._attempts = metrics.attempts

    async def answer(
        self, plan: Plan, envelope: Envelope, parse: Callable[[Envelope], Request], call: Call, visit: Visit
    ) -> Answer:
        """Answer along the first route of the plan that works.  Raises GatewayError.

        parse: reads the envelope in full, for routes that do not speak its dialect.
        """
        failure: GatewayError | None = None
        spent: set[str] = set()
        """Routes not to be tried again: one may still work on the first copy, another has no account."""
        for attempt in range(len(plan.routes) + plan.retries):
            route = plan.routes[attempt % len(plan.routes)]
            if route.name in spent:
                continue
            if attempt >= len(plan.routes) and failure is not None:
                await _back_off(attempt - len(plan.routes), failure, call)
            visit.attempts += 1
            call.dropped.clear()
            visit.backend, visit.model = route.backend.name, route.model
            if visit.handed is None:
                visit.handed = perf_counter()
            try:
                answer = await self._attempt(route, envelope, parse, call)
            except GatewayError as e:
                self._attempts.labels(route.backend.name, e.word).inc()
                if not isinstance(e, BackendError):
                    raise
                failure = e
                if isinstance(e, TimedOut) or not e.retryable:
                    spent.add(route.name)
                continue
            self._attempts.labels(route.backend.name, "ok").inc()
            visit.first = perf_counter()
            return answer
        raise failure or Unreachable("No route is left to try.")

    async def _attempt(
        self, route: Route, envelope: Envelope, parse: Callable[[Envelope], Request], call: Call
    ) -> Answer:
        backend = route.backend
        if relays(backend, envelope):
            relayed = await backend.relay(envelope, route.model, call)
            return await _held(relayed, route)
        request = msgspec.structs.replace(parse(envelope), model=route.model)
        tally = _Counted()
        events = _counted(_timed(route.backend.run(request, call), call, envelope.stream), tally)
        head: list[Event] = []
        async for event in events:
            head.append(event)
            if tally.began:
                break
        return Answer(route=route, tally=tally, events=_resumed(head, events))


def relays(backend: Backend, envelope: Envelope) -> TypeGuard[Relays]:
    """Whether a request can take the relay lane."""
    # Not isinstance: checking a protocol costs more than all the rest of this file.
    return envelope.dialect in getattr(backend, "dialects", ())


async def _held(relayed: Relayed, route: Route) -> Answer:
    if relayed.frames is None:
        return Answer(route=route, tally=relayed.tally, headers=relayed.headers, body=relayed.body)
    head = []
    async for piece in relayed.frames:
        head.append(piece)
        if relayed.tally.began:
            break
    # Joined, so that the first write carries all of it.
    return Answer(
        route=route,
        tally=relayed.tally,
        headers=relayed.headers,
        frames=_resumed([b"".join(head)], relayed.frames),
    )


async def _resumed(head: list[T], rest: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async with aclosing(rest):
        for piece in head:
            yield piece
        async for piece in rest:
            yield piece


async def _timed(events: AsyncGenerator[Event, None], call: Call, streamed: bool) -> AsyncGenerator[Event, None]:
    """Hold a translated answer to the deadlines.  Each wait has its own, so that no yield happens inside one."""
    loop = asyncio.get_running_loop()
    due = min(loop.time() + call.timeouts.first_token_s, call.deadline) if streamed else call.deadline
    async with aclosing(events):
        while True:
            try:
                async with asyncio.timeout_at(due):
                    event = await anext(events, None)
            except TimeoutError as e:
                raise TimedOut("The backend did not answer in time.") from e
            if event is None:
                return
            if streamed and not isinstance(event, Started):
                due = min(loop.time() + call.timeouts.idle_s, call.deadline)
            yield event


class _Counted:
    """The tally of a translated answer."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.began = False
        self.finished = False


async def _counted(events: AsyncGenerator[Event, None], tally: _Counted) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        async for event in events:
            match event:
                case Started(model=model):
                    tally.model = model
                case Metered(usage=usage):
                    tally.usage = usage
                case Finished():
                    tally.began = tally.finished = True
                case _:
                    tally.began = True
            yield event
    if not tally.finished:
        raise BadResponse("The backend's answer ended before it was complete.")


async def _back_off(retry: int, failure: GatewayError, call: Call) -> None:
    """Wait before trying again, with full jitter; gives up with the failure itself if time is short."""
    pause_s = failure.retry_after_s
    if pause_s is None:
        pause_s = random.uniform(0, min(BACKOFF_S * 2**retry, BACKOFF_MAX_S))  # noqa: S311
    if asyncio.get_running_loop().time() + pause_s >= call.deadline or pause_s > BACKOFF_MAX_S:
        raise failure
    await asyncio.sleep(pause_s)
