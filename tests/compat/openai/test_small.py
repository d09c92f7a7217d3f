"""Usage, errors, lists of models and embeddings: the small shapes of OpenAI's dialect."""

import base64
import json
import struct
from typing import Any

import openai
import pytest

from compat.canonical import error as errors
from compat.canonical.error import BadResponse, GatewayError, InvalidRequest
from compat.canonical.event import Usage
from compat.canonical.model import Model
from compat.openai.embeddings import EmbeddingsTap, parse_request, peek
from compat.openai.error import Verdict, parse_error, render_error, render_error_frame
from compat.openai.models import parse_models, render_model
from compat.openai.usage import parse_usage, render_usage
from tests.http import shaped
from tests.wire import fixture


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (b'{"prompt_tokens":1,"completion_tokens":2}', Usage(input_tokens=1, output_tokens=2)),
        (b'{"prompt_tokens":1.0,"completion_tokens":null}', Usage(input_tokens=1)),
        (b'{"prompt_tokens":"1","completion_tokens":true}', Usage()),
        (b'{"prompt_tokens":-1}', Usage()),
        (b'{"prompt_tokens":1e300,"completion_tokens":99999999999999999999}', Usage()),
        (b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}', Usage(input_tokens=5, cached_tokens=3)),
        (b'{"prompt_tokens_details":null,"completion_tokens_details":[]}', Usage()),
        (b'{"completion_tokens_details":{"reasoning_tokens":7}}', Usage(reasoning_tokens=7)),
        (b'{"queue_time":0.1}', Usage()),
        (b"{}", Usage()),
        (b"null", None),
        (b"[]", None),
        (b"7", None),
        (b"", None),
        (b"{", None),
    ],
)
def test_usage_is_read_leniently(raw: bytes, usage: Usage | None) -> None:
    assert parse_usage(raw) == usage


@pytest.mark.parametrize("usage", [Usage(input_tokens=1, output_tokens=2, cached_tokens=0, reasoning_tokens=1)])
def test_usage_survives_being_written_and_read(usage: Usage) -> None:
    assert parse_usage(json.dumps(render_usage(usage)).encode()) == usage


def all_errors(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [kind for sub in root.__subclasses__() for kind in (sub, *all_errors(sub))]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_written_in_openais_shape(kind: type[GatewayError]) -> None:
    error = kind("Something is wrong.")
    assert shaped(json.loads(render_error(error)))["message"] == "Something is wrong."
    assert 400 <= error.status <= 599
    assert error.word
    frame = render_error_frame(error)
    assert frame.startswith(b'data: {"error":')
    assert frame.endswith(b"}\n\n")


def test_every_error_is_in_the_tree_drawn_at_the_top() -> None:
    assert errors.__doc__ is not None
    for kind in all_errors():
        if kind not in (errors.RequestError, errors.BackendError):
            assert f" {kind.__name__} " in errors.__doc__.replace("\n", " "), kind


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (
            fixture("error_context.json"),
            Verdict(
                message="This model's maximum context length is 128000 tokens.",
                type="invalid_request_error",
                param="messages",
                code="context_length_exceeded",
            ),
        ),
        (
            fixture("error_gemini.json"),
            Verdict(message="Resource has been exhausted (e.g. check quota).", status=429),
        ),
        (
            fixture("error_llama.json"),
            Verdict(
                message="the request exceeds the available context size", type="exceed_context_size_error", status=400
            ),
        ),
        (fixture("error_fastapi.json"), Verdict(message="Not authenticated")),
        (b'{"error":"plain words"}', Verdict(message="plain words")),
        (b'{"error":{"message":{"nested":1},"code":7,"type":[]}}', Verdict()),
        (b'{"error":null}', Verdict()),
        (b"<html>", Verdict()),
        (b"", Verdict()),
        (b"[]", Verdict()),
        (b"[7]", Verdict()),
        (b"\xff", Verdict()),
        (b"[" * 5000, Verdict()),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_whatever_a_provider_says_of_an_error_is_read(body: bytes, verdict: Verdict) -> None:
    assert parse_error(body) == verdict


def test_a_providers_long_message_is_cut() -> None:
    assert len(parse_error(json.dumps({"error": {"message": "x" * 100_000}}).encode()).message) == 2000


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("models.json", [("gpt-4o", None), ("gpt-5", None)]),
        ("models_openrouter.json", [("qwen/qwen3-8b", 131072)]),
        ("models_together.json", [("meta-llama/Llama-3-8b", 8192)]),
        ("models_gemini.json", [("gemini-2.5-flash", None)]),
        ("models_ollama.json", [("llama3.2:latest", None)]),
    ],
)
def test_every_providers_list_of_models_is_read(name: str, models: list[tuple[str, int | None]]) -> None:
    assert [(m.name, m.context_length) for m in parse_models(fixture(name), "up")] == models


@pytest.mark.parametrize("body", [b"", b"{}", b"7", b"null", b"<html>", b'{"data":7}', b'{"data":null}', b"\xff"])
def test_what_is_no_list_of_models_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_models(body, "up")


def test_rows_that_are_no_models_are_passed_over() -> None:
    body = b'[7, null, {}, {"id": 7}, {"id": "ok", "created": "yesterday", "owned_by": 3, "context_length": "8k"}]'
    assert parse_models(body, "up") == [Model(name="ok", backend="up")]


def test_a_model_is_written_with_openais_fields_first() -> None:
    written = render_model(Model(name="m", backend="up"))
    assert list(written)[:4] == ["id", "object", "created", "owned_by"]
    assert openai.types.Model.model_validate(written).id == "up/m"
    assert render_model(Model(name="m", backend="up"), "alias")["id"] == "alias"


def embeddings_answer(vector: Any) -> bytes:
    row = {"object": "embedding", "index": 0, "embedding": vector, "note": 1.50}
    return json.dumps(
        {"object": "list", "data": [row], "model": "e", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    ).encode()


VECTOR = [0.5, -1.25, 3.0]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


@pytest.mark.parametrize("asked", ["float", "base64", None])
@pytest.mark.parametrize("sent", [VECTOR, PACKED], ids=["numbers", "base64"])
def test_vectors_come_in_the_form_asked_for(asked: str | None, sent: Any) -> None:
    body: dict[str, Any] = {"model": "e", "input": "x"} | ({"encoding_format": asked} if asked else {})
    watch = EmbeddingsTap(peek(json.dumps(body).encode()))
    given = embeddings_answer(sent)
    got = watch.whole(given)
    assert got is not None
    expected = PACKED if asked == "base64" else VECTOR
    assert json.loads(got)["data"][0]["embedding"] == expected
    if sent == expected:
        assert got == given
    assert json.loads(got)["data"][0]["note"] == 1.5
    assert watch.usage == Usage(input_tokens=3)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", embeddings_answer("!!"), embeddings_answer("AAA="), embeddings_answer(["x"])]
)
def test_a_body_without_vectors_is_no_answer(body: bytes) -> None:
    asked = (
        b'{"model":"e","input":"x","encoding_format":"base64"}' if b'["x"]' in body else b'{"model":"e","input":"x"}'
    )
    assert EmbeddingsTap(peek(asked)).whole(body) is None


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("x", ("x",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_inputs_are_texts_or_tokens(given: Any, inputs: Any) -> None:
    assert parse_request(peek(json.dumps({"model": "e", "input": given}).encode())).inputs == inputs


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": []},
        {"input": None},
        {"input": 7},
        {"input": ["a", 1]},
        {"input": "x", "encoding_format": "hex"},
        {"input": ["x"] * 2049},
    ],
)
def test_inputs_that_are_none_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        parse_request(peek(json.dumps(body).encode()))
    assert wrong.value.param
