"""Tools of other times and kinds: custom ones, and functions before there were tools."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.event import ToolDelta
from compat.canonical.message import ToolCall
from compat.openai.calls import Calls
from compat.openai.chat import parse_request, peek
from compat.openai.custom import as_function, grammar_of, unwrapped, wrapped


def asked(**fields: Any) -> Any:
    return peek(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields).encode())


@given(st.text())
def test_a_custom_tools_input_survives_being_an_argument(text: str) -> None:
    assert unwrapped(wrapped(text)) == text


@given(st.text())
def test_arguments_that_keep_to_no_schema_come_whole(text: str) -> None:
    assert isinstance(unwrapped(text), str)


@pytest.mark.parametrize("arguments", ["", "[1]", "{", '{"other":1}', '{"input":1}', "null"])
def test_what_has_no_input_is_the_input(arguments: str) -> None:
    assert unwrapped(arguments) == arguments


def test_a_grammar_is_described_to_the_model() -> None:
    flat = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    nested = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    assert grammar_of(flat) == grammar_of(nested) == ("lark", "start: /a/")
    assert grammar_of({"type": "text"}) is None
    assert grammar_of("odd") is None
    assert (as_function("t", "Runs.", flat).description or "").endswith("(lark):\nstart: /a/")
    assert as_function("t", None, None).description is None


def test_pieces_of_a_custom_call_are_held_until_they_are_whole() -> None:
    calls = Calls(asked(tools=[{"type": "custom", "custom": {"name": "run"}}]))
    first = calls.delta(ToolDelta(call=0, id="call_1", name="run"))
    assert first == {
        "tool_calls": [{"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "run", "input": ""}}]
    }
    assert calls.delta(ToolDelta(call=0, arguments='{"input":')) is None
    assert calls.delta(ToolDelta(call=0, arguments='"ls"}')) is None
    assert calls.last(1) is None
    assert calls.last(0) == {"tool_calls": [{"index": 0, "custom": {"input": "ls"}}]}


def test_a_description_that_says_custom_makes_no_custom_tool() -> None:
    calls = Calls(asked(tools=[{"type": "function", "function": {"name": "run", "description": 'a "custom" one'}}]))
    assert "function" in calls.message([ToolCall(id="1", name="run", arguments="{}")])["tool_calls"][0]


def test_only_the_first_call_fits_where_there_is_one() -> None:
    calls = Calls(asked(functions=[{"name": "f"}]))
    assert calls.message([ToolCall(id="1", name="f", arguments="{}"), ToolCall(id="2", name="g", arguments="")]) == {
        "function_call": {"name": "f", "arguments": "{}"}
    }
    assert calls.delta(ToolDelta(call=1, id="2", name="g")) is None
    assert (calls.reason("tool_calls"), calls.reason("stop")) == ("function_call", "stop")


def test_a_functions_result_belongs_to_the_call_before_it() -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    result = {"role": "function", "name": "f", "content": "1"}
    request = parse_request(
        asked(messages=[call, result, call, result, {"role": "function", "name": "g", "content": ""}])
    )
    ids = [getattr(part, "id", None) for message in request.messages for part in message.parts]
    assert ids == ["call_0", "call_0", "call_2", "call_2", "call_4"]
