"""POST /v1/3d/generations."""

from collections.abc import AsyncGenerator, Mapping

from litestar.types import ASGIApp
from msgspec.structs import replace

from compat.canonical.event import Event, Result
from compat.canonical.message import Media
from compat.canonical.request import Envelope, Request
from compat.mesh import (
    Errors,
    accepts_progress,
    encoded,
    formats,
    named_picture,
    parse_request,
    peek,
    render_events,
    render_result,
)
from gateway.api.generation import Context, Language, Prepared, endpoint
from gateway.api.given import with_pictures
from gateway.api.made import kept, room
from gateway.house import House
from gateway.routing.router import Plan
from gateway.visit import Visit


async def _prepare(house: House, visit: Visit, envelope: Envelope, plan: Plan) -> Prepared:
    """Whoever does not say that it takes events gets one body, whatever it says of streams."""
    formats(envelope)
    if not encoded(envelope):
        await room(house, visit, envelope, plan)
    if envelope.stream and not accepts_progress(envelope):
        envelope = replace(envelope, stream=False)
        visit.streamed = False
    place = named_picture(envelope)
    named = [] if place is None else [("image", place)]
    return Prepared(await with_pictures(house, visit, envelope, LANGUAGE, named, _parse), envelope, plan)


def _parse(envelope: Envelope, pictures: Mapping[str, Media]) -> Request:
    return parse_request(envelope, next(iter(pictures.values()), None))


def _refine(house: House, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[Event, None]:
    finished = house.meshes.finished(events, formats(context.envelope), context.deadline)
    return finished if encoded(context.envelope) else kept(house, finished, context)


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, context.envelope)


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    return render_events(events, context.envelope)


LANGUAGE = Language(
    peek=peek,
    parse=parse_request,
    whole=_whole,
    stream=_stream,
    errors=Errors(),
    prepare=_prepare,
    refine=_refine,
    hears=frozenset({b"accept"}),
)


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/3d/generations"
    return {path: endpoint(house, path, LANGUAGE)}
