"""Answers that spell calls as JSON, read piece by piece."""

import json
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.emulated import Spelling
from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Finished, Metered, Reason, Started, TextDelta, ToolDelta, Usage, fold
from compat.canonical.message import Text, ToolCall
from compat.canonical.spelled import Reader, spelled

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def cut(text: str, places: Sequence[int]) -> list[str]:
    inner = sorted({place for place in places if 0 < place < len(text)})
    return [text[begin:end] for begin, end in pairwise([0, *inner, len(text)])]


def read(pieces: Sequence[str], reply: Any = "text") -> tuple[Reader, list[TextDelta | ToolDelta]]:
    reader = Reader(Spelling(reply=reply), "call_x_")
    return reader, [event for piece in pieces for event in reader.feed(piece)]


def said(events: Sequence[TextDelta | ToolDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@given(st.text(), CUTS, st.booleans())
def test_a_reply_is_the_same_however_it_is_cut(words: str, places: list[int], ascii_only: bool) -> None:
    _, events = read(cut(json.dumps({"reply": words}, ensure_ascii=ascii_only), places))
    assert said(events) == words
    assert all(isinstance(event, TextDelta) and event.text for event in events)


@given(st.text(max_size=10), st.dictionaries(st.text(max_size=5), ANY, max_size=3), CUTS, st.sampled_from([None, 1]))
def test_arguments_come_as_they_were_written(name: str, given_: dict[str, Any], places: list[int], indent: Any) -> None:
    text = json.dumps({"name": name, "arguments": given_}, indent=indent)
    _, events = read(cut(text, places))
    first, *rest = (event for event in events if isinstance(event, ToolDelta))
    assert (first.name, first.id, first.arguments) == (name, "call_x_0", "")
    written = "".join(event.arguments for event in rest)
    assert written in text
    assert json.loads(written) == given_


@given(ANY, CUTS)
def test_a_reply_of_a_schema_is_passed_on_as_json(value: Any, places: list[int]) -> None:
    reader, events = read(cut(json.dumps({"reply": value}), places), "json")
    assert json.loads(said(events)) == value
    assert reader.ending(Finished(reason="stop")).reason == "stop"


def test_several_calls_are_told_apart() -> None:
    calls = [{"name": "a", "arguments": {"name": "b", "arguments": [1]}}, {"name": "c", "arguments": {}}]
    reader, events = read([*json.dumps({"calls": calls})])
    by_call = [[e for e in events if isinstance(e, ToolDelta) and e.call == n] for n in (0, 1)]
    assert [pieces[0].name for pieces in by_call] == ["a", "c"]
    assert [json.loads("".join(e.arguments for e in pieces)) for pieces in by_call] == [calls[0]["arguments"], {}]
    assert reader.ending(Finished(reason="stop")).reason == "tool_calls"


def test_half_a_surrogate_pair_becomes_one_mark() -> None:
    assert said(read([r'{"reply": "a\ud83d', r'b\udc00\ud83d\ude00"}'])[1]) == "a�b�😀"


@pytest.mark.parametrize(
    ("text", "told", "reason"),
    [
        ('{"name": "a", "arguments": {"b"', "length", "length"),
        ('{"name": "a", "arguments": {}}', "length", "tool_calls"),
        ('{"reply": "a"}', "length", "stop"),
        ('{"reply": "a', "length", "length"),
        ('{"reply": "a"}', "content_filter", "content_filter"),
    ],
)
def test_how_an_answer_ended_is_told_by_its_json(text: str, told: Reason, reason: Reason) -> None:
    assert read([text])[0].ending(Finished(reason=told)).reason == reason


def test_one_that_breaks_off_for_no_reason_is_no_answer() -> None:
    with pytest.raises(BadResponse):
        read(['{"name": "a"'])[0].ending(Finished(reason="stop"))


async def test_choices_are_read_side_by_side_and_all_else_passes() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield Started(id="chatcmpl-1a-2b", model="m", created=1)
        yield TextDelta(text='{"name": "a", "argum', choice=1)
        yield TextDelta(text='{"reply": "hel', choice=0)
        yield TextDelta(text='ents": {"b": 1}}', choice=1)
        yield TextDelta(text='lo"}', choice=0)
        yield Finished(reason="stop", choice=0)
        yield Finished(reason="stop", choice=1)
        yield Metered(usage=Usage(output_tokens=3))

    result = await fold(spelled(events(), Spelling(reply="text")))
    assert result.usage.output_tokens == 3
    assert [choice.parts for choice in result.choices] == [
        (Text(text="hello"),),
        (ToolCall(id="call_1a2b_1_0", name="a", arguments='{"b": 1}'),),
    ]
    assert [choice.finished.reason for choice in result.choices] == ["stop", "tool_calls"]
