"""POST /v1/images/generations and /v1/images/edits."""

from collections.abc import AsyncGenerator
from functools import partial

from litestar.types import ASGIApp
from msgspec.structs import replace

from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Result
from compat.canonical.request import Envelope
from compat.openai.images import (
    named_pictures,
    parse_edit,
    parse_request,
    peek,
    peek_edit,
    peek_edit_form,
    wants_url,
)
from compat.openai.picture import render_events, render_result
from gateway.api.chat import OpenAIErrors
from gateway.api.generation import Context, Language, Prepared, endpoint
from gateway.api.given import with_pictures
from gateway.api.made import kept, room
from gateway.house import House
from gateway.inputs import parsed
from gateway.routing.dispatch import relays
from gateway.routing.router import Plan
from gateway.visit import Visit


class _EditErrors(OpenAIErrors):
    """Of an edit in JSON, whose pictures have names of their own."""

    def _named(self, error: GatewayError) -> GatewayError:
        name = error.param
        if name == "image":
            error.param = "images[0].image_url" if "'image'" in error.message else "images"
        elif name == "mask":
            error.param = "mask.image_url"
        error.message = error.message.replace(f"'{name}'", f"'{error.param}'")
        return error


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    return render_events(events, context.envelope)


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, urls=wants_url(context.envelope))


async def _prepare(language: Language, house: House, visit: Visit, envelope: Envelope, plan: Plan) -> Prepared:
    """A picture that comes along is kept nowhere; streams carry them always, as OpenAI's do."""
    if not any(relays(route.backend, envelope, route.model) for route in plan.routes):
        named = await parsed(lambda: named_pictures(envelope), len(envelope.body))
        language = await with_pictures(house, visit, envelope, language, named, parse_edit)
    if envelope.dialect == "image_edits" and not envelope.content_type:
        language = replace(language, errors=_EditErrors())
    if envelope.stream or not wants_url(envelope):
        return Prepared(language, envelope, plan)
    await room(house, visit, envelope, plan)
    return Prepared(replace(language, refine=kept), envelope, plan)


def _language(given: Language) -> Language:
    return replace(given, prepare=partial(_prepare, given))


GENERATIONS = _language(Language(peek=peek, parse=parse_request, whole=_whole, stream=_stream, errors=OpenAIErrors()))
EDITS = _language(
    Language(
        peek=peek_edit, peek_form=peek_edit_form, parse=parse_edit, whole=_whole, stream=_stream, errors=OpenAIErrors()
    )
)


def endpoints(house: House) -> dict[str, ASGIApp]:
    languages = {"/v1/images/generations": GENERATIONS, "/v1/images/edits": EDITS}
    return {path: endpoint(house, path, language) for path, language in languages.items()}
