"""The Responses API: relayed, translated to both dialects, and local; as events, kept, listed, deleted."""

from typing import Any

import pytest

from tests.schemas.held import Held, Json

RESPONSES, ONE = "/responses", "/responses/{response_id}"
WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
BARE: Json = {"type": "function", "name": "get_weather"}
FORMAT: Json = {
    "format": {
        "type": "json_schema",
        "name": "dish",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"vegetarian": {"type": "boolean"}},
            "required": ["vegetarian"],
            "additionalProperties": False,
        },
    }
}
ASKED: dict[str, Json] = {
    "plain": {},
    "tools": {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
    "bare-tool": {"tools": [BARE], "tool_choice": {"type": "function", "name": "get_weather"}},
    "custom-tool": {"tools": [WEATHER, {"type": "custom", "name": "get_time", "description": "The time."}]},
    "summary": {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    "structured": {"text": FORMAT},
    "json": {"text": {"format": {"type": "json_object"}}},
    "said": {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "ann", "temperature": 0.5, "top_p": 0.9},
    "conversation": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "How warm is it in Rome?"}]},
            {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city":"Rome"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "30 degrees"},
            {"role": "assistant", "content": "30 degrees."},
            {"role": "user", "content": "And in Paris?"},
        ],
        "tools": [WEATHER],
    },
}
CHAT = [f"up/{name}" for name in ("answer", "play:text", "play:tools", "call", "refuse", "short", "think")]
CLAUDE = [f"claude/claude-opus-4-6:{name}"
          for name in ("text", "tools", "thinking", "stop_sequence", "refusal")]  # fmt: skip


def asking(model: str, **fields: Any) -> Json:
    return {"model": model, "input": "Say hello."} | fields


def kept(held: Held, id_: str) -> None:
    """A response can be asked for, listed and deleted, and every answer is what the document says."""
    assert held.whole(ONE, "get", id_=id_)["id"] == id_
    items = held.whole("/responses/{response_id}/input_items", "get", id_=id_)
    assert items["data"]
    deleted = held.http.delete(f"/v1/responses/{id_}").json()
    # The document says nothing of this body; OpenAI's reference shows it.
    assert deleted == {"id": id_, "object": "response", "deleted": True}
    held.refused(404, "GET", f"/v1/responses/{id_}")


def played(held: Held, asked: Json) -> None:
    """Whole and streamed; the kept stream again."""
    kept(held, held.whole(RESPONSES, json=asked)["id"])
    events = held.stream(RESPONSES, json=asked | {"stream": True})
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    again = held.stream(ONE, "get", id_=events[0]["response"]["id"], query="?stream=true")
    assert again[-1]["type"] == events[-1]["type"]


def test_a_relayed_response(openai: Held) -> None:
    asked = asking("speaks/play:responses_provider")
    kept(openai, openai.whole(RESPONSES, json=asked)["id"])
    openai.stream(RESPONSES, json=asked | {"stream": True})
    id_ = openai.whole(RESPONSES, json=asked | {"background": True})["id"]
    openai.whole("/responses/{response_id}/cancel", id_=id_)


@pytest.mark.parametrize("model", CHAT + CLAUDE)
@pytest.mark.parametrize("name", ["plain", "summary"])
def test_a_translated_response(openai: Held, model: str, name: str) -> None:
    played(openai, asking(model, **ASKED[name]))


@pytest.mark.parametrize("model", ["up/call", "claude/claude-opus-4-6:tools"])
@pytest.mark.parametrize("name", sorted(ASKED))
def test_what_was_asked_is_shown_as_the_document_has_it(openai: Held, model: str, name: str) -> None:
    played(openai, asking(model, **ASKED[name]))


def test_probabilities(openai: Held) -> None:
    played(openai, asking("up/play:logprobs", include=["message.output_text.logprobs"], top_logprobs=2))


def test_a_turn_that_goes_on_lists_all_that_came_before(openai: Held) -> None:
    first = openai.whole(RESPONSES, json=asking("claude/claude-opus-4-6:thinking", **ASKED["tools"]))["id"]
    output = [{"type": "function_call_output", "call_id": "toolu_01D39q90qw90lq917835lq6", "output": "30"}]
    second = openai.whole(RESPONSES, json=asking("up/answer", input=output, previous_response_id=first))["id"]
    listing = "/responses/{response_id}/input_items"
    items = openai.whole(listing, "get", id_=second)["data"]
    assert {item["type"] for item in items} >= {"message", "reasoning", "function_call", "function_call_output"}
    assert openai.whole(listing, "get", id_=second, query=f"?after={items[-1]['id']}")["data"] == []


@pytest.mark.parametrize("model", ["once-error_event:2", "stalling", "once-cut:1"])
def test_a_stream_that_breaks_says_so(openai: Held, model: str) -> None:
    events = openai.stream(RESPONSES, json=asking(model, stream=True))
    assert [event["type"] for event in events][-2:] == ["error", "response.failed"]
    openai.whole(ONE, "get", id_=events[0]["response"]["id"])


@pytest.mark.parametrize("name", ["plain", "structured", "tools", "said"])
def test_a_local_response(local_openai: Held, name: str) -> None:
    played(local_openai, asking("auto", **ASKED[name] | {"max_output_tokens": 10}))
