"""Chat requests: what the relay sends on, and what the translated lane reads and writes."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Part, Reasoning, Text, ToolCall, ToolResult
from compat.canonical.request import Sampling, Schema, TextRequest, Tool
from compat.openai.chat import envelope_of, parse_request, peek, render_request
from compat.openai.envelope import upstream_body
from tests.wire import fixture

ODD = (
    b'{ "model" : "asked",\n "zeta":{"b":1,  "a":[1.50, 1E3, 12345678901234567890123, -0.0] },'
    b' "messages":[ {"role":"user","content":"h\\u00e9 \xc3\xa9 \\/", "x":{"deep":[[]]}} ],'
    b'"temperature":0.10, "vendor":null, "stream" : false }'
)


def test_a_body_that_needs_no_change_is_sent_as_it_came() -> None:
    envelope = peek(ODD)
    assert upstream_body(envelope, "asked") is envelope.body
    assert upstream_body(envelope, "asked") == ODD


def test_another_model_changes_the_models_name_and_nothing_else() -> None:
    sent = upstream_body(peek(ODD), "provider's")
    for piece in (
        b'{"b":1,  "a":[1.50, 1E3, 12345678901234567890123, -0.0] }',
        b'[ {"role":"user","content":"h\\u00e9 \xc3\xa9 \\/", "x":{"deep":[[]]}} ]',
        b'"temperature":0.10',
        b'"vendor":null',
    ):
        assert piece in sent
    assert list(json.loads(sent)) == list(json.loads(ODD))
    assert json.loads(sent) == json.loads(ODD) | {"model": "provider's"}


@pytest.mark.parametrize(
    ("options", "sent", "wants"),
    [
        (None, {"include_usage": True}, False),
        ({}, {"include_usage": True}, False),
        ({"include_usage": False}, {"include_usage": True}, False),
        ({"include_usage": None}, {"include_usage": True}, False),
        ({"include_usage": True}, {"include_usage": True}, True),
        ({"obfuscate": False, "x": [1]}, {"obfuscate": False, "x": [1], "include_usage": True}, False),
    ],
)  # fmt: skip
def test_a_stream_asks_for_usage_beside_the_clients_own_options(
    options: dict[str, Any] | None, sent: dict[str, Any], wants: bool
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": options}
    envelope = peek(json.dumps(body).encode())
    assert envelope.stream
    assert envelope.wants_usage is wants
    assert json.loads(upstream_body(envelope, "m"))["stream_options"] == sent
    if not wants:
        assert json.loads(upstream_body(envelope, "m", asks_usage=False))["stream_options"] == options


def test_a_whole_answer_is_asked_for_as_it_came_unless_the_engine_must_stream() -> None:
    envelope = peek(b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
    assert envelope.wants_usage
    assert upstream_body(envelope, "m") == envelope.body
    streamed = json.loads(upstream_body(envelope, "m", streams=True))
    assert streamed["stream"] is True
    assert streamed["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("model", ["", "null", '"a"'])
def test_a_model_may_be_missing_null_or_named(model: str) -> None:
    field = f'"model":{model},' if model else ""
    envelope = peek(f'{{{field}"messages":[{{"role":"user","content":"x"}}]}}'.encode())
    assert envelope.model == ("a" if model == '"a"' else "")
    assert json.loads(upstream_body(envelope, "b"))["model"] == "b"


def test_of_two_equal_keys_the_last_one_counts_and_is_sent() -> None:
    envelope = peek(b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}],"n":1,"n":2}')
    assert envelope.model == "b"
    sent = upstream_body(envelope, "c")
    assert json.loads(sent)["n"] == 2
    assert (sent.count(b'"n":'), sent.count(b'"model":')) == (1, 1)


def test_a_request_is_read_whole() -> None:
    request = parse_request(peek(fixture("request.json")))
    assert request.sampling == Sampling(
        temperature=0.2, top_p=0.9, max_tokens=100, stop=("\n", "END"), seed=7, presence_penalty=0.1,
        frequency_penalty=-0.1,
    )  # fmt: skip
    assert [message.role for message in request.messages] == ["developer", "user", "assistant", "tool", "user"]
    text, far, near = request.messages[1].parts
    assert text == Text(text="What is this?", extra={"cache_control": {"type": "ephemeral"}})
    assert far == Media(mime="image/*", url="https://example.com/cat.png", extra={"detail": "low"})
    assert near == Media(mime="image/png", data=b"\x89PNG\r\n\x1a\n")
    assert request.messages[2].parts == (ToolCall(id="call_1", name="look", arguments='{"at": "cat"}'),)
    assert request.messages[3].parts == (ToolResult(id="call_1", parts=(Text(text="A cat."),)),)
    assert request.tool_choice == "=look"
    assert request.schema == Schema(name="cat", schema={"type": "object"}, strict=True)
    assert request.extra == {"logit_bias": {"50256": -100}, "vendor_flag": {"b": 1, "a": [2]}}


def test_what_is_read_is_written_again() -> None:
    written = json.loads(render_request(parse_request(peek(fixture("request.json"))), stream=False))
    assert written == json.loads(fixture("request.json"))


TEXTS = st.text(max_size=8)
EXTRAS = st.dictionaries(st.sampled_from(["cache_control", "x_note"]), st.integers() | TEXTS, max_size=2)
SAID: st.SearchStrategy[Part] = st.builds(Text, text=TEXTS, extra=EXTRAS) | st.builds(
    Media, mime=st.just("image/png"), data=st.binary(min_size=1, max_size=6), url=st.none(), name=st.none()
)
CALLS: st.SearchStrategy[Part] = st.builds(ToolCall, id=TEXTS, name=TEXTS, arguments=TEXTS)


def spoken(role: str) -> st.SearchStrategy[Message]:
    return st.builds(
        Message, role=st.just(role), parts=st.lists(SAID, min_size=1, max_size=3).map(tuple), extra=st.just({})
    )


ANSWERED = st.builds(
    lambda thought, said, calls: Message(
        role="assistant", parts=((Reasoning(text=thought),) if thought else ()) + tuple(said) + tuple(calls)
    ),
    TEXTS,
    st.lists(st.builds(Text, text=TEXTS.filter(bool)), min_size=1, max_size=2),
    st.lists(CALLS, max_size=2),
)
RESULTS = st.builds(
    lambda id_, text: Message(role="tool", parts=(ToolResult(id=id_, parts=(Text(text=text),)),)), TEXTS, TEXTS
)
PENALTIES = st.none() | st.floats(-2, 2)
COUNTS = st.none() | st.integers(1, 10**6)
TOOLS = st.lists(
    st.builds(
        Tool,
        name=TEXTS,
        parameters=st.just({"type": "object"}),
        description=st.none() | TEXTS,
        strict=st.none() | st.booleans(),
    ),
    max_size=2,
).map(tuple)


def choosing(tools: tuple[Tool, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """The tools, with a choice among them that OpenAI takes."""
    known = ["required", *(f"={tool.name}" for tool in tools)] if tools else []
    choices = st.sampled_from([None, "auto", "none", *known])
    return st.fixed_dictionaries({"tools": st.just(tools), "tool_choice": choices})


REQUESTS = st.builds(
    lambda request, chosen: msgspec.structs.replace(request, **chosen),
    st.builds(
        TextRequest,
        model=TEXTS,
        messages=st.lists(
            st.sampled_from(["system", "developer", "user"]).flatmap(spoken) | ANSWERED | RESULTS,
            min_size=1,
            max_size=4,
        ).map(tuple),
        sampling=st.builds(
            Sampling,
            temperature=st.none() | st.floats(0, 2),
            top_p=st.none() | st.floats(0, 1),
            top_k=COUNTS,
            max_tokens=COUNTS,
            stop=st.lists(TEXTS, max_size=2).map(tuple),
            seed=COUNTS,
            presence_penalty=PENALTIES,
            frequency_penalty=PENALTIES,
        ),
        parallel_tools=st.none() | st.booleans(),
        schema=st.none()
        | st.builds(Schema, name=TEXTS, schema=st.just({"type": "object"}), strict=st.none() | st.booleans()),
        effort=st.sampled_from([None, "low"]),
        choices=st.integers(1, 3),
        user=st.none() | TEXTS,
        extra=st.just({"vendor": [1]}) | st.just({}),
    ),
    TOOLS.flatmap(choosing),
)


@given(REQUESTS)
def test_every_request_survives_being_written_and_read(request: TextRequest) -> None:
    assert parse_request(envelope_of(request, stream=False)) == request


def user(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


MISSING, WRONG_TYPE, WRONG_VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
PART = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": [{"role": "wizard"}]}, "messages[0].role", WRONG_VALUE),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", MISSING),
        (user({"text": "x"}), f"{PART}.type", MISSING),
        (user({"type": "smell"}), f"{PART}.type", WRONG_VALUE),
        (user({"type": "image_url", "image_url": {}}), f"{PART}.image_url.url", MISSING),
        (user({"type": "image_url", "image_url": "data:x,y"}), f"{PART}.image_url.url", WRONG_VALUE),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function", MISSING),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function.name", MISSING),
        ({"response_format": {"type": "poem"}}, "response_format.type", WRONG_VALUE),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", MISSING),
        ({"tools": [{"type": "function"}]}, "tools[0].function", MISSING),
        ({"n": 1.5}, "n", WRONG_TYPE),
        ({"stop": [1]}, "stop[0]", WRONG_TYPE),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_translated_is_named(change: dict[str, Any], param: str, code: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | change
    with pytest.raises(InvalidRequest) as wrong:
        parse_request(peek(json.dumps(body).encode()))
    assert (wrong.value.param, wrong.value.code) == (param, code)


ODD_MESSAGES: list[dict[str, Any]] = [
    {"role": "assistant", "tool_calls": "x"},
    {"role": "assistant", "tool_calls": [7]},
    {"role": "assistant", "tool_calls": {"a": 1}},
    {"role": "assistant", "content": [7]},
    {"role": "user", "content": [{"type": 7}]},
    {"role": "user", "content": [{"type": ["text"]}]},
    {"role": "user", "content": [{"type": "text", "text": 7}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "!"}}]},
    {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:;base64,!"}}]},
    {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:;base64,AA==", "filename": 7}}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": []}}]},
    {"role": "tool", "tool_call_id": 7, "content": "x"},
]


@pytest.mark.parametrize("message", ODD_MESSAGES, ids=lambda m: json.dumps(m)[:60])
def test_an_odd_message_is_read_or_refused_but_never_trips(message: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": [message]}).encode()
    with suppress(InvalidRequest):
        render_request(parse_request(peek(body)), stream=True)
