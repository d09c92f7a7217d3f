"""POST /v1/sessions/{session_id}/generate and /regenerate, and /v1/generate in a session.

A session is held from before it is read until its turn is written: requests for one are answered one at a time.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from time import perf_counter

from litestar.types import ASGIApp
from msgspec.structs import replace

from compat import mesh, native
from compat.canonical.error import Forbidden, TimedOut
from compat.canonical.event import Event, Result
from compat.canonical.request import Envelope
from gateway.api.generated import generation, said_at, streamed
from gateway.api.generation import Context, Job, Language, Prepared, endpoint
from gateway.api.longtext import texts_kept
from gateway.api.made import kept
from gateway.house import House
from gateway.routing.attempt import Answer
from gateway.routing.router import Plan
from gateway.sessions.exchange import Exchange
from gateway.visit import Visit

SCOPE = "sessions"
"""What is required besides the scope of all generating."""
GENERATE, REGENERATE = "/v1/sessions/{session_id}/generate", "/v1/sessions/{session_id}/regenerate"


class _Turn:
    """One request in a session, between its exchange and its client."""

    def __init__(self, house: House, exchange: Exchange, said: str) -> None:
        """said: what stands in errors for the messages, which are mostly not the request's."""
        self._house = house
        self._exchange = exchange
        self._said = said
        self._made: tuple[Result, native.Generation] | None = None

    def language(self) -> Language:
        return Language(
            peek=native.peek,
            parse=self._exchange.parse,
            whole=self.whole,
            stream=self.stream,
            errors=native.Errors(self._said),
            shorten=self._exchange.shorten,
            prepare=self.prepare,
            refine=self.refine,
            keep=self.keep,
            hears=frozenset({b"accept"}),
        )

    async def prepare(self, house: House, visit: Visit, envelope: Envelope, plan: Plan) -> Prepared:  # noqa: ARG002
        if native.modality_of(envelope) != "text" and envelope.stream and not mesh.accepts_progress(envelope):
            envelope = replace(envelope, stream=False)
            visit.streamed = False
        return Prepared(self.language(), envelope, plan)

    def refine(
        self, house: House, events: AsyncGenerator[Event, None], context: Context
    ) -> AsyncGenerator[Event, None]:
        if native.modality_of(context.envelope) == "3d":
            events = house.meshes.finished(events, native.formats(context.envelope), context.deadline)
        return texts_kept(house, kept(house, events, context), context)

    def whole(self, result: Result, context: Context) -> bytes:
        whole = generation(self._exchange.id, result, context, self._exchange.place)
        self._made = result, whole
        return native.render_result(whole)

    async def keep(self, answer: Answer, body: bytes) -> None:  # noqa: ARG002
        assert self._made is not None, "it was written whole"
        await self._exchange.complete(*self._made)

    async def stream(self, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
        exchange, seen = self._exchange, list[Event]()

        async def over(result: Result) -> native.Generation:
            whole = generation(exchange.id, result, context, exchange.place)
            await exchange.complete(result, whole)
            return whole

        try:
            async with aclosing(streamed(exchange.id, events, context, seen, over)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            await exchange.interrupted(seen)


@asynccontextmanager
async def within(job: Job) -> AsyncGenerator[Job, None]:
    """Hold the session of a request, if it is in one, and say what its model is told.  Raises GatewayError."""
    id_ = _session_of(job)
    if id_ is None:
        yield job
        return
    principal = job.grant.principal
    if SCOPE not in principal.scopes:
        raise Forbidden(f"Your API key or token lacks the scope '{SCOPE}'.")
    began = perf_counter()
    async with AsyncExitStack() as stack:
        holding = job.house.cabinet.sessions.holding.hold(principal.tenant, id_, job.visit.wait)
        try:
            async with asyncio.timeout(job.timeout_s):
                held = await stack.enter_async_context(holding)
        except TimeoutError as e:
            raise TimedOut("The session was busy for as long as the request may take.") from e
        exchange = Exchange(job, held)
        again = job.visit.route == REGENERATE
        envelope = await (exchange.again(job.envelope) if again else exchange.begin(job.envelope))
        left_s = None if job.timeout_s is None else max(0.001, job.timeout_s - (perf_counter() - began))
        said = "model" if again else said_at(job.envelope) or "input.messages"
        turn = _Turn(job.house, exchange, said)
        yield replace(job, language=turn.language(), envelope=envelope, timeout_s=left_s)


def _session_of(job: Job) -> str | None:
    head, _, tail = job.visit.route.partition("{session_id}")
    if tail:
        return job.visit.path.removeprefix(head).removesuffix(tail)
    return native.session_of(job.envelope)


def _regenerate(body: bytes) -> Envelope:
    """All of it may be left unsaid, and so may the body."""
    return native.peek_regenerate(body or b"{}")


def _unprepared(*_: object) -> bytes:
    raise AssertionError("a request is prepared before it is answered")


_LANGUAGE = Language(
    peek=native.peek_turn,
    parse=native.parse_request,
    whole=_unprepared,
    stream=None,
    errors=native.Errors(),
    within=within,
    hears=frozenset({b"accept"}),
)


def endpoints(house: House) -> dict[str, ASGIApp]:
    return {
        GENERATE: endpoint(house, GENERATE, _LANGUAGE),
        REGENERATE: endpoint(house, REGENERATE, replace(_LANGUAGE, peek=_regenerate)),
    }
