"""OpenAI's chat and completions before Anthropic: carried over, named, or refused as OpenAI would."""

import json
from typing import Any

import httpx2
import openai
import pytest

from tests.claude import Claude
from tests.http import CHAT, error_of, events_of

OPUS = "claude/claude-opus-4-6"
COMPLETIONS, RESPONSES, EMBEDDINGS, IMAGES = (
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/images/generations",
)
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
TIME: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
PYTHON: Any = {"type": "custom", "custom": {"name": "get_weather", "description": "Asks."}}


def asking(script: str = "text", **fields: Any) -> dict[str, Any]:
    return {"model": f"{OPUS}:{script}", "messages": HELLO} | fields


# Functions, as they were before tools


def test_functions_are_called_as_they_were_before_tools(translated: openai.OpenAI, anthropics: Claude) -> None:
    functions: Any = [{"name": "get_weather", "description": "It.", "parameters": PARAMETERS}]
    made = translated.chat.completions.create(
        **asking("tools", functions=functions, function_call={"name": "get_weather"})
    )
    [choice] = made.choices
    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    call = choice.message.function_call
    assert call is not None
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    sent = anthropics.asked().json
    assert sent["tools"] == [{"name": "get_weather", "description": "It.", "input_schema": PARAMETERS}]
    assert sent["tool_choice"] == {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    history: Any = [*HELLO, choice.message, {"role": "function", "name": "get_weather", "content": "Sunny."}]
    translated.chat.completions.create(**asking(messages=history, functions=functions))
    _, said, told = anthropics.asked(count=2).json["messages"]
    used = said["content"][-1]
    assert (used["type"], used["input"]) == ("tool_use", {"city": "Paris"})
    assert told["content"] == [{"type": "tool_result", "tool_use_id": used["id"], "content": "Sunny."}]


def test_a_function_call_streams(translated: openai.OpenAI) -> None:
    functions: Any = [{"name": "get_weather", "parameters": PARAMETERS}]
    chunks = list(translated.chat.completions.create(**asking("tools", functions=functions), stream=True))
    pieces = [c.choices[0].delta.function_call for c in chunks if c.choices[0].delta.function_call]
    assert [piece.name for piece in pieces if piece.name] == ["get_weather"]
    assert json.loads("".join(piece.arguments or "" for piece in pieces)) == {"city": "Paris"}
    assert not any(c.choices[0].delta.tool_calls for c in chunks)
    assert chunks[-1].choices[0].finish_reason == "function_call"


# Tools


def test_only_allowed_tools_are_offered(translated: openai.OpenAI, anthropics: Claude) -> None:
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]},
    }
    translated.chat.completions.create(**asking("tools", tools=[WEATHER, TIME], tool_choice=allowed))
    sent = anthropics.asked().json
    assert [tool["name"] for tool in sent["tools"]] == ["get_time"]
    assert sent["tool_choice"] == {"type": "any"}


def test_a_custom_tool_is_called_with_plain_text(
    translated: openai.OpenAI, translated_http: httpx2.Client, anthropics: Claude
) -> None:
    made = translated.chat.completions.create(**asking("tools", tools=[PYTHON, TIME]))
    called, *others = made.choices[0].message.tool_calls or []
    assert called.type == "custom"
    # The stand-in keeps to no schema: what is no `input` comes whole.
    assert (called.custom.name, json.loads(called.custom.input)) == ("get_weather", {"city": "Paris"})
    assert [call.type for call in others] == ["function", "function"]
    [schema] = [t["input_schema"] for t in anthropics.asked().json["tools"] if t["name"] == "get_weather"]
    assert schema["required"] == ["input"]
    history: Any = [*HELLO, made.choices[0].message.model_dump(exclude_none=True)]
    history += [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in (called, *others)]
    translated.chat.completions.create(**asking(messages=history, tools=[PYTHON, TIME]))
    said = anthropics.asked(count=2).json["messages"][1]["content"]
    assert said[-3]["input"] == {"input": called.custom.input}
    body = asking("tools", tools=[PYTHON, TIME], stream=True)
    chunks = [json.loads(e) for e in events_of(translated_http.post(CHAT, json=body).content) if e != b"[DONE]"]
    pieces = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", ()) if call["index"] == 0]
    assert (pieces[0]["type"], pieces[0]["custom"]) == ("custom", {"name": "get_weather", "input": ""})
    assert "".join(piece["custom"].get("input", "") for piece in pieces) == called.custom.input


# What a request says besides


def test_what_is_said_in_other_words_is_carried_over(translated: openai.OpenAI, anthropics: Claude) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Do it."},
        {"role": "assistant", "refusal": "I will not.", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Really."}]},
        {"role": "user", "content": [{"type": "text", "text": "Please."}]},
    ]
    made = translated.chat.completions.with_raw_response.create(
        **asking(
            messages=messages,
            max_completion_tokens=50,
            max_tokens=9,
            stop="END",
            modalities=["text"],
            service_tier="auto",
            logit_bias={},
            store=False,
            n=1,
        )
    )
    assert "x-gateway-dropped" not in made.headers
    sent = anthropics.asked().json
    assert (sent["system"], sent["max_tokens"], sent["stop_sequences"]) == ("Be kind.", 50, ["END"])
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in sent["messages"][1]["content"]] == ["I will not.", "Really."]


def test_what_cannot_be_carried_over_is_named_or_refused(translated_http: httpx2.Client) -> None:
    asked: dict[str, Any] = {
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "prediction": {"type": "content", "content": "x"},
        "web_search_options": {"search_context_size": "low"},
        "store": True,
        "metadata": {"a": "b"},
        "logit_bias": {"1": 1},
        "verbosity": "low",
        "seed": 1,
    }
    answer = translated_http.post(CHAT, json=asking(**asked))
    assert set(answer.headers["x-gateway-dropped"].split(", ")) == set(asked)
    for name, value in asked.items():
        strict = translated_http.post(CHAT, json=asking(**{name: value}), headers={"x-gateway-strict": "true"})
        assert (strict.status_code, error_of(strict)["param"]) == (400, name)


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(translated_http: httpx2.Client) -> None:
    asked = asking(stream=True, stream_options={"include_usage": True, "include_obfuscation": True})
    *chunks, last, done = events_of(translated_http.post(CHAT, json=asked).content)
    assert done == b"[DONE]"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"]["total_tokens"] > 0
    assert all(json.loads(chunk)["usage"] is None for chunk in chunks)
    plain = events_of(translated_http.post(CHAT, json=asking(stream=True)).content)
    assert all(b'"usage"' not in chunk for chunk in plain)


# Completions


def test_an_echo_is_the_prompt_and_what_follows(translated: openai.OpenAI) -> None:
    whole = translated.completions.create(model=f"{OPUS}:text", prompt=["Well, "], echo=True)
    assert whole.choices[0].text == "Well, Hello! How can I help you today?"
    stream = translated.completions.create(model=f"{OPUS}:text", prompt="Well, ", echo=True, stream=True)
    assert "".join(c.choices[0].text for c in stream) == whole.choices[0].text


# Refusals


SHAPE = {"type": "function", "function": {"name": "other"}}


@pytest.mark.parametrize(
    ("path", "fields", "param", "code"),
    [
        (CHAT, {"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        (CHAT, {"top_p": -0.1}, "top_p", "decimal_below_min_value"),
        (CHAT, {"n": 0}, "n", "integer_below_min_value"),
        (CHAT, {"n": 129}, "n", "integer_above_max_value"),
        (CHAT, {"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        (CHAT, {"top_logprobs": 1.5}, "top_logprobs", "invalid_type"),
        (CHAT, {"presence_penalty": 2.5}, "presence_penalty", "decimal_above_max_value"),
        (CHAT, {"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options", None),
        (CHAT, {"tool_choice": "required"}, "tool_choice", None),
        (CHAT, {"tools": [WEATHER], "tool_choice": SHAPE}, "tool_choice", None),
        (CHAT, {"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
        (CHAT, {"tools": [{"type": "poem"}]}, "tools[0].type", "invalid_value"),
        (CHAT, {"tools": [{"type": "custom"}]}, "tools[0].custom", "missing_required_parameter"),
        (CHAT, {"functions": "x"}, "functions", "invalid_type"),
        (CHAT, {"functions": [{}]}, "functions[0].function.name", "missing_required_parameter"),
        (CHAT, {"functions": [{"name": "f"}], "function_call": {}}, "function_call.name", "missing_required_parameter"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        (CHAT, {"messages": [{"role": "function", "content": "x"}]}, "messages[0].name", "missing_required_parameter"),
        (CHAT, {"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "empty_string"),
        (COMPLETIONS, {"prompt": []}, "prompt", "empty_array"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt", "unsupported_value"),
        (COMPLETIONS, {"prompt": [1, 2]}, "prompt", "unsupported_value"),
        (COMPLETIONS, {"prompt": [[1, 2]]}, "prompt", "unsupported_value"),
        (COMPLETIONS, {"logprobs": 6}, "logprobs", "integer_above_max_value"),
        (COMPLETIONS, {"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        (COMPLETIONS, {"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        (EMBEDDINGS, {"input": ""}, "input", "empty_string"),
        (EMBEDDINGS, {"input": ["a", ""]}, "input[1]", "empty_string"),
        (EMBEDDINGS, {"input": [[1], []]}, "input[1]", "empty_array"),
        (EMBEDDINGS, {"input": [-1]}, "input", "integer_below_min_value"),
        (EMBEDDINGS, {"dimensions": 0}, "dimensions", "integer_below_min_value"),
        (EMBEDDINGS, {"dimensions": 10**9}, "dimensions", "integer_above_max_value"),
        (IMAGES, {"response_format": "gif"}, "response_format", "invalid_value"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_openai_refuses_is_refused(
    translated_http: httpx2.Client, path: str, fields: dict[str, Any], param: str, code: str | None
) -> None:
    plain: dict[str, Any] = {
        CHAT: asking(),
        COMPLETIONS: {"model": f"{OPUS}:text", "prompt": "x"},
        EMBEDDINGS: {"model": "fake/fake", "input": "x"},
        IMAGES: {"model": "fake/fake", "prompt": "x"},
    }
    answer = translated_http.post(path, json=plain[path] | fields)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")


ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xef\xbb\xbf{}",
    b'{"x":"\xff"}',
    b'{"%s":"\\ud800"}',
    b'{"model":"\\ud800","%s":"x"}',
    b'{"%s":"x","temperature":NaN}',
    b'{"%s":"x","odd":1e999}',
    b'{"%s":"x","odd":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"%s":"x"} and more',
]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, IMAGES])
@pytest.mark.parametrize("body", ODD_BODIES, ids=lambda body: repr(body[:30]))
def test_no_body_trips_the_gateway(translated_http: httpx2.Client, path: str, body: bytes) -> None:
    said = {CHAT: b"messages", COMPLETIONS: b"prompt", IMAGES: b"prompt"}.get(path, b"input")
    body = body.replace(b"%s", said)
    if path == CHAT:
        body = body.replace(b'"x"', b'[{"role":"user","content":"x"}]').replace(
            b'"\\ud800"', b'[{"role":"user","content":"\\ud800"}]'
        )
    if b'"model"' not in body:
        body = body.replace(b"{", b'{"model":"fake/fake",', 1)
    answer = translated_http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error_of(answer)
