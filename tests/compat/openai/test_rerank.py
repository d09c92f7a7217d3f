"""Reranking: requests read, scores put in order, and every provider's answer recognised."""

from typing import Any

import msgspec
import pytest

from compat.canonical.error import InvalidRequest
from compat.canonical.event import Ranked, Result, Started, Usage
from compat.canonical.request import Envelope, RerankRequest
from compat.openai.envelope import upstream_body
from compat.openai.rerank import (
    DOCUMENTS_MAX,
    RerankTap,
    envelope_of,
    parse_answer,
    parse_request,
    peek,
    render_result,
)
from tests.wire import dump


def asked(**fields: Any) -> Envelope:
    return peek(dump({"model": "m", "query": "q", "documents": ["a", {"text": "b", "page": 7}], **fields}))


def test_a_request_is_read() -> None:
    request = parse_request(asked(top_n=1, return_documents=True, max_tokens_per_doc=9))
    assert request == RerankRequest(model="m", query="q", documents=("a", "b"), top=1, extra={"max_tokens_per_doc": 9})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"query": None}, "query", "missing_required_parameter"),
        ({"query": ["q"]}, "query", "invalid_type"),
        ({"query": " "}, "query", "empty_string"),
        ({"documents": None}, "documents", "missing_required_parameter"),
        ({"documents": "a"}, "documents", "invalid_type"),
        ({"documents": []}, "documents", "empty_array"),
        ({"documents": ["a", ""]}, "documents[1]", "empty_string"),
        ({"documents": ["a", {"txt": "b"}]}, "documents[1].text", "missing_required_parameter"),
        ({"documents": [{"text": 5}]}, "documents[0].text", "invalid_type"),
        ({"documents": ["a", 5]}, "documents[1]", "invalid_type"),
        ({"documents": ["a"] * (DOCUMENTS_MAX + 1)}, "documents", "array_above_max_length"),
        ({"top_n": 0}, "top_n", "integer_below_min_value"),
        ({"top_n": 1.5}, "top_n", "invalid_type"),
        ({"top_n": "2"}, "top_n", "invalid_type"),
        ({"return_documents": "yes"}, "return_documents", "invalid_type"),
        ({"api_key": "x"}, "api_key", "unknown_parameter"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(asked(**fields))
    assert (refused.value.param, refused.value.code) == (param, code)


def test_space_before_the_first_document_is_not_emptiness() -> None:
    spaced = b'{"model":"m","query":"q","documents":[' + b" " * 80 + b'"a"]}'
    assert parse_request(peek(spaced)).documents == ("a",)
    with pytest.raises(InvalidRequest, match="empty"):
        peek(spaced.replace(b'"a"', b""))


def test_a_body_goes_up_with_all_it_has() -> None:
    body = upstream_body(asked(vendor={"x": 1.5}), "theirs")
    assert msgspec.json.decode(body) == {
        "model": "theirs", "query": "q", "documents": ["a", {"text": "b", "page": 7}], "vendor": {"x": 1.5},
    }  # fmt: skip


def result(*scores: float) -> Result:
    ranked = tuple(Ranked(index=n, score=score) for n, score in enumerate(scores))
    return Result(started=Started(id="r", model="m-1", created=0), ranked=ranked, usage=Usage(input_tokens=9))


def test_the_best_comes_first_and_equals_keep_their_order() -> None:
    body = msgspec.json.decode(render_result(result(0.25, 0.75, 0.25), asked(documents=["a", "b", "c"])))
    assert body == {
        "object": "list",
        "model": "m-1",
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.25},
            {"index": 2, "relevance_score": 0.25},
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }


def test_documents_come_back_as_they_were_if_asked_for() -> None:
    body = msgspec.json.decode(render_result(result(0.1, 0.9), asked(return_documents=True, top_n=9)))
    assert [one["document"] for one in body["results"]] == [{"text": "b", "page": 7}, {"text": "a"}]
    assert len(msgspec.json.decode(render_result(result(0.1, 0.9), asked(top_n=1)))["results"]) == 1


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"prompt_tokens": 3, "total_tokens": 4}}, 3),
        ({"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 4}}, 4),
        ({"data": [{"index": 0, "relevance_score": 0.5, "document": "a"}], "usage": {"total_tokens": 4}}, 4),
        ({"results": [{"index": 0, "relevance_score": 1}], "meta": {"tokens": {"input_tokens": 5.0}}}, 5),
        ({"results": [], "meta": {"billed_units": {"search_units": 1}}}, None),
        ({"results": [{"index": 0, "relevance_score": -3.25}]}, None),
    ],
    ids=["vllm", "jina", "voyage", "cohere", "cohere-empty", "bare"],
)
def test_every_providers_answer_passes_and_is_metered(answer: dict[str, Any], tokens: int | None) -> None:
    tap, body = RerankTap(asked()), dump(answer | {"model": "theirs"})
    assert tap.whole(body) == body
    assert (tap.finished, tap.model) == (True, "theirs")
    assert (tap.usage.input_tokens if tap.usage else None) == tokens


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"results":5}', b'{"usage":{}}', b'{"results":[{"index":0}]}']
)
def test_what_holds_no_scores_is_no_answer(body: bytes) -> None:
    assert RerankTap(asked()).whole(body) is None


def test_an_error_in_an_answer_is_one() -> None:
    tap = RerankTap(asked())
    tap.whole(b'{"error":{"message":"no","type":"server_error"}}')
    assert tap.failure is not None


def test_what_is_asked_of_a_server_is_a_request() -> None:
    made = envelope_of("q", ("a", "b"), "m")
    assert parse_request(peek(made.body)) == RerankRequest(model="m", query="q", documents=("a", "b"))
    scores = parse_answer(b'{"results":[{"index":1,"relevance_score":-2.5}]}')
    assert [(one.index, one.relevance_score) for one in scores] == [(1, -2.5)]
