"""Legacy completions: relayed untouched, or translated to and from the internal model."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from openai.types import Completion

from compat.canonical.error import InvalidRequest
from compat.canonical.event import Event, Finished, Metered, Started, TextDelta, Usage, fold
from compat.canonical.message import Message, Text
from compat.canonical.request import Envelope, Sampling, TextRequest
from compat.openai.completions import parse_request, peek, render_events, render_result
from compat.openai.envelope import upstream_body
from compat.openai.tap import Tap
from compat.sse import Cutter
from tests.wire import dump, fixture


def asked(**fields: Any) -> Envelope:
    return peek(dump({"model": "m", "prompt": "Say hi", **fields}))


def test_a_prompt_is_read_as_one_message() -> None:
    request = parse_request(
        asked(temperature=0.5, top_p=0.9, max_tokens=5, n=2, stop=["a", "b"], seed=3, presence_penalty=1, user="u")
    )
    assert request == TextRequest(
        model="m",
        messages=(Message(role="user", parts=(Text(text="Say hi"),)),),
        sampling=Sampling(temperature=0.5, top_p=0.9, max_tokens=5, stop=("a", "b"), seed=3, presence_penalty=1.0),
        choices=2,
        user="u",
        dialect="completions",
    )


def test_without_a_limit_openais_own_holds() -> None:
    assert parse_request(asked()).sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "empty_string"),
        ({"prompt": [""]}, "prompt", "empty_string"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ],
)
def test_what_no_chat_can_be_is_refused_when_translated(fields: dict[str, Any], param: str, code: str) -> None:
    envelope = asked(**fields)
    with pytest.raises(InvalidRequest) as refused:
        parse_request(envelope)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_list_of_one_prompt_is_that_prompt() -> None:
    assert parse_request(asked(prompt=["Say hi"])).messages == parse_request(asked()).messages


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1, 2]], []])
def test_prompts_that_a_chat_cannot_say_are_refused_when_translated(prompt: Any) -> None:
    envelope = asked(prompt=prompt)
    with pytest.raises(InvalidRequest) as refused:
        parse_request(envelope)
    assert refused.value.param == "prompt"


def test_what_a_chat_cannot_say_is_left_to_be_named() -> None:
    request = parse_request(asked(echo=True, suffix="!", logprobs=2, best_of=1))
    assert request.extra == {"suffix": "!", "logprobs": 2}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"echo": "yes"}, "echo", "invalid_type"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"stop": 1}, "stop", "invalid_type"),
        ({"base_url": "http://x"}, "base_url", "unknown_parameter"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_only_the_model_and_the_usage_request_change_on_the_way_up() -> None:
    fields = {"echo": True, "suffix": "!", "logprobs": 2, "best_of": 3, "logit_bias": {"5": 1}, "vendor": [1.5]}
    sent = json.loads(upstream_body(asked(**fields), "other"))
    assert sent == {"model": "other", "prompt": "Say hi", **fields}
    streamed = json.loads(upstream_body(asked(stream=True, **fields), "other"))
    assert streamed == sent | {"stream": True, "stream_options": {"include_usage": True}}


def test_a_whole_answer_passes_untouched_and_is_metered() -> None:
    tap, body = Tap(asked(n=2)), fixture("completions.json")
    assert tap.whole(body) is body
    assert tap.usage == Usage(input_tokens=3, output_tokens=4, reasoning_tokens=0)
    assert tap.finished


def test_a_stream_passes_untouched_however_it_is_cut() -> None:
    body = fixture("completions.sse")
    for size in (1, 13, len(body)):
        tap, cutter = Tap(asked(n=2, stream=True, stream_options={"include_usage": True})), Cutter()
        pieces = [cutter.feed(body[at : at + size]) for at in range(0, len(body), size)]
        assert b"".join(tap.feed(piece) for piece in pieces if piece) == body
        assert tap.finished
        assert tap.usage is not None
        assert tap.usage.output_tokens == 4


def test_usage_nobody_asked_for_stays_here() -> None:
    tap = Tap(asked(n=2, stream=True))
    out = tap.feed(fixture("completions.sse"))
    assert b'"usage"' not in out
    assert out.endswith(b"data: [DONE]\n\n")
    assert tap.usage is not None


async def said() -> AsyncGenerator[Event, None]:
    yield Started(id="cmpl-1", model="m-1", created=1760000000)
    yield TextDelta(text="Hi")
    yield TextDelta(text=" there")
    yield Finished(reason="length")
    yield Metered(usage=Usage(input_tokens=3, output_tokens=2))


async def test_an_answer_is_written_whole() -> None:
    answer = Completion.model_validate_json(render_result(await fold(said())), strict=True)
    assert (answer.id, answer.object, answer.model, answer.created) == ("cmpl-1", "text_completion", "m-1", 1760000000)
    assert [(c.index, c.text, c.finish_reason, c.logprobs) for c in answer.choices] == [(0, "Hi there", "length", None)]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


@pytest.mark.parametrize("include_usage", [True, False])
async def test_an_answer_is_written_as_a_stream(include_usage: bool) -> None:
    frames = [frame async for frame in render_events(said(), include_usage=include_usage)]
    assert frames[-1] == b"data: [DONE]\n\n"
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames[:-1]]
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("cmpl-1", 1760000000, "m-1")}
    assert "".join(choice["text"] for c in chunks for choice in c["choices"]) == "Hi there"
    assert [choice["finish_reason"] for c in chunks for choice in c["choices"]] == [None, None, "length"]
    if include_usage:
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] == 5
        assert all(c["usage"] is None for c in chunks[:-1])
    else:
        assert all("usage" not in c for c in chunks)


async def test_every_choice_of_a_stream_begins_with_the_echo() -> None:
    async def two() -> AsyncGenerator[Event, None]:
        yield Started(id="cmpl-1", model="m-1", created=1760000000)
        yield TextDelta(text="A", choice=1)
        yield TextDelta(text="B")
        yield TextDelta(text="C", choice=1)
        yield Finished(reason="stop", choice=1)
        yield Finished(reason="stop")
        yield Finished(reason="length", choice=2)

    texts = {0: "", 1: "", 2: ""}
    async for frame in render_events(two(), include_usage=False, echo="Say: "):
        if frame != b"data: [DONE]\n\n":
            for choice in json.loads(frame.removeprefix(b"data: "))["choices"]:
                texts[choice["index"]] += choice["text"]
    whole = json.loads(render_result(await fold(two()), "Say: "))
    assert texts == {0: "Say: B", 1: "Say: AC", 2: "Say: "}
    assert {choice["index"]: choice["text"] for choice in whole["choices"]} == texts
