"""POST /v1/completions, OpenAI's legacy endpoint."""

from collections.abc import AsyncGenerator

from litestar.types import ASGIApp

from compat.canonical.event import Event, Result
from compat.openai.completions import echo_of, parse_request, peek, render_events, render_result
from gateway.api.chat import OpenAIErrors
from gateway.api.generation import Context, Language, endpoint
from gateway.house import House


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    envelope = context.envelope
    return render_events(events, include_usage=envelope.wants_usage, echo=echo_of(envelope))


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, echo_of(context.envelope))


LANGUAGE = Language(peek=peek, parse=parse_request, whole=_whole, stream=_stream, errors=OpenAIErrors("prompt"))


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/completions"
    return {path: endpoint(house, path, LANGUAGE)}
