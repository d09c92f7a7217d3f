"""POST /v1/images/generations and /v1/images/edits."""

from collections.abc import AsyncGenerator

from litestar.types import ASGIApp

from compat.canonical.event import Event, Result
from compat.openai.images import parse_edit, parse_request, peek, peek_edit, peek_edit_form, wants_url
from compat.openai.picture import render_events, render_result
from gateway.api.chat import OpenAIErrors
from gateway.api.generation import Context, Language, endpoint
from gateway.house import House


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    return render_events(events, context.envelope)


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, urls=wants_url(context.envelope))


GENERATIONS = Language(peek=peek, parse=parse_request, whole=_whole, stream=_stream, errors=OpenAIErrors())
EDITS = Language(
    peek=peek_edit, peek_form=peek_edit_form, parse=parse_edit, whole=_whole, stream=_stream, errors=OpenAIErrors()
)


def endpoints(house: House) -> dict[str, ASGIApp]:
    languages = {"/v1/images/generations": GENERATIONS, "/v1/images/edits": EDITS}
    return {path: endpoint(house, path, language) for path, language in languages.items()}
