"""/v1/embeddings: whatever form the backend answers in, the client gets the one it asked for."""

import base64
import json
import struct
from typing import Any

import httpx2
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import APP_KEY
from tests.http import error_of, usage_row
from tests.process import Gateway
from tests.provider import Provider

EMBEDDINGS = "/v1/embeddings"
VECTOR = struct.unpack("<4f", struct.pack("<4f", 0.1, -2.5, 3e-30, 65504.0))
"""Numbers a float32 has, so that they can be told apart to the last bit."""


def packed(vector: Any) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def embed(x: Exchange, form: str = "asked") -> None:
    """A vector for each input: `asked` heeds encoding_format, `float` and `base64` do not."""
    asked = x.json["input"]
    count = 1 if isinstance(asked, str) or isinstance(asked[0], int) else len(asked)
    tight = form == "base64" or (form == "asked" and x.json.get("encoding_format") == "base64")
    rows = [
        {"object": "embedding", "embedding": packed(VECTOR) if tight else VECTOR, "index": n, "note": 1.5}
        for n in range(count)
    ]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    x.answer(wire.dump({"object": "list", "data": rows, "model": "embed-1", "usage": usage, "vendor": [1]}))


@pytest.fixture(autouse=True)
def embedder(upstream: Provider) -> None:
    for name in ("embed", "embed:float", "embed:base64"):
        upstream.scripts[name] = embed


def texts(model: str = "up/embed", **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": "a", **fields}


@pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2], [[1, 2], [3]], ["a", [1]], [{"image": "data:…"}]])
def test_every_form_of_input_passes(client: httpx2.Client, upstream: Provider, given: Any) -> None:
    fields = {"input": given, "dimensions": 4, "vendor": {"x": 1.5}, "input_type": "query"}
    client.post(EMBEDDINGS, json=texts(**fields)).raise_for_status()
    assert upstream.asked().path == "/v1/embeddings"
    assert upstream.asked().json == {"model": "embed", **fields}


@pytest.mark.parametrize("form", ["embed", "embed:float", "embed:base64"])
def test_the_client_gets_the_form_it_asked_for(client: httpx2.Client, form: str) -> None:
    for fields in ({}, {"encoding_format": "float"}):
        answer = client.post(EMBEDDINGS, json=texts(f"up/{form}", **fields)).json()
        assert packed(answer["data"][0]["embedding"]) == packed(VECTOR)
    answer = client.post(EMBEDDINGS, json=texts(f"up/{form}", encoding_format="base64")).json()
    assert answer["data"] == [{"object": "embedding", "embedding": packed(VECTOR), "index": 0, "note": 1.5}]
    assert answer["vendor"] == [1]


def test_an_answer_in_the_right_form_passes_byte_for_byte(client: httpx2.Client, upstream: Provider) -> None:
    body = (
        b'{ "data":[ {"embedding":[0.10, 1E3],"index":0} ], "usage":null, "model":"x", "big":12345678901234567890123 }'
    )

    async def odd(x: Exchange) -> None:
        x.answer(body)

    upstream.scripts["odd"] = odd
    assert client.post(EMBEDDINGS, json=texts("up/odd")).content == body


@pytest.mark.parametrize("form", ["embed", "embed:float", "embed:base64"])
def test_the_sdk_reads_the_same_vector_whichever_way_it_asks(sdk: openai.OpenAI, upstream: Provider, form: str) -> None:
    by_default = sdk.embeddings.create(model=f"up/{form}", input=["a", "b"])
    assert upstream.asked().json["encoding_format"] == "base64"
    for answer in (
        by_default,
        sdk.embeddings.create(model=f"up/{form}", input=["a", "b"], encoding_format="float"),
    ):
        assert [packed(one.embedding) for one in answer.data] == [packed(VECTOR)] * 2
        assert answer.usage.total_tokens == 7
        assert answer.model == "embed-1"


async def test_the_async_sdk_reads_it_too(house: Gateway) -> None:
    http = httpx2.AsyncClient(verify=False, timeout=30)
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, http_client=http) as sdk:
        answer = await sdk.embeddings.create(model="up/embed:float", input=[[1, 2], [3]], dimensions=4)
        assert [packed(one.embedding) for one in answer.data] == [packed(VECTOR)] * 2


def test_langchain_embeds_by_tokens(house: Gateway, upstream: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real vocabularies are downloaded on first use; bytes will do.
    ranks = {bytes([n]): n for n in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: encoding)
    with httpx2.Client(verify=False, timeout=30) as http:
        embeddings = OpenAIEmbeddings(
            model="up/embed:float",
            base_url=f"{house.url}/v1",
            api_key=SecretStr(APP_KEY),
            http_client=http,
            max_retries=0,
            dimensions=4,
        )
        vectors = embeddings.embed_documents(["one", "two"])
        assert upstream.asked().json["input"] == [list(b"one"), list(b"two")]
        assert [packed(vector) for vector in vectors] == [packed(VECTOR)] * 2
        assert packed(embeddings.embed_query("three")) == packed(VECTOR)
        assert len(OpenAIEmbeddings(**_plain(house), http_client=http).embed_documents(["a", "b"])) == 2


def _plain(house: Gateway) -> dict[str, Any]:
    """LangChain told to send the texts themselves, to the translated lane."""
    return {
        "model": "fake/fake",
        "base_url": f"{house.url}/v1",
        "api_key": SecretStr(APP_KEY),
        "check_embedding_ctx_length": False,
        "max_retries": 0,
    }


def test_embeddings_are_metered(house: Gateway, client: httpx2.Client) -> None:
    answer = client.post(EMBEDDINGS, json=texts())
    row = usage_row(house.folder, answer.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (7, None)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "empty_array"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": [1, "a"], "model": "fake/fake"}, "input[0]", "invalid_type"),
        ({"encoding_format": "int8", "model": "fake/fake"}, "encoding_format", "invalid_value"),
        ({"dimensions": "4"}, "dimensions", "invalid_type"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(
    client: httpx2.Client, upstream: Provider, fields: dict[str, Any], param: str, code: str
) -> None:
    answer = client.post(EMBEDDINGS, json=texts(**fields))
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert upstream.seen == []


@pytest.mark.parametrize("name", ["once-html", "once-error_in_200", "once-embed-broken"])
def test_what_holds_no_vectors_is_an_error(client: httpx2.Client, upstream: Provider, name: str) -> None:
    async def broken(x: Exchange) -> None:
        x.answer(b'{"data":[{"embedding":"AAA"}]}')

    upstream.scripts["embed-broken"] = broken
    answer = client.post(EMBEDDINGS, json=texts(name))
    assert answer.status_code == 502
    assert error_of(answer)["type"] == "server_error"


def test_megabytes_of_vectors_change_their_form(client: httpx2.Client, upstream: Provider) -> None:
    rows = [{"embedding": [n / 7] * 1536, "index": n} for n in range(100)]

    async def many(x: Exchange) -> None:
        x.answer(json.dumps({"data": rows, "model": "m", "usage": {"prompt_tokens": 1}}).encode())

    upstream.scripts["many"] = many
    answer = client.post(EMBEDDINGS, json=texts("up/many", encoding_format="base64")).json()
    assert [one["embedding"] for one in answer["data"]] == [packed([n / 7] * 1536) for n in range(100)]


def test_a_translated_answer_is_openais(sdk: openai.OpenAI) -> None:
    answer = sdk.embeddings.create(model="fake/fake", input=["a b", "c"], dimensions=3)
    assert [one.index for one in answer.data] == [0, 1]
    assert {len(one.embedding) for one in answer.data} == {3}
    assert answer.usage.prompt_tokens == 3
    same = sdk.embeddings.create(model="fake/fake", input="a b", dimensions=3, encoding_format="float")
    assert packed(same.data[0].embedding) == packed(answer.data[0].embedding)
