"""Answers in Anthropic's dialect: read as events, written from events, watched on their way."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.anthropic.answer import render_events, render_result
from compat.anthropic.envelope import peek
from compat.anthropic.error import parse_error, render_error, render_error_frame
from compat.anthropic.models import parse_models
from compat.anthropic.reading import parse_events
from compat.anthropic.tap import Tap
from compat.canonical.error import (
    BadResponse,
    Forbidden,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RateLimited,
    Rejected,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unreachable,
)
from compat.canonical.event import (
    Cited,
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
from compat.canonical.message import Reasoning, Text, ToolCall
from compat.openai import answer as chat
from compat.openai.part import parse_message
from compat.sse import Cutter
from tests.claude import events, fixture

STREAMS = ["text.sse", "tools.sse", "thinking.sse", "stop_sequence.sse", "refusal.sse", "server_tool.sse"]
USAGE = Usage(input_tokens=135, output_tokens=15, cached_tokens=100, cache_written_tokens=10, reasoning_tokens=None)
START = Started(id="chatcmpl-7", model="m", created=1)
END = (Finished(reason="stop"), Metered(usage=Usage(input_tokens=3, output_tokens=5, cached_tokens=1)))


def tap() -> Tap:
    return Tap(peek(b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}'))


async def pieces(stream: bytes, step: int | None = None) -> AsyncGenerator[bytes, None]:
    """A stream as it comes through the relay, arriving in pieces of `step` bytes."""
    cutter, watch = Cutter(), tap()
    step = step or len(stream)
    for at in range(0, len(stream), step):
        if whole := cutter.feed(stream[at : at + step]):
            yield watch.feed(whole)
    assert watch.finished


async def said(*given_: Event) -> AsyncGenerator[Event, None]:
    for event in given_:
        yield event


async def read(name: str, step: int | None = None) -> list[Event]:
    return [event async for event in parse_events(pieces(fixture(name), step), created=1)]


async def rendered(*given_: Event, thinking: bool = True) -> bytes:
    return b"".join([frame async for frame in render_events(said(*given_), thinking=thinking)])


async def iterated(given_: list[Event]) -> AsyncIterator[Event]:
    for event in given_:
        yield event


async def test_text_as_events() -> None:
    assert await read("text.sse") == [
        Started(id="msg_01XFDUDYJgAACzvnptvVoYEL", model="claude-opus-4-6", created=1),
        TextDelta(text="Hello"),
        TextDelta(text="! How can I"),
        TextDelta(text=" help you today?"),
        Finished(reason="stop", raw_reason="end_turn"),
        Metered(usage=USAGE),
    ]


async def test_parallel_tool_calls_are_numbered_among_themselves() -> None:
    result = await fold(iterated(await read("tools.sse")))
    assert result.choices[0].parts == (
        Text(text="I'll check both."),
        ToolCall(id="toolu_01A09q90qw90lq917835lq9", name="get_weather", arguments='{"city": "Paris"}'),
        ToolCall(id="toolu_01B19q90qw90lq917835lq8", name="get_time", arguments='{"zone": "CET"}'),
        ToolCall(id="toolu_01C29q90qw90lq917835lq7", name="ping", arguments="{}"),
    )
    calls = [event for event in await read("tools.sse") if isinstance(event, ToolDelta)]
    assert {event.call for event in calls} == {0, 1, 2}
    assert [event.id is not None for event in calls].count(True) == 3


async def test_thoughts_keep_their_signatures_and_their_order() -> None:
    result = await fold(iterated(await read("thinking.sse")))
    assert result.choices[0].parts == (
        Reasoning(
            text="Let me solve this step by step.",
            signature="EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds",
        ),
        Reasoning(text="", redacted="EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP"),
        Text(text="The weather first."),
        Reasoning(text="", signature="ErUBCkYIBRgCIkCd9omitted"),
        ToolCall(id="toolu_01D39q90qw90lq917835lq6", name="get_weather", arguments='{"city":"Paris"}'),
    )
    assert result.usage.reasoning_tokens == 64


async def test_the_providers_own_tools_are_not_the_clients() -> None:
    result = await fold(iterated(await read("server_tool.sse")))
    assert result.choices[0].parts == (Text(text="I'll search.Found."),)


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("stop_sequence.sse", Finished(reason="stop", raw_reason="stop_sequence", stop="three")),
        ("refusal.sse", Finished(reason="content_filter", raw_reason="refusal")),
    ],
)
async def test_reasons(name: str, finished: Finished) -> None:
    assert finished in await read(name)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_cut_at_every_byte_reads_the_same(name: str) -> None:
    whole = await read(name)
    stream = fixture(name)
    for step in (1, 2, 3, 7, 64):
        assert await read(name, step) == whole
    for at in range(len(stream) + 1):

        async def halves(at: int = at) -> AsyncGenerator[bytes, None]:
            cutter, watch = Cutter(), tap()
            passed = b""
            for half in (stream[:at], stream[at:]):
                if events_ := watch.feed(cutter.feed(half)):
                    passed += events_
                    yield events_
            assert passed + watch.end() == stream
            assert watch.skipped == 0

        assert [event async for event in parse_events(halves(), created=1)] == whole, f"cut at {at}"


def test_an_error_in_a_stream_is_seen_wherever_it_is_cut() -> None:
    stream = fixture("overloaded.sse")
    whole = tap()
    expected = whole.feed(Cutter().feed(stream))
    assert whole.failure is not None
    for at in range(len(stream) + 1):
        cutter, watch = Cutter(), tap()
        assert watch.feed(cutter.feed(stream[:at])) + watch.feed(cutter.feed(stream[at:])) == expected, f"cut at {at}"
        assert (watch.failure, watch.finished) == (whole.failure, False)


@pytest.mark.parametrize("name", ["text.sse", "tools.sse", "thinking.sse", "stop_sequence.sse", "refusal.sse"])
async def test_writing_what_was_read_reads_the_same(name: str) -> None:
    once = await read(name)
    frames = render_events(said(*once), thinking=True)
    again = [event async for event in parse_events(frames, created=1)]
    assert (await fold(iterated(again))).choices == (await fold(iterated(once))).choices
    assert again[-1] == once[-1]
    assert again[0] == once[0]


@pytest.mark.parametrize("name", ["text.sse", "tools.sse", "thinking.sse"])
async def test_the_whole_body_says_what_the_stream_says(name: str) -> None:
    body = json.loads(render_result(await fold(iterated(await read(name))), thinking=True))
    built: list[Any] = []
    for kind, event in events(await rendered(*await read(name))):
        match kind:
            case "content_block_start":
                block: Any = event["content_block"]
                assert event["index"] == len(built)
                built.append(dict(block))
            case "content_block_delta":
                assert event["index"] == len(built) - 1
                delta: Any = event["delta"]
                match delta["type"]:
                    case "input_json_delta":
                        built[-1]["raw"] = built[-1].get("raw", "") + delta["partial_json"]
                    case "signature_delta":
                        built[-1]["signature"] = delta["signature"]
                    case other:
                        field = other.removesuffix("_delta")
                        built[-1][field] += delta[field]
            case "message_delta":
                assert event["usage"].items() <= body["usage"].items()  # type: ignore[attr-defined]
                stop: Any = event["delta"]
                assert stop == {name: body[name] for name in stop}
                assert set(stop) >= {"stop_reason", "stop_sequence", "stop_details"}
    for one in built:
        if "raw" in one:
            one["input"] = json.loads(one.pop("raw"))
    assert body["content"] == built


async def test_an_answer_of_another_dialect_in_this_one() -> None:
    stream = events(await rendered(START, TextDelta(text=""), TextDelta(text="Hi"), TextDelta(text="!"), *END))
    assert [name for name, _ in stream] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    start: Any = stream[0][1]["message"]
    assert (start["id"], start["role"], start["content"], start["stop_reason"]) == ("msg_7", "assistant", [], None)
    usage: Any = stream[-2][1]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (2, 1, 5)


async def test_interleaved_calls_are_put_in_order() -> None:
    stream = events(
        await rendered(
            START,
            ToolDelta(call=0, id="a", name="f"),
            ToolDelta(call=1, id="b", name="g", arguments='{"y":'),
            ToolDelta(call=0, arguments='{"x":'),
            ToolDelta(call=1, arguments="2}"),
            ToolDelta(call=0, arguments="1}"),
            ToolDelta(call=2, id="c", name="h", arguments="{}"),
            Finished(reason="tool_calls"),
        )
    )
    indexes = [event["index"] for _, event in stream if "index" in event]
    assert indexes == sorted(indexes)  # type: ignore[type-var]
    arguments = {0: "", 1: "", 2: ""}
    for name, event in stream:
        if name == "content_block_delta":
            delta: Any = event["delta"]
            arguments[event["index"]] += delta["partial_json"]  # type: ignore[index]
    assert list(arguments.values()) == ['{"x":1}', '{"y":2}', "{}"]
    starts: Any = [event["content_block"] for name, event in stream if name == "content_block_start"]
    assert [block["id"] for block in starts] == ["a", "b", "c"]


async def test_reasoning_is_shown_to_those_who_asked() -> None:
    thought = (START, ReasoningDelta(text="Hm."), TextDelta(text="Hi"), *END)
    assert b"thinking" in await rendered(*thought)
    hidden = await rendered(*thought, thinking=False)
    assert b'"thinking' not in hidden
    assert b'"index":0,"content_block":{"type":"text"' in hidden


async def test_what_does_not_finish_is_an_error() -> None:
    with pytest.raises(BadResponse):
        await rendered(START, TextDelta(text="Hi"))


def told(chunk: dict[str, Any], events_: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    """A stream of OpenAI's dialect: the choices or other fields of each chunk."""

    async def pieces() -> AsyncIterator[bytes]:
        for event in events_:
            yield b"data: " + json.dumps(chunk | event).encode() + b"\n\n"

    return pieces()


CHUNK = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}


def choice(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **fields}]}


async def from_chat(*chunks: dict[str, Any], stops: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """What a stream of OpenAI's dialect becomes in this one."""
    stream: Any = told(CHUNK, list(chunks))
    frames = render_events(chat.parse_events(stream, stops), thinking=True)
    return events(b"".join([frame async for frame in frames]))


@pytest.mark.parametrize(
    "last",
    [
        choice({}, "stop", stop_reason="END"),
        choice({}, "stop", matched_stop="END"),
        choice({}, "stop") | {"__verbose": {"stopping_word": "END"}},
    ],
    ids=["vllm", "sglang", "llama.cpp"],
)
async def test_a_stop_sequence_that_an_engine_tells_of_is_told(last: dict[str, Any]) -> None:
    said_ = choice({"content": "One two"})
    stop = (await from_chat(said_, last, stops=("X", "END")))[-2][1]["delta"]
    assert (stop["stop_reason"], stop["stop_sequence"]) == ("stop_sequence", "END")
    stop = (await from_chat(said_, last, stops=("X",)))[-2][1]["delta"]
    assert (stop["stop_reason"], stop["stop_sequence"]) == ("end_turn", None), "the engine's own, not the client's"


@pytest.mark.parametrize("word", [None, 0, 151645, "", [], {"a": 1}])
async def test_what_an_engine_says_of_a_token_is_no_stop_sequence(word: Any) -> None:
    last = choice({}, "stop", stop_reason=word, matched_stop=word) | {"__verbose": word, "prompt_progress": word}
    stop = (await from_chat(choice({"content": "One"}), last, stops=("END",)))[-2][1]["delta"]
    assert (stop["stop_reason"], stop["stop_sequence"]) == ("end_turn", None)


async def test_the_start_tells_how_long_the_prompt_is_where_the_engine_does() -> None:
    progress = choice({"role": "assistant", "content": None}) | {"prompt_progress": {"total": 33, "cache": 32}}
    usage = {"usage": {"prompt_tokens": 33, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 32}}}
    for first in (progress, choice({"role": "assistant"}) | usage):
        stream = await from_chat(first, choice({"content": "Hi"}), choice({}, "stop"), usage)
        begun = stream[0][1]["message"]["usage"]
        assert (begun["input_tokens"], begun["cache_read_input_tokens"], begun["output_tokens"]) == (1, 32, 0)
        ended = stream[-2][1]["usage"]
        assert (ended["input_tokens"], ended["cache_read_input_tokens"], ended["output_tokens"]) == (1, 32, 2)


async def test_what_nobody_counted_is_not_told_as_nothing() -> None:
    stream = await from_chat(choice({"content": "Hi"}), choice({}, "stop"))
    ended = stream[-2][1]["usage"]
    assert (ended["input_tokens"], ended["cache_read_input_tokens"], ended["cache_creation_input_tokens"]) == (
        None,
    ) * 3
    assert ended["output_tokens"] == 0, "which the schema requires"


@pytest.mark.parametrize(
    ("word", "reason"), [("stop", "tool_use"), ("tool_calls", "tool_use"), ("length", "max_tokens")]
)
async def test_a_call_is_a_reason_to_stop_whatever_the_provider_calls_it(word: str, reason: str) -> None:
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}
    assert (await from_chat(choice(call), choice({}, word)))[-2][1]["delta"]["stop_reason"] == reason
    result = await fold(said(START, ToolDelta(call=0, id="a", name="f", arguments="{}"), Finished(reason=_READ[word])))
    assert json.loads(render_result(result, thinking=True))["stop_reason"] == reason


_READ: dict[str, Reason] = {"stop": "stop", "tool_calls": "tool_calls", "length": "length"}


async def test_pages_that_are_cited_are_annotations() -> None:
    given_ = await read("server_tool.sse")
    assert Cited(url="https://example.com", title="T", start=12, end=18) in given_
    body = json.loads(chat.render_result(await fold(iterated(given_))))
    message = body["choices"][0]["message"]
    [cited] = message["annotations"]
    assert cited == {
        "type": "url_citation",
        "url_citation": {"start_index": 12, "end_index": 18, "url": "https://example.com", "title": "T"},
    }
    assert message["content"][12:18] == "Found."
    streamed = b"".join([f async for f in chat.render_events(said(*given_), include_usage=False)])
    assert json.dumps({"annotations": [cited]}, separators=(",", ":")).encode() in streamed


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("step", [None, 1, 7, 100, 1000])
def test_the_tap_passes_every_byte(name: str, step: int | None) -> None:
    cutter, watch, stream = Cutter(), tap(), fixture(name)
    out = b""
    for at in range(0, len(stream), step or len(stream)):
        out += watch.feed(cutter.feed(stream[at : at + (step or len(stream))]))
    assert out + watch.end() == stream
    assert watch.finished
    assert watch.began
    assert watch.usage is not None
    assert (watch.usage.input_tokens, watch.usage.cached_tokens) == (135, 100)
    assert watch.model == "claude-opus-4-6"
    assert watch.skipped == 0


def test_the_tap_sees_an_error_and_keeps_it_back() -> None:
    watch = tap()
    out = watch.feed(fixture("overloaded.sse"))
    assert watch.failure is not None
    assert watch.failure.type == "overloaded_error"
    assert b"Overloaded" not in out
    assert not watch.finished


def test_a_stream_without_message_stop_has_not_finished() -> None:
    watch = tap()
    watch.feed(fixture("text.sse").partition(b"event: message_stop")[0])
    assert watch.began
    assert not watch.finished


def test_what_is_no_json_is_left_out() -> None:
    watch, stream = tap(), fixture("text.sse")
    broken = b'event: content_block_delta\ndata: {"type":"content_blo\n\n'
    at = stream.index(b"event: content_block_stop")
    first = stream.index(b"event: ping")
    out = watch.feed(stream[:first]) + watch.feed(stream[first:at] + broken + b": a comment\n\n" + stream[at:])
    assert out == stream
    assert watch.skipped == 1


@given(st.text())
def test_words_of_the_protocol_in_an_answer_are_only_words(text: str) -> None:
    watch = tap()
    watch.feed(fixture("text.sse").partition(b"event: ping")[0])
    said_ = json.dumps(f'{text} "message_stop" "error": {{}} event: error')
    event = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":' + said_.encode() + b"}}\n\n"
    )
    assert watch.feed(event) == event
    assert not watch.done
    assert watch.failure is None


def test_a_whole_body_is_passed_as_it_is() -> None:
    watch = tap()
    assert watch.whole(fixture("text.json")) == fixture("text.json")
    assert watch.usage == USAGE
    assert tap().whole(b"<html>") is None
    assert tap().whole(b'{"id":"x"}') is None
    failed = tap()
    failed.whole(fixture("error_400.json"))
    assert failed.failure is not None


async def test_signed_thoughts_go_through_openais_dialect_and_back() -> None:
    once = await read("thinking.sse")
    parts = (await fold(iterated(once))).choices[0].parts
    whole = json.loads(chat.render_result(await fold(iterated(once))))["choices"][0]["message"]
    assert parse_message(whole, "m").parts == parts
    streamed: dict[str, Any] = {"role": "assistant", "content": "", "thinking_blocks": [], "tool_calls": {}}
    async for frame in chat.render_events(said(*once), include_usage=True):
        for choice in json.loads(frame[6:])["choices"] if b"[DONE]" not in frame else ():
            delta = choice["delta"]
            streamed["content"] += delta.get("content") or ""
            streamed["thinking_blocks"] += delta.get("thinking_blocks", [])
            for call in delta.get("tool_calls", ()):
                kept = streamed["tool_calls"].setdefault(
                    call["index"], call | {"function": {"name": "", "arguments": ""}}
                )
                kept["function"]["name"] += call["function"].get("name", "")
                kept["function"]["arguments"] += call["function"]["arguments"]
    streamed["tool_calls"] = list(streamed["tool_calls"].values())
    assert parse_message(streamed, "m").parts == parts


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (Unauthenticated("x"), "authentication_error"),
        (Forbidden("x"), "permission_error"),
        (ModelNotFound("x"), "not_found_error"),
        (TooLarge("x"), "request_too_large"),
        (RateLimited("x"), "rate_limit_error"),
        (Overloaded("x"), "overloaded_error"),
        (TimedOut("x"), "timeout_error"),
        (Unreachable("x"), "api_error"),
        (InternalError("x"), "api_error"),
        (Rejected("x", status=422, type="weird"), "invalid_request_error"),
        (Rejected("x", status=402, type="billing_error"), "billing_error"),
    ],
)
def test_errors_have_anthropics_types(error: Any, type_: str) -> None:
    error.request_id = "req_1"
    shape = {"type": "error", "error": {"type": type_, "message": "x"}, "request_id": "req_1"}
    assert json.loads(render_error(error)) == shape
    assert render_error_frame(error).startswith(b"event: error\ndata: {")


def test_a_providers_verdict_is_read_and_passed_on() -> None:
    verdict = parse_error(fixture("error_400.json"))
    assert (verdict.type, verdict.code) == ("invalid_request_error", "compaction_signature_invalid")
    refusal = Rejected(verdict.message, type=verdict.type, code=verdict.code, details=verdict.details)
    assert json.loads(render_error(refusal))["error"] == json.loads(fixture("error_400.json"))["error"]
    assert parse_error(b"<html>").message == ""


def test_the_list_of_models() -> None:
    opus, haiku = parse_models(fixture("models.json"), "claude")
    assert (opus.name, opus.context_length, opus.created) == ("claude-opus-4-6", 1_000_000, 1770163200)
    assert opus.capabilities == ("batch", "vision", "thinking")
    assert haiku.capabilities == ()
    with pytest.raises(BadResponse):
        parse_models(b"{}", "claude")


def test_what_the_first_event_says_of_the_answer_does_not_pass_for_all_of_it() -> None:
    watch = tap()
    told = [event + b"\n\n" for event in fixture("text.sse").split(b"\n\n") if event]
    for event in told[:-2]:
        watch.feed(event)
    assert watch.usage is not None
    assert (watch.usage.input_tokens, watch.usage.output_tokens) == (135, None)
    watch.feed(told[-2])
    assert watch.usage == msgspec.structs.replace(USAGE, reasoning_tokens=watch.usage.reasoning_tokens)
