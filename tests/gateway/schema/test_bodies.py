"""What is said of parameters is what the decoders and checks that read requests go by."""

import msgspec
import pytest

from compat import mesh, nativetask
from compat.anthropic.body import MessagesRequest
from compat.canonical.error import GatewayError, InvalidRequest
from compat.openai import chat, completions, embeddings, images, llamafield, rerank, responses
from gateway.schema.bodies import BODIES, Body, components, parameters, word
from gateway.schema.carriage import asking

KINDS = {
    "chat": chat.KINDS | llamafield.KINDS,
    "completions": completions.KINDS | llamafield.KINDS,
    "embeddings": embeddings.KINDS,
    "rerank": rerank.KINDS,
    "image_edits": images.KINDS,
    "3d": mesh.KINDS,
    "responses": responses.KINDS,
}
NOT_HERE = frozenset({"unsupported_parameter", "thread_unsupported_request", "unsupported_value"})
"""Codes of what is understood and cannot be translated."""
EVERY = [(body, name) for body in BODIES for name in parameters(body)]


def named(case: tuple[Body, str]) -> str:
    return f"{case[0].path}-{case[0].modality}-{case[1]}"


def read(body: Body, asked: object) -> None:
    body.parse(body.peek(msgspec.json.encode(asked)))


def refusal(body: Body, asked: object) -> GatewayError | None:
    try:
        read(body, asked)
    except GatewayError as e:
        return e
    return None


@pytest.mark.parametrize("body", BODIES, ids=lambda body: f"{body.path}-{body.modality}")
def test_the_least_that_can_be_asked_can_be_asked(body: Body) -> None:
    read(body, body.start)
    assert set(body.start) >= set(components()[body.name]["required"])


def test_nothing_that_is_looked_at_is_left_out() -> None:
    for body in BODIES:
        assert set(KINDS.get(body.dialect, ())) <= set(parameters(body)), body.path
        native = {f"parameters.{name}" for name in nativetask.Parameters.__struct_fields__}
        assert set(body.limits) <= set(parameters(body)) | native, body.path
        assert set(body.words) <= set(parameters(body)), body.path


def test_every_field_of_the_structs_that_read_is_there() -> None:
    for body in BODIES:
        fields = set(body.struct.__struct_encode_fields__) - set(body.parts)
        assert fields <= set(parameters(body)), body.path


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_every_example_is_read(case: tuple[Body, str]) -> None:
    body, name = case
    values = [*word(body, name).examples, *(v for v in parameters(body)[name].get("enum", ()) if v is not None)]
    for value in values:
        refused = refusal(body, asking(body, name, value))
        other = name in ("modality", "input.messages", "input.images")  # not for every modality
        assert refused is None or refused.code in NOT_HERE or other, (value, refused)


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_a_number_beyond_its_range_is_refused_and_one_at_its_end_is_not(case: tuple[Body, str]) -> None:
    body, name = case
    schema = parameters(body)[name]
    for end, beyond in (("minimum", -1), ("maximum", 1)):
        if (limit := schema.get(end)) is None:
            continue
        if not (name == "max_tokens" and limit == 0):  # a completion may have none, but not a translated one
            read(body, asking(body, name, limit))
        if abs(limit) >= 2**63 - 1:
            continue
        with pytest.raises(InvalidRequest) as refused:
            read(body, asking(body, name, limit + beyond))
        assert refused.value.param in (name, name.rpartition(".")[2])


@pytest.mark.parametrize("case", [c for c in EVERY if "enum" in parameters(c[0])[c[1]]], ids=named)
def test_a_word_that_is_not_among_them_is_refused(case: tuple[Body, str]) -> None:
    body, name = case
    with pytest.raises(InvalidRequest) as refused:
        read(body, asking(body, name, "no-such-word"))
    assert (refused.value.param or "").startswith(name)


def test_a_default_is_of_its_type_and_every_parameter_is_described() -> None:
    kinds = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    for body, name in EVERY:
        schema = parameters(body)[name]
        assert schema["description"].endswith("."), name
        if (default := schema.get("default")) is not None:
            found = [schema.get("type"), *schema.get("anyOf", ()), "string" if "enum" in schema else None]
            assert kinds[type(default)] in str(found), (name, default)


def test_ranges_that_a_struct_has_are_read_from_it() -> None:
    fields = {body.dialect: parameters(body) for body in BODIES}["messages"]
    assert fields["temperature"]["maximum"] == 1
    assert fields["max_tokens"]["minimum"] == 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"messages":[],"temperature":1.5}', type=MessagesRequest)
