"""The documents, and whether the checks of them have teeth."""

import copy
import json
from typing import Any

import pytest

from tests import wire
from tests.claude import fixture
from tests.schemas.published import Provider, published

CHAT: dict[str, Any] = json.loads(wire.fixture("text.json"))
MESSAGE: dict[str, Any] = json.loads(fixture("text.json"))
RESPONSE: dict[str, Any] = json.loads(wire.fixture("responses_provider.json"))


def changed(value: dict[str, Any], path: str, new: Any = ...) -> dict[str, Any]:
    """A copy with one thing replaced, or left out."""
    out = copy.deepcopy(value)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at: Any = out
    for step in way:
        at = at[step]
    if new is ...:
        del at[last]
    else:
        at[last] = new
    return out


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_document_is_the_one_that_was_fetched_from_its_provider(provider: Provider) -> None:
    document = published(provider)
    assert document.digest == document.metadata["hash"]
    assert document.metadata["source"].startswith("https://")
    assert (document.metadata["protocol"], document.metadata["provider"]) == (provider, "official")


def test_every_endpoint_that_the_gateway_has_of_them_is_in_the_documents() -> None:
    openai, anthropic = published("openai").paths, published("anthropic").paths
    for path in ("", "/{response_id}", "/{response_id}/input_items", "/{response_id}/cancel"):
        assert f"/responses{path}" in openai
    for path in ("chat/completions", "completions", "embeddings", "images/generations", "images/edits", "models"):
        assert f"/{path}" in openai
    assert {"/v1/messages", "/v1/messages/count_tokens", "/v1/models"} <= set(anthropic)


@pytest.mark.parametrize(
    ("provider", "schema", "value", "told"),
    [
        ("openai", "CreateChatCompletionResponse", changed(CHAT, "choices.0.logprobs"), "$.choices[0]: 'logprobs'"),
        ("openai", "CreateChatCompletionResponse", changed(CHAT, "choices.0.message.refusal"), "message: 'refusal'"),
        ("openai", "CreateChatCompletionResponse", changed(CHAT, "choices.0.finish_reason", "ended"), "'ended' is not"),
        ("openai", "CreateChatCompletionResponse", changed(CHAT, "created", "now"), "$.created: 'now'"),
        ("openai", "Response", changed(RESPONSE, "output.1.content.0.annotations"), "'annotations' is a required"),
        (
            "openai",
            "Response",
            changed(RESPONSE, "output.1.content.0.type", "text"),
            "$.output[1].content[0].type: 'text'",
        ),
        ("openai", "Response", changed(RESPONSE, "usage.total_tokens", None), "$.usage.total_tokens: None"),
        ("anthropic", "Message", changed(MESSAGE, "stop_sequence"), "'stop_sequence' is a required"),
        ("anthropic", "Message", changed(MESSAGE, "stop_reason", "stop"), "'stop' is not"),
        ("anthropic", "Message", changed(MESSAGE, "content.0.citations"), "$.content[0]: 'citations'"),
        ("anthropic", "ErrorResponse", {"type": "error", "error": {"type": "x", "message": "m"}}, "'request_id'"),
    ],
)
def test_what_is_wrong_is_found_and_told(provider: Provider, schema: str, value: Any, told: str) -> None:
    found = published(provider).faults(schema, value)
    assert len(found) >= 1
    assert any(told in fault for fault in found), found


def test_what_is_right_is_not_found_wrong() -> None:
    assert published("openai").faults("CreateChatCompletionResponse", CHAT) == []
    assert published("openai").faults("Response", RESPONSE) == []
    assert published("anthropic").faults("Message", MESSAGE) == []


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("models.json", "ListResponse_ModelInfo_"),
        ("error_400.json", "ErrorResponse"),
        ("error_429.json", "ErrorResponse"),
    ],
)
def test_what_the_stand_in_for_anthropic_says_besides_is_right(name: str, schema: str) -> None:
    assert published("anthropic").faults(schema, json.loads(fixture(name))) == []


def test_what_the_document_does_not_have_is_found() -> None:
    openai = published("openai")
    assert openai.undocumented("CreateChatCompletionResponse", CHAT) == set()
    strange = changed(CHAT, "choices.0.message.finish", "stop")
    assert openai.undocumented("CreateChatCompletionResponse", strange) == {"choices[].message.finish"}
    # A field of one kind of item is none of another.
    strange = changed(RESPONSE, "output.1.arguments", "{}")
    assert "output[].arguments" in openai.undocumented("Response", strange)
