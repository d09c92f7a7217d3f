"""/v1/responses before backends that do not speak it: Anthropic, and OpenAI-compatible ones without it."""

import json
from typing import Any

import httpx2
import openai
import pydantic
import pytest

from tests import claude, scripts, wire
from tests.claude import Claude, frames
from tests.exchange import Exchange
from tests.http import error_of
from tests.provider import Provider
from tests.responses import check_response, checked

PATH = "/v1/responses"
OPUS = "claude/claude-opus-4-6"
SEALED: Any = ["reasoning.encrypted_content"]
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
REDACTED = "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP"
TURN = [
    {"type": "thinking", "thinking": "Let me solve this step by step.", "signature": SIGNATURE},
    {"type": "redacted_thinking", "data": REDACTED},
    {"type": "text", "text": "The weather first."},
    {"type": "thinking", "thinking": "", "signature": "ErUBCkYIBRgCIkCd9omitted"},
    {
        "type": "tool_use",
        "id": "toolu_01D39q90qw90lq917835lq6",
        "name": "get_weather",
        "input": {"city": "Paris"},
    },
]
"""What the provider said in `thinking.sse`, as it wants it back."""


def stored(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": "Say hello."} | fields


# Before Anthropic


def test_claude_answers(translated: openai.OpenAI, anthropics: Claude) -> None:
    made = translated.responses.create(model=f"{OPUS}:text", input="Say hello.", instructions="Be kind.")
    assert made.output_text == "Hello! How can I help you today?"
    assert (made.status, made.model) == ("completed", "claude-opus-4-6")
    assert made.usage is not None
    assert made.usage.input_tokens_details.cached_tokens == 100
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    check_response(made.to_dict())
    sent = anthropics.asked().json
    assert (sent["system"], sent["messages"]) == ("Be kind.", [{"role": "user", "content": "Say hello."}])


@pytest.mark.parametrize("script", ["text", "tools", "thinking", "stop_sequence"])
def test_claudes_stream_is_one_of_openais(translated_http: httpx2.Client, script: str) -> None:
    body = stored(f"{OPUS}:{script}", stream=True, include=SEALED, tools=[WEATHER])
    events = checked(translated_http.post(PATH, json=body).content)
    assert [e["type"] for e in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    # Every item opens and closes once, under the id and place that the response at the end has them by.
    output = events[-1]["response"]["output"]
    for kind in ("response.output_item.added", "response.output_item.done"):
        told = [(e["output_index"], e["item"]["id"]) for e in events if e["type"] == kind]
        assert sorted(told) == [(n, item["id"]) for n, item in enumerate(output)]
    for event in events:
        if "item_id" in event:
            assert output[event["output_index"]]["id"] == event["item_id"]
            assert event.get("content_index", 0) == 0
    whole = translated_http.post(PATH, json=body | {"stream": False}).json()
    assert [unnamed(item) for item in whole["output"]] == [unnamed(item) for item in output]
    check_response(whole)


def unnamed(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


def test_thinking_comes_back_to_claude_as_it_was(translated: openai.OpenAI, anthropics: Claude) -> None:
    first = translated.responses.create(model=f"{OPUS}:thinking", input="Paris?", tools=[WEATHER], include=SEALED)
    kinds = ["reasoning", "reasoning", "message", "reasoning", "function_call"]
    assert [item.type for item in first.output] == kinds
    [call] = [item for item in first.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    # With the history in the client's hands, and with the gateway keeping it.
    history: Any = [{"role": "user", "content": "Paris?"}, *first.output, result]
    translated.responses.create(model=f"{OPUS}:text", input=history, tools=[WEATHER], store=False)
    translated.responses.create(
        model=f"{OPUS}:text", input=[result], tools=[WEATHER], previous_response_id=first.id, instructions="Hm."
    )
    for count in (2, 3):
        _, said, told = anthropics.asked(count=count).json["messages"]
        assert said == {"role": "assistant", "content": TURN}
        assert told["content"] == [{"type": "tool_result", "tool_use_id": call.call_id, "content": "Sunny."}]


def test_the_stream_helper_gathers_thinking_text_and_calls(translated: openai.OpenAI) -> None:
    with translated.responses.stream(
        model=f"{OPUS}:thinking", input="Paris?", tools=[WEATHER], reasoning={"effort": "low", "summary": "auto"}
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    thought = "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta")
    assert thought == "Let me solve this step by step."
    assert final.output_text == "The weather first."
    assert final.output[0].type == "reasoning"
    assert final.output[0].summary[0].text == thought
    assert final.output[0].encrypted_content is None, "nobody asked for it"
    assert final.output[-1].type == "function_call"
    assert final.output[-1].arguments == '{"city":"Paris"}'


def test_parallel_calls_of_claude_are_items_of_their_own(translated: openai.OpenAI) -> None:
    with translated.responses.stream(model=f"{OPUS}:tools", input="Both?", tools=[WEATHER]) as stream:
        done = [e for e in stream if e.type == "response.function_call_arguments.done"]
        calls = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert [(c.name, json.loads(c.arguments)) for c in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {"zone": "CET"}),
        ("ping", {}),
    ]
    assert sorted(e.item_id for e in done) == sorted(str(c.id) for c in calls)


def test_pictures_files_and_structure_reach_claude(translated: openai.OpenAI, anthropics: Claude) -> None:
    class City(pydantic.BaseModel):
        name: str

    async def structured(x: Exchange) -> None:
        await claude.tell(x, [f.replace(b"Hello", b'{\\"name\\":').replace(b"! How can I", b'\\"Bonn\\"')
                              .replace(b" help you today?", b"}") for f in frames("text.sse")])  # fmt: skip

    anthropics.scripts["claude-opus-4-6:structured"] = structured
    content: Any = [
        {"type": "input_text", "text": "Which city?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
        {"type": "input_file", "file_url": "https://example.com/b.pdf"},
    ]
    made = translated.responses.parse(
        model=f"{OPUS}:structured", input=[{"role": "user", "content": content}], text_format=City
    )
    assert made.output_parsed == City(name="Bonn")
    sent = anthropics.asked().json
    assert sent["output_config"]["format"]["type"] == "json_schema"
    _, image, near, far = sent["messages"][0]["content"]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert (near["title"], near["source"]["media_type"]) == ("a.pdf", "application/pdf")
    assert far["source"] == {"type": "url", "url": "https://example.com/b.pdf"}


def test_results_of_tools_may_be_pictures(translated: openai.OpenAI, anthropics: Claude) -> None:
    given: Any = [
        {"role": "user", "content": "Look."},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [
                {"type": "input_text", "text": "Here:"},
                {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
            ],
        },
    ]
    translated.responses.create(model=f"{OPUS}:text", input=given)
    [result] = anthropics.asked().json["messages"][-1]["content"]
    assert [block["type"] for block in result["content"]] == ["text", "image"]


def test_a_refusal_is_incomplete_and_a_break_is_a_failure(translated_http: httpx2.Client) -> None:
    refused = checked(translated_http.post(PATH, json=stored(f"{OPUS}:refusal", stream=True)).content)[-1]
    assert refused["type"] == "response.incomplete"
    assert refused["response"]["incomplete_details"] == {"reason": "content_filter"}
    broken = checked(translated_http.post(PATH, json=stored(f"{OPUS}:cut", stream=True)).content)
    assert [e["type"] for e in broken[-2:]] == ["error", "response.failed"]


def test_an_error_names_the_field_as_this_dialect_does(translated_http: httpx2.Client) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    answer = translated_http.post(PATH, json=stored(OPUS, input=[{"role": "user", "content": [audio]}]))
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input")


# Custom tools


GRAMMAR = {"type": "grammar", "syntax": "regex", "definition": "^[a-z ]+$"}
SHELL: Any = {"type": "custom", "name": "shell", "description": "Runs it.", "format": GRAMMAR}


async def shell(x: Exchange) -> None:
    """A call of the tool, its argument in pieces."""
    call = {"index": 0, "id": "call_9", "type": "function", "function": {"name": "shell", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": a}} for a in ('{"inp', 'ut": "ls ', '-l\\n"}')]
    said = [wire.chunk(wire.delta({"tool_calls": [piece]})) for piece in (call, *pieces)]
    await scripts.tell(x, [*said, wire.finish("tool_calls"), wire.totals(), wire.DONE])


def test_a_custom_tool_is_called_with_plain_text(
    translated: openai.OpenAI, translated_http: httpx2.Client, upstream: Provider
) -> None:
    upstream.scripts["shell"] = shell
    choice: Any = {"type": "custom", "name": "shell"}
    with translated.responses.stream(model="up/shell", input="List.", tools=[SHELL], tool_choice=choice) as stream:
        told = [e.delta for e in stream if e.type == "response.custom_tool_call_input.delta"]
        final = stream.get_final_response()
    [call] = final.output
    assert call.type == "custom_tool_call"
    assert (call.name, call.call_id, call.input, "".join(told)) == ("shell", "call_9", "ls -l\n", "ls -l\n")
    sent = upstream.asked().json
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "shell"}}
    assert "^[a-z ]+$" in sent["tools"][0]["function"]["description"]
    result: Any = {"type": "custom_tool_call_output", "call_id": "call_9", "output": "a.txt"}
    translated.responses.create(model="up/answer", input=[result], previous_response_id=final.id, tools=[SHELL])
    _, said, told_back = upstream.asked(count=2).json["messages"]
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"input": "ls -l\n"}
    assert told_back == {"role": "tool", "tool_call_id": "call_9", "content": "a.txt"}
    # It is kept, shown and played again as what it is.
    assert translated.responses.retrieve(final.id).output == final.output
    again = checked(translated_http.get(f"{PATH}/{final.id}?stream=true").content)
    assert again[-1]["response"]["output"][0]["input"] == "ls -l\n"
    listed = translated_http.get(f"{PATH}/{final.id}/input_items").json()
    assert [item["type"] for item in listed["data"]] == ["message"]


def test_a_grammar_that_cannot_be_held_to_is_named(translated_http: httpx2.Client) -> None:
    body = stored("up/answer", tools=[SHELL])
    assert translated_http.post(PATH, json=body).headers["x-gateway-dropped"] == "tools.format"
    strict = translated_http.post(PATH, json=body, headers={"x-gateway-strict": "true"})
    assert (strict.status_code, error_of(strict)["param"]) == (400, "tools.format")


# Log probabilities


async def probable(x: Exchange) -> None:
    token = {"token": "Yes", "logprob": -0.5, "bytes": [89], "top_logprobs": [{"token": "No", "logprob": -2.0}]}
    logprobs = {"content": [token], "refusal": None}
    said = wire.chunk(wire.dump([{"index": 0, "delta": {"content": "Yes"}, "logprobs": logprobs}]))
    await scripts.tell(x, [said, wire.finish(), wire.totals(), wire.DONE])


def test_log_probabilities_come_where_the_target_has_them(translated_http: httpx2.Client, upstream: Provider) -> None:
    upstream.scripts["probable"] = probable
    body = stored("up/probable", include=["message.output_text.logprobs"], top_logprobs=1)
    answer = translated_http.post(PATH, json=body)
    assert "x-gateway-dropped" not in answer.headers
    sent = upstream.asked().json
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 1)
    [token] = answer.json()["output"][0]["content"][0]["logprobs"]
    assert (token["token"], token["logprob"], token["top_logprobs"][0]["token"]) == ("Yes", -0.5, "No")
    check_response(answer.json())
    events = checked(translated_http.post(PATH, json=body | {"stream": True}).content)
    assert [e["logprobs"][0]["token"] for e in events if e["type"].startswith("response.output_text.")] == ["Yes"] * 2
    elsewhere = translated_http.post(PATH, json=body | {"model": f"{OPUS}:text"})
    assert elsewhere.headers["x-gateway-dropped"] == "include, top_logprobs"


# What goes wrong


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"truncation": "some"}, "truncation", "invalid_value"),
        ({"include": ["reasoning.encrypted_content", "all"]}, "include[1]", "invalid_value"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary", "invalid_value"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity", "invalid_value"),
        ({"text": {"format": {"type": "poem"}}}, "text.format.type", "invalid_value"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata", "object_above_max_properties"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice", None),
        ({"tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"type": "custom_tool_call_output", "output": "x"}]}, "input[0].call_id",
         "missing_required_parameter"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_openai_refuses_is_refused(
    translated_http: httpx2.Client, fields: dict[str, Any], param: str, code: str | None
) -> None:
    for model in (f"{OPUS}:text", "up/answer"):
        answer = translated_http.post(PATH, json=stored(model) | fields)
        assert answer.status_code == 400, answer.text
        error = error_of(answer)
        assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize("choice", ["required", {"type": "web_search"}, {"type": "mcp", "server_label": "x"}])
def test_a_choice_of_a_tool_that_is_not_there_is_named(translated_http: httpx2.Client, choice: Any) -> None:
    body = stored(f"{OPUS}:text", tools=[{"type": "file_search", "vector_store_ids": ["v"]}], tool_choice=choice)
    answer = translated_http.post(PATH, json=body)
    assert answer.status_code == 200
    assert set(answer.headers["x-gateway-dropped"].split(", ")) == {"tools.file_search", "tool_choice"}
