"""Tools and structured answers of the embedded model, which knows neither, through unchanged SDKs."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from openai import OpenAI

from tests.process import Gateway

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Tells the weather.", "parameters": PARAMETERS},
}
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture
def claude(local_gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=local_gateway.url, api_key="local", max_retries=0, timeout=60) as client:
        yield client


def check(arguments: Any) -> None:
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("celsius", "fahrenheit")


def test_a_call_streams_to_openais_client(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="auto", messages=ASKED, tools=[WEATHER], tool_choice="required", max_tokens=80, temperature=0
    ) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "".join(pieces) == call.function.arguments
    assert len(pieces) > 3
    check(json.loads(call.function.arguments))


def test_a_conversation_goes_on_after_a_call(client: OpenAI) -> None:
    first = client.chat.completions.create(
        model="auto", messages=ASKED, tools=[WEATHER], tool_choice="required", max_tokens=80
    )
    said = first.choices[0].message
    assert said.tool_calls
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "Sunny, 21 degrees."}
    history = [*ASKED, said.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(
        model="auto", messages=history, tools=[WEATHER], tool_choice="none", max_tokens=16
    )
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


def test_a_call_is_an_item_of_a_response(client: OpenAI) -> None:
    response = client.responses.create(
        model="auto",
        input="What is the weather in Paris?",
        tools=[
            {
                "type": "function",
                "name": "get_weather",
                "description": "Tells the weather.",
                "parameters": PARAMETERS,
                "strict": True,
            }
        ],
        tool_choice={"type": "function", "name": "get_weather"},
        max_output_tokens=80,
    )
    [call] = [item for item in response.output if item.type == "function_call"]
    assert call.name == "get_weather"
    check(json.loads(call.arguments))


def test_a_call_streams_to_anthropics_client(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": "get_weather", "description": "Tells the weather.", "input_schema": PARAMETERS}
    with claude.messages.stream(
        model="auto", messages=ASKED, tools=[tool], tool_choice={"type": "any"}, max_tokens=80
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    [block] = message.content
    assert block.type == "tool_use"
    assert len(pieces) > 3
    check(block.input)
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": "Sunny, 21 degrees."}
    history: Any = [
        *ASKED,
        {"role": "assistant", "content": [block.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    answer = claude.messages.create(
        model="auto", messages=history, tools=[tool], tool_choice={"type": "none"}, max_tokens=12
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text


def test_a_call_that_is_cut_off_is_not_sold_as_whole(client: OpenAI, claude: anthropic.Anthropic) -> None:
    chat = client.chat.completions.create(
        model="auto", messages=ASKED, tools=[WEATHER], tool_choice="required", max_tokens=14
    )
    assert chat.choices[0].finish_reason == "length"
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS}
    message = claude.messages.create(
        model="auto", messages=ASKED, tools=[tool], tool_choice={"type": "any"}, max_tokens=14
    )
    assert message.stop_reason == "max_tokens"


def test_a_schema_that_cannot_be_kept_to_is_refused(client: OpenAI) -> None:
    broken: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wizard"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="auto", messages=ASKED, response_format=broken)
    assert refused.value.param == "response_format"
