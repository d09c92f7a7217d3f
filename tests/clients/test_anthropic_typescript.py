"""Anthropic's SDK for TypeScript (`node/anthropic.mjs`)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.claude import fixture
from tests.clients.node import INSTALL_S, Said
from tests.process import Gateway

pytestmark = pytest.mark.timeout(INSTALL_S)  # the first one installs the packages
MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def said(node: Callable[[str], Said]) -> Said:
    return node("anthropic")


@pytest.mark.feature("anthropic (TypeScript)", "chat")
def test_an_answer_is_whole(said: Said) -> None:
    answer = said["chat"]
    [block] = answer["content"]
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", MODEL)
    # An empty list: the published schema wants the field, and Vercel's AI SDK refuses null.
    assert block == {"type": "text", "text": block["text"], "citations": []}
    assert block["text"]
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"]["output_tokens"] == 8


@pytest.mark.feature("anthropic (TypeScript)", "chat")
def test_claudes_answer_comes_as_it_is(said: Said) -> None:
    assert said["relayed"]["id"] == "msg_01XFDUDYJgAACzvnptvVoYEL"
    assert said["relayed"]["content"] == json.loads(fixture("text.json"))["content"]
    assert said["relayed"]["usage"]["cache_read_input_tokens"] == 100


@pytest.mark.feature("anthropic (TypeScript)", "stream")
def test_a_stream_is_the_answer_in_pieces(said: Said) -> None:
    events = said["stream"]["events"]
    pieces = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert len(pieces) > 2
    assert "".join(pieces) == said["stream"]["text"]
    assert [e["type"] for e in events if e["type"] != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    final = said["stream"]["final"]
    assert final["content"][0]["text"] == said["stream"]["text"]
    assert final["stop_reason"] == "max_tokens"
    assert final["usage"]["output_tokens"] == 8


def calls(message: Said) -> list[tuple[str, Any]]:
    return [(block["name"], block["input"]) for block in message["content"] if block["type"] == "tool_use"]


BOTH = [("add", {"a": 6, "b": 7}), ("multiply", {"a": 6, "b": 7})]


@pytest.mark.feature("anthropic (TypeScript)", "tools")
def test_the_tool_runner_calls_both_tools_and_reads_their_results(said: Said) -> None:
    final, (_, asked, results, *_) = said["tools"]["final"], said["tools"]["messages"]
    assert calls(asked) == BOTH
    assert [block["content"] for block in results["content"]] == ["13", "42"]
    assert final["content"][0]["text"] == "The tool says: 42"
    assert final["stop_reason"] == "end_turn"


@pytest.mark.feature("anthropic (TypeScript)", "streamed tools")
def test_the_streaming_tool_runner_does_the_same(said: Said) -> None:
    asked, final = said["streamedTools"]
    assert calls(asked) == BOTH
    assert asked["stop_reason"] == "tool_use"
    assert final["content"][0]["text"] == "The tool says: 42"


@pytest.mark.feature("anthropic (TypeScript)", "object")
def test_an_object_fits_its_schema(said: Said) -> None:
    assert said["object"]["course"] in {"starter", "main", "dessert"}
    assert isinstance(said["object"]["vegetarian"], bool)


@pytest.mark.feature("anthropic (TypeScript)", "streamed object")
def test_a_streamed_object_is_the_same(said: Said) -> None:
    assert said["streamedObject"] == said["object"]


@pytest.mark.feature("anthropic (TypeScript)", "reasoning")
def test_thinking_comes_in_its_order_with_its_signatures(said: Said) -> None:
    blocks = said["reasoning"]
    assert [b["type"] for b in blocks] == ["thinking", "redacted_thinking", "text", "thinking", "tool_use"]
    assert blocks[0]["thinking"] == "Let me solve this step by step."
    assert blocks[0]["signature"].startswith("EqQBCg")


@pytest.mark.feature("anthropic (TypeScript)", "image input")
def test_a_picture_reaches_a_model_of_another_dialect(said: Said) -> None:
    assert said["seen"] == "I see 1: data:image/png"


@pytest.mark.feature("anthropic (TypeScript)", "token count")
def test_tokens_are_counted_by_the_model_that_would_answer(said: Said) -> None:
    assert said["count"]["local"]["input_tokens"] == 33
    assert said["count"]["claude"] == {"input_tokens": 2095}


@pytest.mark.feature("anthropic (TypeScript)", "models")
def test_models_are_listed_and_described(said: Said) -> None:
    ids = said["models"]["ids"]
    assert len(ids) == len(set(ids)) > 4
    assert {"auto", "anthropic/claude-opus-4-6"} <= set(ids)
    one = said["models"]["one"]
    assert (one["type"], one["id"], one["max_input_tokens"]) == ("model", "anthropic/claude-opus-4-6", 1_000_000)


@pytest.mark.feature("anthropic (TypeScript)", "errors")
def test_errors_have_their_class(said: Said) -> None:
    errors = said["errors"]
    assert errors["missing"] == {"name": "NotFoundError", "status": 404, "type": "not_found_error"}
    assert errors["empty"] == {"name": "BadRequestError", "status": 400, "type": "invalid_request_error"}
    assert errors["streamed"] == errors["empty"]


@pytest.mark.feature("anthropic (TypeScript)", "headers")
def test_headers_are_at_hand(said: Said) -> None:
    assert said["headers"]["text"]
    assert said["headers"]["request_id"] == "typescript-own-id"
    assert said["headers"]["model"] == f"local/{MODEL}"


@pytest.mark.feature("anthropic (TypeScript)", "leaving")
def test_a_stream_that_is_left_is_stopped(said: Said, local_gateway: Gateway) -> None:
    assert said["leaving"] is True
    local_gateway.wait_for("request_finished", 5, request_id="typescript-leaves", status=499)
