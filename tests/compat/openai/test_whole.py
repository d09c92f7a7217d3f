"""Whole chat completions say what their streams say."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import pytest

from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Finished, Result, ToolDelta, Usage, fold
from compat.canonical.message import Reasoning, Text, ToolCall
from compat.openai.answer import parse_answer, parse_events
from tests import wire
from tests.wire import dump, fixture


async def each(events: Iterable[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


async def streamed(stream: bytes, stops: tuple[str, ...] = ()) -> Result:
    async def told() -> AsyncGenerator[bytes, None]:
        yield stream

    return await fold(parse_events(told(), stops))


async def at_once(body: bytes, stops: tuple[str, ...] = ()) -> Result:
    return await fold(each(parse_answer(body, stops)))


def completion(message: dict[str, Any], finish: str | None = "stop", **fields: Any) -> bytes:
    """A whole answer with this message."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    return dump({"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [choice | fields]})


def stream(*deltas: dict[str, Any], finish: str = "stop", **fields: Any) -> bytes:
    """The same, streamed."""
    told: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    told.append({"index": 0, "delta": {}, "finish_reason": finish} | fields)
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    return b"".join(b"data: " + dump(head | {"choices": [choice]}) + b"\n\n" for choice in told) + wire.DONE


@pytest.mark.parametrize("name", ["text", "tools", "two", "logprobs", "vendor"])
async def test_a_whole_answer_says_what_its_stream_says(name: str) -> None:
    assert await at_once(fixture(f"{name}.json")) == await streamed(fixture(f"{name}.sse"))


async def test_nothing_of_the_golden_answers_is_missed() -> None:
    tools, two, logprobs, vendor = [
        await at_once(fixture(f"{name}.json")) for name in ("tools", "two", "logprobs", "vendor")
    ]
    assert tools.choices[0].parts == (
        ToolCall(id="call_9k2", name="get_weather", arguments='{"city":"Paris"}'),
        ToolCall(id="call_9k3", name="get_time", arguments='{"zone": "CET"}'),
    )
    assert tools.usage == Usage(input_tokens=19, output_tokens=10, cached_tokens=0, reasoning_tokens=0)
    assert [(choice.parts, choice.finished) for choice in two.choices] == [
        ((Text(text="Red."),), Finished(reason="stop")),
        ((Text(text="Blue sky"),), Finished(reason="length", choice=1)),
    ]
    [said] = logprobs.choices[0].parts
    assert isinstance(said, Text)
    assert [token["token"] for token in said.extra["logprobs"]] == ["Hi", " you"]
    assert vendor.choices[0].parts == (Reasoning(text="Let me think"), Text(text="Four."))


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
MISTRAL = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Four."}]


@pytest.mark.parametrize(
    ("message", "deltas", "finish"),
    [
        (
            {"content": "Four.", "reasoning_content": "Hm."},
            [{"reasoning_content": "Hm."}, {"content": "Fo"}, {"content": "ur."}],
            "stop",
        ),
        ({"content": None, "refusal": "I can't."}, [{"refusal": "I "}, {"refusal": "can't."}], "stop"),
        ({"content": ""}, [{"content": ""}], "content_filter"),
        ({"content": MISTRAL}, [{"content": [part]} for part in MISTRAL], "length"),
        (
            {"content": "Look.", "tool_calls": [CALL, CALL | {"id": "b"}]},
            [{"content": "Look."}, *({"tool_calls": [CALL | {"index": n, "id": id_}]} for n, id_ in enumerate("ab"))],
            "tool_calls",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            [{"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"a": 1}}}]}],
            "stop",
        ),
        ({"content": "Hi", "tool_calls": None}, [{"content": "Hi", "tool_calls": None}], "eos"),
    ],
    ids=["reasoning", "refusal", "filtered", "parts", "calls", "arguments as an object", "another reason"],
)
async def test_each_kind_of_message_is_read_like_its_deltas(
    message: dict[str, Any], deltas: list[dict[str, Any]], finish: str
) -> None:
    result = await at_once(completion(message, finish))
    assert result == await streamed(stream(*deltas, finish=finish))


async def test_parallel_calls_are_told_apart_without_an_index() -> None:
    told = parse_answer(completion({"tool_calls": [CALL, CALL | {"id": "b"}]}, "tool_calls"))
    assert [(event.call, event.id) for event in told if isinstance(event, ToolDelta)] == [(0, "a"), (1, "b")]


@pytest.mark.parametrize("told", [{"stop_reason": "END"}, {"matched_stop": "END"}], ids=["vllm", "sglang"])
async def test_the_stop_sequence_that_was_met_is_told(told: dict[str, Any]) -> None:
    body, frames = completion({"content": "One"}, **told), stream({"content": "One"}, **told)
    met = await at_once(body, ("END",))
    assert met.choices[0].finished == Finished(reason="stop", stop="END")
    assert met == await streamed(frames, ("END",))
    assert (await at_once(body, ("X",))).choices[0].finished.stop is None


async def test_what_is_said_of_a_cache_is_counted() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    body = dump(json.loads(completion({"content": "Hi"})) | {"usage": usage})
    assert (await at_once(body)).usage == Usage(
        input_tokens=9, output_tokens=3, cached_tokens=4, cache_written_tokens=2, reasoning_tokens=1
    )


@pytest.mark.parametrize("body", [completion({"content": "Half"}, None), completion({"content": "Half"}, "")])
def test_an_answer_that_does_not_say_why_it_ended_is_an_error(body: bytes) -> None:
    with pytest.raises(BadResponse, match="before it was complete"):
        parse_answer(body)


def test_each_choice_must_say_why_it_ended() -> None:
    two = json.loads(fixture("two.json"))
    two["choices"][1]["finish_reason"] = None
    for body in (two, two | {"choices": []}, two | {"choices": None}):
        with pytest.raises(BadResponse, match="before it was complete"):
            parse_answer(dump(body))


@pytest.mark.parametrize("content", [b"7", b'"\xff"', b'{"a":1}', b'[{"text":7}]'])
async def test_what_has_another_shape_is_the_providers_fault(content: bytes) -> None:
    with pytest.raises(BadResponse, match="cannot be translated"):
        parse_answer(completion({"content": "@"}).replace(b'"@"', content))
    with pytest.raises(BadResponse, match="cannot be translated"):
        await streamed(stream({"content": "@"}).replace(b'"@"', content))
