"""The tap on a relayed answer: sees everything, changes only the usage nobody asked for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.openai.chat import peek
from compat.openai.tap import Tap
from compat.sse import DONE, Cutter
from tests import wire
from tests.wire import fixture

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "delta", "role", "content", "finish_reason", "usage", "x"]), inner)
    ),
    max_leaves=6,
)


def tap(*, asked: bool = False, n: int | None = None) -> Tap:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    if asked:
        body["stream_options"] = {"include_usage": True}
    if n is not None:
        body["n"] = n
    return Tap(peek(json.dumps(body).encode()))


def passed(watch: Tap, stream: bytes, step: int | None = None) -> bytes:
    """What the client gets of a stream that arrives in pieces of `step` bytes."""
    cutter = Cutter()
    out = b""
    step = step or len(stream) or 1
    for at in range(0, len(stream), step):
        if events := cutter.feed(stream[at : at + step]):
            out += watch.feed(events)
    if events := cutter.flush():
        out += watch.feed(events)
    return out + watch.end()


def without_usage(stream: bytes) -> bytes:
    events = [e for e in stream.split(b"\n\n") if e and b'"choices":[],"usage":{' not in e]
    return b"".join(e.replace(b',"usage":null}', b"}") + b"\n\n" for e in events)


STREAMS = ["text.sse", "tools.sse", "two.sse", "logprobs.sse", "vendor.sse"]


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("step", [None, 1, 7, 100, 1000])
def test_with_usage_asked_for_every_byte_passes(name: str, step: int | None) -> None:
    watch = tap(asked=True)
    assert passed(watch, fixture(name), step) == fixture(name)
    assert watch.finished
    assert watch.began
    assert watch.skipped == 0


@pytest.mark.parametrize("name", ["text.sse", "tools.sse", "two.sse", "logprobs.sse"])
@pytest.mark.parametrize("step", [None, 1, 7, 100, 1000])
def test_without_usage_asked_for_everything_else_passes(name: str, step: int | None) -> None:
    watch = tap()
    assert passed(watch, fixture(name), step) == without_usage(fixture(name))
    assert watch.finished


@pytest.mark.parametrize("step", [None, 1, 50])
def test_a_vendors_nested_usage_is_its_own_affair(step: int | None) -> None:
    watch = tap()
    out = passed(watch, fixture("vendor.sse"), step)
    assert out.count(b'"x_groq"') == 1, "the chunk that was usage alone is gone, with what it carried"
    assert b'"x_groq":{"id":"req_01","usage":{"queue_time":0.1}}' in out
    assert watch.usage is not None
    assert watch.usage.input_tokens == 19


def test_usage_is_metered_whether_it_is_shown_or_not() -> None:
    for asked in (False, True):
        watch = tap(asked=asked)
        passed(watch, fixture("text.sse"))
        assert watch.usage is not None
        assert (watch.usage.input_tokens, watch.usage.output_tokens) == (19, 10)
        assert watch.usage.cached_tokens == 0
        assert watch.model == "gpt-4o-mini-2024-07-18"


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_before_its_end_is_not_finished(name: str) -> None:
    events = fixture(name).split(b"\n\n")
    last = max(n for n, event in enumerate(events) if b'"finish_reason":"' in event)
    watch = tap(n=2 if name == "two.sse" else None)
    passed(watch, b"\n\n".join(events[:last]) + b"\n\n")
    assert not watch.finished
    assert watch.end() == b""


def test_a_missing_done_is_added_once() -> None:
    assert passed(tap(asked=True), fixture("text.sse").removesuffix(DONE)) == fixture("text.sse")


def test_done_comes_once_and_nothing_after_it() -> None:
    more = DONE + wire.word("late") + DONE
    for step in (None, 1):
        assert passed(tap(asked=True), fixture("text.sse") + more, step) == fixture("text.sse")


def test_content_that_looks_like_a_field_is_content() -> None:
    words = [
        '"usage":{"prompt_tokens":1}', ',"usage":null}', "[DONE]", "data: [DONE]\n\n", '"finish_reason":"stop"',
        '"error":{"message":"x"}', '\\"usage\\"', "usage", "error",
    ]  # fmt: skip
    stream = b"".join(wire.stream(words, include_usage=True))
    for step in (None, 1, 100):
        watch = tap(asked=True)
        assert passed(watch, stream, step) == stream
        assert watch.failure is None
        watch = tap()
        assert passed(watch, stream, step) == b"".join(wire.stream(words, include_usage=False))


def test_a_field_of_a_vendor_called_finish_reason_ends_nothing() -> None:
    watch = tap()
    passed(watch, b'data: {"choices":[{"index":0,"delta":{"content":"x","meta":{"finish_reason":"stop"}}}]}\n\n')
    assert not watch.finished


@pytest.mark.parametrize("spelt", [b'"finish_reason":"stop"', b'"finish_reason": "stop"', b'"finish_reason" : "stop"'])
def test_the_end_is_seen_however_it_is_spaced(spelt: bytes) -> None:
    watch = tap()
    out = passed(watch, wire.word("a") + b'data: {"choices": [{"index": 0, "delta": {}, ' + spelt + b"}]}\n\n")
    assert watch.finished
    assert out.endswith(DONE)


def test_two_answers_are_finished_when_both_are() -> None:
    events = [event + b"\n\n" for event in fixture("two.sse").split(b"\n\n")[:-1]]
    watch = tap(n=2)
    states = []
    for event in events:
        watch.feed(event)
        states.append(watch.finished)
    assert states.index(True) == len(events) - 2


def test_a_number_of_answers_that_nobody_can_make_is_the_providers_to_refuse() -> None:
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}],"n":%s}' % (b"9" * 5000)
    watch = Tap(peek(body))
    watch.feed(wire.opening() + wire.word("only one") + wire.finish() + DONE)
    assert watch.finished


def test_a_second_answer_that_never_came_is_missed_unless_the_provider_says_it_is_done() -> None:
    watch = tap(n=2)
    watch.feed(wire.opening() + wire.word("only one") + wire.finish())
    assert not watch.finished
    watch.feed(DONE)
    assert watch.finished


@pytest.mark.parametrize("junk", [b"data: {", b"data: nonsense", b"data: [1]", b"data: \xff"])
def test_what_cannot_be_read_is_left_out_and_counted(junk: bytes) -> None:
    stream = wire.stream(["a", "b"], include_usage=True)
    for at in range(len(stream) - 1):
        watch = tap(asked=True)
        broken = b"".join([*stream[:at], junk + b"\n\n", *stream[at:]])
        assert passed(watch, broken) == b"".join(stream)
        assert watch.skipped == 1


def test_comments_stay_behind() -> None:
    assert passed(tap(asked=True), fixture("comments.sse")) == fixture("two.sse")


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    "error", [{"message": "no", "type": "server_error", "code": None}, "no", {"code": 503, "message": "no"}]
)
def test_an_error_inside_the_stream_is_noticed_and_not_passed_on(at: int, error: Any) -> None:
    stream = wire.stream(["a", "b"], include_usage=False)
    event = b"data: " + wire.dump({"error": error}) + b"\n\n"
    watch = tap()
    out = passed(watch, b"".join([*stream[:at], event]))
    assert watch.failure is not None
    assert watch.failure.message == "no"
    assert out == b"".join(stream[:at])


@pytest.mark.parametrize("key", [b'"error":null', b'"error": null'])
def test_an_error_of_null_is_none(key: bytes) -> None:
    watch = tap()
    watch.feed(wire.word("a").replace(b'"id"', key + b',"id"'))
    assert watch.failure is None
    assert watch.began


@pytest.mark.parametrize(
    ("delta", "began"),
    [({"role": "assistant", "content": ""}, False), ({"role": "assistant"}, False), ({}, False), (None, False),
     ({"content": "x"}, True), ({"tool_calls": [{"index": 0}]}, True), ({"reasoning": "x"}, True),
     ({"audio": {"id": "x"}}, True)],
)  # fmt: skip
def test_content_is_what_begins_an_answer(delta: Any, began: bool) -> None:
    watch = tap()
    watch.feed(wire.chunk(wire.delta(delta)))
    assert watch.began is began


@given(st.lists(JSON, max_size=4), JSON, st.booleans())
def test_nothing_a_provider_sends_trips_the_tap(choices: list[Any], usage: Any, asked: bool) -> None:
    watch = tap(asked=asked)
    for value in ({"choices": choices, "usage": usage}, {"error": usage}, usage, {"choices": usage}):
        watch.feed(b"data: " + json.dumps(value).encode() + b"\n\n")
    watch.end()
    whole = tap()
    whole.whole(json.dumps({"choices": choices, "usage": usage}).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b"null", b'{"choices":null}', b'{"data":[]}', b"\xff"])
def test_a_whole_body_that_is_no_answer_is_none(body: bytes) -> None:
    assert not tap().whole(body)


@pytest.mark.parametrize("name", ["text.json", "tools.json", "two.json", "vendor.json"])
def test_a_whole_answer_is_metered(name: str) -> None:
    watch = tap()
    assert watch.whole(fixture(name))
    assert watch.finished
    assert watch.failure is None
    if name != "two.json":
        assert watch.usage is not None
        assert watch.usage.output_tokens == 10


@pytest.mark.parametrize("reason", [b"null", b'""'])
def test_a_whole_answer_that_does_not_say_why_it_ended_is_none(reason: bytes) -> None:
    watch = tap()
    assert watch.whole(wire.completion().replace(b'"finish_reason":"stop"', b'"finish_reason":' + reason)) is None
    assert not watch.finished


def test_a_choice_without_a_number_is_the_first() -> None:
    stream = b"".join(wire.stream(["a"], include_usage=False)).replace(b'"index":0', b'"index":null')
    watch = tap()
    assert passed(watch, stream) == stream
    assert watch.finished
    assert watch.skipped == 0


def test_an_error_in_place_of_a_whole_answer_is_noticed() -> None:
    watch = tap()
    assert watch.whole(fixture("error_quota.json"))
    assert watch.failure is not None
    assert watch.failure.code == "insufficient_quota"


def test_usage_that_comes_before_the_answer_tells_of_the_prompt_only() -> None:
    watch = tap(asked=True)
    usage = wire.dump({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9})
    watch.feed(wire.opening().replace(b"}\n\n", b',"usage":' + usage + b"}\n\n"))
    watch.feed(wire.word("a"))
    assert watch.usage is not None
    assert (watch.usage.input_tokens, watch.usage.output_tokens) == (9, None)
