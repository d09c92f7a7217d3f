"""Vercel's AI SDK, with each of the three providers that fit the gateway (`node/ai.mjs`).

`openai` speaks the Responses API, `openai-compatible` chat completions, `anthropic` messages.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.node import INSTALL_S, Said
from tests.clients.stand_in import PICTURE, vector
from tests.process import Gateway

pytestmark = pytest.mark.timeout(INSTALL_S)  # the first one installs the packages
MODEL = "smollm2-135m-instruct"
PROVIDERS = ("openai-compatible", "openai", "anthropic")


def each(feature: str, *providers: str) -> pytest.MarkDecorator:
    """Run a test with these providers, or all, and mark what it shows for each."""
    clients = {name: f"AI SDK, {name}" for name in providers or PROVIDERS}
    params = [pytest.param(name, marks=pytest.mark.feature(client, feature)) for name, client in clients.items()]
    return pytest.mark.parametrize("provider", params)


@pytest.fixture(scope="module")
def all_said(node: Callable[[str], Said]) -> Said:
    return node("ai")


@pytest.fixture
def said(all_said: Said, provider: str) -> Said:
    """What one provider said, case by case."""
    return {case.partition(".")[2]: what for case, what in all_said.items() if case.partition(".")[0] == provider}


@each("chat")
def test_text_is_generated(said: Said) -> None:
    answer = said["chat"]
    assert answer["text"]
    assert (answer["finishReason"], answer["model"]) == ("length", MODEL)
    assert answer["usage"]["inputTokens"] > 5
    assert answer["usage"]["outputTokens"] == 8


@each("stream")
def test_text_is_streamed(said: Said) -> None:
    streamed = said["stream"]
    assert len(streamed["pieces"]) > 2
    assert "".join(streamed["pieces"]) == streamed["text"] != ""
    assert streamed["finishReason"] == "length"
    assert streamed["usage"]["outputTokens"] == 8


@each("object")
def test_an_object_fits_its_schema(said: Said) -> None:
    assert said["object"]["course"] in {"starter", "main", "dessert"}
    assert isinstance(said["object"]["vegetarian"], bool)


@each("streamed object")
def test_a_streamed_object_grows_to_the_same(said: Said) -> None:
    assert said["streamedObject"]["object"] == said["object"]
    assert said["streamedObject"]["partial"] > 1


@each("object", "anthropic")
def test_an_object_can_be_asked_for_by_a_tool(said: Said) -> None:
    assert said["objectByTool"] == {"course": "starter", "vegetarian": True}


def check_steps(steps: dict[str, Any]) -> None:
    assert steps["calls"] == [["add", {"a": 6, "b": 7}], ["multiply", {"a": 6, "b": 7}]]
    assert steps["results"] == [13, 42]
    assert steps["finish"] == ["tool-calls", "stop"]
    assert steps["text"].startswith("The tool says: ")


@each("tools")
def test_tools_are_called_and_their_results_read(said: Said) -> None:
    check_steps(said["tools"])


@each("streamed tools")
def test_streamed_tool_calls_do_the_same(said: Said) -> None:
    check_steps(said["streamedTools"])
    assert said["streamedTools"]["inputs"] > 2


@each("responses", "openai")
def test_by_responses_and_by_chat_the_answers_are_the_same(said: Said) -> None:
    assert said["chat_api"] == said["stream"]["text"]
    check_steps(said["chat_api_tools"])


@each("streamed responses", "openai")
def test_a_streamed_response_says_what_it_used(said: Said) -> None:
    assert said["stream"]["usage"]["raw"]["output_tokens"] == 8


@each("reasoning", "openai-compatible", "anthropic")
def test_thinking_comes_apart_from_the_answer(said: Said) -> None:
    assert said["reasoning"]["reasoning"] == "Let me solve this step by step."
    assert said["reasoning"]["text"] == "The weather first."
    assert said["reasoning"]["calls"] == ["get_weather"]


@each("image input")
def test_a_picture_reaches_the_model(said: Said) -> None:
    assert said["seen"] == "I see 1: data:image/png"


@each("embeddings", "openai-compatible", "openai")
def test_one_text_and_many_are_embedded(said: Said) -> None:
    assert said["embeddings"]["one"] == vector("one")
    assert said["embeddings"]["many"] == [vector("one"), vector("two")]
    assert said["embeddings"]["usage"]["tokens"] == 2


@each("images", "openai-compatible", "openai")
def test_a_picture_is_made(said: Said) -> None:
    assert said["image"] == {"base64": PICTURE, "type": "image/png"}


@each("image edits", "openai-compatible", "openai")
def test_a_picture_is_edited(said: Said) -> None:
    assert said["edit"] == PICTURE


@each("errors")
def test_a_refusal_is_an_error_of_the_sdk_that_is_not_retried(said: Said) -> None:
    error = said["errors"]
    assert (error["name"], error["status"], error["retryable"]) == ("AI_APICallError", 404, False)
    assert "no-such-model" in error["message"]


@each("headers")
def test_headers_are_at_hand(said: Said, provider: str) -> None:
    assert said["headers"] == {"id": f"{provider}-id", "model": f"local/{MODEL}"}


@each("leaving")
def test_a_stream_that_is_left_is_stopped(said: Said, provider: str, local_gateway: Gateway) -> None:
    assert said["leaving"] is True
    local_gateway.wait_for("request_finished", 5, request_id=f"ai-{provider}-leaves", status=499)
