"""Embeddings: requests read, vectors given the form that was asked for, to the last bit."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.error import InvalidRequest
from compat.canonical.event import Result, Started, Usage
from compat.canonical.request import EmbeddingRequest, Envelope
from compat.openai.embeddings import INPUTS_MAX, EmbeddingsTap, parse_request, peek, render_result
from compat.openai.envelope import upstream_body
from tests.wire import dump

float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(st.lists(float32, min_size=1, max_size=8), min_size=1, max_size=4)


def asked(**fields: Any) -> Envelope:
    return peek(dump({"model": "m", "input": "a", **fields}))


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def answer(rows: list[Any]) -> bytes:
    data = [{"object": "embedding", "index": n, "embedding": row, "note": 1.5} for n, row in enumerate(rows)]
    usage = {"prompt_tokens": 3, "total_tokens": 3, "vendor": {"x": 1}}
    return dump({"object": "list", "data": data, "model": "m-1", "usage": usage, "extra": "\u00e9"})


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [1, 2]], ("a", (1, 2))),
    ],
)
def test_every_form_of_input_is_read(given_input: Any, inputs: tuple[Any, ...]) -> None:
    request = parse_request(asked(input=given_input, dimensions=4, user="u", vendor=[1], encoding_format="base64"))
    assert request == EmbeddingRequest(model="m", inputs=inputs, dimensions=4, user="u", extra={"vendor": [1]})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"model": 5}, "model", "invalid_type"),
        ({"dimensions": "4"}, "dimensions", "invalid_type"),
        ({"encoding_format": 1}, "encoding_format", "invalid_type"),
        ({"api_key": "x"}, "api_key", "unknown_parameter"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, "a"]}, "input[0]"),
        ({"input": ["a", True]}, "input[1]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": [[1, "a"]]}, "input[0][1]"),
        ({"input": ["a"] * (INPUTS_MAX + 1)}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 1.5}, "dimensions"),
    ],
)
def test_a_translated_request_is_refused_by_the_path(fields: dict[str, Any], param: str) -> None:
    envelope = asked(**fields)  # a provider that speaks the dialect may know better
    with pytest.raises(InvalidRequest) as refused:
        parse_request(envelope)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b'{"input": [ ]}', b'{"input": [' + b" " * 100 + b"]}"])
def test_an_empty_input_is_empty_however_it_is_written(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        peek(body)
    assert refused.value.code == "empty_array"


def test_space_before_an_input_does_not_make_it_empty() -> None:
    peek(b'{"input": [' + b" " * 100 + b'"a"]}')


def test_a_stream_of_vectors_does_not_exist() -> None:
    envelope = asked(stream=True)
    assert not envelope.stream
    assert json.loads(upstream_body(envelope, "x")) == {"model": "x", "input": "a", "stream": True}


@given(vectors)
def test_numbers_become_base64_to_the_last_bit(rows: list[list[float]]) -> None:
    body = EmbeddingsTap(asked(encoding_format="base64")).whole(answer(rows))
    assert body is not None
    assert [one["embedding"] for one in json.loads(body)["data"]] == [packed(row) for row in rows]


@given(vectors)
def test_base64_becomes_numbers_to_the_last_bit(rows: list[list[float]]) -> None:
    for fields in ({}, {"encoding_format": "float"}):
        body = EmbeddingsTap(asked(**fields)).whole(answer([packed(row) for row in rows]))
        assert body is not None
        assert [packed(one["embedding"]) for one in json.loads(body)["data"]] == [packed(row) for row in rows]


@given(vectors)
def test_translated_vectors_come_in_both_forms(rows: list[list[float]]) -> None:
    result = Result(
        started=Started(id="x", model="m-1", created=1),
        vectors=tuple(tuple(row) for row in rows),
        usage=Usage(input_tokens=3),
    )
    plain = json.loads(render_result(result, asked()))
    assert [one["embedding"] for one in plain["data"]] == rows
    assert plain["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    tight = json.loads(render_result(result, asked(encoding_format="base64")))
    assert [one["embedding"] for one in tight["data"]] == [packed(row) for row in rows]


@pytest.mark.parametrize(("form", "row"), [("float", [0.5, 1]), ("base64", packed([0.5, 1]))])
def test_what_has_the_right_form_passes_untouched_and_is_metered(form: str, row: Any) -> None:
    tap = EmbeddingsTap(asked(encoding_format=form))
    body = answer([row, row])
    assert tap.whole(body) is body
    assert (tap.usage, tap.model) == (Usage(input_tokens=3), "m-1")


def test_nothing_but_the_form_changes() -> None:
    body = EmbeddingsTap(asked(encoding_format="base64")).whole(answer([[0.5], [1.0]]))
    assert body == answer([packed([0.5]), packed([1.0])])


@pytest.mark.parametrize("row", ["AAA", "AAAA", "\u00e9", ["a"], [None], [[1.0]]])
def test_a_vector_that_cannot_be_read_makes_a_bad_answer(row: Any) -> None:
    form = "float" if isinstance(row, str) else "base64"
    assert EmbeddingsTap(asked(encoding_format=form)).whole(answer([row])) is None
