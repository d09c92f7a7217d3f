"""POST /v1/generate: the gateway's own dialect."""

from collections.abc import AsyncGenerator

from litestar.types import ASGIApp
from msgspec.structs import replace

from compat import mesh, native
from compat.canonical.event import Event, Result
from compat.canonical.request import Envelope
from gateway.api.generated import generation, said_at, streamed
from gateway.api.generation import Context, Language, Prepared, endpoint
from gateway.api.given import with_pictures
from gateway.api.longtext import texts_kept
from gateway.api.made import kept, room
from gateway.api.session_turns import within
from gateway.house import House
from gateway.inputs import parsed
from gateway.routing.router import Plan
from gateway.visit import Visit, new_id


async def _prepare(house: House, visit: Visit, envelope: Envelope, plan: Plan) -> Prepared:
    """What a request wants made, if it does not say so, is what the model makes.

    Of anything but text, whoever does not say that it takes events gets one body.
    """
    modality = native.modality_of(envelope)
    if modality is None:
        modality = plan.routes[0].modality or "text"
        envelope = native.as_modality(envelope, modality)
    if modality in ("image", "3d"):
        await room(house, visit, envelope, plan)
    if modality != "text" and envelope.stream and not mesh.accepts_progress(envelope):
        envelope = replace(envelope, stream=False)
        visit.streamed = False
    named = await parsed(lambda: native.named_pictures(envelope), len(envelope.body))
    language = _SOLID if modality == "3d" else LANGUAGE
    if named or b'"images"' in bytes(envelope.fields["input"]):
        language = replace(language, errors=native.Errors(said_at(envelope)))
    language = await with_pictures(house, visit, envelope, language, named, native.parse_request)
    return Prepared(language, envelope, plan)


def _refine(house: House, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[Event, None]:
    return texts_kept(house, kept(house, events, context), context)


def _refine_meshes(house: House, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[Event, None]:
    return kept(house, house.meshes.finished(events, native.formats(context.envelope), context.deadline), context)


def _whole(result: Result, context: Context) -> bytes:
    return native.render_result(generation(new_id("gen"), result, context))


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    id_ = new_id("gen")

    async def over(result: Result) -> native.Generation:
        return generation(id_, result, context)

    return streamed(id_, events, context, [], over)


LANGUAGE = Language(
    peek=native.peek,
    parse=native.parse_request,
    whole=_whole,
    stream=_stream,
    errors=native.Errors(),
    within=within,
    prepare=_prepare,
    refine=_refine,
    hears=frozenset({b"accept"}),
)
_SOLID = replace(LANGUAGE, refine=_refine_meshes)


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/generate"
    return {path: endpoint(house, path, LANGUAGE)}
