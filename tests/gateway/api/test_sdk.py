"""An unchanged OpenAI client, sync and async, streamed and not."""

import asyncio
import json

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests import wire
from tests.gateway.conftest import APP_KEY
from tests.process import Gateway
from tests.provider import Provider

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def test_a_whole_answer_parses(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="up/answer", messages=HELLO)
    assert answer.choices[0].message.content == "word0 word1 word2 "
    assert answer.usage is not None
    assert answer.usage.total_tokens == wire.USAGE["total_tokens"]
    assert answer.model == wire.MODEL
    assert answer.model_extra is not None
    assert answer.model_extra["vendor_note"]["f"] == 1.5


def test_a_stream_parses(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="up/answer", messages=HELLO, stream=True)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "word0 word1 word2 "
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_usage_comes_last_when_asked_for(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="up/answer", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *rest, last = stream
    assert all(c.usage is None for c in rest)
    assert last.usage is not None
    assert last.usage.prompt_tokens == wire.USAGE["prompt_tokens"]
    assert last.choices == []


def test_parallel_tool_calls_come_together_in_a_stream(sdk: openai.OpenAI, upstream: Provider) -> None:
    with sdk.chat.completions.stream(model="up/tools", messages=HELLO, tools=[WEATHER]) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in calls] == [
        ("call_0", "get_weather", {"city": "Paris"}),
        ("call_1", "get_time", {"zone": "CET"}),
    ]
    assert upstream.asked().json["tools"] == [WEATHER]


def test_the_raw_response_carries_the_gateways_headers(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="up/answer", messages=HELLO)
    assert raw.headers["x-gateway-backend"] == "up"
    assert raw.request_id == raw.headers["x-request-id"]
    assert raw.parse().choices[0].finish_reason == "stop"


def test_models_are_listed_and_got(sdk: openai.OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert {"auto", "up/answer", "fake/fake"} <= set(listed)
    assert sdk.models.retrieve("up/answer").owned_by == "openai"


def test_a_provider_error_is_the_sdks_own(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        sdk.chat.completions.create(model="once-status:429:3", messages=HELLO)
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model="once-status:401", messages=HELLO)


def test_the_sdks_own_retries_do_not_multiply_the_gateways(sdk: openai.OpenAI, upstream: Provider) -> None:
    with pytest.raises(openai.InternalServerError):
        sdk.with_options(max_retries=3).chat.completions.create(model="once-status:500", messages=HELLO)
    assert len(upstream.seen) == 1


async def test_sixteen_streams_at_once_do_not_mix(house: Gateway) -> None:
    async def ask(sdk: openai.AsyncOpenAI, n: int) -> str:
        stream = await sdk.chat.completions.create(
            model=f"up/events:{n + 1}:0.01", messages=[{"role": "user", "content": str(n)}], stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, max_retries=0) as sdk:
        answers = await asyncio.gather(*(ask(sdk, n) for n in range(16)))
    assert answers == ["".join(f"word{i} " for i in range(n + 1)) for n in range(16)]


async def test_an_async_client_gets_whole_answers_and_lists(house: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(model="fake/fake", messages=HELLO)
        assert answer.choices[0].message.content == "Hello from the fake backend."
        raw = await sdk.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
        assert raw.headers["x-gateway-model"] == "fake/fake"
        assert "auto" in [model.id async for model in sdk.models.list()]
