"""Reading a client's body: whatever the bytes are, a value or an InvalidRequest."""

import json
import time
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from compat import native
from compat.body import (
    CONTAINERS_MAX,
    CREDENTIAL_FIELDS,
    DEPTH_MAX,
    FIELDS_MAX,
    NAMES_MAX,
    STEP_BYTES,
    VALUES_MAX,
    check_kinds,
    decode_raw,
    kind_of,
    read,
    read_fields,
    read_whole,
    whole_number,
)
from compat.canonical.error import InvalidRequest
from compat.openai import chat


class _Inner(Struct, forbid_unknown_fields=True):
    size: int
    name: str = ""


class _Outer(Struct):
    inner: _Inner
    items: list[_Inner] = []


_outer = msgspec.json.Decoder(_Outer)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as wrong:
        read_fields(body)
    return wrong.value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "could not parse"),
        (b"{", "could not parse"),
        (b'{"a":1}x', "could not parse"),
        (b'{"a":01}', "could not parse"),
        (b"[]", "must be a JSON object"),
        (b"7", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"\xff", "not valid UTF-8"),
        (b'{"a":"\xc3"}', "not valid UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, words: str) -> None:
    assert words in refused(body).message


def nested(depth: int, open_: bytes = b"[", close: bytes = b"]") -> bytes:
    return b'{"a":' + open_ * (depth - 1) + b"1" + close * (depth - 1) + b"}"


@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"x":', b"}"), (b'[{"x":[', b"]}]")])
def test_nesting_is_taken_to_the_limit_and_no_further(open_: bytes, close: bytes) -> None:
    levels = open_.count(b"[") + open_.count(b"{")
    inside = (DEPTH_MAX - 1) // levels + 1
    read_fields(nested(inside, open_, close))
    assert "nests deeper" in refused(nested(inside + 1, open_, close)).message


@pytest.mark.parametrize("body", [nested(100_000), b"[" * 100_000, b'{"a":' * 100_000, nested(100_000, b'{"a":', b"}")])
def test_a_hundred_thousand_levels_are_refused_quickly(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65 + b'"' + b'\\"' * 1_000_000,
        b"[" * 65 + b'"' + b"\\" * 1_000_001,
        b'{"a":"' + b"[" * 4_000_000,
        b'{"a":[' + b'"[\\"",' * 100_000,
    ],
    ids=["escaped quotes", "backslashes", "brackets", "strings"],
)
def test_a_string_without_end_costs_one_look(body: bytes) -> None:
    began = time.perf_counter()
    refused(body)
    assert time.perf_counter() - began < 5


def test_there_is_an_end_to_arrays_and_objects() -> None:
    flat = b'{"a":[' + b"[]," * CONTAINERS_MAX
    assert "more than" in refused(flat + b"0]}").message
    read_fields(b'{"a":[' + b"[]," * (CONTAINERS_MAX - 2) + b"0]}")


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"k%d":1' % n for n in range(FIELDS_MAX + 1)) + b"}",
        b'{"a":[' + b'"x",' * VALUES_MAX + b'"x","x"]}',
        b'{"a":{' + b'"x":1,' * (NAMES_MAX + 1) + b'"x":1}}',
    ],
    ids=["fields", "values", "names"],
)
def test_there_is_an_end_to_values_and_names(body: bytes) -> None:
    assert "has more than" in refused(body).message


def test_what_strings_hold_is_not_counted() -> None:
    for text in ("," * (VALUES_MAX + 9), '\\",' * (VALUES_MAX + 9), '{":' * NAMES_MAX):
        assert decode_raw(read_fields(json.dumps({"a": text}).encode())["a"]) == text


@pytest.mark.parametrize("before", range(4))
def test_a_string_may_lie_across_steps(before: int) -> None:
    text = "x" * (STEP_BYTES - 10 + before) + '\\"[' * 200_000
    assert decode_raw(read_fields(json.dumps({"a": text}).encode())["a"]) == text


def test_brackets_in_strings_are_no_nesting() -> None:
    for text in ("[" * 1000, '{"' * 1000, '\\"[' * 500, "\\" * 999 + "[" * 100):
        assert decode_raw(read_fields(json.dumps({"a": text}).encode())["a"]) == text


def test_wide_is_not_deep() -> None:
    read_fields(json.dumps({"a": [{"b": []}] * 5000}).encode())


@pytest.mark.parametrize("name", sorted(CREDENTIAL_FIELDS))
def test_a_field_that_steers_credentials_is_refused_and_named(name: str) -> None:
    error = refused(json.dumps({"model": "m", name: "x"}).encode())
    assert (error.param, error.code) == (name, "unknown_parameter")
    read_fields(json.dumps({"messages": [{name: "x"}]}).encode())


def test_an_escaped_name_is_the_same_name() -> None:
    assert refused(b'{"api\\u005fkey":"x"}').param == "api_key"


@pytest.mark.parametrize(
    ("value", "kind"),
    [("x", "string"), (1, "number"), (-1.5, "number"), (True, "boolean"), (False, "boolean"), (None, "null"),
     ([], "array"), ({}, "object")],
)  # fmt: skip
def test_the_kind_of_a_value_is_told_by_its_first_byte(value: Any, kind: str) -> None:
    for spacing in ("", " ", "\n\t "):
        body = f'{{"a":{spacing}{json.dumps(value)}{spacing}}}'.encode()
        assert kind_of(read_fields(body)["a"]) == kind


def test_a_field_of_the_wrong_kind_is_named() -> None:
    fields = read_fields(b'{"a":"x","b":null,"c":[1]}')
    check_kinds(fields, {"a": ("string",), "b": ("number",), "c": ("string", "array")})
    with pytest.raises(InvalidRequest) as wrong:
        check_kinds(fields, {"a": ("number",)})
    assert (wrong.value.param, wrong.value.code) == ("a", "invalid_type")


@pytest.mark.parametrize(
    ("body", "at", "param", "code"),
    [
        (b"{}", "", "inner", "missing_required_parameter"),
        (b'{"inner":{}}', "", "inner.size", "missing_required_parameter"),
        (b'{"inner":{"size":"x"}}', "", "inner.size", "invalid_type"),
        (b'{"inner":{"size":1,"sise":1}}', "", "inner.sise", "unknown_parameter"),
        (b'{"inner":{"size":1},"items":[{"size":1},{}]}', "", "items[1].size", "missing_required_parameter"),
        (b'{"inner":7}', "", "inner", "invalid_type"),
        (b"[]", "", None, None),
        (b'{"inner":{"size":"x"}}', "deep", "deep.inner.size", "invalid_type"),
        (b"7", "deep", "deep", "invalid_type"),
        (b"{", "deep", "deep", None),
    ],
)
def test_an_error_names_the_path(body: bytes, at: str, param: str | None, code: str | None) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        read(body, _outer, at)
    assert (wrong.value.param, wrong.value.code) == (param, code)
    assert "$" not in wrong.value.message


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_value_or_an_invalid_request(body: bytes) -> None:
    for reads in (read_fields, chat.peek, native.peek, lambda b: read_whole(b, _outer)):
        with suppress(InvalidRequest):
            reads(body)


MESSY = st.dictionaries(
    st.sampled_from(["model", "messages", "stream", "stream_options", "n", "input", "parameters", "tools", "content"]),
    JSON,
)


@given(MESSY)
def test_arbitrary_json_is_a_request_or_an_invalid_request(value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    for module in (chat, native):
        with suppress(InvalidRequest):
            module.parse_request(module.peek(body))


@given(st.dictionaries(st.text(), JSON, max_size=6).filter(lambda d: CREDENTIAL_FIELDS.isdisjoint(d)))
def test_fields_keep_their_order_and_values(value: dict[str, Any]) -> None:
    fields = read_fields(json.dumps(value).encode())
    assert list(fields) == list(value)
    assert {name: decode_raw(raw) for name, raw in fields.items()} == value


def test_a_value_that_was_not_checked_by_its_field_is_still_refused_kindly() -> None:
    for raw in (b'"\\ud800"', b'"\\x"', b"\x01"):
        with pytest.raises(InvalidRequest):
            decode_raw(Raw(raw))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("7", 7), ("007", 7), (b"99", 99), ("100", None), ("", None), ("-1", None), ("1.0", None),
        ("1e1", None), (" 1", None), ("\u0663", None), ("\u00b2", None), (b"\xb2", None), ("9" * 5000, None),
        (b"9" * 5000, None), ("0" * 5000, None),
    ],
)  # fmt: skip
def test_a_number_is_digits_and_not_too_many(text: str | bytes, number: int | None) -> None:
    assert whole_number(text, 99) == number
