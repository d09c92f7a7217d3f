"""Messages: relayed, translated from OpenAI's dialect, and local."""

from typing import Any

import pytest

from tests.schemas.held import Held, Json

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
WEATHER: Json = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}
STREAMED = ["text", "tools", "thinking", "stop_sequence", "refusal", "server_tool", "overloaded"]
TRANSLATED = ["answer", "play:text", "play:tools", "play:vendor", "refuse", "short", "think", "call"]
LOCAL: list[Json] = [
    {},
    {"stop_sequences": ["e"]},
    {"tools": [WEATHER]},
    {"tools": [WEATHER], "tool_choice": {"type": "any"}},
]


def message(model: str, **fields: Any) -> Json:
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "Say hello."}]} | fields


def types(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def test_a_relayed_message(anthropic: Held) -> None:
    assert anthropic.whole(MESSAGES, json=message("claude/claude-opus-4-6:text"))["stop_reason"] == "end_turn"


@pytest.mark.parametrize("name", STREAMED)
def test_a_relayed_stream(anthropic: Held, name: str) -> None:
    events = anthropic.stream(MESSAGES, json=message(f"claude/claude-opus-4-6:{name}", stream=True))
    assert types(events)[-1] == ("error" if name == "overloaded" else "message_stop")


@pytest.mark.parametrize("thinking", [{}, THINKING], ids=["plain", "thinking"])
@pytest.mark.parametrize("name", TRANSLATED)
def test_a_translated_message(anthropic: Held, name: str, thinking: Json) -> None:
    asked = message(f"up/{name}", tools=[WEATHER]) | thinking
    whole = anthropic.whole(MESSAGES, json=asked)
    events = anthropic.stream(MESSAGES, json=asked | {"stream": True})
    assert types(events)[-2:] == ["message_delta", "message_stop"]
    if name != "call":
        assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"]


@pytest.mark.parametrize("options", LOCAL, ids=lambda options: "+".join(options) or "plain")
def test_a_local_message(local_anthropic: Held, options: Json) -> None:
    asked = message("auto", max_tokens=10, temperature=0, **options)
    local_anthropic.whole(MESSAGES, json=asked)
    events = local_anthropic.stream(MESSAGES, json=asked | {"stream": True})
    assert types(events)[-1] == "message_stop"


def test_counted_tokens(anthropic: Held, local_anthropic: Held) -> None:
    for held, model in ((anthropic, "claude/claude-opus-4-6:text"), (local_anthropic, "auto")):
        asked = message(model)
        del asked["max_tokens"]
        assert held.whole(COUNT, json=asked)["input_tokens"] > 0


def test_models(anthropic: Held) -> None:
    version = {"anthropic-version": "2023-06-01"}
    listed = anthropic.whole("/v1/models", "get", headers=version)["data"]
    assert "claude/claude-opus-4-6" in {model["id"] for model in listed}
    assert anthropic.whole("/v1/models/{model_id}", "get", id_="auto", headers=version)["id"] == "auto"


def test_what_a_client_sends_back_costs_it_nothing(anthropic: Held) -> None:
    """The fields that an answer has because the document wants them are not reported as dropped."""
    asked = message("up/call", tools=[WEATHER])
    content = anthropic.whole(MESSAGES, json=asked)["content"]
    results = [{"type": "tool_result", "tool_use_id": block["id"], "content": "30"} for block in content]
    said = [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    answer = anthropic.http.post(MESSAGES, json=asked | {"messages": asked["messages"] + said})
    assert "x-gateway-dropped" not in answer.headers
