"""Embeddings and reranking by the embedded model, as clients meet them."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from tests.gateway.conftest import speaking
from tests.http import error_of, usage_row
from tests.process import Gateway

MODEL = "local/all-minilm-l6-v2"
TEXTS = ["A man is eating food.", "Someone is having a meal.", "The stock market fell today."]
RANK = {"query": "capital of France", "documents": ["Bananas are yellow.", {"text": "Paris is the capital of France."}]}


@pytest.fixture
def http(local_gateway: Gateway) -> Iterator[httpx2.Client]:
    with speaking(local_gateway) as http:
        yield http


@pytest.fixture
def local_sdk(local_gateway: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{local_gateway.url}/v1", api_key="local", max_retries=0, http_client=sdk_http)


def nearness(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_the_sdk_embeds_in_either_form(local_gateway: Gateway, local_sdk: openai.OpenAI) -> None:
    packed = local_sdk.embeddings.with_raw_response.create(model="auto", input=TEXTS)
    assert packed.headers["x-gateway-model"] == MODEL
    vectors = [one.embedding for one in packed.parse().data]
    assert nearness(vectors[0], vectors[1]) > 0.6 > 0.1 > nearness(vectors[0], vectors[2])
    plain = local_sdk.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert nearness(plain.data[1].embedding, vectors[1]) > 0.9999
    assert (plain.model, len(plain.data[0].embedding)) == ("all-minilm-l6-v2", 384)
    row = usage_row(local_gateway.folder, packed.headers["x-request-id"])
    assert row["input_tokens"] == plain.usage.prompt_tokens == plain.usage.total_tokens > 15


def test_langchain_embeds_by_texts(local_gateway: Gateway) -> None:
    with httpx2.Client(verify=False, timeout=30) as http:
        embeddings = OpenAIEmbeddings(
            model="auto",
            base_url=f"{local_gateway.url}/v1",
            api_key=SecretStr("local"),
            check_embedding_ctx_length=False,
            http_client=http,
        )
        vectors = embeddings.embed_documents(TEXTS)
        assert nearness(embeddings.embed_query(TEXTS[0]), vectors[0]) > 0.9999


@pytest.mark.parametrize(
    ("fields", "param", "code", "said"),
    [
        ({"input": ["a", "word " * 600]}, "input[1]", "context_length_exceeded", ("512", "602")),
        ({"input": "word " * 600}, "input", "context_length_exceeded", ("512", "602")),
        ({"input": ["a", [101, 100_000]]}, "input[1]", "invalid_value", ("30522", "100000")),
        ({"input": ["a"] * 2049}, "input", "array_above_max_length", ("2048",)),
        ({"input": ["a", ""]}, "input[1]", "empty_string", ()),
        ({"input": "a", "dimensions": 64}, "dimensions", "unsupported_value", ("384", "64")),
        ({"input": "a", "dimensions": 0}, "dimensions", "integer_below_min_value", ()),
        ({"input": [{"image": "data:…"}]}, "input[0]", "invalid_type", ()),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "invalid_value", ()),
    ],
)
def test_what_cannot_be_embedded_is_named(
    http: httpx2.Client, fields: dict[str, Any], param: str, code: str, said: Sequence[str]
) -> None:
    answer = http.post("/v1/embeddings", json={"model": "auto", **fields})
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert all(number in error["message"] for number in said)


def test_fields_that_mean_nothing_here_are_named(http: httpx2.Client) -> None:
    answer = http.post("/v1/embeddings", json={"input": "a", "user": "u", "input_type": "query"})
    assert set(answer.headers["x-gateway-dropped"].split(", ")) == {"input_type", "user"}
    strict = {"x-gateway-strict": "true"}
    assert http.post("/v1/embeddings", json={"input": "a", "input_type": "q"}, headers=strict).status_code == 400


def test_documents_are_ranked_and_the_answer_says_how(local_gateway: Gateway, http: httpx2.Client) -> None:
    answer = http.post("/v1/rerank", json=RANK | {"top_n": 1, "return_documents": True})
    (best,) = answer.json()["results"]
    assert (best["index"], best["document"]) == (1, {"text": "Paris is the capital of France."})
    assert 0.7 < best["relevance_score"] <= 1
    assert answer.headers["x-gateway-rerank-method"] == "embedding-similarity"
    assert answer.headers["x-gateway-model"] == MODEL
    used = answer.json()["usage"]["total_tokens"]
    assert usage_row(local_gateway.folder, answer.headers["x-request-id"])["input_tokens"] == used > 15


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"documents": ["a", "word " * 600]}, "documents[1]", "context_length_exceeded"),
        ({"query": "word " * 600}, "query", "context_length_exceeded"),
        ({"documents": ["a"] * 1001}, "documents", "array_above_max_length"),
    ],
)
def test_what_cannot_be_ranked_is_named(http: httpx2.Client, fields: dict[str, Any], param: str, code: str) -> None:
    answer = http.post("/v1/rerank", json=RANK | fields)
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/embeddings", {"model": "local/smollm2-135m-instruct", "input": "a"}),
        ("/v1/rerank", {"model": "local/smollm2-135m-instruct", **RANK}),
    ],
)
def test_a_model_is_asked_for_what_it_makes(http: httpx2.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "model"


def test_the_models_are_listed_by_what_they_make(http: httpx2.Client) -> None:
    listed = {one["id"]: one for one in http.get("/v1/models?modality=embedding").json()["data"]}
    assert {"auto", MODEL} <= set(listed)
    assert listed[MODEL]["capabilities"] == ["embeddings", "rerank"]
    assert listed[MODEL]["context_length"] == 512
    assert "auto" in {one["id"] for one in http.get("/v1/models?modality=rerank").json()["data"]}
