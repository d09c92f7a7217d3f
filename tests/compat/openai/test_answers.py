"""Answers: folding chunks into one body, and events into chunks and back."""

import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.error import BadResponse
from compat.canonical.event import (
    Event,
    Finished,
    Metered,
    Reason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolDelta,
    Usage,
    fold,
)
from compat.openai.answer import parse_events, render_events, render_result
from compat.openai.fold import fold_chat, fold_completions
from compat.sse import DONE, Cutter
from tests.wire import dump, fixture

PAIRS = ["text", "tools", "two", "logprobs", "vendor"]


async def each(items: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for item in items:
        yield item


def pieces(stream: bytes, step: int) -> list[bytes]:
    cutter = Cutter()
    return [out for at in range(0, len(stream), step) if (out := cutter.feed(stream[at : at + step]))]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("step", [100, 100_000])
async def test_streamed_chunks_fold_to_the_whole_answer(name: str, step: int) -> None:
    folded = await fold_chat(each(pieces(fixture(f"{name}.sse"), step)))
    assert json.loads(folded) == json.loads(fixture(f"{name}.json"))


async def test_completions_fold_too() -> None:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": None} for text in ("One", " two")]
    choices.append({"index": 0, "text": "", "logprobs": None, "finish_reason": "length"})
    stream = b"".join(b"data: " + dump(head | {"choices": [choice]}) + b"\n\n" for choice in choices) + DONE
    assert json.loads(await fold_completions(each([stream]))) == head | {
        "choices": [{"index": 0, "text": "One two", "logprobs": None, "finish_reason": "length"}]
    }


STARTED = Started(id="chatcmpl-1", model="m", created=1763769600)
METERED = Metered(usage=Usage(input_tokens=3, output_tokens=4, cached_tokens=1, reasoning_tokens=0))


async def rendered(events: list[Event], *, include_usage: bool = True) -> bytes:
    return b"".join([frame async for frame in render_events(each(events), include_usage=include_usage)])


async def read_back(stream: bytes) -> list[Event]:
    return [event async for event in parse_events(each([stream]))]


TEXTS = st.text(min_size=1, max_size=6)
DELTAS: st.SearchStrategy[Event] = (
    st.builds(
        TextDelta,
        text=TEXTS,
        choice=st.integers(0, 1),
        logprobs=st.just(()) | st.just(({"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": []},)),
    )
    | st.builds(ReasoningDelta, text=TEXTS, signature=st.none(), redacted=st.none(), choice=st.integers(0, 1))
    | st.builds(ToolDelta, call=st.just(0), arguments=TEXTS, id=st.none(), name=st.none(), choice=st.integers(0, 1))
)


@given(st.lists(DELTAS, min_size=1, max_size=6), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
async def test_events_survive_being_written_and_read(deltas: list[Event], reason: Reason) -> None:
    named: set[int] = set()
    events: list[Event] = [STARTED]
    for delta in deltas:
        assert not isinstance(delta, (Started, Metered))
        if isinstance(delta, ToolDelta) and delta.choice not in named:
            named.add(delta.choice)
            delta = ToolDelta(call=0, arguments=delta.arguments, id="call_1", name="look", choice=delta.choice)
        events.append(delta)
    spoke = {e.choice for e in events if isinstance(e, (TextDelta, ReasoningDelta, ToolDelta))}
    events += [Finished(reason=reason, choice=n) for n in sorted(spoke)]
    assert await read_back(await rendered([*events, METERED])) == [*events, METERED]


async def test_a_whole_answer_is_what_its_stream_folds_to() -> None:
    events: list[Event] = [
        STARTED,
        ReasoningDelta(text="Hm"),
        TextDelta(text="One "),
        TextDelta(text="moment"),
        ToolDelta(call=0, id="call_1", name="look", arguments='{"at":'),
        ToolDelta(call=0, arguments="1}"),
        Finished(reason="tool_calls"),
        METERED,
    ]
    whole = json.loads(render_result(await fold(each(events))))
    assert json.loads(await fold_chat(each([await rendered(events)]))) == whole
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": "One moment",
        "refusal": None,
        "reasoning_content": "Hm",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}],
    }


async def test_a_stream_is_openais_in_every_chunk() -> None:
    stream = await rendered([STARTED, TextDelta(text="Hi"), Finished(reason="other", raw_reason="eos"), METERED])
    assert stream.endswith(DONE)
    assert stream.count(b"[DONE]") == 1
    first, *_, end, usage = [json.loads(e.removeprefix(b"data: ")) for e in stream.split(b"\n\n")[:-2]]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hi", "refusal": None}
    assert first["object"] == "chat.completion.chunk"
    assert first["usage"] is None
    assert end["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 7


async def test_usage_that_was_not_asked_for_is_not_written() -> None:
    assert b"usage" not in await rendered([STARTED, TextDelta(text="x"), Finished(reason="stop")], include_usage=False)


async def test_recorded_streams_are_read_as_events() -> None:
    events = await read_back(fixture("tools.sse"))
    assert events[0] == Started(id="chatcmpl-CW3kT0", model="gpt-4o-mini-2024-07-18", created=1763769600)
    calls = [event for event in events if isinstance(event, ToolDelta)]
    assert [(c.call, c.id, c.name) for c in calls if c.id] == [
        (0, "call_9k2", "get_weather"),
        (1, "call_9k3", "get_time"),
    ]
    assert "".join(c.arguments for c in calls if c.call == 1) == '{"zone": "CET"}'
    assert events[-2:] == [
        Finished(reason="tool_calls"),
        Metered(usage=Usage(input_tokens=19, output_tokens=10, cached_tokens=0, reasoning_tokens=0)),
    ]
    thoughts = [e.text for e in await read_back(fixture("vendor.sse")) if isinstance(e, ReasoningDelta)]
    assert thoughts == ["Let me", " think"]


async def test_arguments_sent_as_an_object_become_their_text() -> None:
    chunk = b'data: {"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":{"a":1}}}]}}]}\n\n'
    calls = [e for e in await read_back(chunk) if isinstance(e, ToolDelta)]
    assert calls == [ToolDelta(call=0, id="c", name="f", arguments='{"a":1}')]


async def test_a_stream_without_an_end_is_no_answer() -> None:
    for events in ([], [STARTED], [STARTED, TextDelta(text="x")]):
        with pytest.raises(BadResponse):
            await fold(each(events))
    two = [STARTED, TextDelta(text="a"), TextDelta(text="b", choice=1), Finished(reason="stop")]
    with pytest.raises(BadResponse):
        await fold(each(two))


async def test_closing_what_is_written_closes_what_is_read() -> None:
    closed = []

    async def source() -> AsyncGenerator[Event, None]:
        try:
            yield STARTED
            while True:
                yield TextDelta(text="x")
        finally:
            closed.append(True)

    frames = render_events(source(), include_usage=False)
    await anext(frames)
    await frames.aclose()
    assert closed == [True]
