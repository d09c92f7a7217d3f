"""POST /v1/embeddings."""

from litestar.types import ASGIApp

from compat.canonical.event import Result
from compat.openai.embeddings import parse_request, peek, render_result
from gateway.api.chat import OpenAIErrors
from gateway.api.generation import Context, Language, endpoint
from gateway.house import House


def _whole(result: Result, context: Context) -> bytes:
    return render_result(result, context.envelope)


LANGUAGE = Language(peek=peek, parse=parse_request, whole=_whole, stream=None, errors=OpenAIErrors())


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/embeddings"
    return {path: endpoint(house, path, LANGUAGE)}
