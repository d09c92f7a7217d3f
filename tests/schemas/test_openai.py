"""Chat, completions, embeddings, images and models: relayed, translated from Anthropic's dialect, and local."""

from typing import Any

import pytest

from tests.http import chat
from tests.schemas.held import Held, Json

CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
RELAYED = ["up/answer", "up/play:text", "up/play:tools", "up/play:two", "up/play:logprobs", "up/play:vendor",
           "up/refuse", "up/short", "up/think", "up/call"]  # fmt: skip
TRANSLATED = [f"claude/claude-opus-4-6:{name}"
              for name in ("text", "tools", "thinking", "stop_sequence", "refusal", "server_tool")]  # fmt: skip
FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "dish",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"vegetarian": {"type": "boolean"}},
            "required": ["vegetarian"],
            "additionalProperties": False,
        },
    },
}
LOCAL: list[Json] = [
    {},
    {"stop": ["e"]},
    {"logprobs": True, "top_logprobs": 2},
    {"response_format": FORMAT},
    {"response_format": {"type": "json_object"}},
    {"tools": [WEATHER]},
    {"tools": [WEATHER], "tool_choice": "required"},
    {"n": 2},
]
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


@pytest.mark.parametrize("model", RELAYED + TRANSLATED)
def test_a_chat_completion(openai: Held, model: str) -> None:
    asked = chat(model, tools=[WEATHER], reasoning_effort="low")
    whole = openai.whole(CHAT, json=asked)
    assert whole["choices"]
    for options in ({"stream": True}, USAGE):
        chunks = openai.stream(CHAT, json=asked | options)
        assert len({chunk["id"] for chunk in chunks}) == 1
        reasons = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
        assert sorted(reasons) == sorted(choice["finish_reason"] for choice in whole["choices"]) or model == "up/answer"


@pytest.mark.parametrize("options", LOCAL, ids=lambda options: "+".join(options) or "plain")
def test_a_local_chat_completion(local_openai: Held, options: Json) -> None:
    asked = chat("auto", max_tokens=10, temperature=0, **options)
    local_openai.whole(CHAT, json=asked)
    local_openai.stream(CHAT, json=asked | {"stream": True})
    local_openai.stream(CHAT, json=asked | USAGE)


@pytest.mark.parametrize("model", ["up/play:completions", "claude/claude-opus-4-6:text"])
def test_a_completion(openai: Held, model: str) -> None:
    asked: Json = {"model": model, "prompt": "Say hi", "max_tokens": 9}
    openai.whole(COMPLETIONS, json=asked)
    openai.stream(COMPLETIONS, json=asked | {"stream": True})
    openai.stream(COMPLETIONS, json=asked | USAGE)


@pytest.mark.parametrize("options", [{}, {"logprobs": 2}, {"echo": True}, {"n": 2}, {"prompt": ["Hi", "Ho"]}], ids=str)
def test_a_local_completion(local_openai: Held, options: Json) -> None:
    asked: Json = {"model": "auto", "prompt": "Say hi", "max_tokens": 6, "temperature": 0, **options}
    whole = local_openai.whole(COMPLETIONS, json=asked)["choices"]
    if "logprobs" in options:
        assert "".join(whole[0]["logprobs"]["tokens"]) == whole[0]["text"]
    for streamed in ({"stream": True}, USAGE):
        chunks = local_openai.stream(COMPLETIONS, json=asked | streamed)
        ended = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
        assert sorted(ended) == [choice["index"] for choice in whole]


@pytest.mark.parametrize("given", ["one", ["one", "two"]], ids=str)
def test_embeddings(openai: Held, given: Any) -> None:
    rows = openai.whole(EMBEDDINGS, json={"model": "up/embed", "input": given})["data"]
    assert len(rows) == (1 if given == "one" else 2)


def test_embeddings_as_base64(openai: Held) -> None:
    """The document has floats only, although `encoding_format` offers base64: but for that, it is held to it."""
    asked = {"model": "up/embed", "input": "one", "encoding_format": "base64"}
    answer = openai.http.post("/v1/embeddings", json=asked)
    body = answer.json()
    assert openai.document.faults("CreateEmbeddingResponse", body)
    for row in body["data"]:
        assert isinstance(row["embedding"], str)
        row["embedding"] = [0.5]
    openai.hold("CreateEmbeddingResponse", body)


def test_images(openai: Held) -> None:
    asked = {"model": "up/play:images", "prompt": "a heron"}
    openai.whole("/images/generations", json=asked)
    events = openai.stream("/images/generations", json=asked | {"stream": True, "partial_images": 2})
    assert [event["type"] for event in events][-1] == "image_generation.completed"


def test_edited_images(openai: Held) -> None:
    asked = {"model": "up/play:images", "prompt": "a hat"}
    openai.whole("/images/edits", data=asked, files={"image": ("a.png", PNG, "image/png")})
    events = openai.stream(
        "/images/edits", data=asked | {"stream": "true"}, files={"image": ("a.png", PNG, "image/png")}
    )
    assert [event["type"] for event in events][-1] == "image_edit.completed"


def test_images_of_a_local_model(local_openai: Held) -> None:
    asked: Json = {"model": "auto", "prompt": "a red circle", "size": "1024x1024", "steps": 3}
    whole = local_openai.whole("/images/generations", json=asked | {"n": 2})
    assert len(whole["data"]) == 2
    events = local_openai.stream("/images/generations", json=asked | {"stream": True, "partial_images": 2})
    assert [event["type"].partition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    url = "data:image/png;base64," + whole["data"][0]["b64_json"]
    asked |= {"images": [{"image_url": url}], "stream": True, "partial_images": 1}
    events = local_openai.stream("/images/edits", json=asked)
    assert [event["type"] for event in events] == ["image_edit.partial_image", "image_edit.completed"]


def test_models(openai: Held, local_openai: Held) -> None:
    for held, id_ in ((openai, "auto"), (openai, "claude/claude-opus-4-6"), (local_openai, "auto")):
        listed = held.whole("/models", "get")["data"]
        assert id_ in {model["id"] for model in listed}
        assert held.whole("/models/{model}", "get", id_=id_)["id"] == id_
