"""Anthropic's own SDK, unchanged, before the embedded model, a model of OpenAI's dialect, and Claude."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from anthropic.lib.streaming import BetaMessageStream
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from tests.clients.stand_in import PICTURE
from tests.process import Gateway

MODEL = "smollm2-135m-instruct"
HELLO: list[MessageParam] = [{"role": "user", "content": "Say hello."}]
SHORT: dict[str, Any] = {"model": "auto", "max_tokens": 8, "messages": HELLO, "extra_body": {"temperature": 0}}
ASKED = "Do add and multiply with 6 and 7."
QUESTION: list[MessageParam] = [{"role": "user", "content": ASKED}]
TOOLS: list[ToolParam] = [
    {
        "name": name,
        "description": f"{name} two numbers",
        "input_schema": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    }
    for name in ("add", "multiply")
]
BOTH = [("add", {"a": 6, "b": 7}), ("multiply", {"a": 6, "b": 7})]


class Dish(BaseModel):
    # Without ranges of numbers: this SDK keeps those to itself.
    course: Literal["starter", "main", "dessert"]
    vegetarian: bool


@beta_tool
def add(a: int, b: int) -> str:
    """Add two whole numbers."""
    return str(a + b)


@beta_tool
def multiply(a: int, b: int) -> str:
    """Multiply two whole numbers."""
    return str(a * b)


@pytest.fixture
def small(local_gateway: Gateway) -> Iterator[Anthropic]:
    """Before the embedded model."""
    with Anthropic(base_url=local_gateway.url, api_key="local", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def big(stand_in_gateway: Gateway) -> Iterator[Anthropic]:
    """Before the providers."""
    with Anthropic(base_url=stand_in_gateway.url, api_key="local", max_retries=0, timeout=30) as client:
        yield client


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def calls(message: Any) -> list[tuple[str, object]]:
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


@pytest.mark.feature("anthropic (Python)", "chat")
def test_an_answer_is_whole(small: Anthropic) -> None:
    answer = small.messages.create(**SHORT, system="You are brief.")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert text_of(answer)
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 8


@pytest.mark.feature("anthropic (Python)", "chat")
def test_claudes_answer_comes_as_it_is(big: Anthropic) -> None:
    answer = big.messages.create(**SHORT | {"model": "claude"})
    assert answer.id == "msg_01XFDUDYJgAACzvnptvVoYEL"
    assert text_of(answer) == "Hello! How can I help you today?"
    assert answer.usage.cache_read_input_tokens == 100
    assert answer._request_id == "req_011CZTSUs5qZwEwHKSvppcnq"


@pytest.mark.feature("anthropic (Python)", "chat")
def test_a_stop_sequence_ends_an_answer(small: Anthropic) -> None:
    free = text_of(small.messages.create(**SHORT))
    word = free.split()[2]
    answer = small.messages.create(**SHORT, stop_sequences=[word])
    assert text_of(answer) == free[: free.index(word)]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", word)


@pytest.mark.feature("anthropic (Python)", "stream")
def test_a_stream_is_the_answer_in_pieces(small: Anthropic) -> None:
    with small.messages.stream(**SHORT) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == text_of(final) == text_of(small.messages.create(**SHORT))
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 8


@pytest.mark.feature("anthropic (Python)", "stream")
def test_raw_events_come_in_their_order(small: Anthropic) -> None:
    types = [event.type for event in small.messages.create(**SHORT, stream=True)]
    assert types[:2] == ["message_start", "content_block_start"]
    assert set(types[2:-3]) == {"content_block_delta"}
    assert types[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.feature("anthropic (Python)", "async")
async def test_answers_and_streams_come_asynchronously_too(local_gateway: Gateway) -> None:
    async with AsyncAnthropic(base_url=local_gateway.url, api_key="local", max_retries=0) as client:
        answer = await client.messages.create(**SHORT)
        async with client.messages.stream(**SHORT) as stream:
            pieces = [piece async for piece in stream.text_stream]
    assert "".join(pieces) == text_of(answer) != ""


@pytest.mark.feature("anthropic (Python)", "async")
async def test_the_aiohttp_transport_does_the_same(local_gateway: Gateway) -> None:
    http = anthropic.DefaultAioHttpClient()
    async with AsyncAnthropic(base_url=local_gateway.url, api_key="local", http_client=http, max_retries=0) as client:
        answer = await client.messages.create(**SHORT)
        async with client.messages.stream(**SHORT) as stream:
            pieces = [piece async for piece in stream.text_stream]
    assert "".join(pieces) == text_of(answer) != ""


@pytest.mark.feature("anthropic (Python)", "tools")
def test_tools_are_called_and_their_results_read(big: Anthropic) -> None:
    asked = big.messages.create(model="auto", max_tokens=100, messages=QUESTION, tools=TOOLS)
    assert asked.stop_reason == "tool_use"
    assert calls(asked) == BOTH
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"{block.name} done"}
        for block in asked.content
        if block.type == "tool_use"
    ]
    history: list[MessageParam] = [
        *QUESTION,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": results},
    ]
    answer = big.messages.create(model="auto", max_tokens=100, messages=history, tools=TOOLS)
    assert text_of(answer) == "The tool says: multiply done"
    assert answer.stop_reason == "end_turn"


@pytest.mark.feature("anthropic (Python)", "tools")
def test_the_tool_runner_goes_on_to_the_answer(big: Anthropic) -> None:
    runner = big.beta.messages.tool_runner(
        model="auto", max_tokens=100, messages=[{"role": "user", "content": ASKED}], tools=[add, multiply]
    )
    assert text_of(runner.until_done()) == "The tool says: 42"


@pytest.mark.feature("anthropic (Python)", "tools")
def test_a_choice_of_tool_is_heeded(big: Anthropic) -> None:
    ask: dict[str, Any] = {"model": "auto", "max_tokens": 100, "messages": QUESTION, "tools": TOOLS}
    one = big.messages.create(**ask, tool_choice={"type": "tool", "name": "multiply"})
    assert calls(one) == BOTH[1:]
    single = big.messages.create(**ask, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert calls(single) == BOTH[:1]
    assert calls(big.messages.create(**ask, tool_choice={"type": "none"})) == []


@pytest.mark.feature("anthropic (Python)", "streamed tools")
def test_streamed_tool_calls_join_to_the_same(big: Anthropic) -> None:
    with big.messages.stream(model="auto", max_tokens=100, messages=QUESTION, tools=TOOLS) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert calls(final) == BOTH
    assert "".join(pieces) == "".join(json.dumps(arguments) for _, arguments in BOTH)


@pytest.mark.feature("anthropic (Python)", "streamed tools")
def test_the_tool_runner_streams_as_well(big: Anthropic) -> None:
    runner = big.beta.messages.tool_runner(
        model="auto",
        max_tokens=100,
        messages=[{"role": "user", "content": ASKED}],
        tools=[add, multiply],
        stream=True,
    )
    answers = [stream.get_final_message() for stream in runner if isinstance(stream, BetaMessageStream)]
    assert [calls(answer) for answer in answers] == [BOTH, []]
    assert text_of(answers[1]) == "The tool says: 42"


@pytest.mark.feature("anthropic (Python)", "object")
def test_an_object_fits_its_class(small: Anthropic) -> None:
    parsed = small.messages.parse(
        model="auto",
        max_tokens=60,
        messages=[{"role": "user", "content": "Describe apple pie."}],
        output_format=Dish,
    )
    assert isinstance(parsed.parsed_output, Dish)


@pytest.mark.feature("anthropic (Python)", "streamed object")
def test_a_streamed_object_fits_its_class(small: Anthropic) -> None:
    with small.messages.stream(
        model="auto",
        max_tokens=60,
        messages=[{"role": "user", "content": "Describe apple pie."}],
        output_format=Dish,
    ) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Dish)


@pytest.mark.feature("anthropic (Python)", "reasoning")
def test_thinking_comes_in_its_order_with_its_signatures(big: Anthropic) -> None:
    with big.messages.stream(
        model="thinker", max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024}, messages=HELLO
    ) as stream:
        blocks = stream.get_final_message().content
    assert [b.type for b in blocks] == ["thinking", "redacted_thinking", "text", "thinking", "tool_use"]
    assert blocks[0].type == "thinking"
    assert blocks[0].thinking == "Let me solve this step by step."
    assert blocks[0].signature.startswith("EqQBCg")


@pytest.mark.feature("anthropic (Python)", "image input")
def test_a_picture_reaches_a_model_of_another_dialect(big: Anthropic) -> None:
    picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    content = [picture, {"type": "text", "text": "What is this?"}]
    answer = big.messages.create(model="seer", max_tokens=50, messages=[{"role": "user", "content": content}])
    assert text_of(answer) == "I see 1: data:image/png"


@pytest.mark.feature("anthropic (Python)", "token count")
def test_tokens_are_counted_by_the_model_that_would_answer(small: Anthropic, big: Anthropic) -> None:
    counted = small.messages.count_tokens(model="auto", messages=HELLO).input_tokens
    usage = small.messages.create(**SHORT).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert big.messages.count_tokens(model="claude", messages=HELLO).input_tokens == 2095


@pytest.mark.feature("anthropic (Python)", "models")
def test_models_are_listed_and_described(big: Anthropic) -> None:
    models = list(big.models.list(limit=2))
    ids = [model.id for model in models]
    assert len(ids) == len(set(ids)) > 4
    assert {"auto", "anthropic/claude-opus-4-6"} <= set(ids)
    assert big.models.retrieve("anthropic/claude-opus-4-6") in models


@pytest.mark.feature("anthropic (Python)", "errors")
def test_a_refusal_has_its_class(small: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        small.messages.create(**SHORT | {"model": "no-such-model"})
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["error"]["type"] == "not_found_error"
    assert missing.value.request_id
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError, match="messages"):
            small.messages.create(**SHORT | {"messages": []}, stream=stream)


@pytest.mark.feature("anthropic (Python)", "headers")
def test_raw_responses_say_who_answered(small: Anthropic) -> None:
    raw = small.messages.with_raw_response.create(**SHORT, extra_headers={"x-request-id": "anthropic-own-id"})
    assert raw.headers["request-id"] == raw.headers["x-request-id"] == "anthropic-own-id"
    assert raw.headers["x-gateway-model"] == f"local/{MODEL}"
    assert text_of(raw.parse())


@pytest.mark.feature("anthropic (Python)", "leaving")
def test_a_stream_that_is_left_is_stopped(small: Anthropic, local_gateway: Gateway) -> None:
    with small.messages.stream(
        **SHORT | {"max_tokens": 4000, "messages": [{"role": "user", "content": "Tell me a very long story."}]},
        extra_headers={"x-request-id": "anthropic-leaves"},
    ) as stream:
        assert next(iter(stream.text_stream))
    local_gateway.wait_for("request_finished", 5, request_id="anthropic-leaves", status=499)
