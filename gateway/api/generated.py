"""Writing native answers: whole, or as events that end with the whole."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from time import perf_counter

from compat import native
from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Result, Started, fold
from compat.canonical.request import Envelope
from gateway.api.generation import Context

Over = Callable[[Result], Awaitable[native.Generation]]
"""What is done with an answer that is whole, before its client is told so; gives what the client is told."""


def said_at(envelope: Envelope) -> str | None:
    """What stands in errors for the only message of a request that has none; None: it has some."""
    return None if b'"messages"' in bytes(envelope.fields["input"]) else "input.images"


async def streamed(
    id_: str, events: AsyncGenerator[Event, None], context: Context, seen: list[Event], over: Over
) -> AsyncGenerator[bytes, None]:
    """An answer as frames; closes the events.

    seen: takes those that have come.
    """

    async def noted() -> AsyncGenerator[Event, None]:
        async with aclosing(events):
            async for event in events:
                seen.append(event)
                yield event

    source = noted()
    async with aclosing(source):
        first = await anext(source, None)
        if not isinstance(first, Started):
            raise BadResponse("The backend's answer ended before it was complete.")
        yield native.render_started(id_, first.model, context.visit.backend or "")
        async with aclosing(native.render_deltas(source)) as deltas:
            async for frame in deltas:
                yield frame
    yield native.render_completed(await over(await fold(_replayed(seen))))


async def _replayed(events: list[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


def generation(id_: str, result: Result, context: Context, place: native.InSession | None = None) -> native.Generation:
    """An answer as its client is told."""
    visit = context.visit
    return native.generation(
        id_,
        context.envelope,
        result,
        backend=visit.backend or "",
        selection=native.Selection(
            requested=context.plan.requested,
            reason=context.plan.reason,
            fallback=visit.fell_back,
            attempts=visit.attempts,
        ),
        timing=native.Timing(
            queue_s=visit.wait.queue_s,
            load_s=visit.wait.load_s,
            first_token_s=visit.first - visit.began if visit.first is not None else None,
            total_s=perf_counter() - visit.began,
        ),
        place=place,
    )
