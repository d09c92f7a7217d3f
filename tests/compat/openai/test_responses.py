"""The Responses API: requests read, answers written, a provider's answers watched."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.anthropic.messages import render_request as render_anthropic
from compat.canonical.error import BadResponse, InvalidRequest, RateLimited, TimedOut
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
from compat.canonical.message import Media, Message, Opaque, Reasoning, Text, ToolCall, ToolResult
from compat.canonical.plain import plain
from compat.canonical.request import Schema, TextRequest
from compat.nativeturn import parse_shown, shown, transcript
from compat.openai.chat import render_request
from compat.openai.conversations import render_item
from compat.openai.responses import (
    ResponsesRequest,
    expanded,
    parse_request,
    peek,
    previous_of,
    read_request,
    references_of,
    render_settings,
)
from compat.openai.responses_answer import render_failure, replay, unfold
from compat.openai.responses_item import normalized, parse_items, sound
from compat.openai.responses_tap import ResponsesTap
from compat.openai.responses_tool import lost_choice
from compat.sse import Cutter
from tests.responses import ANSWER, check_response, checked, writer, written
from tests.wire import dump, fixture

STREAM, WHOLE = fixture("responses_provider.sse"), fixture("responses_provider.json")


MISSING = "missing_required_parameter"
FIELDS = ("type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "id", "image_url",
          "file_data", "status")  # fmt: skip
WORDS = ("message", "user", "assistant", "input_text", "input_image", "input_file", "reasoning", "function_call",
         "function_call_output", "item_reference", "input_audio")  # fmt: skip


def asked(**fields: Any) -> TextRequest:
    return parse_request(peek(dump({"model": "m", "input": "Hi"} | fields)))


def counted(prefix: str) -> str:
    return f"{prefix}_new"


async def each(events: list[Event]) -> Any:
    for event in events:
        yield event


# Requests


def test_a_request_becomes_a_chat_request_and_what_chat_cannot_say_is_named() -> None:
    request, lost = plain(parse_request(peek(fixture("responses_request.json"))), "chat")
    assert json.loads(render_request(request, stream=False)) == json.loads(fixture("responses_request.chat.json"))
    assert set(lost) == {
        "vendor_flag",
        "truncation",
        "prompt_cache_key",
        "text.verbosity",
        "tools.web_search",
    }


def test_an_input_of_text_is_what_the_user_says() -> None:
    assert asked().messages == (Message(role="user", parts=(Text(text="Hi"),)),)


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False, "truncation": "disabled", "service_tier": "default", "top_logprobs": 0},
        {"metadata": {"a": "b"}, "store": True, "max_tool_calls": 3, "stream_options": {"include_obfuscation": False}},
        {"include": ["reasoning.encrypted_content", "web_search_call.results"], "prompt_cache_key": None},
    ],
)
def test_what_changes_nothing_is_not_called_lost(fields: dict[str, Any]) -> None:
    assert plain(asked(**fields), "chat")[1] == ()


@pytest.mark.parametrize(
    ("format_", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Schema(name="json_object", schema=None)),
        ({"type": "json_schema", "name": "n", "schema": {"a": 1}}, Schema(name="n", schema={"a": 1})),
    ],
)
def test_an_answers_structure_is_read(format_: dict[str, Any], schema: Schema | None) -> None:
    assert asked(text={"format": format_}).schema == schema


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        ("required", "required"),
        ({"type": "function", "name": "b"}, "=b"),
        ({"type": "web_search_preview"}, None),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}, "required"),
    ],
)
def test_a_choice_of_tool_is_read(choice: Any, read: str | None) -> None:
    request = asked(tools=[{"type": "function", "name": "a"}, {"type": "function", "name": "b"}], tool_choice=choice)
    assert request.tool_choice == read
    names = [tool.name for tool in request.tools if not isinstance(tool, Opaque)]
    assert names == (["b"] if isinstance(choice, dict) and choice["type"] == "allowed_tools" else ["a", "b"])


def test_what_a_model_said_in_one_go_is_one_message() -> None:
    items = normalized(
        [
            {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {"type": "function_call", "call_id": "1", "name": "a", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "b", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
            {"role": "assistant", "content": "A"},
            {"role": "assistant", "content": "B"},
        ],
        counted,
    )
    assert parse_items(items) == (
        Message(
            role="assistant",
            parts=(
                Reasoning(text="Hm"),
                ToolCall(id="1", name="a", arguments="{}"),
                ToolCall(id="2", name="b", arguments="{}"),
            ),
        ),
        Message(role="tool", parts=(ToolResult(id="1", parts=(Text(text="one"),)),)),
        Message(role="assistant", parts=(Text(text="A"),)),
        Message(role="assistant", parts=(Text(text="B"),)),
    )


def test_files_and_sounds_are_read() -> None:
    parts = [
        {"type": "input_file", "file_data": "JVBERi0=", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
    ]
    assert parse_items(normalized([{"role": "user", "content": parts}], counted))[0].parts == (
        Media(mime="application/octet-stream", data=b"%PDF-", name="a.pdf"),
        Media(mime="application/pdf", url="https://example.com/a.pdf"),
        Media(mime="audio/mp3", data=b"\0\0\0"),
        Media(mime="image/png", data=b"\0\0\0", extra={"detail": "low"}),
    )


def test_a_hosted_tools_call_is_left_out_by_name_and_what_it_found_is_refused() -> None:
    call = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}
    request, lost = plain(asked(input=[call, {"role": "user", "content": "x"}]), "chat")
    assert lost == ("web_search_call",)
    assert request.messages[-1].role == "user"
    with pytest.raises(InvalidRequest, match="computer_call_output"):
        asked(input=[{"type": "computer_call_output", "call_id": "1", "output": {}}])


@pytest.mark.parametrize(
    "part", [{"type": "input_image", "file_id": "file-1"}, {"type": "input_file", "file_id": "file-1"}, {"type": "odd"}]
)
def test_what_the_model_was_to_read_and_cannot_be_given_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(input=[{"role": "user", "content": [{"type": "input_text", "text": "Look:"}, part]}])
    assert caught.value.param == "input[0].content[1].type"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", MISSING),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": ["x"]}, "input[0]", "invalid_type"),
        ({"input": [{"content": "x"}]}, "input[0].type", MISSING),
        ({"input": [{"role": "user"}]}, "input[0].content", MISSING),
        ({"input": [{"role": ["user"], "content": "x"}]}, "input[0].role", "invalid_type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type", MISSING),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text", MISSING),
        ({"input": [{"type": "function_call", "name": "a", "arguments": "{}"}]}, "input[0].call_id", MISSING),
        ({"input": [{"type": "function_call_output", "call_id": "1"}]}, "input[0].output", MISSING),
        ({"input": [{"type": "item_reference", "id": "msg_9"}]}, "input", None),
        ({"tools": [{"name": "a"}]}, "tools[0].type", MISSING),
        ({"tools": [{"type": "function"}]}, "tools[0].name", MISSING),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name", MISSING),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema", MISSING),
        ({"max_output_tokens": "many"}, "max_output_tokens", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_read_names_the_field(fields: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(FIELDS),
                inner | st.sampled_from(WORDS),
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_the_input_is_it_is_read_or_refused(given_: Any) -> None:
    with suppress(InvalidRequest):
        plain(asked(input=given_), "chat")


@given(
    st.fixed_dictionaries(
        {"id": st.just("i"), "type": st.sampled_from([*WORDS, "custom_tool_call", "tool_search_output", "nope"])},
        optional=dict.fromkeys(
            ["role", "content", "summary", "output", "arguments", "input", "name", "call_id"],
            st.sampled_from([None, 5, True, "x", [], {}, [5], [None], [[]], ["x"]])
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional=dict.fromkeys(FIELDS, st.sampled_from([None, 5, "x", [], [5], {}, *WORDS])),
                ),
                max_size=2,
            ),
        ),
    )
)
def test_whatever_was_kept_can_be_read(item: Any) -> None:
    kept = sound(item)
    parse_items(normalized([kept], counted), past=True)
    parse_shown(shown([kept], lambda _: True), {})
    transcript([kept])
    render_item(kept, (), {})
    assert sound(kept) == kept


def test_what_is_sound_is_kept_as_it_is() -> None:
    given: list[Any] = [
        {"role": "user", "content": [{"type": "input_image", "image_url": "artifact:a"}, {"type": "odd", "a": 1}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "1", "name": "a", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "web_search_call", "action": 5},
    ]
    for item in normalized(given, counted):
        assert sound(item) == item


@pytest.mark.parametrize("kind", [{}, [], None, 7])
def test_a_tool_whose_type_is_no_word_is_nobodys(kind: object) -> None:
    tools = [{"type": kind, "name": "a"}]
    assert render_settings(ResponsesRequest(input="x", tools=tools))["tools"] == []
    assert lost_choice(tools, "required")


def test_normalized_items_are_as_openai_lists_them() -> None:
    plainly, call, output = normalized(
        [
            {"role": "user", "content": "x", "vendor": 1},
            {"type": "function_call", "call_id": "1", "name": "a", "arguments": "{}", "id": "fc_mine"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
        ],
        counted,
    )
    assert plainly == {
        "id": "msg_new",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "x"}],
        "vendor": 1,
    }
    assert (call["id"], call["status"]) == ("fc_mine", "completed")
    assert (output["id"], output["status"]) == ("fco_new", "completed")


# What came before


def test_what_came_before_is_written_out_in_front() -> None:
    body = {"model": "m", "zeta": 1, "input": "And?", "previous_response_id": "resp_1", "store": False}
    envelope = peek(dump(body))
    assert previous_of(envelope) == "resp_1"
    history = normalized("First", counted)
    out = json.loads(expanded(envelope, history, {}, relayed=False).body)
    assert out == {"model": "m", "zeta": 1, "input": [*history, {"role": "user", "content": "And?"}], "store": False}


def test_a_provider_is_not_given_our_ids_nor_what_another_sealed() -> None:
    w = writer(ResponsesRequest(include=["reasoning.encrypted_content"]))
    written(ANSWER, w)
    theirs: dict[str, Any] = {"type": "reasoning", "id": "rs_9", "summary": [], "encrypted_content": "gAAAA"}
    out = expanded(peek(dump({"input": "x", "previous_response_id": "r"})), [*w.output, theirs], {}, relayed=True)
    sent = json.loads(out.body)["input"]
    assert [item.get("type") for item in sent] == ["message", "function_call", "function_call", "reasoning", None]
    assert not any("id" in item or "status" in item for item in sent)


def test_a_reference_is_replaced_by_what_it_means() -> None:
    item = normalized("Hello", counted)[0]
    envelope = peek(dump({"input": [{"type": "item_reference", "id": "msg_new"}, {"id": "msg_2"}]}))
    assert references_of(envelope) == ["msg_new", "msg_2"]
    sent = json.loads(expanded(envelope, None, {"msg_new": item}, relayed=False).body)["input"]
    assert sent == [item, {"id": "msg_2"}]


def test_what_was_sealed_comes_back_to_its_provider_as_it_was() -> None:
    w = writer(ResponsesRequest(include=["reasoning.encrypted_content"]))
    written(ANSWER, w)
    results = [{"type": "function_call_output", "call_id": f"call_{n}", "output": "fine"} for n in "ab"]
    request = asked(
        input=[{"role": "user", "content": "Weather?"}, *w.output, *results], tools=[{"type": "web_search"}]
    )
    body, lost = render_anthropic(request, stream=False)
    assert lost == ("tools.web_search",)
    sent = json.loads(body)
    assert "tools" not in sent
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][1]["content"][:3] == [
        {"type": "thinking", "thinking": "The user wants two cities.", "signature": "c2lnbmVk"},
        {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
        {"type": "text", "text": "One moment."},
    ]
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result", "tool_result"]


def test_what_another_provider_sealed_is_no_signature() -> None:
    theirs = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAABo"}
    assert parse_items([theirs])[0].parts == (Reasoning(text=""),)


# Answers


def golden() -> ResponsesRequest:
    return ResponsesRequest(
        input="x",
        instructions="Be quick.",
        include=["reasoning.encrypted_content"],
        tools=[{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}, {"type": "web_search"}],
        max_output_tokens=99,
        metadata={"a": "b"},
    )


def test_an_answer_is_written_as_openai_writes_it() -> None:
    w = writer(golden())
    assert written(ANSWER, w) == fixture("responses_answer.sse")
    assert w.response() == json.loads(fixture("responses_answer.json"))
    checked(fixture("responses_answer.sse"))


async def test_a_whole_answer_is_the_one_its_stream_ends_with() -> None:
    w = writer(golden())
    for event in unfold(await fold(each(ANSWER))):
        w.feed(event)
    assert w.response() == json.loads(fixture("responses_answer.json"))


def test_sealed_reasoning_is_shown_only_to_those_who_ask() -> None:
    w = writer()
    stream = written(ANSWER, w)
    checked(stream)
    assert b"encrypted_content" not in stream
    assert [item["encrypted_content"] for item in w.output[:2]] == ["pluggably.s.c2lnbmVk", "pluggably.r.cmVkYWN0ZWQ="]


def test_reasoning_comes_as_a_summary_to_those_who_ask_for_one() -> None:
    request = read_request(peek(b'{"input":"x","reasoning":{"effort":"low","summary":"auto"}}'))
    w = writer(request)
    events = checked(written(ANSWER, w))
    kinds = [event["type"] for event in events]
    begin = kinds.index("response.reasoning_summary_part.added")
    assert kinds[begin : begin + 6] == [
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
    ]
    assert w.output[0]["summary"] == [{"type": "summary_text", "text": "The user wants two cities."}]
    assert w.response()["reasoning"] == {"effort": "low", "summary": "auto"}


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter"), ("stop", None)]
)
def test_an_answer_that_was_cut_is_incomplete(reason: Reason, why: str | None) -> None:
    w = writer()
    events = checked(written([Started(id="", model="", created=0), TextDelta(text="Once"), Finished(reason=reason)], w))
    last = events[-1]["response"]
    assert events[-1]["type"] == ("response.incomplete" if why else "response.completed")
    assert last["incomplete_details"] == ({"reason": why} if why else None)
    assert last["output"][0]["status"] == ("incomplete" if why else "completed")
    assert (last["completed_at"] is None) == bool(why)
    assert last["model"] == "asked-for"
    assert last["usage"]["total_tokens"] == 0


def test_an_answer_that_says_nothing_has_an_empty_message() -> None:
    w = writer()
    checked(written([Started(id="", model="m", created=0), Finished(reason="stop")], w))
    assert w.output[0]["content"][0]["text"] == ""


def test_an_answer_that_never_finished_is_not_ended() -> None:
    w = writer()
    w.feed(Started(id="", model="m", created=0))
    w.feed(TextDelta(text="Once"))
    with pytest.raises(BadResponse):
        w.end()


@pytest.mark.parametrize("fed", range(len(ANSWER)))
def test_a_failure_ends_the_stream_wherever_it_comes(fed: int) -> None:
    w = writer()
    stream = b"".join(w.feed(event) for event in ANSWER[:fed])
    events = checked(stream + w.fail(TimedOut("Backend 'b' did not answer in time.")))
    error, failed = events[-2:]
    assert (error["type"], error["code"], error["param"]) == ("error", "upstream_timeout", None)
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "Backend 'b' did not answer in time."}
    assert failed["response"]["id"] == "resp_1"


def test_a_failures_code_is_one_of_openais() -> None:
    assert b'"code":"rate_limit_exceeded"' in render_failure({}, 0, RateLimited("Slow down."))
    assert b'"code":"invalid_prompt"' in render_failure({}, 0, InvalidRequest("No."))


DELTAS: st.SearchStrategy[Event] = (
    st.builds(TextDelta, text=st.text(max_size=4), choice=st.just(0))
    | st.builds(ReasoningDelta, text=st.text(max_size=4), signature=st.none(), redacted=st.none(), choice=st.just(0))
    | st.builds(ReasoningDelta, text=st.just(""), signature=st.text(max_size=3), redacted=st.none(), choice=st.just(0))
    | st.builds(ReasoningDelta, text=st.just(""), signature=st.none(), redacted=st.text(max_size=3), choice=st.just(0))
    | st.builds(ToolDelta, call=st.integers(0, 2), arguments=st.text(max_size=4), choice=st.just(0))
)


@given(st.lists(DELTAS, max_size=12), st.sampled_from(["stop", "length", "tool_calls"]))
async def test_whatever_is_said_the_stream_is_sound_and_says_what_folding_says(
    deltas: list[Event], reason: Reason
) -> None:
    named: set[int] = set()
    events: list[Event] = [Started(id="x", model="m", created=1)]
    for delta in deltas:
        if isinstance(delta, ToolDelta) and delta.call not in named:
            named.add(delta.call)
            delta = ToolDelta(call=delta.call, arguments=delta.arguments, id=f"call_{delta.call}", name="look")
        events.append(delta)
    events += [Finished(reason=reason), Metered(usage=Usage(input_tokens=1, output_tokens=2))]
    w = writer(golden())
    stream = written(events, w)
    seen = checked(stream)
    done = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert sorted(done, key=lambda item: item["id"]) == sorted(w.response()["output"], key=lambda item: item["id"])
    said = "".join(e["delta"] for e in seen if e["type"] == "response.output_text.delta")
    result = await fold(each(events))
    assert said == "".join(part.text for part in result.choices[0].parts if isinstance(part, Text))
    again = writer(golden())
    for event in unfold(result):
        again.feed(event)
    assert again.response()["output"] == w.response()["output"]
    check_response(w.response())


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_kept_response_can_be_streamed_again(reason: Reason) -> None:
    w = writer(golden())
    written([*ANSWER[:-2], Finished(reason=reason), ANSWER[-1]], w)
    kept = w.response() | {"output": w.output}
    events = checked(replay(json.loads(json.dumps(kept)), ["reasoning.encrypted_content"]))
    assert events[-1]["response"] == w.response()
    assert b"encrypted_content" not in replay(kept, [])


def test_a_kept_failure_can_be_streamed_again() -> None:
    w = writer()
    for event in ANSWER[:6]:
        w.feed(event)
    w.fail(TimedOut("Too late."))
    events = checked(replay(w.response() | {"output": w.output}, []))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"] == w.response()


# A provider that speaks it


def tap() -> ResponsesTap:
    return ResponsesTap(peek(b'{"model":"m","input":"x"}'))


def passed(watch: ResponsesTap, stream: bytes, step: int) -> bytes:
    cutter, out = Cutter(), b""
    for at in range(0, len(stream), step):
        if events := cutter.feed(stream[at : at + step]):
            out += watch.feed(events)
    return out + watch.end()


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_every_byte_of_a_providers_stream_passes(step: int) -> None:
    watch = tap()
    assert passed(watch, STREAM, step) == STREAM
    assert watch.began
    assert watch.finished
    assert watch.done
    assert watch.model == "gpt-4o-mini-2024-07-18"
    assert watch.usage == Usage(input_tokens=11, output_tokens=7, cached_tokens=4, reasoning_tokens=3)
    assert watch.response is not None
    assert watch.response.id == "resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b"
    assert [item.type for item in watch.response.output] == ["reasoning", "message"]


def test_a_whole_answer_passes_and_is_read() -> None:
    watch = tap()
    assert watch.whole(WHOLE) == WHOLE
    assert watch.finished
    assert watch.usage == Usage(input_tokens=11, output_tokens=7, cached_tokens=4, reasoning_tokens=3)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"object":"chat.completion","id":"x"}', b'{"object":"response"}']
)
def test_what_is_no_response_is_not_taken_for_one(body: bytes) -> None:
    assert tap().whole(body) is None


def test_a_failed_response_is_an_error() -> None:
    watch = tap()
    body = json.loads(WHOLE) | {"status": "failed", "error": {"code": "server_error", "message": "no"}}
    watch.whole(dump(body))
    assert watch.failure is not None
    assert watch.failure.code == "server_error"


def test_a_stream_is_finished_by_its_terminal_event_only() -> None:
    watch = tap()
    events = STREAM.split(b"\n\n")
    watch.feed(b"\n\n".join(events[:-2]) + b"\n\ndata: [DONE]\n\n")
    assert watch.began
    assert not watch.finished
    assert watch.count == 12
    assert watch.head is not None
    assert watch.head["status"] == "in_progress"


def test_nothing_passes_after_the_end() -> None:
    assert tap().feed(STREAM + b"data: [DONE]\n\n: late\n\n" + STREAM) == STREAM


FAILED = b'event: response.failed\ndata: {"type":"response.failed","sequence_number":9,"response":' + dump(
    {"id": "resp_1", "object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}}
)
FAILED += b"}\n\n"


def test_a_failure_before_any_content_is_kept_from_the_client() -> None:
    watch = tap()
    prelude = b"\n\n".join(STREAM.split(b"\n\n")[:2]) + b"\n\n"
    assert watch.feed(prelude + FAILED) == prelude
    assert watch.failure is not None
    assert not watch.told


def test_a_failure_after_content_is_told_in_the_providers_words() -> None:
    watch = tap()
    content = b"\n\n".join(STREAM.split(b"\n\n")[:8]) + b"\n\n"
    assert watch.feed(content + FAILED) == content + FAILED
    assert watch.failure is not None
    assert watch.told


@pytest.mark.parametrize(
    "error",
    [
        b'{"type":"error","code":"server_error","message":"m","param":null,"sequence_number":3}',
        b'{"type":"error","sequence_number":3,"error":{"type":"server_error","code":"server_error","message":"m"}}',
        b'{"error":{"type":"server_error","code":"server_error","message":"m"}}',
    ],
)
def test_an_error_is_read_in_every_shape_it_comes_in(error: bytes) -> None:
    watch = tap()
    assert watch.feed(b"event: error\ndata: " + error + b"\n\n") == b""
    assert watch.failure is not None
    assert (watch.failure.code, watch.failure.message) == ("server_error", "m")


def test_an_event_that_cannot_be_read_is_left_out() -> None:
    watch = tap()
    assert watch.feed(b'event: x\ndata: {"type": 3}\n\n' + STREAM) == STREAM
    assert watch.skipped == 1


def test_usage_of_a_response_under_way_is_not_its_usage() -> None:
    watch = tap()
    event = {"type": "response.created", "response": {"object": "response", "id": "r", "status": "in_progress"}}
    event["response"] |= {"usage": {"input_tokens": 9, "output_tokens": 0}}  # type: ignore[operator]
    watch.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert watch.usage is None
