"""OpenAI's own SDK, unchanged: answers, streams, tools and models."""

import asyncio
import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionToolUnionParam
from pydantic import BaseModel, Field

from tests.clients.asking import SHORT, ask, stream
from tests.process import ROOT, Gateway

MODEL = "smollm2-135m-instruct"
SHIPPED = [f"local/{name}" for name in (MODEL, "all-minilm-l6-v2", "tiny-shapes", "tiny-3d")]
SLOTS = 4
"""How many requests the embedded model answers at once."""
NEVER_ENDING: dict[str, Any] = {"max_tokens": 4000, "extra_body": {"ignore_eos": True}}


class Dish(BaseModel):
    course: Literal["starter", "main", "dessert"]
    portions: int = Field(ge=1, le=9)


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- Answers ----------------------------------------------------------------------------------------


def test_the_readmes_snippet_works_word_for_word(local_gateway: Gateway) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    snippet = next(block for block in blocks if "from openai import OpenAI" in block)
    here = snippet.replace("http://127.0.0.1:8080", local_gateway.url)
    assert here != snippet
    done = subprocess.run([sys.executable, "-c", here], capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_an_answer_is_whole(client: OpenAI) -> None:
    answer = ask(client, max_tokens=30)
    [choice] = answer.choices
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5
    assert 0 < answer.usage.completion_tokens <= 30
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_an_answer_arrives_asynchronously_too(local_gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=f"{local_gateway.url}/v1", api_key="local") as client:
        answer = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Say hello."}], **SHORT
        )
        assert answer.choices[0].message.content
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Say hello."}], stream=True, **SHORT
            )
        ]
    assert text_of(chunks)


def test_every_name_of_the_model_reaches_it(client: OpenAI) -> None:
    for name in ("auto", f"local/{MODEL}", MODEL):
        assert ask(client, model=name, max_tokens=1).model == MODEL


def test_generation_stops_where_it_is_told_to(client: OpenAI) -> None:
    options: dict[str, Any] = {"content": "Count: one, two, three,", "max_tokens": 24}
    free = ask(client, **options).choices[0].message.content or ""
    word = free.split()[2]
    stopped = ask(client, **options, stop=[word]).choices[0]
    assert stopped.message.content == free[: free.index(word)]
    assert stopped.finish_reason == "stop"


def test_an_answer_without_text_is_an_empty_string(client: OpenAI) -> None:
    first = (ask(client).choices[0].message.content or "").split()[0]
    assert ask(client, stop=[first[:2]]).choices[0].message.content == ""


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    def draw(seed: int) -> str | None:
        return ask(client, "Invent a name.", seed=seed, temperature=1.5, max_tokens=12).choices[0].message.content

    draw(7)  # reads the prompt; the next ones find it read, and so compute the very same
    again = draw(7)
    assert draw(7) == again
    assert {draw(8), draw(9)} != {again}


def test_an_answer_cut_at_max_tokens_says_so(client: OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = ask(client, "Tell me a long story.", **{"max_tokens": openai.omit, name: 5})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 5


def test_log_probabilities_come_with_every_token(client: OpenAI) -> None:
    [choice] = ask(client, logprobs=True, top_logprobs=2, max_tokens=3, temperature=0).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 2
        assert token.logprob == max(top.logprob for top in token.top_logprobs) <= 0


def test_several_choices_come_each_with_its_index(client: OpenAI) -> None:
    answer = ask(client, n=2, max_tokens=4)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    assert all(choice.message.content and choice.finish_reason for choice in answer.choices)
    texts = {0: "", 1: ""}
    for chunk in stream(client, n=2, max_tokens=4):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(texts.values())


def test_several_choices_are_all_counted(client: OpenAI) -> None:
    answer = ask(client, "Tell me a long story.", n=2, max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_a_schema_makes_an_object(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="auto",
        messages=[{"role": "user", "content": "Describe apple pie."}],
        response_format=Dish,
        temperature=0,
        max_tokens=60,
    )
    assert isinstance(parsed.choices[0].message.parsed, Dish)


# --- Streams ----------------------------------------------------------------------------------------


def test_a_stream_is_the_answer_in_pieces(client: OpenAI) -> None:
    chunks = list(stream(client))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 3
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {MODEL}
    finished = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finished in (["stop"], ["length"])
    assert text_of(chunks) == ask(client).choices[0].message.content


def test_the_last_chunk_has_the_usage_when_asked(client: OpenAI) -> None:
    *chunks, last = stream(client, "Tell me a long story.", stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 8
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_no_chunk_has_the_usage_when_nobody_asked(client: OpenAI) -> None:
    silent: list[dict[str, Any]] = [{}, {"stream_options": {"include_usage": False}}]
    for options in silent:
        assert all(chunk.usage is None and chunk.choices for chunk in stream(client, **options))


def test_the_sdks_stream_helper_gathers_the_answer(client: OpenAI) -> None:
    deltas = ""
    with client.chat.completions.stream(
        model="auto",
        messages=[{"role": "user", "content": "Say hello."}],
        stop=["!", "."],
        max_tokens=60,
        temperature=0,
        stream_options={"include_usage": True},
    ) as events:
        for event in events:
            if event.type == "content.delta":
                deltas += event.delta
        whole = events.get_final_completion()
    assert whole.choices[0].message.content == deltas != ""
    assert whole.usage is not None


def test_the_sdks_stream_helper_parses_an_object(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="auto",
        messages=[{"role": "user", "content": "Describe apple pie."}],
        response_format=Dish,
        temperature=0,
        max_tokens=60,
    ) as events:
        parsed = events.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Dish)


async def test_parallel_streams_overlap_and_all_finish(local_gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=f"{local_gateway.url}/v1", api_key="local", max_retries=0) as client:

        async def read(n: int) -> tuple[list[float], str | None]:
            times, finish = [], None
            async for chunk in await client.chat.completions.create(
                model="auto",
                messages=[{"role": "user", "content": f"Tell me story number {n}."}],
                max_tokens=16,
                extra_body={"ignore_eos": True},
                stream=True,
            ):
                finish = chunk.choices[0].finish_reason or finish
                if chunk.choices[0].delta.content:
                    times.append(time.monotonic())
            return times, finish

        readings = await asyncio.gather(*map(read, range(SLOTS)))
    assert [finish for _, finish in readings] == ["length"] * SLOTS
    assert max(times[0] for times, _ in readings) < min(times[-1] for times, _ in readings)


def test_streams_that_are_closed_early_free_their_slots(client: OpenAI, local_gateway: Gateway) -> None:
    ids = [f"early-{n}" for n in range(SLOTS)]
    with ExitStack() as stack:
        for id_ in ids:
            chunks = stack.enter_context(
                stream(client, "Tell me a story.", **NEVER_ENDING, extra_headers={"x-request-id": id_})
            )
            assert next(iter(chunks))
    left = time.monotonic()
    assert ask(client, max_tokens=2).choices[0].message.content
    assert time.monotonic() - left < 5
    for id_ in ids:
        local_gateway.wait_for("request_finished", 2, request_id=id_, status=499)


def test_an_answer_nobody_waits_for_is_stopped(client: OpenAI, local_gateway: Gateway) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client, "Tell me a story.", **NEVER_ENDING, timeout=1, extra_headers={"x-request-id": "impatient"})
    local_gateway.wait_for("request_finished", 2, request_id="impatient", status=499)


# --- Headers ----------------------------------------------------------------------------------------


def test_raw_responses_say_who_answered(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=4,
        temperature=0,
        extra_headers={"x-request-id": "my-own-id"},
    )
    assert raw.headers["x-request-id"] == "my-own-id"
    assert raw.headers["x-gateway-backend"] == "local"
    assert raw.headers["x-gateway-model"] == f"local/{MODEL}"
    assert raw.headers["x-gateway-attempts"] == "1"
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer._request_id == "my-own-id"


def test_streams_have_the_same_headers(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="auto", messages=[{"role": "user", "content": "Say hello."}], max_tokens=2, stream=True
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-gateway-model"] == f"local/{MODEL}"
        assert raw.headers["x-request-id"].startswith("req_")
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


# --- Tools ------------------------------------------------------------------------------------------


def test_parallel_tool_calls_are_streamed_whole(tool_client: OpenAI) -> None:
    tools: list[ChatCompletionToolUnionParam] = [
        {
            "type": "function",
            "function": {
                "name": name,
                "strict": True,
                "parameters": {
                    "type": "object",
                    "properties": {"place": {"type": "string"}},
                    "required": ["place"],
                    "additionalProperties": False,
                },
            },
        }
        for name in ("get_weather", "get_time")
    ]
    with tool_client.chat.completions.stream(
        model="auto",
        messages=[{"role": "user", "content": "Use get_weather and get_time for 'Zürich'."}],
        tools=tools,
    ) as events:
        done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
        [choice] = events.get_final_completion().choices
    assert [(event.index, event.name, json.loads(event.arguments)) for event in done] == [
        (0, "get_weather", {"place": "Zürich"}),
        (1, "get_time", {"place": "Zürich"}),
    ]
    assert choice.finish_reason == "tool_calls"
    assert len({call.id for call in choice.message.tool_calls or ()}) == 2


def test_tool_calls_parse_into_their_classes(tool_client: OpenAI) -> None:
    parsed = tool_client.chat.completions.parse(
        model="auto",
        messages=[{"role": "user", "content": "Order 3 portions."}],
        tools=[openai.pydantic_function_tool(Dish)],
        tool_choice="required",
    )
    [call] = parsed.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Dish(course="starter", portions=3)


# --- Models -----------------------------------------------------------------------------------------


def test_models_are_listed_and_described(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert ids == ["auto", *SHIPPED]
    for id_ in ids:
        model = client.models.retrieve(id_)
        assert (model.id, model.object) == (id_, "model")
