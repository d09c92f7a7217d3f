"""Requests with tools, for models that know none."""

import json
from typing import Any

import jsonschema
import pytest

from compat.canonical.emulated import CALLS_MAX, Spelling, emulated, forces
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Text, ToolCall, ToolResult
from compat.canonical.request import Sampling, Schema, TextRequest, Tool

WEATHER = Tool(
    name="weather",
    description="Tells the weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TREE = Tool(
    name="grow",
    parameters={
        "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/Node"}},
        "required": ["root"],
    },
)
ASKED = (Message(role="user", parts=(Text(text="Hi"),)),)


def request(*tools: Tool, **fields: Any) -> TextRequest:
    return TextRequest(**{"model": "m", "messages": ASKED, "tools": tools, **fields})


def accepts(asked: TextRequest, value: Any) -> bool:
    """Whether the emulated request's answer may be this."""
    told, _, _ = emulated(asked)
    assert told.schema is not None
    assert told.schema.schema is not None
    jsonschema.Draft202012Validator.check_schema(told.schema.schema)
    return jsonschema.Draft202012Validator(told.schema.schema).is_valid(value)


CALL = {"name": "weather", "arguments": {"city": "Paris"}}
REPLY = {"reply": "Hello"}


@pytest.mark.parametrize(
    ("fields", "value", "fits"),
    [
        ({}, CALL, True),
        ({}, REPLY, True),
        ({"tool_choice": "auto"}, REPLY, True),
        ({"tool_choice": "required"}, CALL, True),
        ({"tool_choice": "required"}, REPLY, False),
        ({"tool_choice": "=weather"}, CALL, True),
        ({"tool_choice": "=grow"}, CALL, False),
        ({}, {"name": "weather", "arguments": {}}, False),
        ({}, {"name": "weather", "arguments": {"city": "Paris", "more": 1}}, False),
        ({}, {"name": "unknown", "arguments": {}}, False),
        ({}, {"name": "grow", "arguments": {"root": {"next": {"next": {}}}}}, True),
        ({}, {"name": "grow", "arguments": {"root": {"next": 3}}}, False),
        ({"parallel_tools": True}, {"calls": [CALL, CALL]}, True),
        ({"parallel_tools": True}, {"calls": []}, False),
        ({"parallel_tools": True}, {"calls": [CALL] * (CALLS_MAX + 1)}, False),
        ({"parallel_tools": True}, REPLY, True),
        ({"parallel_tools": True, "tool_choice": "=weather"}, CALL, True),
        ({"parallel_tools": False}, {"calls": [CALL]}, False),
        ({"schema": Schema(name="s", schema={"type": "integer"})}, {"reply": 3}, True),
        ({"schema": Schema(name="s", schema={"type": "integer"})}, REPLY, False),
        ({"schema": Schema(name="s", schema=None)}, {"reply": {"a": 1}}, True),
        ({"schema": Schema(name="s", schema={"$ref": "#/$defs/N", "$defs": {"N": {"const": 1}}})}, {"reply": 1}, True),
    ],
)
def test_the_schema_allows_what_the_choice_does(fields: dict[str, Any], value: Any, fits: bool) -> None:
    assert accepts(request(WEATHER, TREE, **fields), value) == fits


@pytest.mark.parametrize(
    ("parameters", "more"),
    [
        ({}, False),
        ({"type": "object"}, False),
        ({"type": "object", "properties": {}}, False),
        ({"additionalProperties": True}, True),
        ({"required": ["x"]}, True),
        ({"anyOf": [{"properties": {"x": {}}}]}, True),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}, True),
    ],
)
def test_a_tool_that_names_no_arguments_gets_none(parameters: dict[str, Any], more: bool) -> None:
    tool = Tool(name="now", parameters=parameters)
    assert accepts(request(tool), {"name": "now", "arguments": {"x": 1}}) is more


def test_the_instruction_has_nothing_to_copy() -> None:
    for parallel in (False, True):
        told, _, _ = emulated(request(WEATHER, parallel_tools=parallel))
        (said,) = told.messages[0].parts
        assert isinstance(said, Text)
        assert not set("<>…") & set(said.text)


def test_a_name_comes_before_its_arguments() -> None:
    told, spelling, _ = emulated(request(WEATHER, tool_choice="required"))
    assert spelling == Spelling(reply="none")
    assert told.schema is not None
    assert told.schema.schema is not None
    assert list(told.schema.schema["properties"]) == ["name", "arguments"]
    assert (told.tools, told.tool_choice) == ((), None)


def test_none_leaves_the_tools_out() -> None:
    told, spelling, lost = emulated(request(WEATHER, tool_choice="none"))
    assert (told.tools, told.tool_choice, told.schema, spelling, lost) == ((), None, None, None, ())
    assert told.messages == ASKED


def test_the_model_is_told_under_what_the_system_says() -> None:
    own = Message(role="developer", parts=(Text(text="Be brief."),))
    told, _, _ = emulated(request(WEATHER, messages=(own, *ASKED)))
    [part] = told.messages[0].parts
    assert isinstance(part, Text)
    assert part.text.startswith("Be brief.\n\n")
    assert '"Tells the weather."' in part.text
    assert emulated(request(WEATHER))[0].messages[0].role == "system"


def test_calls_and_results_become_words_between_a_user_and_an_assistant() -> None:
    picture = Media(mime="image/png", data=b"x")
    history = (
        *ASKED,
        Message(role="assistant", parts=(Text(text="Let me see."), call("1", '{"city": "Oslo"}'), call("2", "{cit"))),
        Message(role="tool", parts=(ToolResult(id="1", parts=(Text(text="sunny"),)),)),
        Message(role="tool", parts=(ToolResult(id="2", parts=(picture,), failed=True),)),
        Message(role="user", parts=(Text(text="Well?"),)),
        Message(role="user", parts=(Text(text="And?"),)),
    )
    told, spelling, _ = emulated(request(messages=history))
    assert spelling is None
    assert [message.role for message in told.messages] == ["user", "assistant", "user"]
    _, spoken, reported = told.messages
    [words] = spoken.parts
    assert isinstance(words, Text)
    head, _, calls = words.text.partition("\n")
    assert head == "Let me see."
    assert json.loads(calls) == {
        "calls": [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "weather", "arguments": "{cit"}]
    }
    assert reported.parts == (
        Text(text="Result of weather:\nsunny\nError from weather:"),
        picture,
        Text(text="Well?\nAnd?"),
    )


def test_a_model_that_knows_tools_keeps_its_calls() -> None:
    history = (*ASKED, Message(role="assistant", parts=(call("1", "{}"),)))
    told, _, _ = emulated(request(WEATHER, messages=history, tool_choice="required"), keeps_calls=True)
    assert told.messages[1:] == history


def test_what_would_break_the_json_is_left_out_by_name_or_refused() -> None:
    asked = request(WEATHER, sampling=Sampling(stop=("}",)), extra={"logprobs": True, "min_p": 0.1})
    told, _, lost = emulated(asked)
    assert set(lost) == {"stop", "logprobs"}
    assert (told.sampling.stop, told.extra) == ((), {"min_p": 0.1})
    with pytest.raises(InvalidRequest) as refused:
        emulated(request(WEATHER, extra={"grammar": 'root ::= "x"'}))
    assert refused.value.param == "grammar"


@pytest.mark.parametrize(("choice", "forced"), [(None, False), ("auto", False), ("required", True), ("=weather", True)])
def test_which_choices_force_a_call(choice: str | None, forced: bool) -> None:
    assert forces(request(WEATHER, tool_choice=choice)) == forced
    assert not forces(request(tool_choice=choice))


def call(id_: str, arguments: str) -> ToolCall:
    return ToolCall(id=id_, name="weather", arguments=arguments)
