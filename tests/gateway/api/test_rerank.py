"""/v1/rerank: relayed to providers that have it, translated for others, and refused where it cannot be had."""

from typing import Any

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.http import error_of, usage_row
from tests.process import Gateway
from tests.provider import Provider

RERANK = "/v1/rerank"
DOCUMENTS = ["a blue boat", {"text": "the red house", "page": 3}, "a red boat"]
RESULTS = [
    {"index": 2, "relevance_score": 0.9, "document": {"text": "a red boat"}},
    {"index": 0, "relevance_score": 0.1},
]
ANSWER = {"id": "rr-1", "model": "rank-1", "results": RESULTS, "usage": {"total_tokens": 21}, "vendor": [1.50]}


def asked(model: str = "fake/fake", **fields: Any) -> dict[str, Any]:
    return {"model": model, "query": "red boat", "documents": DOCUMENTS, **fields}


@pytest.fixture(autouse=True)
def ranker(upstream: Provider) -> None:
    async def rank(x: Exchange) -> None:
        x.answer(wire.dump(ANSWER))

    upstream.scripts["rank"] = rank


def test_it_is_relayed_byte_for_byte(house: Gateway, client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(RERANK, json=asked("up/rank", top_n=2, return_documents=True, truncate="END"))
    assert answer.content == wire.dump(ANSWER)
    assert answer.headers["x-gateway-model"] == "up/rank"
    assert upstream.asked().path == RERANK
    assert upstream.asked().json == asked("rank", top_n=2, return_documents=True, truncate="END")
    assert usage_row(house.folder, answer.headers["x-request-id"])["input_tokens"] == 21


def test_it_is_translated_for_a_backend_that_does_not_speak_it(client: httpx2.Client) -> None:
    answer = client.post(RERANK, json=asked(top_n=2, return_documents=True, rank_fields=["text"])).json()
    assert answer == {
        "object": "list",
        "model": "fake",
        "results": [
            {"index": 2, "relevance_score": 1.0, "document": {"text": "a red boat"}},
            {"index": 0, "relevance_score": 0.5, "document": {"text": "a blue boat"}},
        ],
        "usage": {"prompt_tokens": 15, "total_tokens": 15},
    }
    named = client.post(RERANK, json=asked(rank_fields=["text"]))
    assert named.headers["x-gateway-dropped"] == "rank_fields"
    assert "document" not in named.json()["results"][0]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"documents": []}, "documents", "empty_array"),
        ({"documents": None}, "documents", "missing_required_parameter"),
        ({"documents": ["a", 5]}, "documents[1]", "invalid_type"),
        ({"query": 5}, "query", "invalid_type"),
        ({"top_n": 0}, "top_n", "integer_below_min_value"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(
    client: httpx2.Client, fields: dict[str, Any], param: str, code: str
) -> None:
    answer = client.post(RERANK, json=asked(**fields))
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize("name", ["once-html", "once-error_in_200", "once-status:500"])
def test_what_holds_no_scores_is_an_error(client: httpx2.Client, name: str) -> None:
    answer = client.post(RERANK, json=asked(name))
    assert answer.status_code == 502
    assert error_of(answer)["type"] == "server_error"


def test_another_route_answers_where_one_fails(client: httpx2.Client) -> None:
    answer = client.post(RERANK, json=asked("dead-then-fake"))
    assert answer.headers["x-gateway-model"] == "fake/fake"
    assert answer.json()["results"][0]["index"] == 2


def test_it_is_not_streamed_and_not_got(client: httpx2.Client) -> None:
    assert "results" in client.post(RERANK, json=asked(stream=True)).json()
    assert client.get(RERANK).status_code == 405
