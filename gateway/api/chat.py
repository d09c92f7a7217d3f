"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator

from litestar.types import ASGIApp

from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Result
from compat.openai.answer import render_events, render_result
from compat.openai.chat import parse_request, peek
from compat.openai.error import render_error, render_error_frame
from gateway.api.generation import Context, Language, endpoint
from gateway.house import House


class OpenAIErrors:
    def body(self, error: GatewayError) -> bytes:
        return render_error(error)

    def frame(self, error: GatewayError) -> bytes:
        return render_error_frame(error)


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    return render_events(events, include_usage=context.envelope.wants_usage)


def _whole(result: Result, context: Context) -> bytes:  # noqa: ARG001
    return render_result(result)


LANGUAGE = Language(peek=peek, parse=parse_request, whole=_whole, stream=_stream, errors=OpenAIErrors())


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/chat/completions"
    return {path: endpoint(house, path, LANGUAGE)}
