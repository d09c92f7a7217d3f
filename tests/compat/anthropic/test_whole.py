"""Whole answers in Anthropic's dialect say what their streams say."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest

from compat.anthropic.reading import parse_answer, parse_events
from compat.canonical.error import BadResponse
from compat.canonical.event import Cited, Event, Finished, Metered, Result, ToolDelta, Usage, fold
from compat.canonical.message import Reasoning, Text, ToolCall
from tests.claude import events, fixture, frames, whole

STREAMS = ["text.sse", "tools.sse", "thinking.sse", "stop_sequence.sse", "refusal.sse", "server_tool.sse"]


async def each(events_: Iterable[Event]) -> AsyncIterator[Event]:
    for event in events_:
        yield event


async def streamed(*pieces: bytes) -> Result:
    async def told() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    return await fold(parse_events(told(), created=1))


async def at_once(body: bytes) -> Result:
    return await fold(each(parse_answer(body, created=1)))


def message(*blocks: dict[str, Any], **fields: Any) -> bytes:
    """A whole message of these blocks."""
    return json.dumps(json.loads(fixture("text.json")) | {"content": blocks} | fields).encode()


@pytest.mark.parametrize("name", STREAMS)
async def test_a_whole_answer_says_what_its_stream_says(name: str) -> None:
    body = whole(frames(name))
    assert await at_once(body) == await streamed(*frames(name))


def test_the_golden_body_is_what_its_stream_stands_for() -> None:
    golden = json.loads(fixture("text.json"))
    del golden["vendor_note"]
    assert json.loads(whole(frames("text.sse"))) == golden


@pytest.mark.parametrize("name", STREAMS)
def test_its_events_come_in_order(name: str) -> None:
    told = parse_answer(whole(frames(name)), created=7)
    assert [type(event).__name__ for event in (told[0], *told[-2:])] == ["Started", "Finished", "Metered"]
    assert sum(isinstance(event, (Finished, Metered)) for event in told) == 2


async def test_thoughts_tools_and_citations_are_all_there() -> None:
    thought = await at_once(whole(frames("thinking.sse")))
    assert [type(part) for part in thought.choices[0].parts] == [Reasoning, Reasoning, Text, Reasoning, ToolCall]
    assert thought.usage == Usage(
        input_tokens=135, output_tokens=120, cached_tokens=100, cache_written_tokens=10, reasoning_tokens=64
    )
    called = await at_once(whole(frames("tools.sse")))
    calls = [part for part in called.choices[0].parts if isinstance(part, ToolCall)]
    assert [(call.name, call.arguments) for call in calls] == [
        ("get_weather", '{"city": "Paris"}'),
        ("get_time", '{"zone": "CET"}'),
        ("ping", "{}"),
    ]
    searched = await at_once(whole(frames("server_tool.sse")))
    assert searched.choices[0].cited == (Cited(url="https://example.com", title="T", start=12, end=18),)


@pytest.mark.parametrize("spelled", [b"{}", b"{ }", b"null"])
def test_a_call_without_arguments_has_an_empty_object(spelled: bytes) -> None:
    body = message({"type": "tool_use", "id": "t", "name": "f", "input": "@"}, stop_reason="tool_use")
    calls = [e for e in parse_answer(body.replace(b'"@"', spelled), created=1) if isinstance(e, ToolDelta)]
    assert "".join(call.arguments for call in calls) == "{}"
    assert [call.id for call in calls if call.id] == ["t"]


async def test_arguments_keep_their_numbers() -> None:
    """No float holds them."""
    spelled = b'{"big":12345678901234567890123,"f":1.50,"s":"\\u00e9"}'
    body = message({"type": "tool_use", "id": "t", "name": "f", "input": "@"}, stop_reason="tool_use")
    result = await at_once(body.replace(b'"@"', spelled))
    assert result.choices[0].parts == (ToolCall(id="t", name="f", arguments=spelled.decode()),)


async def test_fields_of_other_kinds_of_blocks_may_be_null() -> None:
    """As servers write them that dump one structure for all kinds."""
    nothing = dict.fromkeys(("id", "name", "input", "text", "thinking", "signature", "data", "citations"))
    result = await at_once(
        message(
            nothing | {"type": "thinking", "thinking": "Hm."},
            nothing | {"type": "text", "text": "Hi"},
            nothing | {"type": "tool_use", "id": "t", "name": "f"},
            stop_sequence=None,
        )
    )
    assert result.choices[0].parts == (Reasoning(text="Hm."), Text(text="Hi"), ToolCall("t", "f", "{}"))


@pytest.mark.parametrize("content", [[], [{"type": "text", "text": "Half of it"}]])
def test_an_answer_that_does_not_say_why_it_ended_is_an_error(content: list[dict[str, Any]]) -> None:
    body = json.loads(message(*content, stop_reason=None))
    with pytest.raises(BadResponse, match="before it was complete"):
        parse_answer(json.dumps(body).encode(), created=1)
    del body["stop_reason"]
    with pytest.raises(BadResponse, match="before it was complete"):
        parse_answer(json.dumps(body).encode(), created=1)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"type":"text","text":7}]',
        b'[{"type":"text","text":"\xff"}]',
        b'[{"type":"tool_use","id":"t","name":"f","input":{"a":"\xff"}}]',
        b'["text"]',
        b'"text"',
    ],
)
def test_what_has_another_shape_is_the_providers_fault(content: bytes) -> None:
    body = message(stop_reason="end_turn").replace(b'"content": []', b'"content": ' + content)
    assert content in body
    with pytest.raises(BadResponse, match="cannot be translated"):
        parse_answer(body, created=1)


async def test_bytes_that_are_no_text_are_the_providers_fault_in_a_stream_too() -> None:
    with pytest.raises(BadResponse, match="cannot be translated"):
        await streamed(*[frame.replace(b"Hello", b"\xff") for frame in frames("text.sse")])


def test_folding_loses_nothing_of_a_stream() -> None:
    """The stand-in's own work: each block is there, and its input as it was spelled."""
    body = whole(frames("thinking.sse"))
    begun = [event["content_block"] for name, event in events(fixture("thinking.sse")) if name == "content_block_start"]
    kinds = [block["type"] for block in json.loads(body)["content"]]
    assert kinds == [block["type"] for block in msgspec.convert(begun, list[dict[str, Any]])]
    assert b'"input":{"city":"Paris"}' in body
