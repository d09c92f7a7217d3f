"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator

from litestar.types import ASGIApp

from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Result
from compat.openai.answer import render_events, render_result
from compat.openai.calls import Calls
from compat.openai.chat import parse_request, peek
from compat.openai.error import render_error, render_error_frame
from gateway.api.generation import Context, Language, endpoint
from gateway.house import House


class OpenAIErrors:
    def __init__(self, spoken: str = "messages") -> None:
        self._spoken = spoken
        """The field that holds what backends call the messages."""

    def body(self, error: GatewayError) -> bytes:
        return render_error(self._named(error))

    def frame(self, error: GatewayError) -> bytes:
        return render_error_frame(self._named(error))

    def _named(self, error: GatewayError) -> GatewayError:
        if error.param == "messages":
            error.param = self._spoken
        return error


def _stream(events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:
    envelope = context.envelope
    return render_events(events, include_usage=envelope.wants_usage, calls=Calls(envelope))


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, Calls(context.envelope))


LANGUAGE = Language(peek=peek, parse=parse_request, whole=_whole, stream=_stream, errors=OpenAIErrors())


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/chat/completions"
    return {path: endpoint(house, path, LANGUAGE)}
