"""Attempts: send a request along its routes until one answers.

An answer may be swapped for another route's only until its first content: what a client has seen
cannot be taken back.  So a stream is held here until content has come, and handed out then.  What
happens when it dies later is its plan's `stream_guard`: an error, another route that goes on
(`gateway.routing.continuation`), or nothing the client notices, because it was held back to its end.
"""

from time import perf_counter
from typing import TypeGuard

import msgspec

from backends.base import Backend, Relayed, Relays
from compat.canonical.error import GatewayError, ModelLoading
from compat.canonical.event import Event
from compat.canonical.request import Envelope
from gateway.routing.attempt import Answer, Asked, Attempt, Counted, passed_on, run, told_on, with_share
from gateway.routing.continuation import HELD_MAX_BYTES, Continuation
from gateway.routing.course import Course
from gateway.routing.gate import Gate
from gateway.routing.health import HealthBook
from gateway.routing.quota import QuotaBook
from gateway.routing.router import Route
from gateway.routing.selection import select
from gateway.telemetry.metrics import Metrics


class Dispatcher:
    def __init__(self, metrics: Metrics, book: HealthBook, quotas: QuotaBook | None = None) -> None:
        self._metrics = metrics
        self.book = book
        self.quotas = quotas or QuotaBook()
        self.gates: dict[str, Gate] = {}
        """Of the backends that take so many requests at once."""

    async def answer(self, asked: Asked) -> Answer:
        """Answer along the first route that works.  Raises GatewayError."""
        plan, call, visit = asked.plan, asked.call, asked.visit
        routes = select(plan, asked.envelope, self.book, asked.mode, visit, self.quotas)
        course = Course(routes, plan.retries, self.book, call.deadline, visit)
        while True:
            route = await course.next()
            attempt = await self._begin(route, asked, course)
            if attempt is None:
                continue
            if not asked.patient and course.hurries:
                attempt.call = msgspec.structs.replace(attempt.call, patient=False)
            try:
                answer = await self._attempt(attempt, asked)
            except GatewayError as e:
                if isinstance(e, ModelLoading) and not attempt.call.patient:
                    attempt.failed(e)
                    visit.attempts -= 1
                    course.loads(route)
                    continue
                attempt.failed(e)
                course.failed(route, e)
                continue
            except BaseException:
                attempt.end()
                raise
            attempt.answered(answer.headers)
            if answer.body is not None:
                attempt.end()
            if visit.first is None:
                visit.first = perf_counter()
            visit.trail.append((route.name, "answered with your own key" if visit.own_key else "answered"))
            visit.fell_back = route is not routes[0]
            if plan.guard == "resume" and asked.envelope.stream:
                Continuation(answer, asked, course, self.book, self._metrics, self._begin).guard()
            return answer

    async def _begin(self, route: Route, asked: Asked, course: Course) -> Attempt | None:
        """An attempt at a route that has a place for it; None, and the course knows, if it has none."""
        call, visit = asked.call, asked.visit
        visit.backend, visit.model, visit.own_key = route.backend.name, route.model, route.account is not None
        health = self.book.of(route.key)
        gate = self.gates.get(route.backend.name)
        if gate is not None:
            try:
                await gate.enter(call)
            except GatewayError as e:
                health.breaker.abandoned(visit)
                self._metrics.child(self._metrics.attempts, route.backend.name, e.word).inc()
                course.failed(route, e)
                return None
            except BaseException:
                health.breaker.abandoned(visit)
                raise
        try:
            visit.attempts += 1
            call.dropped.clear()
            call.headers.clear()
            if visit.handed is None:
                visit.handed = perf_counter()
            if visit.trace is not None:
                call.traceparent = visit.trace.attempt(route.backend.name, route.model)
            call = with_share(call, course.left, asked.envelope.stream)
            return Attempt(route, call, health, gate, self._metrics, asked, self.quotas)
        except BaseException:
            # Only an attempt gives back what was taken for it, and there is none.
            health.breaker.abandoned(visit)
            if gate is not None:
                gate.leave(None)
            raise

    async def _attempt(self, attempt: Attempt, asked: Asked) -> Answer:
        route, call, envelope = attempt.route, attempt.call, asked.envelope
        holds = asked.plan.guard == "buffer" or not envelope.stream
        if relays(route.backend, envelope, route.model):
            relayed = await route.backend.relay(envelope, route.model, call)
            return await _held(relayed, attempt, holds)
        request = msgspec.structs.replace(await asked.read(), model=route.model)
        tally = Counted()
        events = run(route.backend, request, call, streamed=envelope.stream)
        head: list[Event] = []
        if (seen := asked.visit.seen) is not None:
            seen.clear()  # of another attempt
        async for event in events:
            tally.note(event)
            if holds and seen is not None:
                seen.note(event)
            head.append(event)
            if tally.began and not holds:
                break
        else:
            tally.check()
        return Answer(route=route, tally=tally, headers=call.headers, events=told_on(head, events, attempt, tally))


def relays(backend: Backend, envelope: Envelope, model: str) -> TypeGuard[Relays]:
    """Whether a request can take the relay lane."""
    # Not isinstance: checking a protocol costs more than all the rest of this file.
    if envelope.dialect not in getattr(backend, "dialects", ()):
        return False
    translates = getattr(backend, "translates", None)
    return translates is None or not translates(envelope, model)


async def _held(relayed: Relayed, attempt: Attempt, holds: bool) -> Answer:
    route = attempt.route
    if relayed.frames is None:
        return Answer(route=route, tally=relayed.tally, headers=relayed.headers, body=relayed.body)
    head, size = [], 0
    async for piece in relayed.frames:
        head.append(piece)
        size += len(piece)
        if relayed.tally.began and (not holds or size > HELD_MAX_BYTES):
            break
    # Joined, so that the first write carries all of it.
    return Answer(
        route=route,
        tally=relayed.tally,
        headers=relayed.headers,
        frames=passed_on(b"".join(head), relayed.frames, attempt, relayed.tally),
    )
