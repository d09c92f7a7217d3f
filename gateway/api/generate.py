"""POST /v1/generate: the gateway's own dialect."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import perf_counter

from litestar.types import ASGIApp
from msgspec.structs import replace

from compat import mesh, native
from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Result, Started, fold
from compat.canonical.request import Envelope
from gateway.api.generation import Context, Language, Prepared, endpoint
from gateway.house import House
from gateway.routing.router import Plan
from gateway.visit import Visit, new_id


async def _prepare(house: House, visit: Visit, envelope: Envelope, plan: Plan) -> Prepared:  # noqa: ARG001
    """What a request wants made, if it does not say so, is what the model makes.

    Of anything but text, whoever does not say that it takes events gets one body.
    """
    modality = native.modality_of(envelope)
    if modality is None:
        modality = plan.routes[0].modality or "text"
        envelope = native.as_modality(envelope, modality)
    if modality != "text" and envelope.stream and not mesh.accepts_progress(envelope):
        envelope = replace(envelope, stream=False)
        visit.streamed = False
    return Prepared(_SOLID if modality == "3d" else LANGUAGE, envelope, plan)


def _refine(house: House, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[Event, None]:
    return house.meshes.finished(events, native.formats(context.envelope), context.deadline)


def _whole(result: Result, context: Context) -> bytes:
    return native.render_result(_generation(new_id("gen"), result, context))


async def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    id_ = new_id("gen")
    seen: list[Event] = []

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
    yield native.render_completed(_generation(id_, await fold(_replayed(seen)), context))


async def _replayed(events: list[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


def _generation(id_: str, result: Result, context: Context) -> native.Generation:
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
    )


LANGUAGE = Language(
    peek=native.peek,
    parse=native.parse_request,
    whole=_whole,
    stream=_stream,
    errors=native.Errors(),
    prepare=_prepare,
    hears=frozenset({b"accept"}),
)
_SOLID = replace(LANGUAGE, refine=_refine)


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/generate"
    return {path: endpoint(house, path, LANGUAGE)}
