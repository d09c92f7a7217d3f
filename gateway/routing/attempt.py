"""One request at one route: what it was asked, how it answers, and what is reported of it.

Invariant: however an answer ends, its attempt reports once how the route did, and gives its place back once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import perf_counter

import msgspec
from msgspec import Struct

from backends.base import Backend, Call, Tally
from compat.body import LARGE_BYTES
from compat.canonical.error import BackendError, BadResponse, GatewayError, RateLimited, TimedOut
from compat.canonical.event import Event, Finished, Metered, Started, Usage
from compat.canonical.request import Envelope, Request
from gateway.routing.gate import Gate
from gateway.routing.health import Health
from gateway.routing.quota import Headers, QuotaBook
from gateway.routing.router import Plan, Route
from gateway.settings import SelectionMode
from gateway.telemetry.metrics import Metrics
from gateway.visit import Visit


class Asked(Struct, frozen=True, kw_only=True):
    """What a request is to the dispatcher."""

    plan: Plan
    envelope: Envelope
    call: Call
    visit: Visit
    parse: Callable[[Envelope], Request]
    """Reads the envelope in full, for routes that do not speak its dialect."""
    render: Callable[[AsyncGenerator[Event, None]], AsyncGenerator[bytes, None]] | None = None
    """Writes events as the client's own kind of stream."""
    mode: SelectionMode = "auto"
    hurried: bool = False
    """The client set a shorter time limit than the model has."""
    patient: bool = True
    """Wait for a local model to load; else another route answers meanwhile, where there is one."""

    async def read(self) -> Request:
        """The envelope in full, a large one read in a thread, not to hold up the loop.  Raises InvalidRequest."""
        if len(self.envelope.body) < LARGE_BYTES:
            return self.parse(self.envelope)
        return await asyncio.to_thread(self.parse, self.envelope)


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


class Attempt:
    """One request at one route: reports once how it went, and gives its place back once."""

    def __init__(
        self,
        route: Route,
        call: Call,
        health: Health,
        gate: Gate | None,
        metrics: Metrics,
        asked: Asked,
        quotas: QuotaBook,
    ) -> None:
        self.route = route
        self.call = call
        self._health = health
        self._gate = gate
        self._metrics = metrics
        self._hurried = asked.hurried
        self._streamed = asked.envelope.stream
        self._deadline = asked.call.deadline
        self._visit = asked.visit
        self._began = asyncio.get_running_loop().time()
        self._due = call.deadline
        """When the client's time limit ends it."""
        if self._streamed and call is not asked.call:
            self._due = min(self._due, self._began + call.timeouts.first_token_s)
        self._told = self._ended = self._counted = False
        self._try = asked.visit.trace.tries[-1] if asked.visit.trace is not None else None
        self._quotas = quotas
        self._draw = quotas.draw(route, asked.envelope) if route.price == "free" else None
        health.busy += 1

    def answered(self, headers: Headers = ()) -> None:
        """An answer has begun; the provider's headers may tell how much more it would give."""
        self._told = True
        if self._visit.answered is not None:
            self._visit.lost.append(self._visit.answered)
        self._visit.answered = self.route
        if self._draw is not None:
            self._draw.settle(answered=True)
        if headers:
            self._quotas.heard(self.route, headers)
        if self._try is not None:
            self._try.first = perf_counter()
        self._due = self._deadline
        now = asyncio.get_running_loop().time()
        self._health.answered(now, now - self._began if self._streamed else None)

    def failed(self, error: GatewayError) -> None:
        if error.worked and not self._told:
            self._visit.lost.append(self.route)
        self._told = True
        now = asyncio.get_running_loop().time()
        hurried = self._hurried and isinstance(error, TimedOut) and now >= self._due - 0.1
        self._health.failed(now, error, self._visit, hurried=hurried)
        if isinstance(error, RateLimited):
            self._quotas.refused(self.route, error)
        self._count(error.word)
        self.end()

    def skipped(self, events: int) -> None:
        self._metrics.skipped.labels(self.route.backend.name).inc(events)

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._try is not None:
            self._try.ended = perf_counter()
        self._health.busy -= 1
        if self._draw is not None:
            self._draw.settle(answered=False)
        if self._told:
            self._count("ok")
        else:
            self._visit.lost.append(self.route)
            self._health.breaker.abandoned(self._visit)
        if self._gate is not None:
            self._gate.leave(asyncio.get_running_loop().time() - self._began)

    def _count(self, outcome: str) -> None:
        """Once: an answer that begins well and dies later is a failure, not two attempts."""
        if not self._counted:
            self._counted = True
            if self._try is not None:
                self._try.outcome = outcome
            self._metrics.child(self._metrics.attempts, self.route.backend.name, outcome).inc()


class Counted:
    """The tally of a translated answer."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.reason: str | None = None
        self.began = False
        self.finished = False

    def note(self, event: Event) -> None:
        match event:
            case Started(model=model):
                self.model = model
            case Metered(usage=usage):
                self.usage = usage
            case Finished():
                self.reason = event.raw_reason or event.reason
                self.began = self.finished = True
            case _:
                self.began = True

    def check(self) -> None:
        """The answer is over.  Raises BadResponse if it was not whole."""
        if not self.finished:
            raise BadResponse("The backend's answer ended before it was complete.")


def with_share(call: Call, others: int, streamed: bool) -> Call:
    """The time an attempt may take: while there are other routes, enough is left for each of them.

    A stream has to begin in its share; of a whole answer nothing is seen before its end, so it gets
    no less than the time to a first token.
    """
    if not others:
        return call
    now = asyncio.get_running_loop().time()
    share_s = max(0.0, call.deadline - now) / (others + 1)
    if streamed:
        if share_s >= call.timeouts.first_token_s:
            return call
        return msgspec.structs.replace(call, timeouts=msgspec.structs.replace(call.timeouts, first_token_s=share_s))
    due = now + max(share_s, min(call.timeouts.first_token_s, (call.deadline - now) / 2))
    return msgspec.structs.replace(call, deadline=min(due, call.deadline))


def run(backend: Backend, request: Request, call: Call, *, streamed: bool) -> AsyncGenerator[Event, None]:
    """A backend's events, held to the deadlines of the call."""
    events = backend.run(request, call)
    # One that sends through `backends.relay` holds them itself; holding others costs a timer for each event.
    return events if getattr(backend, "keeps_deadlines", False) else _timed(events, call, streamed)


async def passed_on(
    head: bytes, rest: AsyncGenerator[bytes, None], attempt: Attempt, tally: Tally
) -> AsyncGenerator[bytes, None]:
    """A relayed stream whose head has been seen already, on its way to the client."""
    try:
        async with aclosing(rest):
            yield head
            async for piece in rest:
                yield piece
    except BackendError as e:
        attempt.failed(e)
        raise
    finally:
        if skipped := getattr(tally, "skipped", 0):
            attempt.skipped(skipped)
        attempt.end()


async def told_on(
    head: Sequence[Event], rest: AsyncGenerator[Event, None], attempt: Attempt, tally: Counted
) -> AsyncGenerator[Event, None]:
    """The same of a translated stream, counted as it passes.  Raises BadResponse if it ends too early."""
    try:
        async with aclosing(rest):
            for event in head:
                yield event
            async for event in rest:
                tally.note(event)
                yield event
        tally.check()
    except BackendError as e:
        attempt.failed(e)
        raise
    finally:
        attempt.end()


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
            yield event
            # Counted from here: a slow reader is not a silent backend.
            if streamed and not isinstance(event, Started):
                due = min(loop.time() + call.timeouts.idle_s, call.deadline)
