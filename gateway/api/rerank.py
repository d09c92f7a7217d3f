"""POST /v1/rerank."""

from litestar.types import ASGIApp

from compat.canonical.event import Result
from compat.openai.rerank import parse_request, peek, render_result
from gateway.api.chat import OpenAIErrors
from gateway.api.generation import Context, Language, endpoint
from gateway.house import House


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, context.envelope)


LANGUAGE = Language(peek=peek, parse=parse_request, whole=_whole, stream=None, errors=OpenAIErrors())


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/rerank"
    return {path: endpoint(house, path, LANGUAGE)}
