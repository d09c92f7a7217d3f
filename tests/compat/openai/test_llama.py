"""What llama.cpp's server says otherwise than OpenAI, put right on its way."""

import json
from typing import Any

import pytest

from compat.openai import chat, completions
from compat.openai.llama import LlamaTap, ProgressTap, departs
from tests import wire
from tests.http import events_of

HELLO = [{"role": "user", "content": "x"}]


def asked(**fields: Any) -> LlamaTap:
    return LlamaTap(completions.peek(wire.dump({"model": "m", "prompt": "x", "stream": True} | fields)))


def frame(choice: dict[str, Any], **fields: Any) -> bytes:
    body = {"choices": [{"index": 0, "finish_reason": None, "logprobs": None} | choice], "id": "c1", "model": "m"}
    return b"data: " + wire.dump(body | fields) + b"\n\n"


def noted(*tokens: str) -> dict[str, Any]:
    """Probabilities as llama.cpp writes them."""
    top = [{"id": 1, "token": "a", "logprob": -0.5}, {"id": 2, "token": "b", "logprob": -1.5}]
    content = [{"id": 1, "token": t, "bytes": list(t.encode()), "logprob": -0.5, "top_logprobs": top} for t in tokens]
    return {"logprobs": {"content": content}}


def chunks(stream: bytes) -> list[Any]:
    return [json.loads(event) for event in events_of(stream) if event != b"[DONE]"]


def test_a_completions_probabilities_are_written_as_openai_does() -> None:
    tap = asked(logprobs=2)
    stream = tap.feed(frame({"text": "Hé"} | noted("H", "é"), vendor=12345678901234567890123))
    stream += tap.feed(
        frame({"text": " you"} | noted(" you")) + frame({"text": "", "finish_reason": "stop"}) + wire.DONE
    )
    first, second, last = chunks(stream)
    assert first["choices"][0]["logprobs"] == {
        "tokens": ["H", "é"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"a": -0.5, "b": -1.5}, {"a": -0.5, "b": -1.5}],
        "text_offset": [0, 1],
    }
    assert b'"vendor":12345678901234567890123' in stream
    assert second["choices"][0]["logprobs"]["text_offset"] == [2]
    assert last["choices"][0] == {"index": 0, "finish_reason": "stop", "logprobs": None, "text": ""}
    assert stream.endswith(wire.DONE)
    assert tap.finished


def test_a_chats_probabilities_get_what_they_lack() -> None:
    tap = LlamaTap(chat.peek(wire.dump({"model": "m", "messages": HELLO, "stream": True, "logprobs": True})))
    (chunk,) = chunks(tap.feed(frame({"delta": {"content": "Hi"}} | noted("Hi"))))
    assert chunk["choices"][0]["logprobs"] == noted("Hi")["logprobs"] | {"refusal": None}


@pytest.mark.parametrize("wants_usage", [False, True])
def test_each_completion_says_why_it_ended_although_its_usage_stands_beside(wants_usage: bool) -> None:
    tap = asked(n=2, stream_options={"include_usage": wants_usage})
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    stream = tap.feed(frame({"text": "a"}) + frame({"text": "b", "index": 1}))
    for n in (1, 0):
        stream += tap.feed(frame({"text": "", "index": n, "finish_reason": "length"}, usage=usage))
    stream += tap.feed(wire.DONE)
    found = chunks(stream)
    ends = {c["index"]: c["finish_reason"] for chunk in found for c in chunk["choices"] if c["finish_reason"]}
    assert ends == {0: "length", 1: "length"}
    told = [chunk for chunk in found if "usage" in chunk]
    assert [(c["choices"], c["usage"]["completion_tokens"]) for c in told] == ([([], 4)] if wants_usage else [])
    assert tap.finished


@pytest.mark.parametrize(("prompt", "n", "given", "made"), [(["a", "b c"], 1, 7, 4), ([[1], [2, 3]], 2, 7, 8)])
def test_several_prompts_are_all_counted(prompt: list[Any], n: int, given: int, made: int) -> None:
    tap = asked(prompt=prompt, n=n, stream_options={"include_usage": True})
    stream = b""
    for index in range(len(prompt) * n):
        # One after the other, as an engine with one slot does it: not finished before the last.
        assert not tap.finished
        usage = {"prompt_tokens": 3 if index < n else 4, "completion_tokens": 2, "total_tokens": 5}
        stream += tap.feed(frame({"text": "x", "index": index}))
        stream += tap.feed(frame({"text": "", "index": index, "finish_reason": "length"}, usage=usage))
    assert tap.finished
    (told,) = [c["usage"] for c in chunks(stream + tap.feed(wire.DONE)) if "usage" in c]
    assert told == {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize("wanted", [False, True])
def test_progress_is_for_those_who_asked_for_it(wanted: bool) -> None:
    body = {"model": "m", "messages": HELLO, "stream": True} | ({"return_progress": True} if wanted else {})
    tap = ProgressTap(chat.peek(wire.dump(body)))
    told = tap.feed(frame({"delta": {"role": "assistant"}}, prompt_progress={"total": 9, "processed": 3}))
    assert bool(told) is wanted
    assert not tap.began
    said = frame({"delta": {"content": '"prompt_progress":{'}})
    assert tap.feed(said) == said
    assert tap.began


@pytest.mark.parametrize(
    ("fields", "so"),
    [
        ({}, False),
        ({"n": 1}, False),
        ({"n": None, "logprobs": None}, False),
        ({"logprobs": False}, False),
        ({"n": 2}, True),
        ({"logprobs": True}, True),
    ],
)
def test_only_what_departs_is_looked_at(fields: dict[str, Any], so: bool) -> None:
    assert departs(chat.peek(wire.dump({"model": "m", "messages": HELLO} | fields))) is so


@pytest.mark.parametrize(
    ("prompt", "so"),
    [
        ("a", False),
        (["a"], False),
        ([1, 2], False),
        ([1, "a"], False),
        (["a", 1], False),
        ([], False),
        (["a", "b"], True),
        ([[1], [2]], True),
        (["a", [2]], True),
    ],
)
def test_several_prompts_depart(prompt: Any, so: bool) -> None:
    assert departs(completions.peek(wire.dump({"model": "m", "prompt": prompt}))) is so
