"""Going on with a stream that broke off: `stream_guard: resume`.

Relayed frames are only collected while all is well.  When they break off they are read back as events,
told to the dialect's own writer once more for its state, and what it writes from there on goes to the
client: one answer, with one id.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import msgspec

from backends.base import Prefills
from compat.canonical.error import BackendError, BadResponse, GatewayError, Rejected, RequestError
from compat.canonical.event import Event, TextDelta
from compat.canonical.request import TextRequest
from compat.rereading import read_back
from gateway.routing.attempt import Answer, Asked, Attempt, Counted, run, told_on
from gateway.routing.course import Course
from gateway.routing.health import HealthBook
from gateway.routing.router import Route
from gateway.routing.splice import Broken, Diverged, broken, joined, ways
from gateway.telemetry.metrics import Metrics

HELD_MAX_BYTES = 16 * 1024 * 1024
"""Of a stream that may have to be gone on with."""

Begin = Callable[[Route, Asked, Course], Awaitable[Attempt | None]]


class Continuation:
    """What other routes may do for an answer that one has begun."""

    def __init__(self, answer: Answer, asked: Asked, course: Course, book: HealthBook, metrics: Metrics, begin: Begin):
        self._answer = answer
        self._asked = asked
        self._course = course
        self._book = book
        self._metrics = metrics
        self._begin = begin

    def guard(self) -> None:
        """Have other routes go on with the answer's stream if it breaks off."""
        answer = self._answer
        if answer.events is not None:
            answer.events = self._unbroken_events(answer.events)
        elif answer.frames is not None and self._asked.render is not None:
            answer.frames = self._unbroken_frames(answer.frames, self._asked.render)

    async def _unbroken_events(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        past: list[Event] = []
        try:
            async with aclosing(events):
                async for event in events:
                    past.append(event)
                    yield event
            return
        except BackendError as e:
            failure = e
        async with aclosing(self._carried_on(broken(past), failure)) as rest:
            async for event in rest:
                yield event

    async def _unbroken_frames(
        self,
        frames: AsyncGenerator[bytes, None],
        render: Callable[[AsyncGenerator[Event, None]], AsyncGenerator[bytes, None]],
    ) -> AsyncGenerator[bytes, None]:
        sent: list[bytes] = []
        size = 0
        try:
            async with aclosing(frames):
                async for piece in frames:
                    size += len(piece)
                    if size <= HELD_MAX_BYTES:
                        sent.append(piece)
                    yield piece
            return
        except BackendError as e:
            failure = e
        past = await read_back(self._asked.envelope.dialect, sent) if size <= HELD_MAX_BYTES else None
        live = False

        async def story() -> AsyncGenerator[Event, None]:
            # What the client has is told to the writer again, for its state; what it writes of it is left out.
            nonlocal live
            for event in past or ():
                yield event
            live = True
            async with aclosing(self._carried_on(broken(past or []), failure)) as rest:
                async for event in rest:
                    yield event

        if not past:
            raise failure
        async with aclosing(render(story())) as written:
            async for frame in written:
                if live:
                    yield frame

    async def _carried_on(self, sofar: Broken | None, failure: BackendError) -> AsyncGenerator[Event, None]:
        """The rest of the answer, from whichever route can give it.  Raises the failure if none can."""
        answer, asked, course = self._answer, self._asked, self._course
        request = await _request_of(asked) if sofar is not None else None
        if sofar is None or request is None or bytes(asked.envelope.fields.get("logprobs", b"")) == b"true":
            raise failure
        course.failed(answer.route, failure)
        while True:
            try:
                route = await course.next()
            except GatewayError:
                raise failure from None
            health = self._book.of(route.key)
            takes = route.backend.prefills if isinstance(route.backend, Prefills) else None
            if health.prefills is False:
                takes = False
            error: GatewayError | None = None
            for way in ways(msgspec.structs.replace(request, model=route.model), sofar, takes):
                attempt = await self._begin(route, asked, course)
                if attempt is None:
                    break
                tally = Counted()
                events = run(route.backend, way.request, attempt.call, streamed=True)
                rest = joined(told_on((), events, attempt, tally), way.beginnings)
                try:
                    async with aclosing(rest):
                        async for event in rest:
                            if answer.tally is not tally:
                                answer.tally = tally
                                attempt.answered()
                            if isinstance(event, TextDelta):
                                sofar.pieces.append(event.text)
                            yield event
                    asked.visit.trail.append((route.name, "went on"))
                    self._metrics.resumed.labels(route.backend.name, "whole").inc()
                    return
                except Diverged:
                    error = BadResponse(f"Backend '{route.backend.name}' gave another answer than the one begun.")
                except RequestError as e:
                    error = e
                    attempt.failed(e)
                    if answer.tally is tally:
                        break  # it went on for a while: the other way would begin where this one did
                    if way.prefilled and isinstance(e, Rejected):
                        health.prefills = False
                except GatewayError as e:
                    error = e
                    break  # noted by the stream itself
                finally:
                    attempt.end()
            if error is not None:
                self._metrics.resumed.labels(route.backend.name, "failed").inc()
                try:
                    course.failed(route, error)
                except GatewayError:
                    raise failure from None


async def _request_of(asked: Asked) -> TextRequest | None:
    try:
        request = await asked.read()
    except GatewayError:
        return None
    return request if isinstance(request, TextRequest) and request.choices == 1 else None
