"""Reranking, both directions: how well each of some documents answers a query.

OpenAI has no such endpoint; the shape is Jina's, which llama.cpp, vLLM and most providers took over, and which differs
from Cohere's v2 in little.  Sources: https://api.jina.ai/redoc#tag/rerank, https://docs.cohere.com/reference/rerank,
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html and llama.cpp's tools/server/README.md
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import check_kinds, decode_raw, is_empty, kind_of, missing, read, read_fields
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Result, Usage
from compat.canonical.request import Envelope, RerankRequest
from compat.openai.envelope import envelope
from compat.openai.error import verdict
from compat.openai.limits import RERANK, check_numbers, wrong_type
from compat.openai.tap import WholeTap
from compat.openai.usage import count

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "query": ("string",),
    "documents": ("array",),
    "top_n": ("number",),
    "return_documents": ("boolean",),
}
"""What the fields that are looked at may be in JSON, besides null."""
DOCUMENTS_MAX = 1000
"""Documents in one request, where nobody but the gateway judges it."""
_write = msgspec.json.Encoder().encode


class RerankBody(Struct):
    """What is read of a request when it has to be translated."""

    query: str
    documents: list[str | dict[str, Any]]
    """Texts, or objects that have one as `text`."""
    model: str | None = None
    top_n: int | None = None
    """How many of the best to name; all of them if it is left out."""
    return_documents: bool | None = None
    """Whether each is repeated beside its score; they are not if it is left out."""


class Score(Struct):
    """What is read of one result."""

    index: int
    relevance_score: float


class _Tokens(Struct):
    input_tokens: Any = None


class _Meta(Struct):
    tokens: _Tokens | None = None


class _Answer(Struct):
    results: list[Score] | None = None
    data: list[Score] | None = None
    """Voyage's word for them."""
    usage: Raw = Raw()
    meta: Raw = Raw()
    """Cohere's place for usage."""
    error: Raw = Raw()
    model: str | None = None


_MODELLED = frozenset(RerankBody.__struct_encode_fields__)
_read_request = msgspec.json.Decoder(RerankBody)
_read_answer = msgspec.json.Decoder(_Answer).decode
_read_meta = msgspec.json.Decoder(_Meta).decode


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs.  Raises InvalidRequest."""
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    for name in ("query", "documents"):
        if name not in fields or kind_of(fields[name]) == "null":
            raise missing(name)
    if is_empty(fields["documents"]):
        raise InvalidRequest("Invalid 'documents': the array is empty.", param="documents", code="empty_array")
    return msgspec.structs.replace(envelope("rerank", fields, body), stream=False, wants_usage=True)


def parse_request(asked: Envelope) -> RerankRequest:
    """Read a request whole.  Raises InvalidRequest."""
    body = read(asked.body, _read_request)
    check_numbers(asked.fields, RERANK)
    if not body.query.strip():
        raise InvalidRequest("Invalid 'query': empty string.", param="query", code="empty_string")
    if len(body.documents) > DOCUMENTS_MAX:
        raise InvalidRequest(
            f"Invalid 'documents': at most {DOCUMENTS_MAX} documents, but there are {len(body.documents)}.",
            param="documents",
            code="array_above_max_length",
        )
    return RerankRequest(
        model=asked.model,
        query=body.query,
        documents=tuple(_text(one, f"documents[{n}]") for n, one in enumerate(body.documents)),
        top=body.top_n,
        extra={name: decode_raw(raw) for name, raw in asked.fields.items() if name not in _MODELLED},
    )


def envelope_of(query: str, documents: tuple[str, ...], model: str) -> Envelope:
    """The request that asks a server for the score of each of these documents."""
    fields = {"model": model, "query": query, "documents": documents}
    body = _write(fields)
    return Envelope(
        dialect="rerank",
        model=model,
        stream=False,
        fields={name: Raw(_write(value)) for name, value in fields.items()},
        body=body,
    )


def parse_answer(body: bytes) -> list[Score]:
    """The scores in an answer that `RerankTap` has taken, in its order."""
    answer = _read_answer(body)
    return answer.results or answer.data or []


def render_result(result: Result, asked: Envelope) -> bytes:
    """Write scores as the body of an answer: the best first, as many as were asked for."""
    request = read(asked.body, _read_request)
    best = sorted(result.ranked, key=lambda one: -one.score)[: request.top_n]
    results: list[dict[str, Any]] = [{"index": one.index, "relevance_score": one.score} for one in best]
    if request.return_documents:
        for one in results:
            given = request.documents[one["index"]]
            one["document"] = {"text": given} if isinstance(given, str) else given
    tokens = result.usage.input_tokens or 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _write({"object": "list", "model": result.started.model, "results": results, "usage": usage})


class RerankTap(WholeTap):
    """Watches an answer with scores, which passes as it is."""

    def __init__(self, asked: Envelope) -> None:  # noqa: ARG002  every tap takes it
        super().__init__()

    def whole(self, body: bytes) -> bytes | None:
        """Take an answer; None when it is none."""
        try:
            answer = _read_answer(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if bytes(answer.error) not in (b"", b"null"):
            self.failure = verdict(msgspec.json.decode(answer.error))
            return body
        if answer.results is None and answer.data is None:
            return None
        self.usage, self.model = _usage(answer), answer.model
        self.began = self.finished = True
        return body


def _text(document: str | dict[str, Any], at: str) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if text is None:
        raise missing(f"{at}.text")
    if not isinstance(text, str):
        raise wrong_type(f"{at}.text", "a string")
    if not text.strip():
        raise InvalidRequest(f"Invalid '{at}': empty string.", param=at, code="empty_string")
    return text


def _usage(answer: _Answer) -> Usage | None:
    """Some count the prompt, some say a total only; Cohere has a place of its own."""
    try:
        said = msgspec.json.decode(answer.usage) if bytes(answer.usage) else None
        meta = _read_meta(answer.meta) if bytes(answer.meta) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(said, dict):
        tokens = said.get("prompt_tokens")
        return Usage(input_tokens=count(said.get("total_tokens") if tokens is None else tokens))
    if meta is not None and meta.tokens is not None:
        return Usage(input_tokens=count(meta.tokens.input_tokens))
    return None
